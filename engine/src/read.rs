//! Reads: what each mode promises, and the view that keeps it.
//!
//! Leaves to others: the confirmation (raftstore's ReadIndex), what can be asked (the machine's `Reader`).
//! Invariant: the view of a linearizable read holds every write that was acknowledged before the read began.

use crate::oneshot::Oneshot;
use pontoon_raftstore::error::ReadError;
use pontoon_raftstore::ids::Index;
use pontoon_raftstore::proposal::ReadSlot;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// What a read promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Read {
    /// Sees every write acknowledged anywhere before the read began. One round to the leader, shared by all reads of a
    /// turn.
    Linearizable,
    /// What is applied here.
    Local {
        /// `Some`: nothing acknowledged longer ago than this is missing; where the last confirmation is older, this
        /// read fetches one. `None`: no bound.
        max_staleness: Option<Duration>,
    },
}

/// A machine's read view, and how far it is at least.
#[derive(Clone, Debug)]
pub struct ReadView<R> {
    /// Everything up to this index is in the view.
    pub at: Index,
    /// The machine's.
    reader: R,
}

impl<R> ReadView<R> {
    pub(crate) fn new(at: Index, reader: R) -> ReadView<R> {
        ReadView { at, reader }
    }
}

impl<R> Deref for ReadView<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.reader
    }
}

/// Where the confirmation of a read arrives.
#[derive(Default)]
pub(crate) struct Waiting {
    answer: Arc<Oneshot<Result<Index, ReadError>>>,
}

impl Waiting {
    pub(crate) fn answer(&self) -> Arc<Oneshot<Result<Index, ReadError>>> {
        Arc::clone(&self.answer)
    }
}

impl ReadSlot for Waiting {
    fn ready(&self, at: Index) {
        self.answer.set(Ok(at));
    }

    fn fail(&self, error: ReadError) {
        self.answer.set(Err(error));
    }
}
