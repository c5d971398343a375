//! Blocks a thread until something that tasks poll for is ready.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Until `poll` is ready, at most so long.
pub(crate) fn block(at_most: Duration, mut poll: impl FnMut(&Context<'_>) -> Poll<()>) {
    let until = Instant::now() + at_most;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while poll(&Context::from_waker(&waker)).is_pending() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
