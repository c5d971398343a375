//! Step 3 of an install (boot.md 5): a verified spool becomes the machine's contents under a new generation.
//!
//! Leaves to others: the intent before it and the install record after it (replica), receiving (`snapshotter`).
//! Invariant: the old contents stand until the new ones are durable and recorded: a crash at any point finds one whole.

use super::Applier;
use super::cell::Cell;
use crate::codec::ReplicaRecord;
use crate::env::{Install, Machine, MachineKind, Reader, SmError, SnapshotFiles};
use crate::guard::guarded;
use crate::ids::{GroupId, ReplicaId, SpoolId};
use crate::spool::SpoolInput;
use crate::task::{Applied, PollerMsg, SnapshotTask};

impl Applier {
    /// Restores, then tells the owner, who records the install.
    pub(super) fn restore(&mut self, group: GroupId, replica: ReplicaId, install: Box<Install>, spool: SpoolId) {
        let Some(cell) = self.cells.get_mut(&group).filter(|c| c.replica == replica) else {
            self.mail.snapshotter(SnapshotTask::Drop(spool));
            return;
        };
        let kind = self.kinds.get(&cell.kind).expect("a cell opens only with a registered kind").clone();
        match guarded(|| restored(&*kind, &*self.files, cell, &install, spool)) {
            Ok((machine, reader, record)) => {
                let done = if kind.is_durable() {
                    SnapshotTask::Drop(spool)
                } else {
                    SnapshotTask::Kept { spool, record: Box::new(record.clone()), poller: cell.poller }
                };
                cell.install(machine, record);
                self.mail.snapshotter(done);
                let event = Applied::Restored { group, replica, install, reader };
                self.mail.poller(cell.poller, PollerMsg::Applied(vec![event]));
            }
            Err(why) => {
                self.mail.snapshotter(SnapshotTask::Drop(spool));
                self.quarantine(group, &format!("restore: {why}"));
                if let Some(remains) = self.remains.get_mut(&group) {
                    remains.generations.push(install.generation); // half of it, perhaps
                }
            }
        }
    }
}

/// Durable on return: the machine's own write, or the spool itself published for a volatile machine.
fn restored(
    kind: &dyn MachineKind,
    files: &dyn SnapshotFiles,
    cell: &Cell,
    install: &Install,
    spool: SpoolId,
) -> Result<(Box<dyn Machine>, Reader, ReplicaRecord), SmError> {
    let mut input = SpoolInput::open(files.open(spool)?)?;
    if input.record().group != cell.group || input.record().applied != install.pos {
        return Err(SmError::Corruption("the spooled snapshot is not the one to be installed".to_owned()));
    }
    input.adopt(cell.replica, install.generation);
    let record = input.record().clone();
    let mut machine = kind.open(cell.group, cell.replica, install.generation)?;
    machine.restore(&mut input)?;
    input.verify()?; // a machine that stops before the end has not seen the trailer
    if !kind.is_durable() {
        files.publish(spool)?;
    }
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
