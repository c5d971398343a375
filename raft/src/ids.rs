//! Terms, indexes and replica ids: the numbers of the Raft paper as types that cannot be mixed up.
//!
//! Leaves to others: what a group or a node is (nothing in this crate knows either).
//! Invariant: only arithmetic that means something exists here; there is no `From<u64>` and no `Add`.

use std::fmt;

/// A leader's reign (Raft 5.1). Terms only grow on a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A position in the log; the first entry has index 1 (Raft, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// One member of the group. Ids are never used again after a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// Where an entry stands: its index and the term of the leader that appended it.
/// The order is the one of elections (Raft 5.4.1): term first, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPos {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

/// Logical time in ticks; the driver decides how long a tick lasts (default 100 ms).
pub type Tick = u64;

impl Term {
    /// Before any election.
    pub const NONE: Term = Term(0);

    /// The following term.
    #[must_use]
    #[inline]
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("decoders refuse u64::MAX"))
    }
}

impl Index {
    /// Before the first entry.
    pub const NONE: Index = Index(0);

    /// The following index.
    #[must_use]
    #[inline]
    pub fn next(self) -> Index {
        Index(self.0.checked_add(1).expect("decoders refuse u64::MAX"))
    }

    /// The index before; stays at 0.
    #[must_use]
    #[inline]
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }

    /// `self + n`.
    #[must_use]
    #[inline]
    pub fn plus(self, n: u64) -> Index {
        Index(self.0.checked_add(n).expect("decoders refuse u64::MAX"))
    }

    /// Number of entries in `(self, last]`; 0 when `last` lies behind.
    #[must_use]
    #[inline]
    pub fn lag_to(self, last: Index) -> u64 {
        last.0.saturating_sub(self.0)
    }
}

impl ReplicaId {
    /// Nobody: no leader, no vote, no transfer target. Never a member's id.
    pub const NONE: ReplicaId = ReplicaId(0);
    /// The local append thread, in the printed form of transcripts only. Never a member's id.
    pub const APPEND_THREAD: ReplicaId = ReplicaId(u64::MAX);
    /// The local apply thread, likewise.
    pub const APPLY_THREAD: ReplicaId = ReplicaId(u64::MAX - 1);

    /// Is this nobody?
    #[must_use]
    #[inline]
    pub fn is_none(self) -> bool {
        self == ReplicaId::NONE
    }

    /// Is this one of the two storage threads?
    #[must_use]
    #[inline]
    pub fn is_local_target(self) -> bool {
        self == ReplicaId::APPEND_THREAD || self == ReplicaId::APPLY_THREAD
    }

    /// May a member of a group have this id?
    #[must_use]
    #[inline]
    pub fn is_valid_member(self) -> bool {
        !self.is_none() && !self.is_local_target()
    }
}

impl LogPos {
    /// Before the first entry.
    pub const NONE: LogPos = LogPos { term: Term::NONE, index: Index::NONE };

    /// The position (`term`, `index`).
    #[must_use]
    #[inline]
    pub fn new(term: Term, index: Index) -> LogPos {
        LogPos { term, index }
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => { $(impl fmt::Display for $name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
    })* };
}
display_as_number!(Term, Index, ReplicaId);
