//! One replica's machine and what is known of it between turns.
//!
//! Leaves to others: stages and commits (`run`), installs (`restore`).
//! Invariant: `record` and `applied` are what the machine's last commit wrote; a stopped cell has no machine and never gets one.

use super::run::Job;
use crate::arrivals::Wakeups;
use crate::codec::ReplicaRecord;
use crate::env::{Answers, Machine};
use crate::guard::{drop_guarded, guarded};
use crate::ids::{Generation, GroupId, LogPos, PollerId, ReplicaId};
use crate::task::{Applied, ApplyTask};
use std::sync::Arc;

/// Is the machine believed?
pub(super) enum State {
    /// Yes.
    Open(Box<dyn Machine>),
    /// It failed; the replica is quarantined until the next start.
    Stopped,
}

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
    pub(super) state: State,
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
        let (state, applied, record) = (State::Open(machine), record.applied, Arc::new(record));
        Cell { group, replica, generation, kind, poller, record, applied, state, superseded: None, unreported: false }
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

    /// Is the task meant for these contents? False for what was sent before a failure, a destruction or an install.
    pub(super) fn accepts(&self, task: &ApplyTask) -> bool {
        let meant = self.replica == task.replica && self.generation == task.generation;
        meant && matches!(self.state, State::Open(_))
    }

    /// The replica gets entries of the new generation, so its install is recorded: the old contents may go.
    pub(super) fn drop_superseded(&mut self) {
        if let Some(old) = self.superseded.take() {
            destroy(self.group, old);
        }
    }

    /// After the commit: answers the callers, takes the new record over.
    pub(super) fn release(&mut self, job: Job, answers: Answers, wakeups: &mut Wakeups) -> Result<Applied, String> {
        let State::Open(machine) = &self.state else { unreachable!("staged with it in this turn") };
        (self.record, self.applied) = (job.record, job.applied);
        for (at, reply) in job.orphans {
            reply.fail(super::run::unknown(at));
        }
        let waiting = job.waiting;
        guarded(|| {
            machine.reply(answers, waiting, wakeups);
            Ok(())
        })?;
        Ok(Applied::Upto { group: self.group, replica: self.replica, index: self.applied.index })
    }

    /// Stops the replica; false if it was stopped before.
    pub(super) fn stop(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Open(machine) => {
                drop_guarded(machine);
                true
            }
            State::Stopped => false,
        }
    }

    /// Lets the machine go, with its contents if `destroyed`.
    pub(super) fn close(self, destroyed: bool) {
        let machines = self.superseded.into_iter().chain(match self.state {
            State::Open(machine) => Some(machine),
            State::Stopped => None,
        });
        for machine in machines {
            if destroyed {
                destroy(self.group, machine);
            } else {
                drop_guarded(machine);
            }
        }
    }
}

/// Deletes contents. What is left after a failure is garbage that the next start deletes (`MachineKind::retain`).
pub(super) fn destroy(group: GroupId, machine: Box<dyn Machine>) {
    if let Err(why) = guarded(|| machine.destroy()) {
        tracing::warn!(%group, why, "contents of a state machine were not deleted, the next start will");
    }
}
