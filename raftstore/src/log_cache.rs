//! What a replica's core reads of its stable log, answered from memory: bounds, term runs, the newest entries.
//!
//! Leaves to others: the disk (the log reader fetches what is `Uncached`), building snapshots (the snapshotter).
//! Invariant: describes exactly what this replica's completed writes have left in the log store: the poller appends
//! here when a write is reported durable, in the order of the writes, never earlier.
//! Invariant: `cached` is a suffix of the log; every byte in it and in `loans` is charged to the node's budget. What
//! shares memory, a run, goes as a whole.

use crate::budget::{Budget, Pressure};
use crate::env::{StoredGroup, Truncation};
use crate::proposal::weigh;
use crate::task::Spooled;
use pontoon_raft::{
    ConfState, Entries, Entry, EntryRun, HardState, Index, InitialState, LogPos, ReplicaId, Snapshot, Storage,
    StorageError, Term,
};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of entries that one replica keeps in memory beyond the newest run; laggards read older ones from disk.
const CACHE_CAP: u64 = 8 << 20;
/// The same while the node's budget is tight.
const TIGHT_CAP: u64 = 256 << 10;

/// The stable log of one replica as its core sees it.
#[derive(Debug)]
pub struct GroupStorage {
    /// What the core starts from.
    initial: InitialState,
    /// Last entry that is gone, and the configuration there.
    truncated: Truncation,
    /// Last entry; `truncated.pos` if there is none.
    last: LogPos,
    /// Runs of equal terms in `(truncated, last]`: first index and term, ascending. Invariant: both grow strictly.
    runs: VecDeque<(Index, Term)>,
    /// The newest entries. Invariant: consecutive, ending at `last`.
    cached: Entries,
    /// Weight of `cached`. Bytes.
    cached_bytes: u64,
    /// What of it lies before here pins no more memory than it weighs.
    detached: Index,
    /// What lies before here was there at the last two beats already.
    old: Index,
    /// Same, at the last.
    aged: Index,
    /// What is behind it is still to be applied, and so surely read again.
    applied: Index,
    /// Entries fetched from disk for a member, until its next appends were made. At most one run each.
    loans: BTreeMap<ReplicaId, Entries>,
    /// Payload in the log store, roughly. Bytes.
    log_bytes: u64,
    /// A snapshot that stands ready to be sent.
    spooled: Option<Box<Spooled>>,
    /// The core asked for a snapshot, and none stood ready. A cell, because the core asks with `&self`.
    snapshot_wanted: Cell<bool>,
    /// The node's.
    budget: Arc<Budget>,
}

fn cap(pressure: Pressure) -> u64 {
    match pressure {
        Pressure::None => CACHE_CAP,
        Pressure::Tight | Pressure::Short => TIGHT_CAP,
        Pressure::Full => 0,
    }
}

/// What an entry weighs in the node's budget.
#[must_use]
pub fn weight(entry: &Entry) -> u64 {
    weigh(entry.payload_size(), 1)
}

/// What a run weighs there.
#[must_use]
pub fn run_weight(run: &EntryRun) -> u64 {
    weigh(run.payload_size(), run.len() as u64)
}

/// What entries weigh there.
#[must_use]
pub fn weights(entries: &Entries) -> u64 {
    entries.runs().map(run_weight).sum()
}

impl GroupStorage {
    /// The log as recovered. `hard_state` and `conf_state` are those that the core starts from; `tail` ends at the
    /// last entry or is empty.
    #[must_use]
    pub fn new(
        stored: &StoredGroup,
        hard_state: HardState,
        conf_state: ConfState,
        tail: Vec<Entry>,
        budget: Arc<Budget>,
    ) -> GroupStorage {
        let mut storage = GroupStorage {
            initial: InitialState { hard_state, conf_state },
            truncated: stored.truncated.clone(),
            last: stored.last,
            runs: stored.terms.iter().copied().collect(),
            cached: Entries::new(),
            cached_bytes: 0,
            detached: Index(0),
            old: Index(0),
            aged: Index(0),
            applied: Index(0),
            loans: BTreeMap::new(),
            log_bytes: stored.bytes,
            spooled: None,
            snapshot_wanted: Cell::new(false),
            budget,
        };
        if tail.last().is_some_and(|e| e.pos() == stored.last) {
            let tail = EntryRun::from(tail);
            storage.budget.take(run_weight(&tail));
            storage.cache(tail);
        }
        storage
    }

    /// Last entry that is gone, and the configuration there.
    #[must_use]
    pub fn truncated(&self) -> &Truncation {
        &self.truncated
    }

    /// The node's budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Payload in the log store, roughly. Bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// A write is durable: the log now ends with `entries`, which were charged to the budget when handed out.
    ///
    /// # Panics
    /// If they do not follow what is there: the log store would have a hole.
    pub fn append(&mut self, entries: EntryRun) {
        let Some(first) = entries.first() else { return };
        let fits = first.index > self.truncated.pos.index && first.index <= self.last.index.next();
        assert!(fits, "append at {:?} to a log of ({:?}, {:?}]", first.pos(), self.truncated.pos, self.last);
        self.cut_from(first.index);
        self.detached = self.detached.min(first.index);
        self.old = self.old.min(first.index);
        self.aged = self.aged.min(first.index);
        for entry in &entries {
            assert!(entry.index == self.last.index.next(), "entry {:?} after {:?}", entry.pos(), self.last);
            if self.runs.back().is_none_or(|run| run.1 != entry.term) {
                self.runs.push_back((entry.index, entry.term));
            }
            self.last = entry.pos();
        }
        self.log_bytes += run_weight(&entries);
        self.cache(entries);
        self.shrink();
    }

    /// The machine has everything up to `index`; what members that are not far behind still get begins behind `needed`.
    pub fn on_applied(&mut self, index: Index, needed: Index) {
        self.applied = index;
        self.evict(needed.min(index));
    }

    /// Is anything in memory?
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.cached_bytes > 0
    }

    /// At every beat of a group with something in memory, before `detach`: lets go what is of no use any more, and what the node
    /// is too short of memory to keep for longer than a beat. A group that gets no new entries, perhaps because the node is full,
    /// must not hold on to old ones.
    pub fn relieve(&mut self, needed: Index) {
        self.evict(needed.min(self.applied));
        let pressure = self.budget.pressure();
        if pressure >= Pressure::Short {
            self.evict(self.expendable(pressure).min(self.aged.prev()));
        }
    }

    /// The replica stands still: nobody reads here any more.
    pub fn let_go(&mut self) {
        self.evict(self.last.index);
        self.clear_loans();
    }

    /// Entries that stayed for longer than it takes to replicate them move to memory of their own: what they came in, frames
    /// with many groups' messages and callers' buffers, may be far larger. Called at every beat of the group; what came since
    /// the last but one stays where it is: at overload that is as long as a command takes.
    pub fn detach(&mut self) {
        if self.detached < self.old {
            self.cached.detach(self.detached, self.old);
            self.detached = self.old;
        }
        self.old = self.aged;
        self.aged = self.last.index.next();
    }

    /// Entries up to here are needed by nobody whom memory should serve.
    fn evict(&mut self, upto: Index) {
        while self.oldest_ends_by(upto) {
            self.evict_one();
        }
        self.cached.shrink();
    }

    /// The log store is told to drop everything up to `upto`.
    pub fn truncate(&mut self, upto: Truncation) {
        let gone = self.truncated.pos.index.lag_to(upto.pos.index);
        let all = self.truncated.pos.index.lag_to(self.last.index).max(1);
        self.log_bytes -= u64::try_from(u128::from(self.log_bytes) * u128::from(gone.min(all)) / u128::from(all))
            .expect("a part of a u64");
        self.evict(upto.pos.index);
        while self.runs.get(1).is_some_and(|next| next.0 <= upto.pos.index.next()) {
            self.runs.pop_front();
        }
        if upto.pos.index >= self.last.index {
            self.runs.clear();
        } else if let Some(first) = self.runs.front_mut() {
            first.0 = first.0.max(upto.pos.index.next());
        }
        self.truncated = upto;
    }

    /// A snapshot took the place of the whole log.
    pub fn install(&mut self, at: Truncation) {
        self.let_go();
        self.runs.clear();
        self.last = at.pos;
        self.applied = at.pos.index;
        self.truncated = at;
        self.log_bytes = 0;
    }

    /// Fetched entries for a member. What the log has lost or replaced meanwhile is left out.
    pub fn lend(&mut self, to: ReplicaId, mut entries: Vec<Entry>) {
        let valid = entries.iter().take_while(|e| self.term(e.index) == Ok(e.term)).count();
        entries.truncate(valid);
        let loan = Entries::from(entries);
        self.budget.take(weights(&loan));
        if let Some(old) = self.loans.insert(to, loan) {
            self.budget.give_back(weights(&old));
        }
    }

    /// What was lent has been used, or will be fetched again.
    pub fn clear_loans(&mut self) {
        for loan in std::mem::take(&mut self.loans).into_values() {
            self.budget.give_back(weights(&loan));
        }
    }

    /// Did the core ask for a snapshot since the last call?
    pub fn take_snapshot_wanted(&mut self) -> bool {
        self.snapshot_wanted.take()
    }

    /// The snapshot that stands ready.
    #[must_use]
    pub fn spooled(&self) -> Option<&Spooled> {
        self.spooled.as_deref()
    }

    /// A snapshot stands ready now, or (`None`) no longer. Returns the one before.
    pub fn set_spooled(&mut self, spooled: Option<Box<Spooled>>) -> Option<Box<Spooled>> {
        std::mem::replace(&mut self.spooled, spooled)
    }

    fn cache(&mut self, run: EntryRun) {
        self.cached_bytes += run_weight(&run);
        self.cached.push(run);
    }

    fn evict_one(&mut self) {
        if let Some(run) = self.cached.pop_run() {
            self.cached_bytes -= run_weight(&run);
            self.budget.give_back(run_weight(&run));
        }
    }

    /// Laggards are served from disk before the node runs out of memory. The newest run is on its way to all.
    fn shrink(&mut self) {
        let pressure = self.budget.pressure();
        let (cap, expendable) = (cap(pressure), self.expendable(pressure));
        while self.cached_bytes > cap && self.cached.runs().nth(1).is_some() && self.oldest_ends_by(expendable) {
            self.evict_one();
        }
    }

    /// What may go: what is not applied yet would be read back at once, so only when other leaders' appends have no room.
    fn expendable(&self, pressure: Pressure) -> Index {
        if pressure == Pressure::Full { Index(u64::MAX) } else { self.applied }
    }

    /// Is there a run, and does the oldest one end at `index` or before?
    fn oldest_ends_by(&self, index: Index) -> bool {
        self.cached.runs().next().and_then(|run| run.last()).is_some_and(|last| last.index <= index)
    }

    /// Forgets everything from `from` on: another leader's entries take its place.
    fn cut_from(&mut self, from: Index) {
        if from > self.last.index {
            return;
        }
        self.cached.cut_from(from);
        let gone = self.cached_bytes - weights(&self.cached);
        self.cached_bytes -= gone;
        self.log_bytes = self.log_bytes.saturating_sub(gone);
        self.budget.give_back(gone);
        // Whatever was cached lies behind `from` now; a suffix of the shorter log it stays only if it reaches its end.
        let term = self.term(from.prev()).expect("the previous entry is stored");
        while self.runs.back().is_some_and(|run| run.0 >= from) {
            self.runs.pop_back();
        }
        self.last = LogPos::new(term, from.prev());
        self.clear_loans();
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> InitialState {
        self.initial.clone()
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        if low <= self.truncated.pos.index {
            return Err(StorageError::Compacted);
        }
        if high > self.last.index.next() {
            return Err(StorageError::Unavailable);
        }
        let mut held = std::iter::once(&self.cached).chain(self.loans.values());
        let holding = held.find(|entries| entries.get(low).is_some()).ok_or(StorageError::Uncached)?;
        holding.read(low, high, max_bytes, page);
        Ok(())
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        if index == self.truncated.pos.index {
            return Ok(self.truncated.pos.term);
        }
        if index < self.truncated.pos.index {
            return Err(StorageError::Compacted);
        }
        if index > self.last.index {
            return Err(StorageError::Unavailable);
        }
        match self.runs.partition_point(|run| run.0 <= index) {
            0 => Err(StorageError::Unavailable),
            n => Ok(self.runs[n - 1].1),
        }
    }

    fn first_index(&self) -> Index {
        self.truncated.pos.index.next()
    }

    fn last_index(&self) -> Index {
        self.last.index
    }

    fn snapshot(&self, _to: ReplicaId) -> Result<Snapshot, StorageError> {
        match &self.spooled {
            // An older one would end before the log begins: the follower could not go on from it.
            Some(s) if s.meta.index >= self.truncated.pos.index => {
                Ok(Snapshot { meta: s.meta.clone(), data: s.record.clone() })
            }
            _ => {
                self.snapshot_wanted.set(true);
                Err(StorageError::SnapshotUnavailable)
            }
        }
    }
}

impl Drop for GroupStorage {
    fn drop(&mut self) {
        self.clear_loans();
        self.budget.give_back(self.cached_bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { term: Term(term), index: Index(index), data: Bytes::from(vec![0; 100]), ..Entry::default() }
    }

    fn storage() -> (GroupStorage, Arc<Budget>) {
        let budget = Arc::new(Budget::new(1 << 20));
        let pos = LogPos::new(Term(1), Index(1));
        let truncated = Truncation { pos, conf_state: ConfState::default() };
        let stored = StoredGroup { truncated, last: pos, ..StoredGroup::default() };
        let s = GroupStorage::new(&stored, HardState::default(), ConfState::default(), vec![], budget.clone());
        (s, budget)
    }

    fn append(s: &mut GroupStorage, entries: Vec<Entry>) {
        let run = EntryRun::from(entries);
        s.budget.take(run_weight(&run));
        s.append(run);
    }

    fn read(s: &GroupStorage, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let mut page = Entries::new();
        s.entries(Index(low), Index(high), max_bytes, &mut page).map(|()| page.to_vec())
    }

    /// What a run came in, which says when nothing of it is in use any more.
    struct Frame(Vec<u8>, #[expect(dead_code, reason = "counts")] Arc<()>);

    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn what_stays_does_not_keep_the_frame_that_it_came_in() {
        let (mut s, _) = storage();
        let in_use = Arc::new(());
        let frame = Bytes::from_owner(Frame(vec![7; 1 << 20], in_use.clone()));
        let of_frame = |index: u64| Entry { data: frame.slice(100..200), ..entry(1, index) };
        append(&mut s, vec![of_frame(2), of_frame(3)]);
        append(&mut s, vec![of_frame(4)]);
        let before = read(&s, 2, 5, u64::MAX).unwrap();
        (0..2).for_each(|_| s.detach());
        assert!(Arc::strong_count(&in_use) > 1, "what is on its way is not copied");
        s.detach();
        assert_eq!(read(&s, 2, 5, u64::MAX).unwrap(), before);
        drop((frame, before));
        assert_eq!(Arc::strong_count(&in_use), 1, "a cached run pins its frame");
        append(&mut s, vec![entry(2, 3)]);
        (0..3).for_each(|_| s.detach());
        assert_eq!(
            read(&s, 2, 4, u64::MAX).unwrap(),
            [Entry { data: vec![7; 100].into(), ..entry(1, 2) }, entry(2, 3)]
        );
    }

    #[test]
    fn terms_survive_overwriting_and_truncation() {
        let (mut s, budget) = storage();
        append(&mut s, vec![entry(1, 2), entry(1, 3), entry(2, 4), entry(2, 5)]);
        append(&mut s, vec![entry(3, 4)]);
        assert_eq!(s.last_index(), Index(4));
        assert_eq!(s.term(Index(3)), Ok(Term(1)));
        assert_eq!(s.term(Index(4)), Ok(Term(3)));
        assert_eq!(s.term(Index(5)), Err(StorageError::Unavailable));
        s.truncate(Truncation { pos: LogPos::new(Term(1), Index(3)), conf_state: ConfState::default() });
        assert_eq!(s.term(Index(3)), Ok(Term(1)));
        assert_eq!(s.term(Index(2)), Err(StorageError::Compacted));
        assert_eq!(read(&s, 4, 5, 0).unwrap().len(), 1);
        assert_eq!(budget.used(), weight(&entry(3, 4)));
        drop(s);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn evicted_entries_come_back_as_loans_unless_replaced() {
        let (mut s, budget) = storage();
        append(&mut s, vec![entry(1, 2), entry(1, 3)]);
        append(&mut s, vec![entry(1, 4)]);
        s.evict(Index(2));
        assert_eq!(read(&s, 2, 5, u64::MAX).unwrap().len(), 3, "a run goes as a whole");
        s.evict(Index(3));
        assert_eq!(read(&s, 2, 5, u64::MAX), Err(StorageError::Uncached));
        assert_eq!(read(&s, 4, 5, u64::MAX).unwrap().len(), 1);
        s.lend(ReplicaId(2), vec![entry(1, 2), entry(9, 3)]);
        assert_eq!(read(&s, 2, 5, u64::MAX).unwrap(), vec![entry(1, 2)]);
        s.clear_loans();
        assert_eq!(budget.used(), weight(&entry(1, 4)));
    }

    #[test]
    fn an_install_empties_the_log() {
        let (mut s, budget) = storage();
        append(&mut s, vec![entry(1, 2), entry(1, 3)]);
        s.install(Truncation { pos: LogPos::new(Term(4), Index(90)), conf_state: ConfState::default() });
        assert_eq!((s.first_index(), s.last_index(), budget.used()), (Index(91), Index(90), 0));
        append(&mut s, vec![entry(4, 91)]);
        assert_eq!(s.term(Index(91)), Ok(Term(4)));
    }

    #[test]
    fn a_snapshot_is_wanted_until_a_fresh_one_stands_ready() {
        let (mut s, _) = storage();
        assert_eq!(s.snapshot(ReplicaId(2)), Err(StorageError::SnapshotUnavailable));
        assert!(s.take_snapshot_wanted() && !s.take_snapshot_wanted());
    }
}
