//! One file for the snapshots of many volatile machines: one sync, one rename, one sync of the directory.
//!
//! What counts in files that are mostly dead is copied along, so that all files together stay within twice what counts
//! (and the newest round). Leaves to others: which snapshot counts (`kept`), whom to tell (`build`).
//! Invariant: a file is published only if all of it was read back and is what was written: a start believes it.

use super::Spools;
use super::build::Order;
use crate::boot::KeptSnapshot;
use crate::codec::ReplicaRecord;
use crate::env::{SmError, SnapshotSource, SpoolReader};
use crate::guard::guarded;
use crate::ids::{GroupId, SpoolId};
use crate::spool::{Extent, SpoolBuilder, SpoolFile, SpoolInput};
use std::collections::BTreeSet;

/// Bytes after which a round ends, and the most that it copies from older ones.
pub(super) const ROUND_BYTES: u64 = 64 << 20;
/// Bytes that are copied at once.
const BLOCK: usize = 64 << 10;

/// A round being written.
pub(super) struct Round {
    spool: SpoolId,
    file: SpoolFile,
    /// What was written, for whom.
    written: Vec<(Order, Extent)>,
    /// What was copied from other files: as it counts, but in this one; and the record in it, which may be that of the replica
    /// that sent the snapshot.
    copied: Vec<(KeptSnapshot, ReplicaRecord)>,
}

/// What became of a round.
pub(super) struct Published {
    pub(super) spool: SpoolId,
    /// Its length. Bytes.
    pub(super) size: u64,
    /// What was written, for whom.
    pub(super) written: Vec<(Order, Extent)>,
    /// Copies.
    pub(super) copied: Vec<KeptSnapshot>,
}

impl Round {
    /// A round of nothing.
    pub(super) fn begin(spools: &mut Spools) -> Result<Round, String> {
        let spool = spools.take_id();
        let file = spools.files.create(spool).map_err(|e| e.to_string())?;
        Ok(Round { spool, file: SpoolFile::new(file), written: Vec::new(), copied: Vec::new() })
    }

    /// Adds a machine's contents. On failure the round goes on unless it `is_broken`.
    pub(super) fn add(&mut self, order: Order, source: Box<dyn SnapshotSource>) -> Result<(), String> {
        let extent = append(&mut self.file, &order.record, source)?;
        self.written.push((order, extent));
        Ok(())
    }

    /// Does nobody know what the file holds?
    pub(super) fn is_broken(&self) -> bool {
        self.file.is_broken()
    }

    /// Is it time to end it?
    pub(super) fn is_full(&self) -> bool {
        self.file.len() >= ROUND_BYTES
    }

    /// The replica is gone.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.written.retain(|(order, _)| order.group != group);
    }

    /// Whose snapshots are in it.
    pub(super) fn groups(&self) -> BTreeSet<GroupId> {
        self.written.iter().map(|(order, _)| order.group).collect()
    }

    /// Copies a snapshot that counts. One that is not whole stays where it is, and costs the round nothing.
    pub(super) fn copy(&mut self, spools: &Spools, kept: KeptSnapshot) -> Result<(), SmError> {
        let inside = SpoolInput::open_at(spools.files.open(kept.spool)?, kept.extent)?.verify()?;
        let at = self.file.len();
        if let Err(error) = copy_bytes(&mut self.file, &mut *spools.files.open(kept.spool)?, kept.extent) {
            self.file.give_up();
            return Err(error);
        }
        let extent = Extent { at, len: self.file.len() - at };
        self.copied.push((KeptSnapshot { spool: self.spool, extent, ..kept }, inside));
        Ok(())
    }

    /// Reads it back, makes it durable under its name.
    pub(super) fn publish(mut self, spools: &mut Spools) -> Result<Published, (Vec<Order>, String)> {
        match self.try_publish(spools) {
            Ok(published) => Ok(published),
            Err(why) => Err((self.give_up(spools), why)),
        }
    }

    /// Removes the file; who waits for it.
    pub(super) fn give_up(self, spools: &mut Spools) -> Vec<Order> {
        spools.remove(self.spool);
        self.written.into_iter().map(|(order, _)| order).collect()
    }

    fn try_publish(&mut self, spools: &Spools) -> Result<Published, String> {
        self.file.flush().map_err(|e| e.to_string())?;
        let written = self.written.iter().map(|(order, extent)| (*extent, &order.record));
        let copied = self.copied.iter().map(|(kept, inside)| (kept.extent, inside));
        for (extent, record) in written.chain(copied) {
            verify(spools, self.spool, extent, record).map_err(|e| e.to_string())?;
        }
        spools.files.publish(&[self.spool]).map_err(|e| e.to_string())?;
        Ok(Published {
            spool: self.spool,
            size: self.file.len(),
            written: std::mem::take(&mut self.written),
            copied: self.copied.drain(..).map(|(kept, _)| kept).collect(),
        })
    }
}

fn copy_bytes(to: &mut SpoolFile, from: &mut dyn SpoolReader, extent: Extent) -> Result<(), SmError> {
    let mut block = vec![0; BLOCK];
    let mut at = extent.at;
    while at < extent.end() {
        let want = usize::try_from(extent.end() - at).unwrap_or(BLOCK).min(BLOCK);
        let n = from.read_at(at, &mut block[..want])?;
        if n == 0 {
            return Err(SmError::Corruption("a kept snapshot file is shorter than it was".to_owned()));
        }
        to.append(&block[..n])?;
        at += n as u64;
    }
    Ok(())
}

/// Writes a machine's contents behind what the file holds.
pub(super) fn append(
    file: &mut SpoolFile,
    record: &ReplicaRecord,
    source: Box<dyn SnapshotSource>,
) -> Result<Extent, String> {
    let mut builder = SpoolBuilder::begin(file, record).map_err(|e| e.to_string())?;
    match guarded(|| source.write_to(&mut builder)) {
        Ok(()) => builder.finish().map_err(|e| e.to_string()),
        Err(why) => {
            // If this fails, too, the file is broken, and says so.
            let _broken = builder.abandon();
            Err(why)
        }
    }
}

fn verify(spools: &Spools, spool: SpoolId, extent: Extent, written: &ReplicaRecord) -> Result<(), SmError> {
    let read_back = SpoolInput::open_at(spools.files.open(spool)?, extent)?.verify()?;
    if read_back == *written {
        return Ok(());
    }
    Err(SmError::Corruption("the file read back holds another record".to_owned()))
}
