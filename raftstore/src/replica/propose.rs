//! Callers' commands: joined per turn, appended as one, kept until their entry is handed to the machine.
//!
//! Leaves to others: answering after the apply (the applier gets those who wait with the entries).
//! Invariant: each command is answered once. Before the append with an error that means "never appended"; after it by the
//! machine, or with `OutcomeUnknown`. A deposed leader's entries may still commit, so those who wait stay for two
//! election timeouts.

use super::{Replica, Work};
use crate::budget::Budget;
use crate::error::{Limit, Lost, ProposeError};
use crate::ids::{Index, LogPos, Term, Tick};
use crate::proposal::{ITEM_OVERHEAD, Proposal, ReplyTo};
use bytes::Bytes;
use pontoon_raft::{Entries, ReplicaId, StateRole};
use std::collections::VecDeque;

/// An appended command without its answer.
struct Waiting {
    pos: LogPos,
    bytes: u64,
    reply: ReplyTo,
}

/// Commands that are appended together.
#[derive(Default)]
struct Run {
    commands: Vec<Bytes>,
    replies: Vec<ReplyTo>,
    bytes: u64,
}

impl Run {
    fn push(&mut self, proposal: Proposal) {
        self.bytes += proposal.command.len() as u64;
        self.commands.push(proposal.command);
        self.replies.push(proposal.reply);
    }
}

/// Commands of one group on their way.
#[derive(Default)]
pub(super) struct PendingProposals {
    /// Taken in this turn, not appended yet.
    staged: Vec<Proposal>,
    /// Appended here as leader. Invariant: ascending by index.
    waiting: VecDeque<Waiting>,
    /// Weight of `waiting`. Bytes.
    bytes: u64,
    /// Leadership was lost: what still waits then is given up.
    give_up: Option<Tick>,
}

impl PendingProposals {
    pub(super) fn stage(&mut self, proposal: Proposal) {
        self.staged.push(proposal);
    }

    fn push(&mut self, pos: LogPos, bytes: u64, reply: ReplyTo) {
        self.overwritten(pos.index, pos.term);
        self.bytes += bytes;
        self.waiting.push_back(Waiting { pos, bytes, reply });
    }

    /// Entries from `from` on have this term now: whoever waited for older ones there waits in vain.
    pub(super) fn overwritten(&mut self, from: Index, term: Term) {
        while self.waiting.back().is_some_and(|w| w.pos.index >= from && w.pos.term < term) {
            self.fail_last(Lost::Overwritten);
        }
    }

    /// Who waits for these committed entries.
    pub(super) fn take_for(&mut self, entries: &Entries) -> Vec<(Index, ReplyTo)> {
        let mut taken = Vec::new();
        let Some(last) = entries.last() else { return taken };
        while self.waiting.front().is_some_and(|w| w.pos.index <= last.index) {
            let w = self.waiting.pop_front().expect("looked at it");
            self.bytes -= w.bytes;
            if entries.get(w.pos.index).is_some_and(|e| e.pos() == w.pos) {
                taken.push((w.pos.index, w.reply));
            } else {
                w.reply.fail(ProposeError::OutcomeUnknown { why: Lost::Overwritten, at: Some(w.pos) });
            }
        }
        taken
    }

    /// A snapshot covers everything up to `upto`: whether these were in it is not known.
    pub(super) fn skip_upto(&mut self, upto: Index) {
        while self.waiting.front().is_some_and(|w| w.pos.index <= upto) {
            let w = self.waiting.pop_front().expect("looked at it");
            self.bytes -= w.bytes;
            w.reply.fail(ProposeError::OutcomeUnknown { why: Lost::Leadership, at: Some(w.pos) });
        }
    }

    /// The leadership was lost (when to give up), or is held again.
    pub(super) fn set_give_up(&mut self, at: Option<Tick>) {
        self.give_up = at;
    }

    pub(super) fn deadline(&self) -> Tick {
        self.give_up.filter(|_| !self.waiting.is_empty()).unwrap_or(Tick::MAX)
    }

    pub(super) fn expire(&mut self, now: Tick) {
        if self.deadline() <= now {
            self.give_up = None;
            self.fail_appended(Lost::Leadership);
        }
    }

    pub(super) fn fail_appended(&mut self, why: Lost) {
        while !self.waiting.is_empty() {
            self.fail_last(why);
        }
    }

    pub(super) fn fail_staged(&mut self, error: &ProposeError, budget: &Budget) {
        for proposal in self.staged.drain(..) {
            budget.give_back(proposal.cost());
            proposal.reply.fail(error.clone());
        }
    }

    fn fail_last(&mut self, why: Lost) {
        if let Some(w) = self.waiting.pop_back() {
            self.bytes -= w.bytes;
            w.reply.fail(ProposeError::OutcomeUnknown { why, at: Some(w.pos) });
        }
    }
}

impl Replica {
    /// Appends what the turn gathered, as one run if possible.
    pub(super) fn append_staged(&mut self, work: &mut Work) {
        if self.proposals.staged.is_empty() {
            return;
        }
        if let Some(error) = self.refuses_all() {
            work.tally.refused += self.proposals.staged.len() as u64;
            return self.proposals.fail_staged(&error, &work.budget);
        }
        let staged = std::mem::take(&mut self.proposals.staged);
        work.budget.give_back(staged.iter().map(Proposal::cost).sum());
        let term = self.raft.basic_status().term;
        let mut run = Run::default();
        for p in staged {
            if p.if_term.is_some_and(|asked| asked != term) {
                p.reply.fail(ProposeError::Fenced { now: term });
                continue;
            }
            // The core lets any first run in, however large: one is never above the group's limit.
            if run.bytes + p.command.len() as u64 > self.limits.group_inflight_bytes {
                self.append_run(std::mem::take(&mut run), work);
            }
            run.push(p);
        }
        self.append_run(run, work);
    }

    fn append_run(&mut self, run: Run, work: &mut Work) {
        let Run { commands, replies, .. } = run;
        if commands.is_empty() {
            return;
        }
        match self.raft.propose_batch(work.now, commands.clone()) {
            Ok(Some(first)) => {
                for (n, (command, reply)) in commands.iter().zip(replies).enumerate() {
                    self.wait_for(LogPos::new(first.term, first.index.plus(n as u64)), command, reply, work);
                }
            }
            // Together they are over the limit of uncommitted bytes: as many as fit.
            _ => commands.into_iter().zip(replies).for_each(|(command, reply)| self.append_one(command, reply, work)),
        }
    }

    fn append_one(&mut self, command: Bytes, reply: ReplyTo, work: &mut Work) {
        match self.raft.propose(work.now, command.clone()) {
            Ok(Some(pos)) => self.wait_for(pos, &command, reply, work),
            _ => {
                work.tally.refused += 1;
                reply.fail(self.refuses_all().unwrap_or(ProposeError::Overloaded(Limit::GroupInflight)));
            }
        }
    }

    fn wait_for(&mut self, pos: LogPos, command: &Bytes, reply: ReplyTo, work: &mut Work) {
        work.tally.proposed += 1;
        self.proposals.push(pos, command.len() as u64 + ITEM_OVERHEAD, reply);
    }

    /// Why no command can be appended now, if so.
    fn refuses_all(&self) -> Option<ProposeError> {
        let status = self.raft.basic_status();
        if status.role != StateRole::Leader {
            return Some(ProposeError::NotLeader { leader: self.leader_hint() });
        }
        if status.transferee != ReplicaId::NONE {
            let to = self.machine.record.node_of(status.transferee).unwrap_or_default();
            return Some(ProposeError::Transferring { to });
        }
        let backlog = self.proposals.bytes > self.limits.group_waiting_bytes;
        backlog.then_some(ProposeError::Overloaded(Limit::ApplyBacklog))
    }
}
