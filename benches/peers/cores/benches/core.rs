//! Both cores as criterion benches. `cargo bench -p pontoon-peers-cores` in `benches/peers`. The interleaved race with
//! ratios and idle ticks is `cargo run --release -p pontoon-peers-cores --bin race`.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pontoon_peers_cores::clock::time;
use pontoon_peers_cores::group::{Group, Replica};
use pontoon_peers_cores::ours::{Asynchronous, Synchronous};
use pontoon_peers_cores::theirs::Theirs;

fn contestant<R: Replica>(c: &mut Criterion, name: &str) {
    let mut bench = c.benchmark_group("core");
    for batch in [1, 16, 256] {
        let mut group = Group::<R>::default();
        bench.throughput(Throughput::Elements(batch as u64)).sample_size(20);
        bench.bench_function(BenchmarkId::new(name, batch), |b| b.iter_custom(|n| time(|| group.run(n, batch))));
    }
    bench.finish();
}

fn core(c: &mut Criterion) {
    contestant::<Asynchronous>(c, "ours");
    contestant::<Synchronous>(c, "ours, synchronous");
    contestant::<Theirs>(c, "raft-rs 0.7");
}

criterion_group!(benches, core);
criterion_main!(benches);
