//! The append race as a criterion bench: the store beside the bare RocksDB WAL writer.
//!
//! `cargo bench -p pontoon-benches --bench append`. With raft-engine: `cargo bench --bench append` in `benches/peers`.
//! The interleaved race with all record units is `--bench log_store`.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use pontoon_benches::contest;
use pontoon_benches::contestants::{OwnStore, Rocks, Unit};

fn append(c: &mut Criterion) {
    contest::run(c, |dir| {
        vec![Box::new(Rocks::new(&dir.join("bare"), Unit::Bare)), Box::new(OwnStore::new(&dir.join("own")))]
    });
}

criterion_group!(benches, append);
criterion_main!(benches);
