//! Replication: what the leader appends, sends and commits (Raft 5.3), and how a follower takes it.
//!
//! Leaves to others: how far a member is (`tracker`), snapshots (`snapshot`), reads (`read_index`).
//! Invariant: the leader counts itself only through its own durable ack; an append's commit is cut by the
//! receiver to what that message proved (S3).

use crate::entry_run::EntryRun;
use crate::error::StepError;
use crate::ids::{Index, LogPos, ReplicaId, Term};
use crate::log::{Appended, Splice};
use crate::message::{Append, AppendResp, Body};
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::ready::Fetch;
use crate::status::FlowState;
use crate::storage::{Storage, StorageError};
use crate::trace::Trace;
use bytes::Bytes;

/// Is an append without entries worth sending?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    /// Yes: it carries the commit index, or probes.
    Send,
    /// No.
    Skip,
}

/// The leader's side.
impl<S: Storage> Raft<S> {
    /// Appends own entries, which get term and index here, and queues the self-ack for when they are durable.
    pub(crate) fn append_own(&mut self, mut run: EntryRun) -> LogPos {
        let first = LogPos::new(self.term, self.log.last_index().next());
        run.place(first);
        self.log.append(run);
        let ack = AppendResp { index: self.log.last_index(), reject: None };
        if let Some(own) = self.tracker.progress_mut(self.id).filter(|_| mutant::is(Mutant::CountsItselfEarly)) {
            let _ = own.acked(ack.index);
        }
        self.send(self.id, Body::AppendResp(ack));
        first
    }

    /// Sends appends to all others, ascending, learners included.
    pub(crate) fn broadcast_append(&mut self, empty: Empty) {
        for at in 0..self.tracker.len() {
            if let Some(to) = self.tracker.id_at(at).filter(|id| *id != self.id) {
                self.send_append(to, empty);
            }
        }
    }

    /// Sends one append, or the snapshot that must come before. False if nothing was sent.
    pub(crate) fn send_append(&mut self, to: ReplicaId, empty: Empty) -> bool {
        let Some(progress) = self.tracker.progress(to) else { return false };
        if progress.is_paused() {
            return false;
        }
        let (next, last) = (progress.next(), self.log.last_index());
        if empty == Empty::Skip && next > last {
            return false;
        }
        let nothing = next > last || progress.is_window_full();
        let Ok(prev_term) = self.log.term(next.prev()) else { return self.send_snapshot(to) };
        let read = if nothing { Ok(EntryRun::default()) } else { self.entries_from(next) };
        let entries = match read {
            Ok(entries) if entries.is_empty() && empty == Empty::Skip => return false,
            Ok(entries) => entries,
            Err(StorageError::Uncached) => {
                let high = self.log.last_index().next();
                self.fetch(Fetch { to, low: next, high, max_bytes: self.config.max_size_per_msg });
                return false;
            }
            Err(_) if empty == Empty::Skip => return false,
            Err(_) => return self.send_snapshot(to),
        };
        let (count, bytes) = (entries.len(), entries.payload_size());
        let (prev, commit) = (LogPos::new(prev_term, next.prev()), self.log.committed());
        self.send(to, Body::Append(Append { prev, entries, commit }));
        if let Some(progress) = self.tracker.progress_mut(to) {
            progress.sent(count, bytes);
            progress.set_sent_commit(commit);
        }
        true
    }

    fn entries_from(&self, next: Index) -> Result<EntryRun, StorageError> {
        self.log.read_run(next, self.log.last_index().next(), self.config.max_size_per_msg)
    }

    /// A member answered an append or a snapshot (raft-core 8.4).
    pub(crate) fn on_append_resp(&mut self, from: ReplicaId, answer: AppendResp) -> Result<(), StepError> {
        if self.config.strict && answer.reject.is_none() && answer.index > self.log.last_index() {
            return Err(StepError::Malformed("an ack beyond the leader's log"));
        }
        match answer.reject {
            Some(hint) => self.on_rejected(from, answer.index, hint),
            None => self.on_acked(from, answer.index),
        }
        Ok(())
    }

    fn on_rejected(&mut self, from: ReplicaId, index: Index, hint: LogPos) {
        self.trace.note(|| Trace::RejectionReceived { from, index, hint });
        let known = hint.term.0 > 0;
        let probe = if known { self.log.guess(hint.index, hint.term).index } else { hint.index };
        let Some(member) = self.tracker.get_mut(from) else { return };
        member.progress.set_active(true);
        if !member.progress.rejected(index, probe) {
            return;
        }
        self.trace.note(|| Trace::ProgressDecreased { peer: from, progress: member.status() });
        if member.progress.state() == FlowState::Replicate {
            member.progress.become_probe();
        }
        self.send_append(from, Empty::Send);
    }

    fn on_acked(&mut self, from: ReplicaId, index: Index) {
        let limits = self.tracker.limits();
        let Some(member) = self.tracker.get_mut(from) else { return };
        let progress = &mut member.progress;
        progress.set_active(true);
        let known = index == progress.matched() && !mutant::is(Mutant::KnownAckIgnored);
        let caught_up = known && progress.state() == FlowState::Probe;
        if !progress.acked(index) && !caught_up {
            return;
        }
        match progress.state() {
            FlowState::Probe => progress.become_replicate(limits),
            FlowState::Snapshot if progress.matched().next() >= self.log.first_index() => {
                self.trace.note(|| Trace::SnapshotRecovered { peer: from, progress: member.status() });
                member.progress.become_probe();
                member.progress.become_replicate(limits);
            }
            FlowState::Snapshot => {}
            FlowState::Replicate => progress.free_window_to(index),
        }
        self.after_ack(from, index);
    }

    /// An ack was news: commit, then let the member have more.
    fn after_ack(&mut self, from: ReplicaId, index: Index) {
        let other = from != self.id;
        // What is committed already moves no quorum.
        if index > self.log.committed() && self.maybe_commit() {
            self.release_waiting_reads();
            self.broadcast_append(Empty::Send);
        } else if other && self.tracker.progress(from).is_some_and(|p| p.may_raise_commit(self.log.committed())) {
            self.send_append(from, Empty::Send);
        }
        if other {
            while self.send_append(from, Empty::Skip) {}
        }
        self.maybe_finish_transfer(from);
    }

    /// The transport could not deliver: probe before streaming on.
    pub(crate) fn on_unreachable(&mut self, from: ReplicaId) {
        let Some(member) = self.tracker.get_mut(from) else { return };
        if member.progress.state() == FlowState::Replicate {
            member.progress.become_probe();
        }
        self.trace.note(|| Trace::Unreachable { peer: from, progress: member.status() });
    }
}

/// Heartbeats.
impl<S: Storage> Raft<S> {
    /// Heartbeats to all others, ascending, with the youngest open read.
    pub(crate) fn broadcast_heartbeat(&mut self) {
        let context = self.heartbeat_context();
        let committed = self.log.committed();
        for at in 0..self.tracker.len() {
            let Some(to) = self.tracker.id_at(at).filter(|id| *id != self.id) else { continue };
            let Some(progress) = self.tracker.progress_mut(to) else { continue };
            let cut = !mutant::is(Mutant::HeartbeatCommitUncut);
            let commit = if cut { progress.matched().min(committed) } else { committed };
            progress.set_sent_commit(commit);
            self.send(to, Body::Heartbeat { commit, context: context.clone() });
        }
    }

    /// A member answered a heartbeat: whatever was lost is tried again (S13).
    pub(crate) fn on_heartbeat_resp(&mut self, from: ReplicaId, context: &[u8]) {
        let last = self.log.last_index();
        let Some(progress) = self.tracker.progress_mut(from) else { return };
        progress.set_active(true);
        if !mutant::is(Mutant::HeartbeatWakesNobody) {
            progress.resume();
        }
        if progress.matched() < last || progress.state() == FlowState::Probe {
            self.send_append(from, Empty::Send);
        }
        self.on_read_ack(from, context);
    }
}

/// The follower's side.
impl<S: Storage> Raft<S> {
    /// The leader sent entries (raft-core 8.3).
    pub(crate) fn on_append(&mut self, from: ReplicaId, append: Append) -> Result<(), StepError> {
        let Append { prev, entries, commit } = append;
        let committed = self.log.committed();
        if prev.index < committed {
            self.send(from, Body::AppendResp(AppendResp { index: committed, reject: None }));
            return Ok(());
        }
        let answer = match self.log.append_after(prev, &entries, commit) {
            Appended::Done { last_new, conflict, splice } => {
                self.trace_splice(conflict, splice);
                AppendResp { index: last_new, reject: None }
            }
            Appended::Refused => self.refuse_append(from, prev),
            Appended::ConflictBelowCommit(found) => {
                return Err(StepError::ConflictBelowCommit { found, commit: committed });
            }
        };
        self.send(from, Body::AppendResp(answer));
        Ok(())
    }

    fn refuse_append(&mut self, from: ReplicaId, prev: LogPos) -> AppendResp {
        let own_term = self.log.term_or_none(prev.index);
        self.trace.note(|| Trace::AppendRejected { own_term, prev, from });
        let hint = self.log.guess(prev.index.min(self.log.last_index()), prev.term);
        AppendResp { index: prev.index, reject: Some(hint) }
    }

    fn trace_splice(&mut self, conflict: Option<(LogPos, Term)>, splice: Option<Splice>) {
        if let Some((found, existing)) = conflict {
            self.trace.note(|| Trace::Conflict { found, existing });
        }
        match splice {
            Some(Splice::Replaced(from)) => self.trace.note(|| Trace::UnstableReplaced { from }),
            Some(Splice::Truncated(before)) => self.trace.note(|| Trace::UnstableTruncated { before }),
            Some(Splice::Continued) | None => {}
        }
    }

    /// The leader is alive and says what is committed here.
    pub(crate) fn on_heartbeat(&mut self, from: ReplicaId, commit: Index, context: Bytes) -> Result<(), StepError> {
        self.commit_to(commit)?;
        self.send(from, Body::HeartbeatResp { context });
        Ok(())
    }
}
