//! A leader: replicates, commits, serves reads, hands over.
//!
//! Leaves to others: the deeds (`replication`, `read_index`, `transfer`, `snapshot`, `membership`).
//! Invariant: only tracked members are listened to.

use crate::entry::{Entry, EntryKind};
use crate::entry_run::EntryRun;
use crate::error::StepError;
use crate::ids::{Index, LogPos};
use crate::message::{Body, Message};
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::replication::Empty;
use crate::storage::Storage;
use crate::trace::Trace;

impl<S: Storage> Raft<S> {
    pub(crate) fn step_leader(&mut self, m: Message) -> Result<(), StepError> {
        match m.body {
            Body::Propose { entries } => return self.lead_proposal(entries.into()).map(|_| ()),
            Body::ReadIndex { entries } => return self.on_read_request(m.from, entries),
            Body::ForgetLeader => {}
            _ if !self.tracker.contains(m.from) => self.trace.note(|| Trace::NoProgress { peer: m.from }),
            Body::AppendResp(answer) => return self.on_append_resp(m.from, answer),
            Body::HeartbeatResp { context } => self.on_heartbeat_resp(m.from, &context),
            Body::SnapStatus { reject } => self.on_snapshot_status(m.from, reject),
            Body::Unreachable => self.on_unreachable(m.from),
            Body::TransferLeader => self.on_transfer(m.from),
            _ => {}
        }
        Ok(())
    }

    /// Proposes as a leader: all or nothing. Returns where the first entry stands.
    pub(crate) fn lead_proposal(&mut self, mut run: EntryRun) -> Result<LogPos, StepError> {
        if run.is_empty() {
            return Err(StepError::Malformed("a proposal without entries"));
        }
        let term = self.term;
        let transferee = self.leader().map(|l| l.transferee).filter(|t| !t.is_none());
        if !self.tracker.contains(self.id) {
            return Err(StepError::ProposalDropped);
        }
        if let Some(transferee) = transferee.filter(|_| !mutant::is(Mutant::ProposalsInTransfer)) {
            self.trace.note(|| Trace::ProposalDuringTransfer { term, transferee });
            return Err(StepError::ProposalDropped);
        }
        let pending_conf = self.judge_conf_changes(&mut run)?;
        self.count_uncommitted(run.payload_size())?;
        if let (Some(pending), Some(leader)) = (pending_conf, self.leader_mut()) {
            leader.pending_conf = pending;
        }
        let first = self.append_own(run);
        self.broadcast_append(Empty::Send);
        Ok(first)
    }

    /// Replaces membership changes that may not be proposed now by empty entries; returns the index that the
    /// last accepted one will have.
    fn judge_conf_changes(&mut self, run: &mut EntryRun) -> Result<Option<Index>, StepError> {
        let (first, mut pending, mut seen) = (self.log.last_index().next(), None, 0);
        while let Some(skip) = run[seen..].iter().position(|e| e.kind != EntryKind::Normal) {
            let at = seen + skip;
            if self.may_propose_change(&run[at], pending)? {
                pending = Some(first.plus(at as u64));
            } else if !mutant::is(Mutant::RefusedProposed) {
                run.replace(at, Entry { replaced: true, ..Entry::default() });
            }
            seen = at + 1;
        }
        Ok(pending)
    }

    /// Does so much more uncommitted payload stay within the limit? The first and the empty always fit (S11).
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        let uncommitted = self.leader().map_or(0, |leader| leader.uncommitted);
        uncommitted == 0 || bytes == 0 || uncommitted.saturating_add(bytes) <= self.config.uncommitted_limit()
    }

    /// Refuses what exceeds the limit of uncommitted payload.
    fn count_uncommitted(&mut self, bytes: u64) -> Result<(), StepError> {
        if !self.has_room_for(bytes) {
            self.trace.note(|| Trace::UncommittedLimit);
            return Err(StepError::ProposalDropped);
        }
        let Some(leader) = self.leader_mut() else { return Err(StepError::ProposalDropped) };
        leader.uncommitted = leader.uncommitted.saturating_add(bytes);
        Ok(())
    }
}
