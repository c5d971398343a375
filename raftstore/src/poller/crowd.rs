//! Whether a poller has many groups at hand that write little each, on a machine that is short of processors: then few commands
//! of a group wait for more (`replica::gather`).
//!
//! A crowd alone is no reason: with a slow disk many groups meet in one batch, too, and the processors idle. How long a run is
//! under way to its machine, which takes nothing but processors, tells. Leaves to others: keeping commands back.
//! Invariant: without a crowd, or while hand-offs are quick, patience is short or zero; it is never longer than a tick.

use crate::env::Instant;
use crate::ids::{GroupId, Index};
use crate::task::{Applied, ApplyTask};
use std::time::Duration;

/// A run is handed on as often on its way over three nodes and back to its callers, some of it one after the other; what waits
/// for one must not give up before it is back.
const HAND_OFFS: u32 = 20;
/// Averages are over so many, roughly.
const OVER: u32 = 16;

/// One run on its way to its machine and back.
struct Sample {
    group: GroupId,
    last: Index,
    since: Instant,
}

/// One poller's.
pub(super) struct Crowd {
    /// Group writes in a batch from which on it is one. See `Config`.
    from: usize,
    /// A tick.
    longest: Duration,
    /// Group writes in the last batches: the sum of `OVER`, roughly.
    writes: usize,
    /// Under way. One at a time.
    sample: Option<Sample>,
    /// From the poller to the machine and back, of late.
    hand_off: Duration,
}

impl Crowd {
    pub(super) fn new(from: usize, tick: Duration) -> Crowd {
        Crowd { from, longest: tick, writes: 0, sample: None, hand_off: Duration::ZERO }
    }

    /// A batch with so many group writes goes to the log.
    pub(super) fn on_batch(&mut self, writes: usize) {
        self.writes = (self.writes - self.writes / OVER as usize).saturating_add(writes);
    }

    /// A run goes to its machine.
    pub(super) fn on_handed(&mut self, task: &ApplyTask, now: Instant) {
        // A replica that stops reports no more.
        let is_due = self.sample.as_ref().is_none_or(|s| now.since(s.since) > self.longest * OVER);
        if let (true, Some(last)) = (is_due, task.entries.last()) {
            self.sample = Some(Sample { group: task.group, last: last.index, since: now });
        }
    }

    /// A machine reports.
    pub(super) fn on_applied(&mut self, applied: &Applied, now: Instant) {
        let Applied::Upto { group, index, .. } = applied else { return };
        if let Some(sample) = self.sample.take_if(|s| s.group == *group && s.last <= *index) {
            let took = now.since(sample.since).min(self.longest);
            self.hand_off = self.hand_off - self.hand_off / OVER + took / OVER;
        }
    }

    /// How long few commands may wait for more.
    pub(super) fn patience(&self) -> Duration {
        let is_crowd = self.writes / OVER as usize >= self.from;
        if is_crowd { (self.hand_off * HAND_OFFS).min(self.longest) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ReplicaRecord;
    use crate::ids::{Generation, ReplicaId};
    use pontoon_raft::Entry;
    use std::sync::Arc;

    const TICK: Duration = Duration::from_millis(100);

    fn at(us: u64) -> Instant {
        Instant(us * 1_000)
    }

    fn task(group: u64, last: u64) -> ApplyTask {
        ApplyTask {
            group: GroupId(group),
            replica: ReplicaId(1),
            generation: Generation(0),
            entries: vec![Entry { index: Index(last), ..Entry::default() }].into(),
            waiting: Vec::new(),
            record: Arc::new(ReplicaRecord::default()),
        }
    }

    fn upto(group: u64, index: u64) -> Applied {
        Applied::Upto { group: GroupId(group), replica: ReplicaId(1), index: Index(index) }
    }

    /// Hand-offs of this length, and batches of so many groups.
    fn seen(crowd: &mut Crowd, us: u64, writes: usize) -> Duration {
        for n in 0..200 {
            crowd.on_handed(&task(1, n), at(n * 1_000_000));
            crowd.on_handed(&task(2, n), at(n * 1_000_000));
            crowd.on_applied(&upto(2, n), at(n * 1_000_000));
            crowd.on_applied(&upto(1, n), at(n * 1_000_000 + us));
            crowd.on_batch(writes);
        }
        crowd.patience()
    }

    #[test]
    fn patience_is_for_crowds_on_a_busy_machine() {
        let mut crowd = Crowd::new(64, TICK);
        assert_eq!(seen(&mut crowd, 2_000, 60), Duration::ZERO, "no crowd");
        let patience = seen(&mut crowd, 2_000, 66);
        assert!((Duration::from_millis(38)..=Duration::from_millis(40)).contains(&patience), "{patience:?}");
        assert!(seen(&mut crowd, 40, 500) <= Duration::from_millis(1), "processors are idle");
        assert!(seen(&mut crowd, 60_000_000, 500) <= TICK);
        assert_eq!(seen(&mut Crowd::new(usize::MAX, TICK), 2_000, usize::MAX), Duration::ZERO, "never");
    }

    #[test]
    fn a_run_that_never_comes_back_is_forgotten() {
        let mut crowd = Crowd::new(1, TICK);
        crowd.on_batch(16);
        crowd.on_handed(&task(1, 5), at(0));
        crowd.on_handed(&task(2, 5), at(2_000_000));
        crowd.on_applied(&upto(2, 5), at(2_050_000));
        assert!(!crowd.patience().is_zero());
    }
}
