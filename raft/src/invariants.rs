//! What must hold between any two calls (raft-core 18), for tests and simulators.
//!
//! Leaves to others: what needs several replicas (election safety, leader completeness).
//! Invariant: checking changes nothing.

use crate::ids::ReplicaId;
use crate::message::Body;
use crate::raft::{Raft, Role};
use crate::status::FlowState;
use crate::storage::Storage;
use crate::tracker::Roles;

impl<S: Storage> Raft<S> {
    pub(crate) fn assert_invariants(&self) {
        self.assert_log();
        self.assert_role();
        self.assert_members();
        assert!(self.outbox.iter().all(|m| m.to != self.id && !m.body.is_after_append()), "{:?}", self.outbox);
        assert!(
            self.after_append.iter().all(|m| m.body.is_after_append() || matches!(m.body, Body::Vote(_))),
            "{:?}",
            self.after_append
        );
    }

    fn assert_log(&self) {
        let (log, p) = (&self.log, self.log.pointers());
        let last = log.last_index();
        assert!(p.applied <= p.applying && p.applying <= p.committed && p.committed <= last, "{p:?}, last {last}");
        match log.unstable_snapshot() {
            None => assert!(log.first_index().prev() <= p.applied, "{p:?}"),
            Some(s) => assert!(p.applied < s.meta.index && s.meta.index <= p.committed, "{p:?}"),
        }
        let end = p.offset.plus(p.unstable as u64);
        assert!(p.offset <= p.offset_in_progress && p.offset_in_progress <= end, "{p:?}");
        let mut before = log.term_or_none(p.offset.prev());
        for (entry, index) in log.unstable().entries().iter().zip(p.offset.0..) {
            assert!(entry.index.0 == index && entry.term >= before, "{entry:?} after term {before}");
            before = entry.term;
        }
    }

    fn assert_role(&self) {
        let last = self.log.last_index();
        // Between two states the machine neither stands for election nor leads (S38).
        assert!(matches!(self.role, Role::Follower) || self.log.unstable_snapshot().is_none(), "{:?}", self.role);
        match &self.role {
            Role::Follower => {}
            Role::PreCandidate => assert!(self.lead.is_none()),
            Role::Candidate => assert!(self.lead.is_none() && self.vote == self.id),
            Role::Leader(leader) => {
                assert!(self.lead == self.id && self.vote == self.id && leader.pending_conf <= last);
                let t = leader.transferee;
                // A leader that was removed itself no longer looks after its transfer: it ends by time.
                let is_member = self.tracker.is_voter(self.id);
                assert!(!is_member || t == ReplicaId::NONE || self.tracker.is_voter(t), "{t}");
            }
        }
    }

    fn assert_members(&self) {
        let last = self.log.last_index();
        for m in self.tracker.iter() {
            let learner = m.roles.has(Roles::LEARNER);
            assert!(m.roles != Roles::NONE && !(learner && m.roles.is_voter()), "{m:?}");
            let asked = self.leader().map_or(0, |l| l.reads.newest());
            assert!(m.read_ack <= asked, "{m:?} confirms what was not asked: {asked}");
            let p = m.status();
            assert!(p.matched < p.next, "{p:?}");
            assert!(!self.is_leader() || p.matched <= last, "{p:?}, last {last}");
            assert!((p.state == FlowState::Snapshot) == (p.pending_snapshot.0 > 0), "{p:?}");
            assert!(p.state == FlowState::Replicate || p.inflight == 0, "{p:?}");
            assert!(p.inflight <= self.config.max_inflight_msgs, "{p:?}");
        }
    }
}
