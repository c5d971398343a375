//! What a turn of an active object tells its driver: a thread in production, the simulator's schedule in tests.
//!
//! Leaves to others: waiting (threads), order of turns (the simulator).
//! Invariant: a turn never blocks on a channel, a socket or time; an idle object may be left alone until `next` or
//! until its inbox takes something, whichever comes first.

use crate::env::Instant;

/// Outcome of one `turn(now)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Was anything done? If so, call again at once: more may wait.
    pub worked: bool,
    /// When to call even if nothing arrives; `Instant::NEVER` if only the inbox matters.
    pub next: Instant,
}

impl Turn {
    /// Nothing to do until something arrives.
    pub const IDLE: Turn = Turn { worked: false, next: Instant::NEVER };

    /// Something was done.
    pub const WORKED: Turn = Turn { worked: true, next: Instant::NEVER };

    /// Both outcomes as one.
    #[must_use]
    pub fn or(self, other: Turn) -> Turn {
        Turn { worked: self.worked || other.worked, next: self.next.min(other.next) }
    }

    /// The same, but called by `at` at the latest.
    #[must_use]
    pub fn by(self, at: Instant) -> Turn {
        Turn { next: self.next.min(at), ..self }
    }
}

/// Anything that is driven turn by turn: pollers, the log writer and reader, appliers, the snapshotter, lifecycle.
pub trait Active: Send {
    /// Does what waits, never blocking on a channel, a socket or time.
    fn turn(&mut self, now: Instant) -> Turn;
    /// The turn is over, at `now`. Where no time passes in a turn, as in the simulator, nobody calls this.
    fn on_end(&mut self, _now: Instant) {}
    /// Returns once something arrives in the inbox, or after `at_most`. Only threads call this.
    fn wait(&mut self, at_most: std::time::Duration);
    /// Has it stopped for good?
    fn is_stopped(&self) -> bool;
    /// For people: `poller-0`.
    fn name(&self) -> String;
    /// A turn panicked: whoever waits here must be answered. The node is poisoned; no turn follows.
    fn on_panic(&mut self) {}
}

const _: fn(&dyn Active) = |_| {};
