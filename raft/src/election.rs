//! Elections: who starts one, who votes for whom, who has won (Raft 5.2, 5.4.1; thesis 3.10, 9.6).
//!
//! Leaves to others: terms of requests (`step`), counting (`tracker`), when one is due (`raft`).
//! Invariant: a vote or a refusal leaves only when the term and vote that it rests on are durable (S6).

use crate::entries::Entries;
use crate::entry::{Entry, EntryKind};
use crate::ids::{Index, ReplicaId};
use crate::message::{Body, Message, MessageKind, VoteRequest};
use crate::mutant::{self, Mutant};
use crate::quorum::VoteResult;
use crate::raft::{Raft, Role};
use crate::replication::Empty;
use crate::storage::Storage;
use crate::trace::Trace;

/// What an election is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// To see whether a real one could be won.
    Pre,
    /// To lead.
    Real,
    /// To lead because the leader said so: passes leases.
    Transfer,
}

impl<S: Storage> Raft<S> {
    /// An election is due.
    pub(crate) fn hup(&mut self) {
        let kind = if self.config.pre_vote { Campaign::Pre } else { Campaign::Real };
        self.start_election(kind);
    }

    /// Campaigns, unless it would be in vain or unsafe (S29).
    pub(crate) fn start_election(&mut self, kind: Campaign) {
        let term = self.term;
        if self.is_leader() {
            self.trace.note(|| Trace::HupIgnored);
        } else if !self.is_promotable() {
            self.trace.note(|| Trace::Unpromotable);
        } else if self.may_have_unapplied_conf_change() {
            self.trace.note(|| Trace::CampaignBlocked { term });
        } else {
            self.trace.note(|| Trace::CampaignStarted { term });
            self.campaign(kind);
        }
    }

    fn campaign(&mut self, kind: Campaign) {
        let term = if kind == Campaign::Pre {
            self.become_pre_candidate();
            self.term.next()
        } else {
            self.become_candidate();
            self.term
        };
        let transfer = kind == Campaign::Transfer && !mutant::is(Mutant::TransferWithoutMark);
        let request = VoteRequest { last: self.log.last_pos(), transfer };
        for at in 0..self.tracker.len() {
            let Some(to) = self.tracker.id_at(at).filter(|id| self.tracker.is_voter(*id)) else { continue };
            if to == self.id {
                self.send_in(to, term, vote_answer(kind == Campaign::Pre, false));
            } else {
                let body = if kind == Campaign::Pre { Body::PreVote(request) } else { Body::Vote(request) };
                let (kind, own) = (body.kind(), self.term);
                self.trace.note(|| Trace::VoteRequested { kind, to, last: request.last, term: own });
                self.send_in(to, term, body);
            }
        }
    }

    /// Is a membership change committed, but not applied? What cannot be read counts as one.
    fn may_have_unapplied_conf_change(&self) -> bool {
        let (mut low, end) = (self.log.applied().next(), self.log.committed().next());
        if mutant::is(Mutant::CampaignsWithChange) {
            return false;
        }
        let is_change = |e: &Entry| e.kind != EntryKind::Normal;
        while low < end {
            let mut page = Entries::new();
            match self.log.read(low, end, self.config.page_limit(), &mut page) {
                Ok(()) if page.iter().any(is_change) => return true,
                Ok(()) => match page.last() {
                    Some(last) => low = last.index.next(),
                    None => return true,
                },
                Err(_) => return true,
            }
        }
        false
    }

    /// Somebody asks for a vote. Any role answers, learners too (S22).
    pub(crate) fn on_vote_request(&mut self, m: &Message, request: VoteRequest) {
        let pre = matches!(m.body, Body::PreVote(_));
        let free = self.vote.is_none() && self.lead.is_none();
        let may = self.vote == m.from || free || (pre && m.term > self.term) || mutant::is(Mutant::VotesTwice);
        if may && (self.log.is_up_to_date(request.last) || mutant::is(Mutant::VoteForOlderLog)) {
            let trace = self.vote_trace(m, request);
            self.trace.note(|| Trace::VoteCast(trace));
            self.send_in(m.from, m.term, vote_answer(pre, false));
            if !pre {
                self.election_start = self.now;
                self.vote = m.from;
            }
        } else {
            self.refuse_vote(m, request);
        }
    }

    /// Says no, in the own term.
    pub(crate) fn refuse_vote(&mut self, m: &Message, request: VoteRequest) {
        let trace = self.vote_trace(m, request);
        self.trace.note(|| Trace::VoteRejected(trace));
        self.send(m.from, vote_answer(matches!(m.body, Body::PreVote(_)), true));
    }

    /// An answer to the running election came in.
    pub(crate) fn on_vote_resp(&mut self, m: &Message, kind: MessageKind, granted: bool) {
        let term = self.term;
        self.trace.note(|| Trace::VoteReceived { kind, from: m.from, granted, term });
        self.tracker.record_vote(m.from, granted);
        let tally = self.tracker.tally();
        self.trace.note(|| Trace::VotesCounted { kind, granted: tally.granted, rejected: tally.rejected });
        match tally.result {
            VoteResult::Pending => {}
            VoteResult::Lost => self.become_follower(self.term, ReplicaId::NONE),
            VoteResult::Won if matches!(self.role, Role::PreCandidate) => self.campaign(Campaign::Real),
            VoteResult::Won => {
                self.become_leader();
                self.broadcast_append(Empty::Send);
            }
        }
    }

    /// The leader's check that a quorum still answers (thesis 6.2).
    pub(crate) fn check_quorum(&mut self) {
        if !self.tracker.is_quorum_active() && !mutant::is(Mutant::QuorumNotChecked) {
            self.trace.note(|| Trace::QuorumLost);
            self.become_follower(self.term, ReplicaId::NONE);
        }
        let own = self.id;
        self.tracker.iter_mut().filter(|m| m.id != own).for_each(|m| m.progress.set_active(false));
    }

    /// Commits what a quorum holds, if it is of the own term (Raft 5.4.2, S2). True if that is news.
    pub(crate) fn maybe_commit(&mut self) -> bool {
        let index: Index = self.tracker.committed();
        if index <= self.log.committed() {
            return false;
        }
        let of_this_term = self.log.term(index) == Ok(self.term) || mutant::is(Mutant::CommitOldTerm);
        of_this_term && self.log.commit_to(index)
    }
}

fn vote_answer(pre: bool, reject: bool) -> Body {
    if pre { Body::PreVoteResp { reject } } else { Body::VoteResp { reject } }
}
