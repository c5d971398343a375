//! Published snapshots at boot: the contents of volatile machines (boot.md 4 and 5, api.md note 6).
//!
//! Leaves to others: making them (`snapshotter`), publishing received ones (applier).
//! Invariant: the newest published snapshot of a group is the position its log may be truncated behind, so it is
//! never removed while the group lives, stopped or not.

use super::machines::Found;
use crate::codec::ReplicaRecord;
use crate::env::{LoadError, MachineKind, SmError, SnapshotFiles, StoredGroup};
use crate::error::BootError;
use crate::ids::{Generation, GroupId, SpoolId};
use crate::spool::SpoolInput;
use std::collections::BTreeMap;

/// A published snapshot and the replica it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSnapshot {
    /// The file.
    pub spool: SpoolId,
    /// The replica's record at the snapshot's position.
    pub record: ReplicaRecord,
}

/// All published snapshots of the directory.
pub(super) struct Published {
    /// Ascending; `None`: the file's head is damaged.
    files: BTreeMap<SpoolId, Option<ReplicaRecord>>,
}

impl Published {
    /// Reads the head of each.
    pub(super) fn scan(files: &dyn SnapshotFiles) -> Result<Published, BootError> {
        let ids = files.published().map_err(io)?;
        let mut found = BTreeMap::new();
        for id in ids {
            let head = files.open(id).map_err(SmError::from).and_then(SpoolInput::open);
            if let Err(e) = &head {
                tracing::error!(spool = %id, error = %e, "a published snapshot cannot be read");
            }
            found.insert(id, head.ok().map(|h| h.record().clone()));
        }
        Ok(Published { files: found })
    }

    /// The id after the highest.
    pub(super) fn next_spool(&self) -> SpoolId {
        SpoolId(self.files.last_key_value().map_or(1, |(id, _)| id.0 + 1))
    }

    /// Opens a volatile machine and restores the newest snapshot of its group into it.
    pub(super) fn restore(
        &self,
        kind: &dyn MachineKind,
        files: &dyn SnapshotFiles,
        stored: &StoredGroup,
    ) -> Result<Found, SmError> {
        let of_group = self.files.iter().filter_map(|(id, r)| Some((*id, r.as_ref()?)));
        let newest = of_group.filter(|(_, r)| belongs(stored, r)).max_by_key(|(id, r)| (r.applied.index, *id));
        let Some((spool, record)) = newest else {
            let machine = kind.open(stored.group, stored.replica, stored.generation)?;
            return Ok(Found { machine, record: None, spool: None });
        };
        let generation = generation_of(stored, record);
        // Whole before the first byte reaches the machine.
        SpoolInput::open(files.open(spool)?)?.verify()?;
        let mut input = SpoolInput::open(files.open(spool)?)?;
        input.adopt(stored.replica, generation);
        let record = input.record().clone();
        let mut machine = kind.open(stored.group, stored.replica, generation)?;
        machine.restore(&mut input)?;
        Ok(Found { machine, record: Some(record), spool: Some(spool) })
    }

    /// Removes all but `kept` and the files of stopped groups. Damaged ones stay too: they are evidence.
    pub(super) fn remove_others(
        &self,
        files: &dyn SnapshotFiles,
        kept: &[SpoolId],
        stopped: &[GroupId],
    ) -> Result<(), BootError> {
        for (id, record) in &self.files {
            let Some(record) = record else { continue };
            if !kept.contains(id) && !stopped.contains(&record.group) {
                files.remove(*id).map_err(io)?;
            }
        }
        Ok(())
    }
}

/// Made by this replica, or installed into it: a file of an earlier life of the group here may come back after a crash
/// (a removal is not durable), and its position means nothing in this log.
fn belongs(stored: &StoredGroup, record: &ReplicaRecord) -> bool {
    let installed = record.applied == stored.truncated.pos;
    let being_installed = stored.intent.as_ref().is_some_and(|i| record.applied == i.pos);
    record.group == stored.group && (record.replica == stored.replica || installed || being_installed)
}

/// A snapshot that an install was about to record belongs to the generation of its intent.
fn generation_of(stored: &StoredGroup, record: &ReplicaRecord) -> Generation {
    match &stored.intent {
        Some(intent) if intent.pos == record.applied => intent.generation,
        _ => stored.generation,
    }
}

fn io(e: std::io::Error) -> BootError {
    LoadError::Io(format!("snapshot files: {e}")).into()
}
