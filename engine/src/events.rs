//! What happens on this node, for whoever listens. Bounded: a slow listener loses events and is told how many.
//!
//! Leaves to others: telling (raftstore). Invariant: listening never blocks or slows the engine.

use crate::core::Core;
use crate::timer::sleep_until;
pub use pontoon_raftstore::events::Event;
use pontoon_raftstore::events::EventStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often `next` looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One listener.
pub struct Events {
    core: Arc<Core>,
    stream: EventStream,
}

impl Events {
    pub(crate) fn new(core: &Arc<Core>) -> Events {
        Events { core: Arc::clone(core), stream: core.node.events() }
    }

    /// The next event, if one waits.
    #[must_use]
    pub fn try_next(&mut self) -> Option<Event> {
        self.stream.try_next()
    }

    /// The next event, blocking this thread for at most `limit`.
    #[must_use]
    pub fn next_blocking(&mut self, limit: Duration) -> Option<Event> {
        self.stream.next_within(limit)
    }

    /// The next event within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now() + limit;
        loop {
            let event = self.stream.try_next();
            if event.is_some() || Instant::now() >= deadline {
                return event;
            }
            sleep_until(&self.core.timer, deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    }
}
