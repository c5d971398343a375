//! The durable watermark: the sequence number of the last synced write, in a file of its own beside the database.
//!
//! RocksDB's recovery ends silently at damage; below this mark that is lost log, above it an unsynced tail (boot.md 9).
//! Two slots of 36 bytes, a page apart: `magic 8 | store u64 | generation u64 | sequence u64 | crc32c u32`, written in
//! turn, so that a torn write leaves the other one. Written after each sync (exact when the process dies), synced itself
//! by the next tick (a power cut lowers the mark by what was synced since): never by a write, which would wait for it.
//! Invariant: no slot ever holds a number whose write was not on disk before.

use crate::envelope::StoreId;
use crate::error::{Doing, OpenError};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Name of the file.
pub(crate) const FILE: &str = "WATERMARK";
const MAGIC: [u8; 8] = *b"PTNMARK\n";
/// Bytes of a slot.
const SLOT: usize = 36;
/// Distance of the slots.
pub(crate) const SPACING: u64 = 4096;

/// The open sidecar.
pub(crate) struct Watermark {
    /// Both slots.
    file: Arc<File>,
    /// Goes into each slot.
    store: StoreId,
    /// Of the newest slot; its parity says where it is.
    generation: u64,
    /// The mark.
    sequence: u64,
    /// Written since it was handed out to be synced?
    dirty: bool,
}

impl Watermark {
    /// A new sidecar at 0, both slots written and synced.
    pub(crate) fn create(dir: &Path, store: StoreId) -> Result<(), OpenError> {
        let written = File::create_new(dir.join(FILE)).and_then(|file| {
            for generation in [0, 1] {
                file.write_all_at(&encode(store, generation, 0), generation * SPACING)?;
            }
            file.sync_all()
        });
        written.doing(|| format!("write {FILE}"))
    }

    /// Opens the sidecar. Missing, or no slot readable: refused.
    pub(crate) fn open(dir: &Path, store: StoreId) -> Result<Watermark, OpenError> {
        let file = match OpenOptions::new().read(true).write(true).open(dir.join(FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NotWhole(format!("{FILE} is missing")));
            }
            other => other.doing(|| format!("open {FILE}"))?,
        };
        let mut newest = None;
        for at in [0, SPACING] {
            let mut slot = [0; SLOT];
            match file.read_exact_at(&mut slot, at) {
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e).doing(|| format!("read {FILE}")),
                _ => newest = newest.max(decode(&slot, store, at)),
            }
        }
        let (generation, sequence) =
            newest.ok_or_else(|| OpenError::NotWhole(format!("both slots of {FILE} are damaged")))?;
        Ok(Watermark { file: Arc::new(file), store, generation, sequence, dirty: false })
    }

    /// The mark.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A write up to `sequence` is on disk.
    pub(crate) fn record(&mut self, sequence: u64) -> io::Result<()> {
        self.generation += 1;
        self.sequence = sequence;
        let slot = encode(self.store, self.generation, sequence);
        self.file.write_all_at(&slot, (self.generation % 2) * SPACING)?;
        self.dirty = true;
        Ok(())
    }

    /// Syncs now.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.take_unsynced().map_or(Ok(()), |file| file.sync_data())
    }

    /// The file, if it must be synced. Marks that are written meanwhile are for the next time.
    pub(crate) fn take_unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.dirty).then(|| Arc::clone(&self.file))
    }
}

fn encode(store: StoreId, generation: u64, sequence: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..16].copy_from_slice(&store.0.to_le_bytes());
    slot[16..24].copy_from_slice(&generation.to_le_bytes());
    slot[24..32].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..32]);
    slot[32..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// (generation, sequence) of a slot that is whole, of this store and in its place.
fn decode(slot: &[u8; SLOT], store: StoreId, at: u64) -> Option<(u64, u64)> {
    let number = |from: usize| slot[from..from + 8].try_into().map(u64::from_le_bytes).ok();
    let (generation, sequence) = (number(16)?, number(24)?);
    let whole = *slot == encode(store, generation, sequence) && (generation % 2) * SPACING == at;
    whole.then_some((generation, sequence))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts_and_two_damaged_ones_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreId(7);
        Watermark::create(dir.path(), store).unwrap();
        let mut mark = Watermark::open(dir.path(), store).unwrap();
        assert_eq!(mark.sequence(), 0);
        for sequence in [5, 9, 12] {
            mark.record(sequence).unwrap();
            assert_eq!(Watermark::open(dir.path(), store).unwrap().sequence(), sequence);
        }
        assert!(Watermark::open(dir.path(), StoreId(8)).is_err());
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for (slot, left) in [(0, 9), (1, 12)] {
            // generation 4 (12) is in slot 0, generation 3 (9) in slot 1
            for byte in 0..SLOT {
                let mut bad = whole.clone();
                bad[slot * SPACING as usize + byte] ^= 1;
                std::fs::write(&path, &bad).unwrap();
                assert_eq!(Watermark::open(dir.path(), store).unwrap().sequence(), left);
                bad[(1 - slot) * SPACING as usize + byte] ^= 1;
                std::fs::write(&path, &bad).unwrap();
                assert!(matches!(Watermark::open(dir.path(), store), Err(OpenError::NotWhole(_))));
            }
        }
        std::fs::write(&path, &whole[..100]).unwrap();
        assert_eq!(Watermark::open(dir.path(), store).unwrap().sequence(), 12);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Watermark::open(dir.path(), store), Err(OpenError::NotWhole(_))));
    }
}
