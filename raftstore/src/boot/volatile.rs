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
pub use crate::spool::Extent;
use crate::spool::{SpoolInput, Walk, walk};
use std::collections::{BTreeMap, BTreeSet};

/// A published snapshot and the replica it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSnapshot {
    /// The file.
    pub spool: SpoolId,
    /// Where in it.
    pub extent: Extent,
    /// The replica's record at the snapshot's position.
    pub record: ReplicaRecord,
}

/// The directory of snapshot files as boot leaves it.
#[derive(Clone, Debug, Default)]
pub struct KeptFiles {
    /// Newest snapshot of each volatile machine that runs.
    pub newest: Vec<KeptSnapshot>,
    /// All files: length in bytes.
    pub sizes: BTreeMap<SpoolId, u64>,
    /// Files that stay whatever happens to the snapshots in them: damaged ones, and those of groups that stand still.
    pub pinned: BTreeSet<SpoolId>,
    /// The id after the highest.
    pub next_spool: SpoolId,
}

/// All published snapshots of the directory.
pub(super) struct Published {
    /// Ascending.
    files: BTreeMap<SpoolId, Walk>,
}

impl Published {
    /// Reads the heads of all snapshots.
    pub(super) fn scan(files: &dyn SnapshotFiles) -> Result<Published, BootError> {
        let ids = files.published().map_err(io)?;
        Ok(Published { files: ids.into_iter().map(|id| (id, walk(files, id))).collect() })
    }

    /// Opens a volatile machine and restores the newest snapshot of its group into it.
    pub(super) fn restore(
        &self,
        kind: &dyn MachineKind,
        files: &dyn SnapshotFiles,
        stored: &StoredGroup,
    ) -> Result<Found, SmError> {
        let all = self.files.iter().flat_map(|(id, walk)| walk.snapshots.iter().map(|(extent, r)| (*id, *extent, r)));
        let of_group = all.filter(|(_, _, r)| belongs(stored, r));
        let newest = of_group.max_by_key(|(id, extent, r)| (r.applied.index, *id, extent.at));
        let Some((spool, extent, record)) = newest else {
            let machine = kind.open(stored.group, stored.replica, stored.generation)?;
            return Ok(Found { machine, record: None, kept: None });
        };
        let generation = generation_of(stored, record);
        // Whole before the first byte reaches the machine.
        SpoolInput::open_at(files.open(spool)?, extent)?.verify()?;
        let mut input = SpoolInput::open_at(files.open(spool)?, extent)?;
        input.adopt(stored.replica, generation);
        let record = input.record().clone();
        let mut machine = kind.open(stored.group, stored.replica, generation)?;
        machine.restore(&mut input)?;
        Ok(Found { machine, record: Some(record), kept: Some((spool, extent)) })
    }

    /// Removes the files in which nothing is of use: neither in `newest`, nor of a stopped group, nor damaged, which is evidence.
    pub(super) fn remove_others(
        self,
        files: &dyn SnapshotFiles,
        newest: Vec<KeptSnapshot>,
        stopped: &[GroupId],
    ) -> Result<KeptFiles, BootError> {
        let next_spool = SpoolId(self.files.last_key_value().map_or(1, |(id, _)| id.0 + 1));
        let is_used: BTreeSet<SpoolId> = newest.iter().map(|k| k.spool).collect();
        let mut kept = KeptFiles { newest, next_spool, ..KeptFiles::default() };
        for (id, walk) in self.files {
            if walk.is_damaged || walk.snapshots.iter().any(|(_, r)| stopped.contains(&r.group)) {
                kept.pinned.insert(id);
            } else if !is_used.contains(&id) {
                files.remove(id).map_err(io)?;
                continue;
            }
            kept.sizes.insert(id, walk.size);
        }
        Ok(kept)
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
