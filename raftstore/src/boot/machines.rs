//! Opens one replica's machine at boot and finds the record of its contents.
//!
//! Leaves to others: the decision (`decide`), published snapshots of volatile machines (`volatile`).
//! Invariant: contents of another replica or generation are never read as this one's.

use super::decide::{Verdict, decide};
use super::volatile::Published;
use crate::codec::ReplicaRecord;
use crate::env::{Env, Machine, MachineKind, Meta, SmError, StoredGroup};
use crate::ids::{Generation, SpoolId};
use crate::spool::Extent;

/// A machine and what its contents say.
pub(super) struct Found {
    /// Opened, for volatile kinds restored.
    pub(super) machine: Box<dyn Machine>,
    /// Position of the contents; `None`: empty.
    pub(super) record: Option<ReplicaRecord>,
    /// The published snapshot that a volatile machine was restored from: its file, and where in it.
    pub(super) kept: Option<(SpoolId, Extent)>,
}

/// The machine to go on with: of the new generation if an install got as far as that, else of the stored one.
pub(super) fn find(
    kind: &dyn MachineKind,
    env: &Env,
    stored: &StoredGroup,
    published: &Published,
) -> Result<Found, SmError> {
    if !kind.is_durable() {
        return published.restore(kind, &*env.files, stored);
    }
    if let Some(intent) = &stored.intent {
        let (machine, record) = open(kind, stored, intent.generation)?;
        if decide(stored, record.as_ref()) == Verdict::FinishInstall {
            return Ok(Found { machine, record, kept: None });
        }
    }
    let (machine, record) = open(kind, stored, stored.generation)?;
    if decide(stored, record.as_ref()) != Verdict::Garbage {
        return Ok(Found { machine, record, kept: None });
    }
    machine.destroy()?;
    let (machine, record) = open(kind, stored, stored.generation)?;
    match record {
        None => Ok(Found { machine, record, kept: None }),
        Some(_) => Err(SmError::Corruption("contents of another replica could not be deleted".to_owned())),
    }
}

fn open(
    kind: &dyn MachineKind,
    stored: &StoredGroup,
    generation: Generation,
) -> Result<(Box<dyn Machine>, Option<ReplicaRecord>), SmError> {
    let mut machine = kind.open(stored.group, stored.replica, generation)?;
    let record = record_of(machine.recover()?)?;
    Ok((machine, record))
}

/// The replica record among a machine's meta pairs.
pub(crate) fn record_of(meta: Meta) -> Result<Option<ReplicaRecord>, SmError> {
    let found = meta.into_iter().find(|(key, _)| key == ReplicaRecord::META_KEY);
    found.map(|(_, value)| ReplicaRecord::decode(value)).transpose().map_err(|e| SmError::Corruption(e.to_string()))
}
