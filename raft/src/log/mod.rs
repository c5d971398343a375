//! The replicated log: storage, then the unstable part, and the pointers into both.
//!
//! Leaves to others: who may append (`roles`), what is sent (`replication`), traces (`raft`).
//! Invariant: `applied <= applying <= committed <= last`, and `committed` never falls. Without an unstable
//! snapshot `first - 1 <= applied`; with one `applied < its index <= committed`.

mod unstable;

pub(crate) use unstable::{Splice, StableOutcome, Unstable};

use crate::entries::Entries;
use crate::entry::Entry;
use crate::entry_run::EntryRun;
use crate::ids::{Index, LogPos, Term};
use crate::mutant::{self, Mutant};
use crate::state::Snapshot;
use crate::storage::{Storage, StorageError};
use crate::trace::LogPointers;
use std::collections::VecDeque;

/// See the file's head.
#[derive(Clone, Debug, Hash)]
pub(crate) struct RaftLog<S> {
    /// Stable entries and snapshot.
    storage: S,
    /// What is not stable yet.
    unstable: Unstable,
    /// Highest index known to be committed.
    committed: Index,
    /// Highest index handed out for applying.
    applying: Index,
    /// Highest index reported as applied.
    applied: Index,
    /// What was handed out for applying and not reported yet.
    pages: Pages,
}

/// Committed entries on their way to the state machine (raft-core 13.2).
#[derive(Clone, Debug, Hash)]
struct Pages {
    /// Encoded bytes that may be on their way; one entry always may.
    limit: u64,
    /// Encoded bytes on their way. Invariant: the sum over `open`.
    size: u64,
    /// Hand out nothing until something is reported.
    paused: bool,
    /// The storage had the next page not in memory; nothing is offered until it says so.
    uncached: bool,
    /// One per page handed out, by rising last index.
    open: VecDeque<Page>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Page {
    last: Index,
    encoded: u64,
    payload: u64,
}

/// How an append from a leader ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The entry before the first one is not here.
    Refused,
    /// An entry contradicts a committed one at this position.
    ConflictBelowCommit(LogPos),
    /// The log holds the message's entries.
    Done {
        /// Index of the last entry given.
        last_new: Index,
        /// First entry given that contradicts an own one, and the own one's term.
        conflict: Option<(LogPos, Term)>,
        /// What happened to the unstable tail, if anything was written.
        splice: Option<Splice>,
    },
}

impl<S: Storage> RaftLog<S> {
    /// Everything in `storage` is stable, nothing of it known as committed.
    pub(crate) fn new(storage: S, page_limit: u64) -> RaftLog<S> {
        let (start, offset) = (storage.first_index().prev(), storage.last_index().next());
        RaftLog {
            storage,
            unstable: Unstable::new(offset),
            committed: start,
            applying: start,
            applied: start,
            pages: Pages { limit: page_limit, size: 0, paused: false, uncached: false, open: VecDeque::new() },
        }
    }

    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    pub(crate) fn unstable(&self) -> &Unstable {
        &self.unstable
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// First index that can be read.
    pub(crate) fn first_index(&self) -> Index {
        match self.unstable.snapshot() {
            Some(s) => s.meta.index.next(),
            None => self.storage.first_index(),
        }
    }

    pub(crate) fn last_index(&self) -> Index {
        self.unstable.last_index().unwrap_or_else(|| self.storage.last_index())
    }

    /// Position of the last entry. A storage always knows its last term; 0 only if it breaks that promise.
    pub(crate) fn last_pos(&self) -> LogPos {
        let index = self.last_index();
        LogPos { term: self.term_or_none(index), index }
    }

    /// Position of the last unstable entry; none without any.
    pub(crate) fn last_unstable(&self) -> LogPos {
        self.unstable.entries().last().map_or(LogPos::NONE, Entry::pos)
    }

    /// Term of the entry at `index`. Unknown is an error, never 0 (raft-core S19).
    pub(crate) fn term(&self, index: Index) -> Result<Term, StorageError> {
        match self.unstable.snapshot() {
            // The storage may hold more by now than this log knows of.
            _ if index >= self.unstable.offset() => self.unstable.term(index).ok_or(StorageError::Unavailable),
            Some(s) if index < s.meta.index => Err(StorageError::Compacted),
            Some(s) if index == s.meta.index => Ok(s.meta.term),
            _ => self.storage.term(index),
        }
    }

    /// The term there, or 0 if unknown: for printing and for comparing positions that are known to exist.
    pub(crate) fn term_or_none(&self, index: Index) -> Term {
        self.term(index).unwrap_or(Term::NONE)
    }

    /// Does the log hold this very entry?
    pub(crate) fn has(&self, pos: LogPos) -> bool {
        self.term(pos.index) == Ok(pos.term)
    }

    /// Is a log that ends at `last` at least as new as this one (Raft 5.4.1)?
    pub(crate) fn is_up_to_date(&self, last: LogPos) -> bool {
        last >= self.last_pos()
    }

    /// The largest index up to `from` where a log with terms up to `term` may match (raft-core 7.4).
    pub(crate) fn guess(&self, from: Index, term: Term) -> LogPos {
        let mut index = from;
        while index > Index::NONE {
            match self.term(index) {
                Ok(own) if own > term => index = index.prev(),
                Ok(own) => return LogPos::new(own, index),
                Err(_) => return LogPos::new(Term::NONE, index),
            }
        }
        LogPos::NONE
    }

    /// Entries of `[low, high)` into the empty `page`: the longest prefix within `max_bytes` over both parts, at
    /// least one.
    pub(crate) fn read(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        if low >= high {
            return Ok(());
        }
        self.check_range(low, high)?;
        let offset = self.unstable.offset();
        if high <= offset {
            return self.storage.entries(low, high, max_bytes, page);
        }
        if low < offset {
            self.storage.entries(low, offset, max_bytes, page)?;
            if (page.len() as u64) < low.lag_to(offset) {
                return Ok(());
            }
        }
        self.unstable.entries().read(low.max(offset), high, max_bytes, page);
        Ok(())
    }

    /// The same as one run, for a message. What was just appended is one already.
    pub(crate) fn read_run(&self, low: Index, high: Index, max_bytes: u64) -> Result<EntryRun, StorageError> {
        if low >= high {
            return Ok(EntryRun::default());
        }
        self.check_range(low, high)?;
        if low >= self.unstable.offset()
            && let Some(run) = self.unstable.entries().single_run(low, high, max_bytes)
        {
            return Ok(run);
        }
        let mut page = Entries::new();
        self.read(low, high, max_bytes, &mut page)?;
        Ok(page.to_run())
    }

    fn check_range(&self, low: Index, high: Index) -> Result<(), StorageError> {
        if low < self.first_index() {
            Err(StorageError::Compacted)
        } else if high > self.last_index().next() {
            Err(StorageError::Unavailable)
        } else {
            Ok(())
        }
    }

    /// Appends a leader's own entries, which follow the last one.
    pub(crate) fn append(&mut self, run: EntryRun) {
        let first = run.first_index();
        assert!(
            first == self.last_index().next() && first > self.committed,
            "own entries at {first}: {:?}",
            self.pointers()
        );
        self.unstable.append(run);
    }

    /// Appends what a leader sent: at a proven conflict, or at the end (raft-core 7.2, S4).
    pub(crate) fn append_after(&mut self, prev: LogPos, entries: &EntryRun, commit: Index) -> Appended {
        let unchecked = mutant::is(Mutant::PrevNotChecked) && prev.index <= self.last_index();
        if !self.has(prev) && !unchecked {
            return Appended::Refused;
        }
        let last_new = prev.index.plus(entries.len() as u64);
        let uncut = mutant::is(Mutant::AppendCommitUncut);
        let commit = commit.min(if uncut { self.last_index().max(last_new) } else { last_new });
        let new_at = entries.iter().position(|e| self.is_new(e));
        let (mut conflict, mut splice) = (None, None);
        if let Some(skip) = new_at {
            let first = entries[skip].pos();
            if first.index <= self.committed {
                return Appended::ConflictBelowCommit(first);
            }
            if first.index <= self.last_index() {
                conflict = Some((first, self.term_or_none(first.index)));
            }
            splice = Some(self.unstable.append(entries.part(skip..entries.len())));
        }
        assert!(self.commit_to(commit), "commit {commit} was cut to an entry that the log holds");
        Appended::Done { last_new, conflict, splice }
    }

    /// Does this entry of a leader contradict the log, or continue it?
    fn is_new(&self, entry: &Entry) -> bool {
        let keeps = mutant::is(Mutant::ConflictKept) && entry.index <= self.last_index();
        let cuts = mutant::is(Mutant::AppendTruncates) && entry.index > self.committed;
        (!self.has(entry.pos()) && !keeps) || cuts
    }

    /// Raises the commit index; false, and nothing happens, if the log does not reach so far (raft-core S41).
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        if index > self.committed {
            if index > self.last_index() {
                return false;
            }
            self.committed = index;
        }
        true
    }

    /// Storage holds everything up to `pos`.
    pub(crate) fn stable_to(&mut self, pos: LogPos) -> StableOutcome {
        self.unstable.stable_to(pos)
    }

    /// Storage installed the snapshot at `index`.
    pub(crate) fn stable_snapshot_to(&mut self, index: Index) {
        self.unstable.stable_snapshot_to(index);
    }

    /// Everything unstable was handed out for writing.
    pub(crate) fn accept_unstable(&mut self) {
        self.unstable.accept();
    }

    /// A snapshot replaces the log.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        self.committed = snapshot.meta.index;
        self.unstable.restore(snapshot);
    }

    /// The newest snapshot for a follower: the unstable one if there is one.
    pub(crate) fn unstable_snapshot(&self) -> Option<&Snapshot> {
        self.unstable.snapshot()
    }

    /// The pointers, for a trace.
    pub(crate) fn pointers(&self) -> LogPointers {
        LogPointers {
            committed: self.committed,
            applied: self.applied,
            applying: self.applying,
            offset: self.unstable.offset(),
            offset_in_progress: self.unstable.in_progress(),
            unstable: self.unstable.len(),
        }
    }
}

/// Applying.
impl<S: Storage> RaftLog<S> {
    /// Last index that may be applied; unstable entries only if the same `Ready` persists them first (S9).
    fn last_appliable(&self, with_unstable: bool) -> Index {
        if with_unstable || mutant::is(Mutant::AppliesUnstable) {
            self.committed
        } else {
            self.committed.min(self.unstable.offset().prev())
        }
    }

    /// Are there committed entries to hand out?
    pub(crate) fn has_page(&self, with_unstable: bool) -> bool {
        !self.pages.paused
            && !self.pages.uncached
            && (self.unstable.snapshot().is_none() || mutant::is(Mutant::AppliesInInstall))
            && self.applying < self.last_appliable(with_unstable)
    }

    /// The next range to apply and the bytes that may be handed out.
    pub(crate) fn next_page(&self, with_unstable: bool) -> (Index, Index, u64) {
        let (low, high) = (self.applying.next(), self.last_appliable(with_unstable).next());
        (low, high, self.pages.limit.saturating_sub(self.pages.size))
    }

    /// The storage has the next page not in memory.
    pub(crate) fn set_page_uncached(&mut self, uncached: bool) {
        self.pages.uncached = uncached;
    }

    /// `entries` are handed out for applying.
    pub(crate) fn accept_page(&mut self, entries: &Entries, with_unstable: bool) {
        let Some(last) = entries.last_index() else { return };
        assert!(self.applying < last && last <= self.committed, "page ends at {last}: {:?}", self.pointers());
        let encoded = if mutant::is(Mutant::PageLimitPerReady) { 0 } else { entries.encoded_size() };
        let payload = entries.payload_size();
        let rest = last < self.last_appliable(with_unstable);
        self.applying = if mutant::is(Mutant::PageSkipsRest) { self.committed } else { last };
        self.pages.size += encoded;
        self.pages.paused = self.pages.size >= self.pages.limit || rest;
        self.pages.open.push_back(Page { last, encoded, payload });
    }

    /// Everything handed out up to `upto` is applied. Returns the payload bytes given back.
    pub(crate) fn applied_pages(&mut self, upto: Index) -> u64 {
        let (mut payload, paused, open) = (0, self.pages.paused, self.pages.open.len());
        while let Some(page) = self.pages.open.front().filter(|p| p.last <= upto) {
            payload += page.payload;
            self.pages.size -= page.encoded;
            self.pages.open.pop_front();
        }
        self.applied_to(upto);
        // A page is given back as a whole: a part of it lets nothing more out.
        self.pages.paused |= paused && self.pages.open.len() == open && open > 0;
        payload
    }

    /// The state machine stands at `upto` at least: by a report, a snapshot, or at start.
    pub(crate) fn applied_to(&mut self, upto: Index) {
        let upto = upto.max(self.applied);
        assert!(upto <= self.committed, "applied {upto}: {:?}", self.pointers());
        self.applied = upto;
        self.applying = self.applying.max(upto);
        let Pages { limit, size, .. } = self.pages;
        self.pages.paused = size >= limit && size > 0;
    }
}

#[cfg(test)]
mod tests;
