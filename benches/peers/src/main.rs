//! The append race of `benches/benches/log_store.rs` with raft-engine among the contestants.
//!
//! `cargo run --release -- [--seconds 2] [--dir DIR]`. Invariant: the same shapes, rounds and truncations for all.

use pontoon_benches::table;
use pontoon_peers::RaftEngine;

fn main() {
    table::run(|dir| vec![Box::new(RaftEngine::new(&dir.join("raft-engine")))]);
}
