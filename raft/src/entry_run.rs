//! A run of entries that is shared instead of copied: from a proposal or a message into the log, both followers'
//! appends, the write and the state machine.
//!
//! Leaves to others: what entries that do not follow one another are worth (`check`), lists of runs (`entries`). This is
//! the one place of the core that counts references; nothing is synchronised.
//! Invariant: entries are immutable once the run was cloned (raft-core S40); the sizes are their sums, and `ordered` is
//! what looking at all of them would find.

use crate::entry::{Entry, varint_len};
use crate::ids::{Index, LogPos};
use bytes::Bytes;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Entries in a row; a clone costs the same for one and for a thousand. A part keeps the whole in memory.
#[derive(Clone, Default)]
pub struct EntryRun {
    /// The whole run; nothing if empty.
    shared: Option<Arc<[Entry]>>,
    /// The part of it that this is.
    begin: u32,
    /// Its end (exclusive).
    end: u32,
    /// Does each entry follow the one before? Found out where the run is made: whoever receives it need not look again.
    ordered: bool,
    /// Index of the first entry, kept here so that a search touches no entry.
    first: Index,
    /// Bytes in encoded form: the unit of message and page limits.
    encoded: u64,
    /// Bytes of payload: the unit of the in-flight and uncommitted limits.
    payload: u64,
    /// The entries as the layers above write them, if one of them did. Opaque here; a part has none, nor what was changed.
    form: Option<Arc<Bytes>>,
}

impl EntryRun {
    /// Number of entries.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.begin) as usize
    }

    /// Are there none?
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end == self.begin
    }

    /// The index behind the last entry.
    #[must_use]
    #[inline]
    pub fn end_index(&self) -> Index {
        self.first.plus(self.len() as u64)
    }

    /// Index of the first entry; 0 if empty or not appended yet.
    #[must_use]
    #[inline]
    pub fn first_index(&self) -> Index {
        self.first
    }

    /// Sum of the entries' encoded sizes.
    #[must_use]
    #[inline]
    pub fn encoded_size(&self) -> u64 {
        self.encoded
    }

    /// Sum of the entries' payloads.
    #[must_use]
    #[inline]
    pub fn payload_size(&self) -> u64 {
        self.payload
    }

    /// Does each entry follow the one before: index by one, term not falling?
    #[must_use]
    #[inline]
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Commands to be proposed: their encoded size is known when they have their places.
    #[must_use]
    pub fn commands(data: impl Iterator<Item = Bytes>) -> EntryRun {
        let shared: Arc<[Entry]> = data.map(Entry::normal).collect();
        let payload = shared.iter().map(Entry::payload_size).sum();
        EntryRun { payload, ..EntryRun::unmeasured(shared) }
    }

    /// Gives it the byte form of its entries, which whoever writes them next need not find again. What it is, and what of the
    /// position it holds, is between those who give and take it: nothing here reads it.
    #[must_use]
    pub fn with_form(mut self, form: Bytes) -> EntryRun {
        self.form = Some(Arc::new(form));
        self
    }

    /// A copy in memory of its own: of the buffers that the payloads came in it keeps nothing. Without byte form, for whoever
    /// keeps a run that long will hardly write it again.
    #[must_use]
    pub fn detached(&self) -> EntryRun {
        let mut all = Vec::with_capacity(usize::try_from(self.payload).expect("it lies in memory"));
        self.iter().for_each(|e| all.extend_from_slice(&e.data));
        let (all, mut at) = (Bytes::from(all), 0);
        let copied = self.iter().map(|e| {
            let payload = at..at + e.data.len();
            at = payload.end;
            Entry { data: all.slice(payload), ..*e }
        });
        copied.collect()
    }

    /// The byte form of the entries, if somebody gave it.
    #[must_use]
    #[inline]
    pub fn form(&self) -> Option<&Bytes> {
        self.form.as_deref()
    }

    /// The entry at `index`, not below the first one's.
    #[inline]
    pub(crate) fn at(&self, index: Index) -> Option<&Entry> {
        self.get(self.first.lag_to(index) as usize)
    }

    /// A part, by places in this run.
    ///
    /// # Panics
    /// If it does not lie within the run.
    #[must_use]
    pub fn part(&self, places: Range<usize>) -> EntryRun {
        if places == (0..self.len()) {
            return self.clone();
        }
        let fits = places.start <= places.end && places.end <= self.len();
        assert!(fits, "a part of {} entries: {places:?}", self.len());
        let (begin, end) = (self.begin + places.start as u32, self.begin + places.end as u32);
        let shared = self.shared.as_ref().filter(|_| begin < end).map(Arc::clone);
        EntryRun { shared, begin, end, ..EntryRun::default() }.measured()
    }

    /// The entries with indexes in `[low, high)`.
    #[must_use]
    #[inline]
    pub fn between(&self, low: Index, high: Index) -> EntryRun {
        if low <= self.first && self.end_index() <= high {
            return self.clone();
        }
        let place = |index: Index| usize::try_from(self.first.lag_to(index)).unwrap_or(usize::MAX).min(self.len());
        let end = place(high);
        self.part(place(low).min(end)..end)
    }

    /// The longest prefix within `max_bytes` of encoded size; perhaps nothing, unless `one` entry must be there.
    #[must_use]
    pub fn prefix(&self, max_bytes: u64, one: bool) -> EntryRun {
        let (mut size, mut first) = (0_u64, one);
        let fits = |e: &&Entry| {
            size = size.saturating_add(e.encoded_size());
            std::mem::take(&mut first) || size <= max_bytes
        };
        self.part(0..self.iter().take_while(fits).count())
    }

    /// Gives the entries of a proposal their places in the log. What others share stays as it is (S40).
    pub(crate) fn place(&mut self, first: LogPos) {
        let (len, end) = (self.len() as u64, first.index.plus(self.len() as u64));
        let mut encoded = len * (2 + varint_len(first.term.0)) + varint_lens(first.index.0..end.0);
        for (entry, index) in self.entries_mut().iter_mut().zip(first.index.0..end.0) {
            (entry.term, entry.index) = (first.term, Index(index));
            encoded += entry.encoded_payload();
        }
        (self.first, self.encoded, self.ordered) = (first.index, encoded, true);
    }

    /// Replaces one entry of a proposal, in this copy alone (S40).
    pub(crate) fn replace(&mut self, place: usize, entry: Entry) {
        self.entries_mut()[place] = entry;
        self.form = None;
        self.measure();
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.shared {
            Some(shared) => &mut Arc::make_mut(shared)[self.begin as usize..self.end as usize],
            None => &mut [],
        }
    }

    fn measure(&mut self) {
        let (mut encoded, mut payload, mut ordered) = (0, 0, true);
        let first = self.first().map_or(LogPos::NONE, Entry::pos);
        let (mut term, mut index) = (first.term, first.index.0);
        for entry in self.iter() {
            encoded += entry.encoded_size();
            payload += entry.payload_size();
            ordered &= entry.index.0 == index && entry.term >= term;
            (term, index) = (entry.term, index.wrapping_add(1));
        }
        (self.first, self.encoded, self.payload, self.ordered) = (first.index, encoded, payload, ordered);
    }

    fn measured(mut self) -> EntryRun {
        self.measure();
        self
    }

    fn new(shared: Arc<[Entry]>) -> EntryRun {
        EntryRun::unmeasured(shared).measured()
    }

    fn unmeasured(shared: Arc<[Entry]>) -> EntryRun {
        let end = u32::try_from(shared.len()).expect("so many entries fit no memory");
        EntryRun { shared: Some(shared).filter(|_| end > 0), end, ..EntryRun::default() }
    }
}

/// Sum of the varints' lengths of consecutive numbers: mostly all are equally long.
fn varint_lens(numbers: Range<u64>) -> u64 {
    let longest = varint_len(numbers.end);
    if varint_len(numbers.start) == longest {
        return (numbers.end - numbers.start) * longest;
    }
    numbers.map(varint_len).sum()
}

impl Deref for EntryRun {
    type Target = [Entry];

    #[inline]
    fn deref(&self) -> &[Entry] {
        match &self.shared {
            Some(shared) => &shared[self.begin as usize..self.end as usize],
            None => &[],
        }
    }
}

impl From<Vec<Entry>> for EntryRun {
    fn from(entries: Vec<Entry>) -> EntryRun {
        EntryRun::new(entries.into())
    }
}

/// One allocation if the iterator knows its length.
impl FromIterator<Entry> for EntryRun {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> EntryRun {
        EntryRun::new(entries.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a EntryRun {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for EntryRun {
    fn eq(&self, other: &EntryRun) -> bool {
        self[..] == other[..]
    }
}

impl Eq for EntryRun {}

impl Hash for EntryRun {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl fmt::Debug for EntryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
