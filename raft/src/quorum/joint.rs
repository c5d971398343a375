//! Two majorities that must agree (Raft 6).
//!
//! Invariant: neither half decides alone, be it a commit, an election, a read or activity (raft-core S33).

use super::{VoteResult, majority};
use crate::mutant::{self, Mutant};

/// The largest value that a majority of each half has reached. Sorts both in place.
#[must_use]
pub fn reached(incoming: &mut [u64], outgoing: &mut [u64]) -> u64 {
    majority::reached(incoming).min(majority::reached(outgoing))
}

/// Result of an election from the results of its halves.
#[must_use]
pub fn vote(incoming: VoteResult, outgoing: VoteResult) -> VoteResult {
    let outgoing = if mutant::is(Mutant::IncomingElects) { incoming } else { outgoing };
    match (incoming, outgoing) {
        (a, b) if a == b => a,
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        _ => VoteResult::Pending,
    }
}
