//! What each role makes of a message (raft-core 6): one `step_*` per role, one arm per kind.
//!
//! Leaves to others: terms (`step`), the deeds themselves (`election`, `replication`, `read_index`, ...).
//! Invariant: a kind that a role has no arm for is ignored.

mod candidate;
mod follower;
mod leader;
