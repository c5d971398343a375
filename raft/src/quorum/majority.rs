//! One majority (Raft 5.2, 5.3).
//!
//! Invariant: with `n` voters it takes `n / 2 + 1`; the answers do not hang on the order of the slice.

use super::{INFINITE, VoteResult};
use crate::mutant::{self, Mutant};

/// The largest value that a majority has reached. A voter that never answered counts as 0.
/// Sorts `values` in place.
#[must_use]
pub fn reached(values: &mut [u64]) -> u64 {
    let n = values.len();
    if n == 0 {
        return INFINITE;
    }
    // The group of three, without a sort.
    if let [a, b, c] = *values
        && !mutant::is(Mutant::HalfCommits)
    {
        return a.min(b).max(a.max(b).min(c));
    }
    values.sort_unstable();
    let needed = if mutant::is(Mutant::HalfCommits) { (n / 2).max(1) } else { n / 2 + 1 };
    values[n - needed]
}

/// Result of an election with `yes` and `no` answers among `voters`.
#[must_use]
pub fn vote(yes: usize, no: usize, voters: usize) -> VoteResult {
    let needed = if mutant::is(Mutant::HalfElects) { (voters / 2).max(1) } else { voters / 2 + 1 };
    if voters == 0 || yes >= needed {
        VoteResult::Won
    } else if voters - no >= needed {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}
