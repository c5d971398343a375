//! One replica's machine and what is known of it between turns.
//!
//! Leaves to others: stages and commits (`run`), installs (`restore`), replicas that stopped (`remains`).
//! Invariant: `record` and `applied` are what the machine's last commit wrote.

use super::remains::Remains;
use super::run::Job;
use crate::arrivals::Wakeups;
use crate::codec::ReplicaRecord;
use crate::env::{Answers, Machine};
use crate::guard::{drop_guarded, guarded};
use crate::ids::{Generation, GroupId, LogPos, PollerId, ReplicaId};
use crate::task::{Applied, ApplyTask};
use std::sync::Arc;

/// One replica on its applier.
pub(super) struct Cell {
    /// The group.
    pub(super) group: GroupId,
    /// The replica.
    pub(super) replica: ReplicaId,
    /// Generation of the machine's contents.
    pub(super) generation: Generation,
    /// Kind's name.
    pub(super) kind: String,
    /// Owner of the replica.
    pub(super) poller: PollerId,
    /// Replica map and configuration after the last commit, `applied` aside.
    record: Arc<ReplicaRecord>,
    /// The last entry in that commit.
    pub(super) applied: LogPos,
    /// The machine.
    pub(super) machine: Box<dyn Machine>,
    /// Contents that an install has replaced, until the install is recorded in the log store.
    pub(super) superseded: Option<Box<dyn Machine>>,
    /// Something was applied since the last `Keep` snapshot.
    pub(super) unreported: bool,
}

impl Cell {
    /// A replica as boot or creation hands it over.
    pub(super) fn new(
        group: GroupId,
        replica: ReplicaId,
        generation: Generation,
        kind: String,
        machine: Box<dyn Machine>,
        poller: PollerId,
        record: ReplicaRecord,
    ) -> Cell {
        let (applied, record) = (record.applied, Arc::new(record));
        Cell { group, replica, generation, kind, poller, record, applied, machine, superseded: None, unreported: false }
    }

    /// What the machine's last commit wrote.
    pub(super) fn record(&self) -> ReplicaRecord {
        ReplicaRecord { applied: self.applied, ..(*self.record).clone() }
    }

    /// Other contents took the place of these, with this record.
    pub(super) fn set_record(&mut self, record: ReplicaRecord) {
        self.generation = record.generation;
        self.applied = record.applied;
        self.record = Arc::new(record);
    }

    /// Is the task meant for these contents? False for what was sent before a destruction or an install.
    pub(super) fn accepts(&self, task: &ApplyTask) -> bool {
        self.replica == task.replica && self.generation == task.generation
    }

    /// The replica gets entries of the new generation, so its install is recorded: the old contents may go.
    pub(super) fn drop_superseded(&mut self) {
        if let Some(old) = self.superseded.take() {
            destroy(self.group, old);
        }
    }

    /// After the commit: answers the callers, takes the new record over.
    pub(super) fn release(&mut self, job: Job, answers: Answers, wakeups: &mut Wakeups) -> Result<Applied, String> {
        (self.record, self.applied) = (job.record, job.applied);
        for (at, reply) in job.orphans {
            reply.fail(super::run::unknown(at));
        }
        let waiting = job.waiting;
        guarded(|| {
            self.machine.reply(answers, waiting, wakeups);
            Ok(())
        })?;
        Ok(Applied::Upto { group: self.group, replica: self.replica, index: self.applied.index })
    }

    /// The machine failed: it is let go, and its contents stay for whoever wants to know why.
    pub(super) fn stop(self) -> Remains {
        drop_guarded(self.machine);
        Remains {
            group: self.group,
            replica: self.replica,
            kind: self.kind,
            generations: vec![self.generation],
            superseded: self.superseded,
        }
    }

    /// Lets the machine go; its contents stay.
    pub(super) fn close(self) {
        drop_guarded((self.machine, self.superseded));
    }

    /// The replica is no more: deletes its contents.
    pub(super) fn destroy(self) {
        self.superseded.into_iter().chain([self.machine]).for_each(|machine| destroy(self.group, machine));
    }
}

/// Deletes contents.
pub(super) fn destroy(group: GroupId, machine: Box<dyn Machine>) {
    note_failure(group, guarded(|| machine.destroy()));
}

/// What is left after a failure is garbage that the next start deletes (`MachineKind::retain`).
pub(super) fn note_failure(group: GroupId, destroyed: Result<(), String>) {
    if let Err(why) = destroyed {
        tracing::warn!(%group, why, "contents of a state machine were not deleted, the next start will");
    }
}
