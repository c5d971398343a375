//! Whether more commands are on their way through the node than it gets done: a queue that never gets short, not one that is
//! long for a moment.
//!
//! After a moment's halt, of a disk or of the machine, much waits at once and is soon done; to refuse commands for that helps
//! nobody. A queue that stands only makes each wait (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10/5, 2012).
//! Leaves to others: what is on its way (the budget), how much of it each group may keep then (`replica::pace`).
//! Invariant: above `MOST` of the budget the node is busy at once.

use crate::ids::Tick;

/// Parts of the node's budget: more on its way is a queue if it stands, and too much in any case.
const STANDS: u64 = 64;
const MOST: u64 = 16;
/// Windows for which a queue that stood is remembered.
const REMEMBERED: Tick = 5;

/// One poller's look at its node.
pub(super) struct Standing {
    /// A queue that does not get short within it stands. Ticks.
    window: Tick,
    /// When the running one ends.
    ends: Tick,
    /// The least seen in it. Bytes.
    least: u64,
    /// No queue stands from then on.
    until: Tick,
}

impl Standing {
    pub(super) fn new(window: Tick) -> Standing {
        Standing { window, ends: 0, least: 0, until: 0 }
    }

    /// So much is on its way now, of a budget of so much. Is the node busy?
    pub(super) fn is_busy(&mut self, on_its_way: u64, limit: u64, now: Tick) -> bool {
        self.least = self.least.min(on_its_way);
        if now >= self.ends {
            if self.least > limit / STANDS {
                self.until = now + self.window * REMEMBERED;
            }
            self.least = on_its_way;
            self.ends = now + self.window;
        }
        on_its_way > limit / MOST || now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 640;

    #[test]
    fn a_long_queue_is_none_that_stands() {
        let mut standing = Standing::new(2);
        for now in 0..100 {
            let halted = now % 10 == 0;
            assert!(!standing.is_busy(if halted { 40 } else { 3 }, LIMIT, now), "tick {now}");
        }
        assert!(standing.is_busy(41, LIMIT, 100), "too much in any case");
        assert!(!standing.is_busy(40, LIMIT, 100));
    }

    #[test]
    fn what_never_gets_short_is_remembered_for_a_while() {
        let mut standing = Standing::new(2);
        let busy: Vec<Tick> = (0..10).filter(|now| standing.is_busy(11, LIMIT, *now)).collect();
        assert_eq!(busy, (2..10).collect::<Vec<_>>(), "seen in a whole window");
        let busy: Vec<Tick> = (10..40).filter(|now| standing.is_busy(10, LIMIT, *now)).collect();
        assert_eq!(busy, (10..18).collect::<Vec<_>>());
    }
}
