//! Step 3 of an install (boot.md 5): a verified spool becomes the machine's contents under a new generation.
//!
//! Leaves to others: the intent before it and the install record after it (replica), receiving (`snapshotter`).
//! Invariant: the old contents stand until the new ones are durable and recorded: a crash at any point finds one whole.

use super::Applier;
use super::cell::Cell;
use crate::codec::ReplicaRecord;
use crate::env::{Machine, MachineKind, Reader, SmError, SnapshotFiles};
use crate::guard::{drop_guarded, guarded};
use crate::ids::SpoolId;
use crate::spool::SpoolInput;
use crate::task::{Applied, ApplierMsg, PollerMsg, RestoreTask, SnapshotTask};
use std::collections::BTreeMap;

/// Most installs of a round.
const MAX_ROUND: usize = 64;
/// Bytes of spools after which a round takes no further one: while it lasts no other group gets entries.
const ROUND_BYTES: u64 = 16 << 20;

/// Written, and not known to be durable.
struct Written {
    task: RestoreTask,
    /// Kind's name.
    kind: String,
    machine: Box<dyn Machine>,
    reader: Reader,
    record: ReplicaRecord,
}

impl Applier {
    /// This one and those right behind it become durable together: with many groups behind, a flush each would keep the applier
    /// from everything else.
    pub(super) fn restore_round(&mut self, first: RestoreTask) {
        let (mut bytes, mut taken) = (0, 0);
        let mut round: BTreeMap<String, Vec<Written>> = BTreeMap::new();
        let mut next = Some(first);
        while let Some(task) = next.take() {
            bytes += task.size;
            taken += 1;
            if let Some(written) = self.restore(task) {
                round.entry(written.kind.clone()).or_default().push(written);
            }
            if taken < MAX_ROUND && bytes < ROUND_BYTES {
                next = self.next_restore();
            }
        }
        round.into_iter().for_each(|(kind, written)| self.persist(&kind, written));
    }

    fn next_restore(&mut self) -> Option<RestoreTask> {
        match self.inbox.take()? {
            ApplierMsg::Restore(task) => Some(task),
            other => {
                self.inbox.put_back(other);
                None
            }
        }
    }

    fn restore(&mut self, task: RestoreTask) -> Option<Written> {
        let Some(cell) = self.cells.get(&task.group).filter(|c| c.replica == task.replica) else {
            self.mail.snapshotter(SnapshotTask::Drop(task.spool));
            return None;
        };
        let kind = self.kinds.get(&cell.kind).expect("a cell opens only with a registered kind").clone();
        match guarded(|| restored(&*kind, &*self.files, cell, &task)) {
            Ok((machine, reader, record)) => Some(Written { kind: cell.kind.clone(), task, machine, reader, record }),
            Err(why) => {
                self.quarantine(task.group, &format!("restore: {why}"));
                self.give_up(&task);
                None
            }
        }
    }

    /// What durable machines wrote, or the spools themselves as those of volatile ones.
    fn persist(&mut self, name: &str, round: Vec<Written>) {
        let kind = self.kinds.get(name).expect("a cell opens only with a registered kind").clone();
        let durable = match kind.is_durable() {
            true => guarded(|| kind.persist())
                .inspect_err(|why| self.fail_kind_everywhere(name, &format!("persist failed: {why}"))),
            false => self.publish(&round),
        };
        match durable {
            Ok(()) => round.into_iter().for_each(|written| self.finish(kind.is_durable(), written)),
            Err(_told) => {
                for Written { task, machine, reader, .. } in round {
                    drop_guarded((machine, reader));
                    self.give_up(&task);
                }
            }
        }
    }

    fn publish(&mut self, round: &[Written]) -> Result<(), String> {
        let spools: Vec<SpoolId> = round.iter().map(|written| written.task.spool).collect();
        self.files.publish(&spools).map_err(|error| {
            let why = format!("restore: the snapshot was not published: {error}");
            round.iter().for_each(|written| self.quarantine(written.task.group, &why));
            why
        })
    }

    /// The contents are the cell's; its owner records the install.
    fn finish(&mut self, is_durable: bool, written: Written) {
        let Written { task: RestoreTask { group, replica, install, spool, .. }, machine, reader, record, .. } = written;
        let cell = self.cells.get_mut(&group).expect("it was there, and one group has one install under way");
        let done = match is_durable {
            true => SnapshotTask::Drop(spool),
            false => SnapshotTask::Kept { spool, record: Box::new(record.clone()), poller: cell.poller },
        };
        cell.install(machine, record);
        self.mail.snapshotter(done);
        let event = Applied::Restored { group, replica, install, reader };
        self.mail.poller(cell.poller, PollerMsg::Applied(vec![event]));
    }

    /// The replica has stopped; half of the new contents are there, perhaps.
    fn give_up(&mut self, task: &RestoreTask) {
        self.mail.snapshotter(SnapshotTask::Drop(task.spool));
        if let Some(remains) = self.remains.get_mut(&task.group) {
            remains.generations.push(task.install.generation);
        }
    }
}

/// The machine has the spool's contents, not durable yet.
fn restored(
    kind: &dyn MachineKind,
    files: &dyn SnapshotFiles,
    cell: &Cell,
    RestoreTask { install, spool, .. }: &RestoreTask,
) -> Result<(Box<dyn Machine>, Reader, ReplicaRecord), SmError> {
    let mut input = SpoolInput::open(files.open(*spool)?)?;
    if input.record().group != cell.group || input.record().applied != install.pos {
        return Err(SmError::Corruption("the spooled snapshot is not the one to be installed".to_owned()));
    }
    input.adopt(cell.replica, install.generation);
    let record = input.record().clone();
    let mut machine = kind.open(cell.group, cell.replica, install.generation)?;
    machine.restore(&mut input)?;
    input.verify()?; // a machine that stops before the end has not seen the trailer
    let reader = machine.reader();
    Ok((machine, reader, record))
}

impl Cell {
    /// The new contents are durable. The old ones stay until the install is recorded.
    fn install(&mut self, machine: Box<dyn Machine>, record: ReplicaRecord) {
        let old = std::mem::replace(&mut self.machine, machine);
        // An install after an install that never got an entry: only the newest old contents can still be needed,
        // and the log store holds the generation before the last recorded install at most.
        if let Some(older) = self.superseded.replace(old) {
            super::cell::destroy(self.group, older);
        }
        self.set_record(record);
        self.unreported = false;
    }
}
