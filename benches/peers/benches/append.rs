//! The append race as a criterion bench: the store beside the bare RocksDB WAL writer and raft-engine.
//!
//! `CARGO_TARGET_DIR=../../target cargo bench --bench append` in `benches/peers`.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use pontoon_benches::contest;
use pontoon_benches::contestants::{OwnStore, Rocks, Unit};
use pontoon_peers::RaftEngine;

fn append(c: &mut Criterion) {
    contest::run(c, |dir| {
        vec![
            Box::new(Rocks::new(&dir.join("bare"), Unit::Bare)),
            Box::new(OwnStore::new(&dir.join("own"))),
            Box::new(RaftEngine::new(&dir.join("raft-engine"))),
        ]
    });
}

criterion_group!(benches, append);
criterion_main!(benches);
