//! How much a group may keep waiting while the node has more to do than it can: what it got done in the last moment. So an
//! answer comes soon or a refusal at once, whatever rate machine and disk allow, and a group that stands still cannot fill the
//! node's queue.
//!
//! Leaves to others: whether the node is busy (the budget), refusing. Invariant: a group with nothing waiting may always begin.

use super::{Replica, Work};
use crate::ids::Tick;

/// What any group may keep waiting, however little it got done. Bytes, with what commands weigh.
const LEAST: u64 = 64 << 10;

/// See the file's head.
#[derive(Default)]
pub(super) struct Pace {
    /// When the running window began.
    since: Tick,
    /// Applied since then. Bytes.
    done: u64,
    /// Applied in the window before.
    before: u64,
}

impl Pace {
    /// So much was applied.
    pub(super) fn on_done(&mut self, bytes: u64, now: Tick, window: Tick) {
        self.roll(now, window);
        self.done += bytes;
    }

    /// How much may wait.
    pub(super) fn allows(&mut self, now: Tick, window: Tick) -> u64 {
        self.roll(now, window);
        self.before.max(self.done).max(LEAST)
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
        if work.budget.is_busy() { self.pace.allows(work.now, self.limits.pace_ticks) } else { u64::MAX }
    }

    /// Commands of this group that wait for their commit or their machine. Bytes.
    pub(super) fn waiting(&self) -> u64 {
        self.proposals.bytes() + self.machine.backlog.bytes()
    }

    /// Tells the door whether there is room behind it.
    pub(super) fn note_waiting(&mut self, work: &Work) {
        self.proposals.count(&work.budget);
        let waiting = self.waiting();
        let crowded = waiting > 0 && waiting >= self.queue_limit(work);
        self.cell.set_crowded(crowded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_what_was_done_lately() {
        let mut pace = Pace::default();
        assert_eq!(pace.allows(0, 2), LEAST);
        pace.on_done(LEAST * 3, 1, 2);
        assert_eq!(pace.allows(1, 2), LEAST * 3, "while the window runs");
        assert_eq!(pace.allows(2, 2), LEAST * 3, "and in the next");
        pace.on_done(LEAST * 8, 3, 2);
        assert_eq!(pace.allows(7, 2), LEAST * 4, "spread over the time that it took");
        assert_eq!(pace.allows(100, 2), LEAST);
    }
}
