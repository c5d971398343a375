//! Quorum arithmetic: what have enough of these voters reached, and have they elected?
//!
//! Leaves to others: who votes and what they said (`tracker`). Works on slices of plain numbers.
//! Invariant: an empty half stands in nobody's way; its index is infinite, its vote is won.

pub mod joint;
pub mod majority;

/// What an empty half has reached.
pub const INFINITE: u64 = u64::MAX;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteResult {
    /// Open: it needs answers that are still missing.
    Pending,
    /// Cannot be won any more.
    Lost,
    /// Enough have said yes.
    Won,
}

#[cfg(test)]
mod tests;
