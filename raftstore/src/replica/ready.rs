//! From `Ready` to the turn's work, and from durable writes back to the core.
//!
//! Leaves to others: the write (log writer), snapshot installs (`snapshot`), applying (`apply`).
//! Invariant: messages of a `Ready` leave at once (the core holds back what promises durability); `on_persisted` is
//! called for what a completed write contained and for everything before it, never else.
//! Invariant: a hard state that changes only the commit is written with or before the group's next write (law 1).

use super::{Letter, Phase, Replica, Work};
use crate::env::{GroupOp, GroupWrite, Truncation};
use crate::ids::{BatchSeq, LogPos, ReplicaId};
use crate::log_cache::{run_weight, weights};
use crate::proposal::AdminDone;
use crate::task::GroupMessage;
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::{Body, ConfState, Entries, EntryRun, HardState, Message, Ready, ReadyNumber};
use std::collections::VecDeque;

/// What one write of this replica contains.
enum Write {
    /// A run of a `Ready`'s entries, or its hard state alone.
    Ready { number: ReadyNumber, run: EntryRun },
    /// The intent of a snapshot install.
    Intent,
    /// The record of a finished install: the log is empty behind it.
    Install { at: Truncation },
    /// The tombstone.
    Tombstone { next_replica: ReplicaId },
}

/// What was handed to the log writer and is not durable yet.
#[derive(Default)]
pub(super) struct Writes {
    /// In the order written. Invariant: batch numbers never fall.
    queue: VecDeque<(BatchSeq, Write)>,
    /// A newer commit that was not worth a write of its own.
    lazy: Option<HardState>,
}

impl Writes {
    pub(super) fn with_lazy(hard_state: HardState) -> Writes {
        Writes { lazy: Some(hard_state), ..Writes::default() }
    }

    /// Does the log stand before an install that is on its way?
    pub(super) fn has_install(&self) -> bool {
        self.queue.iter().any(|w| matches!(w.1, Write::Install { .. }))
    }

    pub(super) fn bury(&mut self, seq: BatchSeq, next_replica: ReplicaId) {
        self.queue.push_back((seq, Write::Tombstone { next_replica }));
    }

    pub(super) fn intend(&mut self, seq: BatchSeq) {
        self.queue.push_back((seq, Write::Intent));
    }

    pub(super) fn install(&mut self, seq: BatchSeq, pos: LogPos, conf_state: ConfState) {
        // The install's own hard state is newer than any that was put off.
        self.lazy = None;
        self.queue.push_back((seq, Write::Install { at: Truncation { pos, conf_state } }));
    }
}

/// The part of a `Ready` that is written.
pub(super) struct ToWrite {
    pub(super) number: ReadyNumber,
    pub(super) entries: Entries,
    pub(super) hard_state: Option<HardState>,
    pub(super) must_sync: bool,
    pub(super) awaits_persist: bool,
}

impl Replica {
    /// Takes what the core has and turns it into work. True: messages were all that it had.
    pub(super) fn take_ready(&mut self, work: &mut Work) -> bool {
        let ready = self.raft.ready();
        if ready.has_only_messages() {
            self.send_all(ready.messages, work);
            return true;
        }
        let Ready { number, soft_state, hard_state, entries, snapshot, committed_entries, .. } = ready;
        if let Some(soft) = soft_state {
            self.on_soft_state(soft, work);
        }
        self.send_all(ready.messages, work);
        self.on_read_states(ready.read_states, &ready.dropped_reads);
        let (must_sync, awaits_persist) = (ready.must_sync, ready.awaits_persist);
        let write = ToWrite { number, entries, hard_state, must_sync, awaits_persist };
        if let Some(first) = write.entries.first() {
            self.proposals.overwritten(first.index, first.term);
        }
        match snapshot {
            Some(snapshot) => self.begin_install(snapshot, write, work),
            None => self.write(write, work),
        }
        self.hand_to_machine(committed_entries, work);
        false
    }

    /// Puts a `Ready`'s state into the batch, or behind the install that it has to wait for.
    pub(super) fn write(&mut self, write: ToWrite, work: &mut Work) {
        work.budget.take(weights(&write.entries));
        match &mut self.phase {
            Phase::Installing(install) => install.held.push(write),
            _ => self.write_now(write, work),
        }
    }

    /// Same, with the entries charged to the budget already.
    pub(super) fn write_now(&mut self, write: ToWrite, work: &mut Work) {
        let ToWrite { number, entries, hard_state, must_sync, awaits_persist } = write;
        let dropped = mutant::is(Mutant::DropLazyCommit) && !must_sync && entries.is_empty();
        if let Some(hs) = hard_state.filter(|_| !dropped) {
            self.writes.lazy = Some(hs);
        }
        if must_sync || !entries.is_empty() {
            let hard_state = self.writes.lazy.take().map(without_vote_if_mutant);
            work.tally.entries += entries.len() as u64;
            self.write_runs(entries, hard_state, number, work);
            if mutant::is(Mutant::AckBeforeSync) {
                self.on_persisted(work.seq, work);
            }
        } else if awaits_persist {
            // Nothing of its own to write: it is persisted with what went before.
            match self.writes.queue.back().map(|w| w.0) {
                Some(seq) => self.writes.queue.push_back((seq, Write::Ready { number, run: EntryRun::default() })),
                None => self.persisted(number, work),
            }
        }
    }

    /// Each run as it came, so that nothing is copied and all keep their form; the hard state with the last.
    fn write_runs(
        &mut self,
        mut entries: Entries,
        mut hard_state: Option<HardState>,
        number: ReadyNumber,
        work: &mut Work,
    ) {
        loop {
            let run = entries.pop_run().unwrap_or_default();
            let hard_state = if entries.is_empty() { hard_state.take() } else { None };
            self.put(GroupOp::Append { entries: run.clone(), hard_state }, true, work);
            self.writes.queue.push_back((work.seq, Write::Ready { number, run }));
            if entries.is_empty() {
                return;
            }
        }
    }

    /// Writes a commit that was put off, because something else of this replica is written now.
    pub(super) fn write_lazy_commit(&mut self, work: &mut Work) {
        if let Some(hard_state) = self.writes.lazy.take() {
            self.put(GroupOp::Append { entries: EntryRun::default(), hard_state: Some(hard_state) }, false, work);
        }
    }

    pub(super) fn put(&self, op: GroupOp, sync: bool, work: &mut Work) {
        work.write(GroupWrite { group: self.group, replica: self.id, op }, sync);
    }

    /// The log writer is done with this batch of the poller and all before. Returns whether anything was waited for.
    pub fn on_persisted(&mut self, upto: BatchSeq, work: &mut Work) -> bool {
        let mut last = None;
        let mut any = false;
        while self.writes.queue.front().is_some_and(|w| w.0 <= upto) {
            let (_, write) = self.writes.queue.pop_front().expect("looked at it");
            any = true;
            match write {
                Write::Ready { number, run } => {
                    self.raft.storage_mut().append(run);
                    last = Some(number);
                }
                Write::Intent => self.on_intent_durable(work),
                Write::Install { at } => self.raft.storage_mut().install(at),
                Write::Tombstone { next_replica } => self.on_buried(next_replica, work),
            }
        }
        match (last, self.closed()) {
            (Some(number), None) => self.persisted(number, work),
            (Some(_), Some(_)) => self.raft.storage_mut().let_go(),
            (None, _) => {}
        }
        any
    }

    fn persisted(&mut self, number: ReadyNumber, work: &mut Work) {
        let mut released = Vec::new();
        self.raft.on_persisted(work.now, number, &mut released);
        // What was acknowledged in an earlier term may be overwritten by a write behind or merged with this one. Such
        // an ack would be no lie (it is a late message), but its leader is gone: nobody is served by it.
        let term = self.raft.basic_status().term;
        released.retain(|m| m.term >= term || !matches!(m.body, Body::AppendResp(ack) if ack.reject.is_none()));
        self.send_all(released, work);
    }

    /// Sends what may leave now.
    pub(super) fn send_all(&mut self, messages: Vec<Message>, work: &mut Work) {
        for message in messages {
            if message.from != self.id {
                // A peer's read that came here after the leadership had left. Nobody would believe this link that it
                // is the peer's, and the asker asks again when it learns of the new leader.
                continue;
            }
            if let Some(message) = self.hold_commit(message, work.now) {
                self.send(message, work);
            }
        }
    }

    /// Sends to wherever the replica map says that the receiver is.
    pub(super) fn send(&mut self, message: Message, work: &mut Work) {
        let silenced = work.silent && message.body.is_from_leader();
        let Some(to) = self.destination(message.to).filter(|_| !silenced) else {
            return self.not_sent(&message, work);
        };
        let first_applied = self.machine.applied() > self.creation.birth.index;
        let birth = if first_applied { 0 } else { self.creation.digest };
        let aside = self.aside_for(&message);
        let message = GroupMessage { group: self.group, epoch: 0, birth, aside, message };
        if matches!(message.message.body, Body::Snap { .. }) {
            self.send_snapshot(to, message, work);
        } else {
            work.outbox.push(to, &message);
        }
    }

    /// What does not leave is as good as lost, but a snapshot: the core sends nothing else there before it hears of its end.
    fn not_sent(&mut self, message: &Message, work: &Work) {
        if matches!(message.body, Body::Snap { .. }) {
            self.raft.report_snapshot(work.now, message.to, false);
        }
    }

    fn on_buried(&mut self, next_replica: ReplicaId, work: &mut Work) {
        work.letters.push(Letter::Gone(self.group));
        if let Phase::Burying(done) = &self.phase {
            done.done(Ok(AdminDone::Buried(next_replica)));
        }
    }
}

fn without_vote_if_mutant(hs: HardState) -> HardState {
    if mutant::is(Mutant::VoteNotPersisted) { HardState { vote: ReplicaId::NONE, ..hs } } else { hs }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.proposals.forget(self.raft.storage().budget());
        let charged = |write: &Write| match write {
            Write::Ready { run, .. } => run_weight(run),
            _ => 0_u64,
        };
        let held = match &self.phase {
            Phase::Installing(i) => i.held.iter().map(|w| weights(&w.entries)).sum(),
            _ => 0_u64,
        };
        let queued: u64 = self.writes.queue.iter().map(|w| charged(&w.1)).sum();
        self.raft.storage().budget().give_back(queued + held);
    }
}
