//! What a node acknowledged, in a file that outlives its process: numbers at fixed places, written with plain `pwrite` (a
//! SIGKILL leaves the page cache alone).
//!
//! Leaves to others: what stamps mean (`load/books`), judging (`check`).
//! Invariant: a stamp or a number is here only if it was acknowledged. The last ones may be missing: evidence is lost, never made up.

use super::Failure;
use super::control::Outcome;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Keys of one node in one group at the most.
pub(crate) const KEYS: usize = 16_384;
/// Bytes of a number.
const WORD: u64 = 8;

/// The name of a key in a machine: it belongs to one node.
pub(crate) fn key_of(node: u64, key: usize) -> u64 {
    (node << 32) | key as u64
}

/// The key again.
pub(crate) fn place_of(name: u64) -> usize {
    (name & u64::from(u32::MAX)) as usize
}

/// Words: how many are of unknown outcome; how many each group acknowledged; for each group the last stamp of each key.
pub(crate) struct Ledger {
    file: File,
    groups: u64,
}

impl Ledger {
    /// Opens or begins it. Groups are 1 to `groups`.
    pub(crate) fn open(path: &Path, groups: u64) -> Result<Ledger, Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Ledger { file, groups })
    }

    /// So many are of unknown outcome.
    pub(crate) fn note_unknown(&self, n: u64) -> Result<(), Failure> {
        self.put(0, n)
    }

    /// A group acknowledged so many.
    pub(crate) fn note_acked(&self, group: u64, n: u64) -> Result<(), Failure> {
        self.put(group, n)
    }

    /// A group acknowledged this stamp.
    pub(crate) fn note_stamp(&self, group: u64, key: usize, stamp: u64) -> Result<(), Failure> {
        self.put(1 + self.groups + (group - 1) * KEYS as u64 + key as u64, stamp)
    }

    fn put(&self, place: u64, word: u64) -> Result<(), Failure> {
        Ok(self.file.write_all_at(&word.to_le_bytes(), place * WORD)?)
    }

    /// All of it, as what node `node` saw.
    pub(crate) fn read(&self, node: u64) -> Result<Outcome, Failure> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len())?];
        self.file.read_exact_at(&mut bytes, 0)?;
        // Holes and what lies behind the end are zeros, and mean nothing.
        let mut words =
            bytes.chunks_exact(WORD as usize).map(|w| w.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        let unknown = words.next().unwrap_or(0);
        let counts: BTreeMap<u64, u64> = (1..=self.groups).zip(words.by_ref()).filter(|(_, n)| *n > 0).collect();
        let mut out = Outcome { per_group: counts, ..Outcome::default() };
        out.unknown.insert("in the ledger".to_owned(), unknown);
        for (place, stamp) in words.enumerate().filter(|(_, stamp)| *stamp > 0) {
            let (group, key) = ((place / KEYS) as u64 + 1, place % KEYS);
            out.last.entry(group).or_default().insert(key_of(node, key), stamp);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_by_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path, 3).expect("new");
        assert!(ledger.read(2).expect("empty").last.is_empty());
        ledger.note_acked(3, 70).and_then(|()| ledger.note_stamp(3, 5, 900)).expect("written");
        ledger.note_stamp(1, KEYS - 1, u64::MAX - 1).and_then(|()| ledger.note_unknown(4)).expect("written");
        drop(ledger);
        let read = Ledger::open(&path, 3).and_then(|l| l.read(2)).expect("again");
        assert_eq!(read.per_group, BTreeMap::from([(3, 70)]));
        let last = |key, stamp| BTreeMap::from([(key_of(2, key), stamp)]);
        assert_eq!(read.last, BTreeMap::from([(1, last(KEYS - 1, u64::MAX - 1)), (3, last(5, 900))]));
        assert_eq!(place_of(key_of(2, KEYS - 1)), KEYS - 1);
        assert_eq!(read.unknown.values().sum::<u64>(), 4);
    }
}
