//! When a queue of many operations looks for those that are late: a few times a second, not an alarm for each.
//!
//! Leaves to others: what is late (the queues), the alarm's thread (`timer`).

use crate::timer::{Alarm, Timer};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
const EVERY: Duration = Duration::from_millis(100);

/// See the file's head.
pub(crate) struct Lookout {
    /// The next look.
    at: Instant,
    /// Wakes the task then.
    alarm: Alarm,
}

impl Lookout {
    pub(crate) fn new(timer: &Arc<Timer>) -> Lookout {
        Lookout { at: Instant::now() + EVERY, alarm: Alarm::new(timer) }
    }

    /// The time, if it is time to look; the next look is later.
    pub(crate) fn due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if now < self.at {
            return None;
        }
        self.at = now + EVERY;
        Some(now)
    }

    /// Ready once it is time to look.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.alarm.poll(self.at, cx)
    }
}
