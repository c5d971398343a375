//! The system's monotonic clock as raftstore asks for time.
//!
//! Invariant: never goes back; the origin is this value's making.

use pontoon_raftstore::env::{Clock, Instant};
use std::time;

/// See the file's head.
pub(crate) struct SystemClock {
    origin: time::Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock { origin: time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        // 0 would be "before everything"; 584 years fit.
        Instant(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX - 1).max(1))
    }
}
