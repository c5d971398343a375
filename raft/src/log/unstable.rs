//! The part of the log that storage does not have yet: entries, and perhaps a snapshot before them.
//!
//! Leaves to others: committing and applying (`log`), writing (the driver).
//! Invariant: `offset <= in_progress <= offset + entries.len()`; entries are contiguous from `offset` on.
//! Entries below `in_progress` were handed out for writing.

use crate::entries::Entries;
use crate::entry_run::EntryRun;
use crate::ids::{Index, LogPos, Term};
use crate::mutant::{self, Mutant};
use crate::state::Snapshot;

/// See the file's head.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Unstable {
    /// A snapshot to install before the entries.
    snapshot: Option<Box<Snapshot>>,
    /// Was it handed out for installing?
    snapshot_in_progress: bool,
    /// Index of the first unstable entry.
    offset: Index,
    /// First index that was not handed out for writing.
    in_progress: Index,
    /// The entries from `offset` on.
    entries: Entries,
    /// The index behind the last entry.
    end: Index,
}

/// What appending did to the entries that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splice {
    /// Nothing: the new ones follow.
    Continued,
    /// All were replaced, from this index on.
    Replaced(Index),
    /// Those from this index on were cut.
    Truncated(Index),
}

/// What a report of stability met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StableOutcome {
    /// Entries up to there are no longer unstable.
    Stable,
    /// No such index here.
    Missing,
    /// It is the unstable snapshot's index.
    IsSnapshot,
    /// Another entry is there.
    Mismatch(LogPos),
}

impl Unstable {
    /// Nothing unstable; storage ends before `offset`.
    pub(crate) fn new(offset: Index) -> Unstable {
        Unstable {
            snapshot: None,
            snapshot_in_progress: false,
            offset,
            in_progress: offset,
            entries: Entries::new(),
            end: offset,
        }
    }

    #[inline]
    pub(crate) fn offset(&self) -> Index {
        self.offset
    }

    #[inline]
    pub(crate) fn in_progress(&self) -> Index {
        self.in_progress
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref()
    }

    /// The snapshot, unless it was handed out already.
    #[inline]
    pub(crate) fn next_snapshot(&self) -> Option<&Snapshot> {
        if self.snapshot_in_progress { None } else { self.snapshot() }
    }

    /// Last index of this part, if it has any.
    #[inline]
    pub(crate) fn last_index(&self) -> Option<Index> {
        if self.entries.is_empty() { self.snapshot().map(|s| s.meta.index) } else { Some(self.end.prev()) }
    }

    /// Term at `index`, if this part knows it.
    #[inline]
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index >= self.end {
            return None;
        }
        if index < self.offset {
            return self.snapshot().filter(|s| s.meta.index == index).map(|s| s.meta.term);
        }
        self.entries.get(index).map(|e| e.term)
    }

    /// Everything that is here, handed out or not.
    #[inline]
    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Appends what was not handed out for writing.
    #[inline]
    pub(crate) fn read_next(&self, into: &mut Entries) {
        if self.has_next_entries() {
            self.entries.read(self.in_progress, Index(u64::MAX), u64::MAX, into);
        }
    }

    #[inline]
    pub(crate) fn has_next_entries(&self) -> bool {
        self.in_progress < self.end
    }

    /// Everything was handed out for writing.
    #[inline]
    pub(crate) fn accept(&mut self) {
        self.in_progress = self.end;
        self.snapshot_in_progress = self.snapshot.is_some();
    }

    /// Storage holds everything up to `pos`, if that entry is (still) the one here.
    #[inline]
    pub(crate) fn stable_to(&mut self, pos: LogPos) -> StableOutcome {
        let Some(term) = self.term(pos.index) else { return StableOutcome::Missing };
        if pos.index < self.offset {
            return StableOutcome::IsSnapshot;
        }
        if term != pos.term {
            return StableOutcome::Mismatch(LogPos::new(term, pos.index));
        }
        self.entries.drop_to(pos.index);
        self.offset = pos.index.next();
        self.in_progress = self.in_progress.max(self.offset);
        self.end = self.end.max(self.offset);
        self.entries.shrink();
        StableOutcome::Stable
    }

    /// Storage installed the snapshot at `index`, if it is the one here.
    pub(crate) fn stable_snapshot_to(&mut self, index: Index) {
        if self.snapshot().is_some_and(|s| s.meta.index == index) {
            self.snapshot = None;
            self.snapshot_in_progress = false;
        }
    }

    /// A snapshot replaces everything.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        self.offset = snapshot.meta.index.next();
        self.in_progress = self.offset;
        self.end = self.offset;
        if !mutant::is(Mutant::RestoreKeepsTail) {
            self.entries.clear();
        }
        self.snapshot = Some(Box::new(snapshot));
        self.snapshot_in_progress = false;
    }

    /// Puts `run` on; what was there from its first index on gives way.
    pub(crate) fn append(&mut self, run: EntryRun) -> Splice {
        let first = run.first_index();
        let splice = if first == self.end {
            Splice::Continued
        } else if first <= self.offset {
            self.entries.clear();
            self.offset = first;
            self.in_progress = first;
            Splice::Replaced(first)
        } else {
            self.entries.cut_from(first);
            if !mutant::is(Mutant::CutKeepsMark) {
                self.in_progress = self.in_progress.min(first);
            }
            Splice::Truncated(first)
        };
        self.end = run.end_index();
        self.entries.push(run);
        splice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term: Term(term), index: Index(index), ..Entry::default() }
    }

    fn with(first: u64, terms: &[u64]) -> Unstable {
        let mut u = Unstable::new(Index(first));
        u.append((first..).zip(terms).map(|(i, t)| entry(*t, i)).collect());
        u
    }

    #[test]
    fn a_tail_is_continued_cut_or_replaced() {
        let mut u = with(5, &[1, 1, 1]);
        u.accept();
        assert_eq!(u.append([entry(2, 8)].into_iter().collect()), Splice::Continued);
        assert_eq!(u.in_progress(), Index(8));
        assert_eq!(u.append([entry(3, 7)].into_iter().collect()), Splice::Truncated(Index(7)));
        assert_eq!((u.in_progress(), u.last_index()), (Index(7), Some(Index(7))));
        assert_eq!(u.append([entry(4, 5)].into_iter().collect()), Splice::Replaced(Index(5)));
        assert_eq!((u.offset(), u.in_progress(), u.len()), (Index(5), Index(5), 1));
        assert_eq!(u.append([entry(5, 3)].into_iter().collect()), Splice::Replaced(Index(3)));
        assert_eq!((u.offset(), u.term(Index(3)), u.term(Index(4))), (Index(3), Some(Term(5)), None));
    }

    #[test]
    fn stability_needs_the_same_entry() {
        let mut u = with(5, &[1, 1, 2]);
        assert_eq!(u.stable_to(LogPos::new(Term(1), Index(9))), StableOutcome::Missing);
        assert_eq!(
            u.stable_to(LogPos::new(Term(2), Index(6))),
            StableOutcome::Mismatch(LogPos::new(Term(1), Index(6)))
        );
        assert_eq!(u.stable_to(LogPos::new(Term(1), Index(6))), StableOutcome::Stable);
        assert_eq!((u.offset(), u.in_progress(), u.len()), (Index(7), Index(7), 1));
    }

    #[test]
    fn a_snapshot_is_handed_out_once_and_dropped_by_its_index() {
        let mut u = with(5, &[1]);
        let mut s = Snapshot::default();
        (s.meta.index, s.meta.term) = (Index(9), Term(3));
        u.restore(s);
        assert_eq!((u.offset(), u.last_index(), u.term(Index(9))), (Index(10), Some(Index(9)), Some(Term(3))));
        assert!(u.next_snapshot().is_some());
        u.accept();
        assert!(u.next_snapshot().is_none() && u.snapshot().is_some());
        assert_eq!(u.stable_to(LogPos::new(Term(3), Index(9))), StableOutcome::IsSnapshot);
        u.stable_snapshot_to(Index(8));
        assert!(u.snapshot().is_some());
        u.stable_snapshot_to(Index(9));
        assert_eq!(u.last_index(), None);
    }
}
