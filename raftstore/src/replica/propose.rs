//! Callers' commands: joined per turn, appended as one, kept until their entry is handed to the machine.
//!
//! Leaves to others: answering after the apply (the applier gets those who wait with the entries).
//! Invariant: each command is answered once. Before the append with an error that means "never appended"; after it by the
//! machine, or with `OutcomeUnknown`. A deposed leader's entries may still commit, so those who wait stay for two
//! election timeouts.

use super::{Replica, Work};
use crate::budget::Budget;
use crate::codec::run_of;
use crate::error::{Limit, Lost, ProposeError};
use crate::ids::{Index, LogPos, Term, Tick};
use crate::proposal::{Fence, Proposal, Refused, ReplyTo, weigh};
use bytes::Bytes;
use pontoon_raft::mutant::{self, Mutant};
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
    /// Bytes of each command, who waits, and what it stays in line with.
    replies: Vec<(u64, ReplyTo, Option<Fence>)>,
    bytes: u64,
}

impl Run {
    /// What its commands weigh in the budgets.
    fn weight(&self) -> u64 {
        weigh(self.bytes, self.commands.len() as u64)
    }

    fn with_capacity(n: usize) -> Run {
        Run { commands: Vec::with_capacity(n), replies: Vec::with_capacity(n), bytes: 0 }
    }

    fn push(&mut self, command: Bytes, reply: ReplyTo, fence: Option<Fence>) {
        let bytes = command.len() as u64;
        self.bytes += bytes;
        self.commands.push(command);
        self.replies.push((bytes, reply, fence));
    }
}

/// Commands of one group on their way.
#[derive(Default)]
pub(super) struct PendingProposals {
    /// Not appended yet: taken in this turn, or kept back since an earlier one (`gather`).
    staged: Vec<Proposal>,
    /// Appended here as leader. Invariant: ascending by index.
    waiting: VecDeque<Waiting>,
    /// Weight of `waiting`. Bytes.
    bytes: u64,
    /// What of it the node's budget knows.
    counted: u64,
    /// Leadership was lost: what still waits then is given up.
    give_up: Option<Tick>,
}

impl PendingProposals {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells the node how much waits.
    pub(super) fn count(&mut self, budget: &Budget) {
        if self.counted != self.bytes {
            budget.count_uncommitted(std::mem::replace(&mut self.counted, self.bytes), self.bytes);
        }
    }

    /// The replica goes: what waits is waited for by nobody.
    pub(super) fn forget(&mut self, budget: &Budget) {
        budget.count_uncommitted(std::mem::take(&mut self.counted), 0);
    }

    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

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
        let Some(last) = entries.last() else { return Vec::new() };
        let mut taken = Vec::with_capacity(self.waiting.len().min(entries.len()));
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
            budget.leave_door(proposal.cost());
            proposal.refuse(error.clone());
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
            self.gather.end();
            return self.proposals.fail_staged(&error, &work.budget);
        }
        if self.keeps_back(work) {
            return;
        }
        let dropped = mutant::is(Mutant::KeptBackDropped) && self.keeps_back_until().is_some();
        self.gather.end();
        let mut staged = std::mem::take(&mut self.proposals.staged);
        work.budget.leave_door(staged.iter().map(Proposal::cost).sum());
        if dropped {
            staged.clear();
        }
        let term = self.raft.basic_status().term;
        let mut run = Run::with_capacity(staged.len());
        for p in staged.drain(..) {
            // The core lets any first run in, however large: one is never above the group's limit.
            if run.bytes + p.command.len() as u64 > self.limits.group_inflight_bytes {
                self.append_run(std::mem::take(&mut run), work);
            }
            // Asked behind that: a refusal in it ends the line.
            if let Some(error) = out_of_line(p.fence.as_ref(), term) {
                p.refuse(error);
                continue;
            }
            run.push(p.command, p.reply, p.fence);
        }
        self.proposals.staged = staged; // keeps its memory
        self.append_run(run, work);
    }

    fn append_run(&mut self, run: Run, work: &mut Work) {
        let room = self.queue_limit(work).saturating_sub(self.waiting());
        let all_fit = self.raft.has_room_for(run.bytes) && run.weight() <= room;
        let run = if all_fit { run } else { self.what_fits(run, room, work) };
        if !run.commands.is_empty() {
            self.append_all(run, work);
        }
    }

    /// Together they are over the limit of uncommitted bytes, or more than may wait: as many as fit, the others are refused.
    fn what_fits(&self, run: Run, room: u64, work: &mut Work) -> Run {
        let begins = self.waiting() == 0;
        let (term, mut fit) = (self.raft.basic_status().term, Run::with_capacity(run.commands.len()));
        let mut refused = Refused::default();
        for (command, (bytes, reply, fence)) in run.commands.into_iter().zip(run.replies) {
            let may_wait = fit.weight() + weigh(bytes, 1) <= room || (begins && fit.commands.is_empty());
            let fits = may_wait && self.raft.has_room_for(fit.bytes + bytes);
            let full = (!fits).then_some(ProposeError::Overloaded(Limit::GroupInflight));
            match out_of_line(fence.as_ref(), term).or(full) {
                None => fit.push(command, reply, fence),
                Some(error) => {
                    work.tally.refused += 1;
                    refused.add(reply, fence.as_ref(), error);
                }
            }
        }
        refused.tell();
        fit
    }

    fn append_all(&mut self, run: Run, work: &mut Work) {
        let Run { commands, replies, .. } = run;
        match self.raft.propose_run(work.now, run_of(commands)) {
            Ok(Some(first)) => {
                work.tally.proposed += replies.len() as u64;
                for (n, (bytes, reply, _)) in (0..).zip(replies) {
                    let pos = LogPos::new(first.term, first.index.plus(n));
                    self.proposals.push(pos, weigh(bytes, 1), reply);
                }
            }
            _ => {
                work.tally.refused += replies.len() as u64;
                let why = self.refuses_all().unwrap_or(ProposeError::Overloaded(Limit::GroupInflight));
                replies.into_iter().for_each(|(_, reply, fence)| reply.refuse(fence.as_ref(), why.clone()));
            }
        }
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

/// Why a command may not follow those before it, if so.
fn out_of_line(fence: Option<&Fence>, term: Term) -> Option<ProposeError> {
    fence?.behind_door(term).err()
}
