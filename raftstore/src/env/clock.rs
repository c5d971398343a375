//! Time as a value: nanoseconds since some origin of the process, never going back.
//!
//! Only drivers read a clock; everything that decides gets `now` as an argument.

use std::fmt;
use std::time::Duration;

/// A moment of monotonic time. Nanoseconds since the clock's origin.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// After everything.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// `self + d`, saturating at `NEVER`.
    #[must_use]
    pub fn after(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to `self`; zero when `earlier` lies behind.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0 as f64 / 1e9)
    }
}

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// Now. Never less than an earlier answer.
    fn now(&self) -> Instant;
}

const _: fn(&dyn Clock) = |_| {};
