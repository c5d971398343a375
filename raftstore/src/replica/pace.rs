//! How much a group may keep waiting while the node has more to do than it can: what it gets done in some writes' time. So an
//! answer comes soon or a refusal at once, whatever rate machine and disk allow, and a group that stands still cannot fill the
//! node's queue.
//!
//! Leaves to others: whether the node is busy (the poller's `standing`), refusing. Invariant: a group with nothing waiting may always begin.

use super::{Replica, Work};
use crate::ids::Tick;
use crate::proposal::ITEM_OVERHEAD;
use std::time::Duration;

/// What any group may keep waiting, however little it got done. Bytes, with what commands weigh.
const LEAST: u64 = 64 << 10;

/// A command may see four writes of the log before it is answered: its own and the one before it, here and at a follower. Nearly
/// twice as much may wait: what allows no more than it takes narrows down with each delay, to less than the node could do.
const WRITES: u32 = 7;
/// No less than this much work may wait, however fast writes are.
const BRIEF: Duration = Duration::from_millis(10);
/// Shares of a window are told in so many parts.
const PARTS: u64 = 64;

/// How long writes of the log take, and so which share of a window's work may wait.
#[derive(Clone, Copy)]
pub struct WriteTime {
    /// The longest of late. Unknown: as long as a window.
    longest: Duration,
    window: Duration,
}

impl WriteTime {
    /// Of a node that wrote nothing yet; `window` as in `Limits::pace_ticks`.
    #[must_use]
    pub fn new(window: Duration) -> WriteTime {
        WriteTime { longest: window, window }
    }

    /// A write took so long.
    pub fn on_written(&mut self, took: Duration) {
        self.longest = took.max(self.longest - self.longest / 16);
    }

    /// In parts of a window, one at least.
    fn share(self) -> u64 {
        let enough = (self.longest * WRITES).max(BRIEF).min(self.window);
        (u128::from(PARTS) * enough.as_micros() / self.window.as_micros().max(1)).max(1) as u64
    }
}

/// See the file's head.
#[derive(Default)]
pub(super) struct Pace {
    /// When the running window began.
    since: Tick,
    /// Applied since then. Bytes.
    done: u64,
    /// Applied in the window before.
    before: u64,
    /// The door knows a bound.
    bounded: bool,
}

impl Pace {
    /// So much was applied.
    pub(super) fn on_done(&mut self, bytes: u64, now: Tick, window: Tick) {
        self.roll(now, window);
        self.done += bytes;
    }

    /// How much may wait.
    pub(super) fn allows(&mut self, now: Tick, window: Tick, writes: WriteTime) -> u64 {
        self.roll(now, window);
        let most = self.before.max(self.done);
        (most / PARTS * writes.share()).max(LEAST)
    }

    fn roll(&mut self, now: Tick, window: Tick) {
        let past = now.saturating_sub(self.since);
        if past >= window {
            self.before = self.done / (past / window);
            self.done = 0;
            self.since = now;
        }
    }
}

impl Replica {
    /// How much of this group may wait for its machine now. Bytes.
    pub(super) fn queue_limit(&mut self, work: &Work) -> u64 {
        if work.busy { self.pace.allows(work.now, self.limits.pace_ticks, work.writes) } else { u64::MAX }
    }

    /// Commands of this group that wait for their commit or their machine. Bytes.
    pub(super) fn waiting(&self) -> u64 {
        self.proposals.bytes() + self.machine.backlog.bytes()
    }

    /// Tells the door whether there is room behind it.
    pub(super) fn note_waiting(&mut self, work: &Work) {
        self.proposals.count(&work.budget);
        let room = match self.queue_limit(work) {
            u64::MAX => u64::MAX,
            limit => match limit.saturating_sub(self.waiting()) {
                // Less than any command weighs is no room.
                0..=ITEM_OVERHEAD => 0,
                left => left,
            },
        };
        // The door's own count changes only while it has a bound.
        if room < u64::MAX || self.pace.bounded {
            self.pace.bounded = room < u64::MAX;
            self.cell.set_room(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    #[test]
    fn allows_what_was_done_lately() {
        let (mut pace, slow) = (Pace::default(), WriteTime::new(WINDOW));
        let allows = |pace: &mut Pace, now| pace.allows(now, 2, slow);
        assert_eq!(allows(&mut pace, 0), LEAST);
        pace.on_done(LEAST * 3, 1, 2);
        assert_eq!(allows(&mut pace, 1), LEAST * 3, "while the window runs");
        assert_eq!(allows(&mut pace, 2), LEAST * 3, "and in the next");
        pace.on_done(LEAST * 8, 3, 2);
        assert_eq!(allows(&mut pace, 7), LEAST * 4, "spread over the time that it took");
        assert_eq!(allows(&mut pace, 100), LEAST);
    }

    #[test]
    fn quick_writes_leave_less_to_wait_for() {
        let mut writes = WriteTime::new(WINDOW);
        assert_eq!(writes.share(), PARTS, "nothing is known");
        (0..200).for_each(|_| writes.on_written(Duration::from_millis(1)));
        assert_eq!(writes.share(), PARTS * 10 / 200, "10 ms of 200");
        writes.on_written(Duration::from_millis(10));
        assert_eq!(writes.share(), PARTS * 70 / 200);
        writes.on_written(Duration::from_secs(3));
        assert_eq!(writes.share(), PARTS, "never more than a window's");
        assert_eq!(WriteTime::new(Duration::ZERO).share(), 1);
    }
}
