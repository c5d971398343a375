//! The append race as a criterion bench: the store beside the bare RocksDB WAL writer, the same batches for both.
//!
//! `cargo bench -p pontoon-benches --bench append`. Shapes run one after the other, so compare within a shape; the
//! interleaved race with all record units is `--bench log_store`, with raft-engine beside it `benches/peers`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pontoon_benches::append::{Contestant, Load, Shape};
use pontoon_benches::contestants::{OwnStore, Rocks, Unit};
use std::time::{Duration, Instant};

const SHAPES: [(usize, usize); 4] = [(1, 1), (512, 1), (4096, 1), (4096, 256)];

/// Time of `n` durable appends; truncation is part of the work, as in production.
fn time(contestant: &mut dyn Contestant, load: &mut Load, n: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..n {
        let (batch, truncation) = (load.next_batch(), load.due_truncation());
        let began = Instant::now();
        contestant.append(&batch);
        if let Some(batch) = truncation {
            contestant.truncate(&batch);
        }
        spent += began.elapsed();
    }
    spent
}

fn append(c: &mut Criterion) {
    for (entries, groups) in SHAPES {
        let mut shape = c.benchmark_group(format!("append {entries} over {groups}"));
        shape.throughput(Throughput::Elements(entries as u64)).sample_size(20);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let own: Box<dyn Contestant> = Box::new(OwnStore::new(&dir.path().join("own")));
        let bare: Box<dyn Contestant> = Box::new(Rocks::new(&dir.path().join("bare"), Unit::Bare));
        for mut contestant in [bare, own] {
            let mut load = Load::new(Shape { entries, groups });
            let id = BenchmarkId::from_parameter(contestant.name());
            shape.bench_function(id, |b| b.iter_custom(|n| time(&mut *contestant, &mut load, n)));
        }
        shape.finish();
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
