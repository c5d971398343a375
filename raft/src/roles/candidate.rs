//! A candidate or pre-candidate: counts answers, gives way to a leader of its term.
//!
//! Leaves to others: counting (`election`). Invariant: a candidate counts real votes only, a pre-candidate
//! prevotes only (S35).

use crate::error::StepError;
use crate::message::{Body, Message};
use crate::mutant::{self, Mutant};
use crate::raft::{Raft, Role};
use crate::storage::Storage;
use crate::trace::Trace;

impl<S: Storage> Raft<S> {
    pub(crate) fn step_candidate(&mut self, m: Message) -> Result<(), StepError> {
        let (kind, pre) = (m.body.kind(), matches!(self.role, Role::PreCandidate));
        match m.body {
            Body::Propose { .. } => {
                let term = self.term;
                self.trace.note(|| Trace::ProposalWithoutLeader { term });
                return Err(StepError::ProposalDropped);
            }
            Body::ReadIndex { .. } if m.from.is_none() || m.from == self.id => return Err(StepError::ReadDropped),
            Body::Append(append) => {
                self.become_follower(m.term, m.from);
                return self.on_append(m.from, append);
            }
            Body::Heartbeat { commit, context } => {
                self.become_follower(m.term, m.from);
                return self.on_heartbeat(m.from, commit, context);
            }
            Body::Snap { snapshot } => {
                self.become_follower(m.term, m.from);
                return self.on_snapshot(m.from, *snapshot);
            }
            Body::PreVoteResp { reject } if pre => self.on_vote_resp(&m, kind, !reject),
            Body::PreVoteResp { reject } if mutant::is(Mutant::PreVotesCount) => self.on_vote_resp(&m, kind, !reject),
            Body::VoteResp { reject } if !pre => self.on_vote_resp(&m, kind, !reject),
            Body::TimeoutNow => {
                let (term, role, from) = (self.term, self.state_role(), m.from);
                self.trace.note(|| Trace::TimeoutNowIgnored { term, role, from });
            }
            _ => {}
        }
        Ok(())
    }
}
