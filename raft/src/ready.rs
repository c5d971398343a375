//! What a replica asks its driver to do: persist, send, apply.
//!
//! Leaves to others: how it is collected (`raw_node`), how it is done (the driver).
//! Invariant: numbers rise by one; nothing in `messages` rests on state that this `Ready` still has to persist.

use crate::entries::Entries;
use crate::ids::{Index, ReplicaId};
use crate::message::Message;
use crate::state::{HardState, Snapshot, SoftState};
use bytes::Bytes;

/// Numbers the `Ready`s of one replica since its start; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadyNumber(pub u64);

impl ReadyNumber {
    /// The following number.
    #[must_use]
    #[inline]
    pub fn next(self) -> ReadyNumber {
        ReadyNumber(self.0.checked_add(1).expect("no replica lives for 2^64 turns"))
    }
}

/// A read that is linearizable once `index` is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadState {
    /// Apply up to here before answering.
    pub index: Index,
    /// As passed to `read_index`.
    pub context: Bytes,
}

/// One turn's work. Taking it counts as accepting it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// For `on_persisted`.
    pub number: ReadyNumber,
    /// Leader or role changed.
    pub soft_state: Option<SoftState>,
    /// To persist.
    pub hard_state: Option<HardState>,
    /// To persist; they replace everything stored from the first one's index on.
    pub entries: Entries,
    /// To install before anything else of this `Ready`; there are no `entries` that it covers.
    pub snapshot: Option<Snapshot>,
    /// To apply, in order; durable already in asynchronous mode, else persist `entries` first.
    pub committed_entries: Entries,
    /// Reads that may be served.
    pub read_states: Vec<ReadState>,
    /// Contexts of own reads that will never be answered: the leadership ended. Ask again.
    pub dropped_reads: Vec<Bytes>,
    /// To send. Asynchronous mode: at once, what must wait is held back for `on_persisted`.
    /// Synchronous mode: after persisting.
    pub messages: Vec<Message>,
    /// Persisting must reach the disk before this `Ready` is done: entries, term or vote.
    /// A commit index alone need not; a snapshot is synced by whoever installs it (raft-core S42).
    pub must_sync: bool,
    /// Asynchronous mode: `on_persisted(number)` is waited for once everything up to here is durable,
    /// even if this `Ready` itself writes nothing.
    pub awaits_persist: bool,
}

impl Ready {
    /// Nothing to do at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.has_only_messages() && self.messages.is_empty()
    }

    /// Is there nothing but messages to send?
    #[must_use]
    #[inline]
    pub fn has_only_messages(&self) -> bool {
        self.soft_state.is_none()
            && self.hard_state.is_none()
            && self.entries.is_empty()
            && self.snapshot.is_none()
            && self.committed_entries.is_empty()
            && self.read_states.is_empty()
            && self.dropped_reads.is_empty()
            && !self.awaits_persist
    }

    /// Empties all lists and keeps their memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.soft_state = None;
        self.hard_state = None;
        self.entries.clear();
        self.snapshot = None;
        self.committed_entries.clear();
        self.read_states.clear();
        self.dropped_reads.clear();
        self.messages.clear();
        self.must_sync = false;
        self.awaits_persist = false;
    }
}

/// Entries that the storage did not have in memory. Fetch them, then call `RawNode::resume_append` with `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// For whom: a follower, or the own id when they are to be applied here.
    pub to: ReplicaId,
    /// First index wanted.
    pub low: Index,
    /// End (exclusive) of what is wanted.
    pub high: Index,
    /// Encoded bytes that are of use.
    pub max_bytes: u64,
}
