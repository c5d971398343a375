//! A clock that shows what it was set to.
//!
//! Invariant: it never goes back.

use crate::env::{Clock, Instant};
use std::sync::atomic::{AtomicU64, Ordering};

/// A settable clock.
#[derive(Debug, Default)]
pub struct MemClock {
    /// Nanoseconds.
    now: AtomicU64,
}

impl MemClock {
    /// Moves on to `now`; an earlier moment changes nothing.
    pub fn set(&self, now: Instant) {
        self.now.fetch_max(now.0, Ordering::Relaxed);
    }
}

impl Clock for MemClock {
    fn now(&self) -> Instant {
        Instant(self.now.load(Ordering::Relaxed))
    }
}
