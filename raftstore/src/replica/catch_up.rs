//! Rounds in which a learner catches up before it gets a vote (thesis 4.2.1).
//!
//! A round is the replication of what the log held when it began. Whoever lacks little enough is ready at any time; after
//! the last round so is one whose round took less than an election timeout. Leaves to others: replication itself.
//! Invariant: every learner ends ready or stuck: rounds are counted, and time in which nothing arrives adds up.

use crate::ids::{Index, ReplicaId, Tick};
use std::collections::BTreeMap;

/// Rounds at most.
const ROUNDS: u32 = 10;
/// Election timeouts in which nothing arrives, while no snapshot is on its way, before a learner counts as stuck.
const PATIENCE: u64 = 20;

/// One learner.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Rounds begun.
    round: u32,
    /// What the round is to reach.
    target: Index,
    /// When it began.
    began: Tick,
    /// Highest index that the learner had.
    matched: Index,
    /// Time without progress.
    idle: u64,
    /// Looked at last.
    looked: Tick,
}

/// How a learner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may get its vote.
    Ready,
    /// It lacks so many entries.
    Behind(u64),
    /// It does not catch up.
    Stuck,
}

/// What the leader sees of a learner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Highest index that it has durably; 0: not heard of yet.
    pub(super) matched: Index,
    /// Last index of the leader's log.
    pub(super) last: Index,
    /// Is a snapshot on its way?
    pub(super) fed_snapshot: bool,
}

/// All learners that are to get a vote.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    runs: BTreeMap<ReplicaId, Run>,
}

impl CatchUp {
    /// Nobody is caught up any more.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Looks at one learner. `lag`: entries that it may lack; `patience`: an election timeout.
    pub(super) fn look(&mut self, replica: ReplicaId, seen: Seen, lag: u64, timeout: u64, now: Tick) -> Standing {
        let Seen { matched, last, fed_snapshot } = seen;
        let first = Run { round: 1, target: last, began: now, matched, idle: 0, looked: now };
        let run = self.runs.entry(replica).or_insert(first);
        let behind = matched.lag_to(last);
        if matched > Index::NONE && behind <= lag {
            return Standing::Ready;
        }
        let waited = now - run.looked;
        run.looked = now;
        if matched > run.matched {
            (run.matched, run.idle) = (matched, 0);
        } else if !fed_snapshot {
            run.idle += waited;
        }
        if run.idle >= PATIENCE * timeout {
            return Standing::Stuck;
        }
        if matched < run.target {
            return Standing::Behind(behind);
        }
        if run.round >= ROUNDS {
            return if now - run.began < timeout { Standing::Ready } else { Standing::Stuck };
        }
        (run.round, run.target, run.began) = (run.round + 1, last, now);
        Standing::Behind(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(4);

    fn seen(matched: u64, last: u64) -> Seen {
        Seen { matched: Index(matched), last: Index(last), fed_snapshot: false }
    }

    #[test]
    fn little_enough_is_ready_nothing_heard_is_not() {
        let mut c = CatchUp::default();
        assert_eq!(c.look(ME, seen(0, 5), 10, 10, 0), Standing::Behind(5));
        assert_eq!(c.look(ME, seen(1, 12), 10, 10, 1), Standing::Behind(11));
        assert_eq!(c.look(ME, seen(2, 12), 10, 10, 2), Standing::Ready);
    }

    #[test]
    fn after_the_last_round_a_quick_one_is_ready_and_a_slow_one_stuck() {
        for (step, end) in [(9, Standing::Ready), (10, Standing::Stuck)] {
            let mut c = CatchUp::default();
            let mut now = 0;
            let mut last = 100;
            for _ in 0..ROUNDS - 1 {
                assert!(matches!(c.look(ME, seen(last, last + 50), 0, 10, now), Standing::Behind(50)));
                now += step;
                last += 50;
            }
            let mut found = Standing::Behind(0);
            for _ in 0..2 {
                found = c.look(ME, seen(last, last + 50), 0, 10, now);
                now += step;
                last += 50;
            }
            assert_eq!(found, end, "rounds of {step} ticks");
        }
    }

    #[test]
    fn silence_is_stuck_but_a_snapshot_on_its_way_is_not() {
        let mut c = CatchUp::default();
        for now in 0..PATIENCE * 10 {
            assert_eq!(c.look(ME, seen(3, 500), 0, 10, now), Standing::Behind(497));
        }
        let fed = Seen { fed_snapshot: true, ..seen(3, 500) };
        assert_eq!(c.look(ME, fed, 0, 10, 10_000), Standing::Behind(497));
        assert_eq!(c.look(ME, seen(3, 500), 0, 10, 10_001), Standing::Stuck);
    }
}
