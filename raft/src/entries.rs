//! A piece of the log: consecutive entries as a list of shared runs.
//!
//! Leaves to others: what the piece is (unstable, stored, committed, handed out). A run is as long as the proposal or
//! message that brought it, so that work per run is work per batch.
//! Invariant: no run is empty, and each begins where the one before ends.

use crate::entry::Entry;
use crate::entry_run::EntryRun;
use crate::ids::Index;
use std::collections::vec_deque::{self, VecDeque};
use std::hash::{Hash, Hasher};
use std::iter::Flatten;

/// Consecutive entries. Clearing keeps the memory of the list.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Ascending.
    runs: VecDeque<EntryRun>,
}

impl Entries {
    /// No entries, no memory.
    #[must_use]
    pub const fn new() -> Entries {
        Entries { runs: VecDeque::new() }
    }

    /// The first entry.
    #[must_use]
    #[inline]
    pub fn first(&self) -> Option<&Entry> {
        self.runs.front().and_then(|r| r.first())
    }

    /// The last entry.
    #[must_use]
    #[inline]
    pub fn last(&self) -> Option<&Entry> {
        self.runs.back().and_then(|r| r.last())
    }

    /// Index of the last entry.
    #[must_use]
    #[inline]
    pub fn last_index(&self) -> Option<Index> {
        self.runs.back().map(|r| r.end_index().prev())
    }

    /// Number of entries.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match (self.runs.front(), self.runs.back()) {
            (Some(front), Some(back)) => front.first_index().lag_to(back.end_index()) as usize,
            _ => 0,
        }
    }

    /// Are there none?
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The entries, ascending.
    #[inline]
    pub fn iter(&self) -> Flatten<vec_deque::Iter<'_, EntryRun>> {
        self.runs.iter().flatten()
    }

    /// The runs, ascending.
    #[inline]
    pub fn runs(&self) -> impl Iterator<Item = &EntryRun> {
        self.runs.iter()
    }

    /// The entries as a list of their own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Entry> {
        let mut all = Vec::with_capacity(self.len());
        self.runs.iter().for_each(|r| all.extend_from_slice(r));
        all
    }

    /// Sum of the entries' encoded sizes.
    #[must_use]
    #[inline]
    pub fn encoded_size(&self) -> u64 {
        self.sum(EntryRun::encoded_size)
    }

    /// Sum of the entries' payloads.
    #[must_use]
    #[inline]
    pub fn payload_size(&self) -> u64 {
        self.sum(EntryRun::payload_size)
    }

    /// The entry at `index`, if it is among these.
    #[must_use]
    #[inline]
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let last = self.runs.back()?;
        if last.first_index() <= index { last.at(index) } else { self.get_earlier(index) }
    }

    /// Appends a run.
    ///
    /// # Panics
    /// If it does not begin where the last one ends.
    #[inline]
    pub fn push(&mut self, run: EntryRun) {
        if run.is_empty() {
            return;
        }
        let follows = self.runs.back().is_none_or(|b| b.end_index() == run.first_index());
        assert!(follows, "a gap before {}: {:?}", run.first_index(), self.last());
        self.runs.push_back(run);
    }

    /// Puts copies in memory of their own (`EntryRun::detached`) in the place of the runs that begin at `from` or behind it and
    /// end before `end`.
    pub fn detach(&mut self, from: Index, end: Index) {
        let kept = self.runs.partition_point(|r| r.first_index() < from);
        let old = self.runs.partition_point(|r| r.end_index() <= end);
        self.runs.range_mut(kept..old.max(kept)).for_each(|run| *run = run.detached());
    }

    /// Takes the oldest run off.
    #[inline]
    pub fn pop_run(&mut self) -> Option<EntryRun> {
        self.runs.pop_front()
    }

    /// Forgets everything. Mostly that is one run.
    #[inline]
    pub fn clear(&mut self) {
        while self.runs.pop_front().is_some() {}
    }

    /// Forgets the entries from `index` on.
    #[inline]
    pub fn cut_from(&mut self, index: Index) {
        while self.runs.back().is_some_and(|b| b.end_index() > index) {
            self.cut_last(index);
        }
    }

    #[cold]
    fn cut_last(&mut self, index: Index) {
        if let Some(last) = self.runs.pop_back() {
            self.push(last.between(Index::NONE, index));
        }
    }

    /// Forgets the entries up to and including `index`.
    pub fn drop_to(&mut self, index: Index) {
        while let Some(front) = self.runs.front_mut().filter(|f| f.first_index() <= index) {
            let rest = index.next().0 - front.first_index().0;
            if rest < front.len() as u64 {
                *front = front.part(rest as usize..front.len());
                return;
            }
            self.runs.pop_front();
        }
    }

    /// Appends entries of `[low, high)` to `page`: as many as keep it within `max_bytes` of encoded size, but at
    /// least one if it is empty.
    #[inline]
    pub fn read(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) {
        // Mostly that is the last run, whole.
        let whole = |last: &&EntryRun| {
            last.first_index() == low && last.end_index() <= high && last.encoded_size() <= max_bytes
        };
        match self.runs.back().filter(whole) {
            Some(last) if page.is_empty() => page.push(last.clone()),
            _ => self.read_runs(low, high, max_bytes, page),
        }
    }

    fn read_runs(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) {
        let mut size = page.encoded_size();
        let Some(mut at) = self.run_at(low) else { return };
        while let Some(run) = self.runs.get(at).filter(|r| r.first_index() < high) {
            at += 1;
            let wanted = run.between(low, high);
            size = size.saturating_add(wanted.encoded_size());
            if size > max_bytes {
                let left = max_bytes.saturating_sub(size - wanted.encoded_size());
                return page.push(wanted.prefix(left, page.is_empty()));
            }
            page.push(wanted);
        }
    }

    /// The entries of `[low, high)`, if a single run holds them all within `max_bytes` of encoded size.
    #[must_use]
    pub fn single_run(&self, low: Index, high: Index, max_bytes: u64) -> Option<EntryRun> {
        let run = self.runs.get(self.run_at(low)?)?.between(low, high);
        (run.len() as u64 == low.lag_to(high) && run.encoded_size() <= max_bytes).then_some(run)
    }

    /// Everything as one run: copied only if there are several.
    #[must_use]
    pub fn to_run(&self) -> EntryRun {
        match self.runs.len() {
            0 => EntryRun::default(),
            1 => self.runs[0].clone(),
            _ => self.to_vec().into(),
        }
    }

    /// An idle group keeps no large empty list.
    pub fn shrink(&mut self) {
        const KEEP: usize = 16;
        if self.runs.is_empty() && self.runs.capacity() > KEEP {
            self.runs.shrink_to(KEEP);
        }
    }

    /// Mostly there is one run, or none.
    #[inline]
    fn sum(&self, size: impl Fn(&EntryRun) -> u64) -> u64 {
        match self.runs.len() {
            0 => 0,
            1 => size(&self.runs[0]),
            _ => self.runs.iter().map(size).sum(),
        }
    }

    /// The run that holds `index`, if one may: mostly the last.
    #[inline]
    fn run_at(&self, index: Index) -> Option<usize> {
        let last = self.runs.len().checked_sub(1)?;
        if self.runs[last].first_index() <= index { Some(last) } else { self.search(index) }
    }

    #[cold]
    fn get_earlier(&self, index: Index) -> Option<&Entry> {
        self.runs.get(self.search(index)?)?.at(index)
    }

    #[cold]
    fn search(&self, index: Index) -> Option<usize> {
        self.runs.partition_point(|r| r.first_index() <= index).checked_sub(1)
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Entries {
        EntryRun::from(entries).into()
    }
}

impl From<EntryRun> for Entries {
    fn from(run: EntryRun) -> Entries {
        let mut entries = Entries::new();
        entries.push(run);
        entries
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = Flatten<vec_deque::Iter<'a, EntryRun>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

/// However the entries are split into runs.
impl Hash for Entries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|e| e.hash(state));
    }
}

#[cfg(test)]
mod tests;
