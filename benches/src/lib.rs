//! Load drivers shared by the benches here and by `peers` (an excluded workspace with foreign log stores).
//!
//! Nobody imports this crate. Invariant: all contestants of a table run in one process, in interleaved rounds, on
//! one directory: only ratios within one run count.

pub mod append;
pub mod contest;
pub mod contestants;
pub mod drive;
pub mod table;
