//! Seeded bugs for proving the checkers: compiled in only with the feature `mutants`, which nothing but tests enables.
//!
//! A mutant is switched on for the current thread; without the feature `is` is a constant and the branch is gone.
//! Invariant: production never calls `activate`.

/// A bug that a checker must find. Each breaks one rule of raft-core 17 or one law of the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// Acks and votes leave before the write that they rest on is durable (S6).
    AckBeforeSync,
    /// A leader commits entries of earlier terms by counting (S2, Raft 5.4.2).
    CommitOldTerm,
    /// The vote is left out of the stored hard state (S6).
    VoteNotPersisted,
    /// A completed write counts by (index, entry term) alone (S8, raft-core 14.4).
    CompletionWithoutTerm,
    /// The log is truncated behind what is applied, not behind what the machine has made durable (law 5).
    TruncateAheadOfDurable,
    /// A hard state that changes only the commit is dropped instead of written with the next batch (law 1).
    DropLazyCommit,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 6] = [
        Mutant::AckBeforeSync,
        Mutant::CommitOldTerm,
        Mutant::VoteNotPersisted,
        Mutant::CompletionWithoutTerm,
        Mutant::TruncateAheadOfDurable,
        Mutant::DropLazyCommit,
    ];
}

#[cfg(feature = "mutants")]
mod active {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches a bug on for this thread, or all off.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    /// Is this bug on?
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, is};

/// Without the feature: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}
