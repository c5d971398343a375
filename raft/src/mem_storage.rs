//! The stable log in memory: what the transcripts, the schedules and the simulator run on.
//!
//! Leaves to others: durability. One dummy position stands for everything that was compacted or
//! covered by a snapshot. Invariant: entries are consecutive behind `base`.

use crate::entries::Entries;
use crate::ids::{Index, LogPos, ReplicaId, Term};
use crate::state::{HardState, Snapshot};
use crate::storage::{InitialState, Storage, StorageError};

/// A snapshot that is not newer than what the storage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("requested index is older than the existing snapshot")]
pub struct SnapshotOutOfDate;

/// A `Storage` in memory, with the writes that a driver needs.
#[derive(Clone, Debug, Default, Hash)]
pub struct MemStorage {
    /// Last stored hard state.
    hard_state: HardState,
    /// Last installed or created snapshot; also the source of the initial configuration.
    snapshot: Snapshot,
    /// Position of the last entry that is gone. Invariant: readable by `term`.
    base: LogPos,
    /// Entries behind `base`, consecutive.
    entries: Entries,
    /// Index of the last entry, or of `base`: asked for more often than anything else.
    last: Index,
}

impl MemStorage {
    /// An empty storage: first index 1, last index 0.
    #[must_use]
    pub fn new() -> MemStorage {
        MemStorage::default()
    }

    /// Stores the hard state.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The hard state as stored.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Replaces everything from the first given index on. What is compacted already is left out.
    pub fn append(&mut self, entries: &Entries) {
        for run in entries.runs() {
            let new = run.between(self.first_index(), Index(u64::MAX));
            let Some(first) = new.first().map(|e| e.index) else { continue };
            assert!(first <= self.last_index().next(), "gap in the log: {first} after {}", self.last_index());
            self.entries.cut_from(first);
            self.last = new.end_index().prev();
            self.entries.push(new);
        }
    }

    /// Empties the log behind the snapshot.
    pub fn install_snapshot(&mut self, snapshot: Snapshot) -> Result<(), SnapshotOutOfDate> {
        if !self.snapshot.is_empty() && self.snapshot.meta.index >= snapshot.meta.index {
            return Err(SnapshotOutOfDate);
        }
        self.base = snapshot.meta.pos();
        self.last = snapshot.meta.index;
        self.entries.clear();
        self.snapshot = snapshot;
        Ok(())
    }

    /// Remembers `snapshot` of the own state machine; the log stays.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) -> Result<(), SnapshotOutOfDate> {
        if self.snapshot.meta.index >= snapshot.meta.index {
            return Err(SnapshotOutOfDate);
        }
        self.snapshot = snapshot;
        Ok(())
    }

    /// Drops every entry up to and including `index`.
    pub fn compact(&mut self, index: Index) -> Result<(), StorageError> {
        if index <= self.base.index {
            return Err(StorageError::Compacted);
        }
        let term = self.term(index)?;
        self.entries.drop_to(index);
        self.base = LogPos::new(term, index);
        Ok(())
    }

    /// All entries that are stored.
    #[must_use]
    pub fn all_entries(&self) -> &Entries {
        &self.entries
    }
}

impl Storage for MemStorage {
    fn initial_state(&self) -> InitialState {
        InitialState { hard_state: self.hard_state, conf_state: self.snapshot.meta.conf_state.clone() }
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        if low < self.first_index() {
            return Err(StorageError::Compacted);
        }
        if high > self.last_index().next() {
            return Err(StorageError::Unavailable);
        }
        self.entries.read(low, high, max_bytes, page);
        Ok(())
    }

    #[inline]
    fn term(&self, index: Index) -> Result<Term, StorageError> {
        if index < self.base.index {
            return Err(StorageError::Compacted);
        }
        if index == self.base.index {
            return Ok(self.base.term);
        }
        self.entries.get(index).map(|e| e.term).ok_or(StorageError::Unavailable)
    }

    #[inline]
    fn first_index(&self) -> Index {
        self.base.index.next()
    }

    #[inline]
    fn last_index(&self) -> Index {
        self.last
    }

    fn snapshot(&self, _to: ReplicaId) -> Result<Snapshot, StorageError> {
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use crate::state::SnapshotMeta;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Entries {
        range.map(|i| Entry { term: Term(term), index: Index(i), ..Entry::default() }).collect::<Vec<_>>().into()
    }

    fn snapshot(index: u64) -> Snapshot {
        let meta = SnapshotMeta { index: Index(index), term: Term(2), ..SnapshotMeta::default() };
        Snapshot { meta, ..Snapshot::default() }
    }

    #[test]
    fn append_replaces_overlap_and_leaves_out_what_is_compacted() {
        let mut storage = MemStorage::new();
        storage.append(&entries(1..=5, 1));
        storage.append(&entries(3..=4, 2));
        assert_eq!((storage.last_index(), storage.term(Index(3))), (Index(4), Ok(Term(2))));
        storage.compact(Index(2)).expect("not compacted yet");
        storage.append(&entries(1..=3, 3));
        assert_eq!((storage.first_index(), storage.last_index()), (Index(3), Index(3)));
        assert_eq!((storage.term(Index(2)), storage.term(Index(3))), (Ok(Term(1)), Ok(Term(3))));
        assert_eq!(storage.term(Index(1)), Err(StorageError::Compacted));
        assert_eq!(storage.term(Index(4)), Err(StorageError::Unavailable));
        assert_eq!(storage.compact(Index(2)), Err(StorageError::Compacted));
    }

    #[test]
    fn reads_give_at_least_one_entry() {
        let mut storage = MemStorage::new();
        storage.append(&entries(1..=5, 1));
        let len = |low, high, max| {
            let mut page = Entries::new();
            storage.entries(Index(low), Index(high), max, &mut page).map(|()| page.len())
        };
        assert_eq!([0, 4, 8, 11, u64::MAX].map(|max| len(2, 6, max)), [1, 1, 2, 2, 4].map(Ok));
        assert_eq!(len(0, 2, 9), Err(StorageError::Compacted));
        assert_eq!(len(2, 7, 9), Err(StorageError::Unavailable));
    }

    #[test]
    fn a_snapshot_empties_the_log_and_must_be_newer() {
        let mut storage = MemStorage::new();
        storage.append(&entries(1..=5, 1));
        storage.install_snapshot(snapshot(3)).expect("the first one");
        assert_eq!((storage.first_index(), storage.last_index()), (Index(4), Index(3)));
        assert_eq!(storage.install_snapshot(snapshot(3)), Err(SnapshotOutOfDate));
        assert_eq!(storage.term(Index(3)), Ok(Term(2)));
    }
}
