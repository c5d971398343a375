//! A message comes in: the rules of terms, then dispatch by kind and role.
//!
//! Leaves to others: what a role makes of it (`roles`), who may say it at all (`raw_node`).
//! Invariant: behind `judge_term` a message is of the own term, or local (term 0), or a vote's answer that
//! must not change the term.

use crate::config::ReadMode;
use crate::error::StepError;
use crate::ids::{Index, ReplicaId, Term};
use crate::message::{AppendResp, Body, Message, VoteRequest};
use crate::mutant::{self, Mutant};
use crate::raft::{Raft, Role};
use crate::storage::Storage;
use crate::trace::{Trace, VoteTrace};

/// Is the message's term one that this replica listens to?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Handle it.
    Current,
    /// Everything that it says was said.
    Settled,
}

impl<S: Storage> Raft<S> {
    /// Takes in a message that passed the raw node's filter, or a local one.
    pub(crate) fn step(&mut self, m: Message) -> Result<(), StepError> {
        if self.judge_term(&m) == Standing::Settled {
            return Ok(());
        }
        match m.body {
            Body::Hup => self.hup(),
            Body::Vote(request) | Body::PreVote(request) => self.on_vote_request(&m, request),
            Body::StorageAppendResp { last, snapshot } => {
                self.on_append_done(m.term, last, snapshot.map(|s| s.meta.index));
            }
            Body::StorageApplyResp { entries } => {
                if let Some(last) = entries.last() {
                    self.on_applied(last.index);
                }
            }
            _ => match self.role {
                Role::Follower => return self.step_follower(m),
                Role::Candidate | Role::PreCandidate => return self.step_candidate(m),
                Role::Leader(_) => return self.step_leader(m),
            },
        }
        Ok(())
    }

    fn judge_term(&mut self, m: &Message) -> Standing {
        if m.term == Term::NONE || m.term == self.term || self.mistakes_term(m) {
            Standing::Current
        } else if m.term > self.term {
            self.judge_higher(m)
        } else {
            self.on_lower_term(m);
            Standing::Settled
        }
    }

    /// Only a seeded bug does.
    fn mistakes_term(&self, m: &Message) -> bool {
        let (lower, higher) = (mutant::is(Mutant::OldTermHandled), mutant::is(Mutant::HigherTermIgnored));
        (lower && m.term < self.term) || (higher && m.term > self.term && m.body.is_response())
    }

    fn judge_higher(&mut self, m: &Message) -> Standing {
        match m.body {
            Body::Vote(request) | Body::PreVote(request) if self.in_lease() && !request.transfer => {
                let remaining = self.lease_remaining();
                let request = self.vote_trace(m, request);
                self.trace.note(|| Trace::VoteIgnored { request, remaining });
                return Standing::Settled;
            }
            // Neither asking nor answering about the future moves anybody there (S25).
            Body::PreVote(_) if mutant::is(Mutant::PreVoteRaisesTerm) => {}
            Body::PreVote(_) | Body::PreVoteResp { reject: false } => return Standing::Current,
            _ => {}
        }
        let (kind, own) = (m.body.kind(), self.term);
        self.trace.note(|| Trace::HigherTerm { kind, from: m.from, own, term: m.term });
        // A leader's own word names it as it is handled.
        self.become_follower(m.term, ReplicaId::NONE);
        Standing::Current
    }

    fn on_lower_term(&mut self, m: &Message) {
        match &m.body {
            Body::Append(_) | Body::Heartbeat { .. } if mutant::is(Mutant::StuckLeaderNotTold) => {}
            // A leader that is stuck behind must learn the term (S26).
            Body::Append(_) | Body::Heartbeat { .. } if self.config.check_quorum || self.config.pre_vote => {
                let answer = AppendResp { index: Index::NONE, reject: None };
                self.send(m.from, Body::AppendResp(answer));
            }
            Body::PreVote(request) => self.refuse_vote(m, *request),
            // Without PreVote a candidate that is behind must learn the term, too (Raft figure 2): one that cannot win may be
            // ahead of the only one that can for ever.
            Body::Vote(request) if self.config.strict && !self.config.pre_vote => self.refuse_vote(m, *request),
            // Its entries may have been overwritten twice (14.4); a snapshot is committed state (S39).
            Body::StorageAppendResp { last, snapshot } => {
                self.on_append_done(m.term, *last, snapshot.as_ref().map(|s| s.meta.index));
            }
            body => {
                let (kind, own) = (body.kind(), self.term);
                self.trace.note(|| Trace::LowerTerm { kind, from: m.from, own, term: m.term });
            }
        }
    }

    /// Is a leader known and alive, so that nobody else may be elected?
    fn in_lease(&self) -> bool {
        let leader_known = !self.lead.is_none() && self.elapsed() < self.config.election_tick;
        let held = leader_known || self.now < self.votes_held_until;
        self.config.check_quorum && held && !mutant::is(Mutant::LeaseNotHeld)
    }

    /// Does a leader's read lease rest on this replica?
    pub(crate) fn supports_lease(&self) -> bool {
        self.config.read_mode == ReadMode::Lease && !self.is_leader() && self.in_lease()
    }

    fn lease_remaining(&self) -> u64 {
        let of_leader = self.config.election_tick.saturating_sub(self.elapsed());
        of_leader.max(self.votes_held_until.saturating_sub(self.now))
    }

    pub(crate) fn vote_trace(&self, m: &Message, request: VoteRequest) -> VoteTrace {
        VoteTrace {
            kind: m.body.kind(),
            from: m.from,
            last: request.last,
            own_last: self.log.last_pos(),
            vote: self.vote,
            term: self.term,
        }
    }
}
