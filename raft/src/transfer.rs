//! Handing the leadership over (thesis 3.10).
//!
//! Leaves to others: the transferee's election (`election`), the time limit (`raft`'s tick).
//! Invariant: while a transfer runs, the leader takes no proposals, so that the transferee can catch up.

use crate::ids::ReplicaId;
use crate::message::Body;
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::replication::Empty;
use crate::storage::Storage;
use crate::trace::Trace;

impl<S: Storage> Raft<S> {
    /// The leader is asked to hand over to `target`, a tracked member.
    pub(crate) fn on_transfer(&mut self, target: ReplicaId) {
        let (term, own) = (self.term, self.id);
        if self.tracker.is_learner(target) {
            return self.trace.note(|| Trace::TransferToLearner);
        }
        let running = self.leader().map(|l| l.transferee).unwrap_or_default();
        if running == target {
            return self.trace.note(|| Trace::TransferRunning { term, transferee: target });
        }
        if !running.is_none() {
            self.abort_transfer();
            self.trace.note(|| Trace::TransferAborted { term, transferee: running });
        }
        if target == own {
            return self.trace.note(|| Trace::TransferToSelf);
        }
        self.trace.note(|| Trace::TransferStarted { term, transferee: target });
        self.election_start = self.now;
        if let Some(leader) = self.leader_mut() {
            leader.transferee = target;
            leader.reads.break_lease();
        }
        if self.is_caught_up(target) {
            self.send(target, Body::TimeoutNow);
            self.trace.note(|| Trace::TimeoutNowSentAtOnce { to: target });
        } else {
            self.send_append(target, Empty::Send);
        }
    }

    /// `from` acked something: if it is the transferee and has everything, it may campaign.
    pub(crate) fn maybe_finish_transfer(&mut self, from: ReplicaId) {
        let is_transferee = self.leader().is_some_and(|l| l.transferee == from);
        if is_transferee && self.is_caught_up(from) {
            self.trace.note(|| Trace::TimeoutNowSent { to: from });
            self.send(from, Body::TimeoutNow);
        }
    }

    pub(crate) fn abort_transfer(&mut self) {
        if let Some(leader) = self.leader_mut() {
            leader.transferee = ReplicaId::NONE;
        }
    }

    fn is_caught_up(&self, id: ReplicaId) -> bool {
        let early = mutant::is(Mutant::TransferWithoutCatchUp);
        self.tracker.progress(id).is_some_and(|p| p.matched() == self.log.last_index() || early)
    }
}
