//! The append race through criterion: shapes one after the other, so compare within a shape.
//!
//! Leaves to others: who takes part (`contestants`, and `peers` for foreign stores), the interleaved race (`table`).
//! Invariant: each contestant gets the same batches; truncation is part of the time, as in production.

use crate::append::{Contestant, Load, Shape};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::path::Path;
use std::time::{Duration, Instant};

/// Entries in a batch, and groups that share it.
const SHAPES: [(usize, usize); 5] = [(1, 1), (512, 1), (512, 256), (4096, 1), (4096, 256)];

/// Benches what `contestants` makes in an empty directory, shape by shape.
pub fn run(c: &mut Criterion, contestants: impl Fn(&Path) -> Vec<Box<dyn Contestant>>) {
    for (entries, groups) in SHAPES {
        let mut shape = c.benchmark_group(format!("append {entries} over {groups}"));
        shape.throughput(Throughput::Elements(entries as u64)).sample_size(20);
        let dir = tempfile::tempdir().expect("a temporary directory");
        for mut contestant in contestants(dir.path()) {
            let mut load = Load::new(Shape { entries, groups });
            let id = BenchmarkId::from_parameter(contestant.name());
            shape.bench_function(id, |b| b.iter_custom(|n| time(&mut *contestant, &mut load, n)));
        }
        shape.finish();
    }
}

/// Time of `n` durable appends.
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
