//! Snapshots (Raft 7): sending the newest one, installing what a leader sent, reports on the way.
//!
//! Leaves to others: the contents, which never pass through here.
//! Invariant: a snapshot that the log covers only moves the commit index (S37); one that does not list this
//! replica is refused (S36).

use crate::confchange::restore;
use crate::error::StepError;
use crate::ids::{Index, LogPos, ReplicaId};
use crate::message::{AppendResp, Body};
use crate::mutant::{self, Mutant};
use crate::raft::{Raft, Role};
use crate::state::Snapshot;
use crate::status::{FlowState, ProgressStatus};
use crate::storage::Storage;
use crate::trace::Trace;

impl<S: Storage> Raft<S> {
    /// The log does not reach back to what `to` needs. False if nothing was sent.
    pub(crate) fn send_snapshot(&mut self, to: ReplicaId) -> bool {
        let Some(member) = self.tracker.get(to) else { return false };
        let (matched, before) = (member.progress.matched(), member.status());
        if !member.progress.is_active() {
            self.trace.note(|| Trace::SnapshotToInactive { peer: to });
            return false;
        }
        let found = match self.log.unstable_snapshot() {
            Some(snapshot) => Some(snapshot.clone()),
            None => self.log.storage().snapshot(to).ok(),
        };
        let strict = self.config.strict;
        let Some(snapshot) = found.filter(|s| !s.is_empty() && (!strict || s.meta.index >= matched)) else {
            self.trace.note(|| Trace::SnapshotUnavailable { peer: to });
            return false;
        };
        let (first, commit, pos) = (self.log.first_index(), self.log.committed(), snapshot.meta.pos());
        self.trace.note(|| Trace::SnapshotSent { peer: to, first, commit, snapshot: pos, progress: before });
        let mut after = ProgressStatus::default();
        if let Some(member) = self.tracker.get_mut(to) {
            member.progress.become_snapshot(pos.index);
            after = member.status();
        }
        self.trace.note(|| Trace::ReplicationPaused { peer: to, progress: after });
        self.send(to, Body::Snap { snapshot: Box::new(snapshot) });
        true
    }

    /// How sending a snapshot to `from` ended. Either way the next append waits for an answer.
    pub(crate) fn on_snapshot_status(&mut self, from: ReplicaId, failed: bool) {
        let Some(member) = self.tracker.get_mut(from) else { return };
        if member.progress.state() != FlowState::Snapshot {
            return;
        }
        if failed {
            member.progress.abort_snapshot();
        } else {
            member.progress.become_probe();
        }
        let progress = member.status();
        member.progress.pause();
        self.trace.note(|| match failed {
            true => Trace::SnapshotFailed { peer: from, progress },
            false => Trace::SnapshotSucceeded { peer: from, progress },
        });
    }

    /// A leader sent a snapshot (raft-core 11.2). The answer waits until it is installed.
    pub(crate) fn on_snapshot(&mut self, from: ReplicaId, snapshot: Snapshot) -> Result<(), StepError> {
        let pos = snapshot.meta.pos();
        let restored = self.restore(snapshot)?;
        let commit = self.log.committed();
        let index = if restored {
            self.trace.note(|| Trace::SnapshotRestored { commit, snapshot: pos });
            self.log.last_index()
        } else {
            self.trace.note(|| Trace::SnapshotIgnored { commit, snapshot: pos });
            commit
        };
        self.send(from, Body::AppendResp(AppendResp { index, reject: None }));
        Ok(())
    }

    /// Replaces log and membership; false if there is no need or no right to.
    fn restore(&mut self, snapshot: Snapshot) -> Result<bool, StepError> {
        let pos: LogPos = snapshot.meta.pos();
        if pos.index <= self.log.committed() && !mutant::is(Mutant::StaleSnapshotRestored) {
            return Ok(false);
        }
        if !matches!(self.role, Role::Follower) {
            self.trace.note(|| Trace::RestoreAsLeader);
            self.become_follower(self.term.next(), ReplicaId::NONE);
            return Ok(false);
        }
        let conf = &snapshot.meta.conf_state;
        let lists_self = conf.is_voter(self.id) || conf.learners.contains(&self.id);
        if !lists_self && !mutant::is(Mutant::ForeignSnapshotRestored) {
            self.trace.note(|| Trace::RestoreWithoutSelf { conf: conf.clone() });
            return Ok(false);
        }
        if self.log.has(pos) && !mutant::is(Mutant::CoveredSnapshotRestored) {
            self.fast_forward(pos);
            return Ok(false);
        }
        let tracker = restore(conf, pos.index, self.tracker.limits()).map_err(|_| StepError::BadSnapshot)?;
        let log = self.log.pointers();
        self.trace.note(|| Trace::RestoreStarted { log, snapshot: pos });
        self.log.restore(snapshot);
        self.switch_config(tracker);
        let (commit, last) = (self.log.committed(), self.log.last_pos());
        self.trace.note(|| Trace::Restored { commit, last, snapshot: pos });
        Ok(true)
    }

    fn fast_forward(&mut self, pos: LogPos) {
        let (commit, last): (Index, LogPos) = (self.log.committed(), self.log.last_pos());
        self.trace.note(|| Trace::FastForwarded { commit, last, snapshot: pos });
        assert!(self.log.commit_to(pos.index), "the log holds {pos:?}");
    }
}
