//! What the core asks of the stable log: read-only, synchronous, from memory.
//!
//! Leaves to others: writing (the driver writes what a `Ready` names), reading from disk (a storage
//! answers `Uncached`, the driver fetches in the background and calls `RawNode::resume_append`).

use crate::entries::Entries;
use crate::ids::{Index, ReplicaId, Term};
use crate::state::{ConfState, HardState, Snapshot};

/// What a replica starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialState {
    /// As stored; empty for a new replica.
    pub hard_state: HardState,
    /// The configuration at the applied position.
    pub conf_state: ConfState,
}

/// Why a read of the log has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Below the first index: the receiver needs a snapshot.
    #[error("compacted")]
    Compacted,
    /// Above the last index.
    #[error("unavailable")]
    Unavailable,
    /// On disk, but not in memory: the driver fetches it, then calls `resume_append`.
    #[error("not cached")]
    Uncached,
    /// A snapshot is being built: ask again later.
    #[error("snapshot temporarily unavailable")]
    SnapshotUnavailable,
}

/// The stable part of the log.
///
/// Invariant: `first_index() - 1 <= last_index()`; `term` answers for `first_index() - 1 ..= last_index()`
/// always (raft-core S20), from memory.
pub trait Storage {
    /// Hard state and configuration at start.
    fn initial_state(&self) -> InitialState;
    /// Entries of `[low, high)` into `page`, which is empty: the longest prefix within `max_bytes` of encoded size,
    /// at least one. On an error `page` stays empty.
    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError>;
    /// Term of the entry at `index`.
    fn term(&self, index: Index) -> Result<Term, StorageError>;
    /// First index that is not compacted.
    fn first_index(&self) -> Index;
    /// Last index; `first_index() - 1` if the log is empty.
    fn last_index(&self) -> Index;
    /// The newest snapshot for `to`, or `SnapshotUnavailable` while one is built.
    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError>;
}

/// A storage behind a pointer, so that a host's own type can be forgotten.
impl<S: Storage + ?Sized> Storage for Box<S> {
    fn initial_state(&self) -> InitialState {
        (**self).initial_state()
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        (**self).entries(low, high, max_bytes, page)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        (**self).term(index)
    }

    fn first_index(&self) -> Index {
        (**self).first_index()
    }

    fn last_index(&self) -> Index {
        (**self).last_index()
    }

    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError> {
        (**self).snapshot(to)
    }
}
