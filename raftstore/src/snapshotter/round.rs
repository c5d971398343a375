//! One file for the snapshots of many volatile machines: one sync, one rename, one sync of the directory.
//!
//! What counts in files that are mostly dead is copied along, so that all files together stay within twice what counts
//! (and the newest round). Leaves to others: which snapshot counts (`kept`), whom to tell (`build`).
//! Invariant: what is reported as kept was synced, read back, verified and published.

use super::Spools;
use super::build::Order;
use crate::boot::KeptSnapshot;
use crate::codec::ReplicaRecord;
use crate::env::{SmError, SnapshotSource};
use crate::guard::guarded;
use crate::ids::{GroupId, SpoolId};
use crate::spool::{Extent, SpoolBuilder, SpoolFile, SpoolInput};
use std::collections::BTreeSet;

/// Bytes after which a round ends, and the most that it copies from older ones.
const ROUND_BYTES: u64 = 64 << 20;
/// Bytes that are copied at once.
const BLOCK: usize = 64 << 10;

/// A round being written.
pub(super) struct Round {
    spool: SpoolId,
    file: SpoolFile,
    /// What was written, for whom.
    written: Vec<(Order, Extent)>,
    /// What was copied from other files: as it lies there, and where it lies now.
    copied: Vec<(KeptSnapshot, Extent)>,
}

/// What became of a round.
pub(super) struct Published {
    pub(super) spool: SpoolId,
    /// Its length. Bytes.
    pub(super) size: u64,
    /// Whole.
    pub(super) good: Vec<(Order, Extent)>,
    /// Not what was written, and why.
    pub(super) bad: Vec<(Order, String)>,
    /// Copies, whole.
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

    /// Room for copies. Bytes.
    pub(super) fn room(&self) -> u64 {
        ROUND_BYTES
    }

    /// Copies a snapshot that counts. What cannot be read stays where it is.
    pub(super) fn copy(&mut self, spools: &Spools, kept: KeptSnapshot) -> Result<(), SmError> {
        let mut source = spools.files.open(kept.spool)?;
        let at = self.file.len();
        let mut block = vec![0; BLOCK];
        let mut from = kept.extent.at;
        while from < kept.extent.end() {
            let want = usize::try_from(kept.extent.end() - from).unwrap_or(BLOCK).min(BLOCK);
            let n = source.read_at(from, &mut block[..want])?;
            if n == 0 {
                return Err(SmError::Corruption("a kept snapshot file is shorter than it was".to_owned()));
            }
            self.file.append(&block[..n])?;
            from += n as u64;
        }
        self.copied.push((kept, Extent { at, len: self.file.len() - at }));
        Ok(())
    }

    /// Makes it durable, reads it back, publishes it.
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
        self.file.sync().map_err(|e| e.to_string())?;
        let (spool, size) = (self.spool, self.file.len());
        let mut done = Published { spool, size, good: Vec::new(), bad: Vec::new(), copied: Vec::new() };
        let read_back: Vec<_> =
            self.written.iter().map(|(order, extent)| verify(spools, spool, *extent, &order.record)).collect();
        for (kept, extent) in self.copied.drain(..) {
            match verify_copy(spools, &kept, spool, extent) {
                Ok(()) => done.copied.push(KeptSnapshot { spool, extent, ..kept }),
                Err(error) => tracing::error!(spool = %kept.spool, %error, "a kept snapshot was not copied"),
            }
        }
        spools.files.publish(spool).map_err(|e| e.to_string())?;
        for ((order, extent), result) in self.written.drain(..).zip(read_back) {
            match result {
                Ok(()) => done.good.push((order, extent)),
                Err(error) => done.bad.push((order, error.to_string())),
            }
        }
        Ok(done)
    }
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

/// The record in the file may be that of the replica which sent the snapshot.
fn verify_copy(spools: &Spools, kept: &KeptSnapshot, spool: SpoolId, extent: Extent) -> Result<(), SmError> {
    let original = SpoolInput::open_at(spools.files.open(kept.spool)?, kept.extent)?;
    verify(spools, spool, extent, original.record())
}
