//! Consensus cores alone, side by side: three nodes stepped by hand in one thread, ours and raft-rs 0.7.
//!
//! Leaves to others: tables (`bin/race`), memory (`bin/memory`), criterion (`benches/core`). `ours` and `theirs` translate
//! the same calls. Invariant: both sides get the same batches, queues and order of turns, one fresh heap buffer per
//! command, a storage that keeps entries and is compacted at the same steps.

pub mod clock;
pub mod group;
pub mod ours;
pub mod theirs;
