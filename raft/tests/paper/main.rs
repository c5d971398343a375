//! What the Raft paper and thesis promise, by section, on small groups in memory; and the rules of raft-core that
//! no transcript of the original shows.
//!
//! Leaves to others: byte-for-byte behaviour (`transcripts`). Each test names the sentence that it holds to.
#![allow(clippy::unwrap_used)]

mod elections;
mod group;
mod limits;
mod membership;
#[cfg(feature = "mutants")]
mod mutants;
mod reads;
mod replication;
mod schedule;
mod snapshots;
