//! CPU time of this thread: what a core costs, whatever else runs on the machine.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CPU time that this thread has used so far.
#[must_use]
pub fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// CPU time of `work`.
pub fn time(work: impl FnOnce()) -> Duration {
    let began = thread_time();
    work();
    thread_time() - began
}
