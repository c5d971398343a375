//! Appends of one batch, durable: the store, its record units, the bare RocksDB WAL writer, the raw file, in one run.
//!
//! `cargo bench -p pontoon-benches --bench log_store -- [--seconds 2] [--dir DIR]`. Gates nothing. With raft-engine
//! among the contestants: `benches/peers`.
#![allow(missing_docs)]

fn main() {
    pontoon_benches::table::run(|_| Vec::new());
}
