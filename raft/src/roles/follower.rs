//! A follower or learner: obeys the leader, forwards what only the leader can do.
//!
//! Leaves to others: votes and elections, which are the same for all roles.
//! Invariant: word from the leader of the current term restarts the election clock.

use crate::config::ReadMode;
use crate::election::Campaign;
use crate::entry::Entry;
use crate::error::StepError;
use crate::ids::{Index, ReplicaId};
use crate::message::{Body, Message};
use crate::raft::Raft;
use crate::ready::ReadState;
use crate::storage::Storage;
use crate::trace::Trace;

impl<S: Storage> Raft<S> {
    pub(crate) fn step_follower(&mut self, m: Message) -> Result<(), StepError> {
        match m.body {
            Body::Propose { .. } => return self.forward_proposal(m),
            Body::Append(append) => {
                self.on_word_from(m.from);
                return self.on_append(m.from, append);
            }
            Body::Heartbeat { commit, context } => {
                self.on_word_from(m.from);
                return self.on_heartbeat(m.from, commit, context);
            }
            Body::Snap { snapshot } => {
                self.on_word_from(m.from);
                return self.on_snapshot(m.from, *snapshot);
            }
            Body::TransferLeader => self.forward_transfer(m),
            Body::TimeoutNow => {
                let (term, from) = (self.term, m.from);
                self.trace.note(|| Trace::TimeoutNowReceived { term, from });
                self.start_election(Campaign::Transfer);
            }
            Body::ForgetLeader => self.forget_leader(),
            Body::ReadIndex { .. } => return self.forward_read(m),
            Body::ReadIndexResp { index, entries } => self.on_read_answer(m.from, index, entries),
            _ => {}
        }
        Ok(())
    }

    fn on_word_from(&mut self, lead: ReplicaId) {
        self.election_start = self.now;
        self.lead = lead;
    }

    fn forward_proposal(&mut self, m: Message) -> Result<(), StepError> {
        let (lead, term) = (self.lead, self.term);
        if lead.is_none() {
            self.trace.note(|| Trace::ProposalWithoutLeader { term });
            return Err(StepError::ProposalDropped);
        }
        if self.config.disable_proposal_forwarding {
            self.trace.note(|| Trace::ProposalNotForwarded { lead, term });
            return Err(StepError::ProposalDropped);
        }
        if self.forward(m) { Ok(()) } else { Err(StepError::ProposalDropped) }
    }

    fn forward_transfer(&mut self, m: Message) {
        let term = self.term;
        if self.lead.is_none() {
            self.trace.note(|| Trace::TransferWithoutLeader { term });
        } else {
            self.forward(m);
        }
    }

    fn forward_read(&mut self, m: Message) -> Result<(), StepError> {
        let (term, own) = (self.term, m.from.is_none() || m.from == self.id);
        let no_leader = self.lead.is_none();
        if no_leader {
            self.trace.note(|| Trace::ReadWithoutLeader { term });
        }
        if (no_leader || !self.forward(m)) && own { Err(StepError::ReadDropped) } else { Ok(()) }
    }

    fn on_read_answer(&mut self, from: ReplicaId, index: Index, mut entries: Vec<Entry>) {
        match entries.pop() {
            Some(only) if entries.is_empty() => self.read_states.push(ReadState { index, context: only.data }),
            last => {
                let count = entries.len() + usize::from(last.is_some());
                self.trace.note(|| Trace::BadReadIndexResp { from, entries: count });
            }
        }
    }

    /// Lets it vote before the leader's lease ends; refused where leases serve reads.
    fn forget_leader(&mut self) {
        if self.config.read_mode == ReadMode::Lease {
            self.trace.note(|| Trace::ForgetLeaderRefused);
        } else if !self.lead.is_none() {
            let (lead, term) = (self.lead, self.term);
            self.trace.note(|| Trace::ForgetLeader { lead, term });
            self.lead = ReplicaId::NONE;
        }
    }
}
