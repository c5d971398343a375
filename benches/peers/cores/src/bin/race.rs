//! The race: short rounds of both cores in turn; the fastest round and the median of each, their ratios; the cost of idle ticks.
//!
//! `cargo run --release -p pontoon-peers-cores --bin race` in `benches/peers`. CPU time of the one thread; compare the ratios of
//! one run only. Every round does the same work: what makes one slower than another is the machine (a neighbour on the same
//! core), so the fastest rounds compare the cores, the medians tell how noisy it was. `... -- ours 16 4096` (or `synchronous`,
//! `raft-rs`) runs 4,096 batches of 16 through one of them alone, for a profiler.
#![allow(clippy::print_stdout)]

use pontoon_peers_cores::clock::time;
use pontoon_peers_cores::group::{Group, Replica};
use pontoon_peers_cores::ours::{Asynchronous, Synchronous};
use pontoon_peers_cores::theirs::Theirs;

const ROUNDS: usize = 61;
/// Entries of one round.
const ENTRIES: u64 = 1 << 15;

/// A round's time per entry, in nanoseconds. Half as much goes before it: whoever was on before has left its own in the caches.
fn round<R: Replica>(group: &mut Group<R>, batch: usize) -> f64 {
    let batches = ENTRIES / batch as u64;
    group.run(batches / 2, batch);
    let spent = time(|| group.run(batches, batch));
    spent.as_nanos() as f64 / (batches * batch as u64) as f64
}

fn idle<R: Replica>(group: &mut Group<R>, number: usize, ticks: u64) -> f64 {
    let calls = 1 << 12;
    let spent = time(|| (0..calls).for_each(|_| group.replica(number).idle(ticks)));
    spent.as_nanos() as f64 / f64::from(calls)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn race(batch: usize) {
    let (mut ours, mut synchronous) = (Group::<Asynchronous>::default(), Group::<Synchronous>::default());
    let mut theirs = Group::<Theirs>::default();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push([round(&mut ours, batch), round(&mut synchronous, batch), round(&mut theirs, batch)]);
    }
    let times = [0, 1, 2].map(|who| sorted(rounds.iter().map(|r| r[who])));
    for (name, at) in [("fastest", 0), ("median", ROUNDS / 2)] {
        let [ours, synchronous, theirs] = [0, 1, 2].map(|who| times[who][at]);
        let rate = |ns: f64| 1e3 / ns;
        println!(
            "| {batch} | {name} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
            rate(ours),
            rate(synchronous),
            rate(theirs),
            theirs / ours,
            theirs / synchronous
        );
    }
}

fn ticks(number: usize, role: &str) {
    for n in [1, 10, 100] {
        let (mut ours, mut theirs) = (Group::<Asynchronous>::default(), Group::<Theirs>::default());
        let ours = sorted((0..ROUNDS).map(|_| idle(&mut ours, number, n)))[0];
        let theirs = sorted((0..ROUNDS).map(|_| idle(&mut theirs, number, n)))[0];
        println!("| {role}, {n} ticks | {ours:.1} | {theirs:.1} |");
    }
}

/// One contestant alone.
fn alone(name: &str, batch: usize, batches: u64) {
    match name {
        "ours" => Group::<Asynchronous>::default().run(batches, batch),
        "synchronous" => Group::<Synchronous>::default().run(batches, batch),
        _ => Group::<Theirs>::default().run(batches, batch),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [name, batch, batches] = &args[..] {
        return alone(name, batch.parse().expect("a number of entries"), batches.parse().expect("a number of batches"));
    }
    println!("| batch | round | ours, M entries/s | ours, synchronous | raft-rs 0.7 | ratio | ratio, synchronous |");
    println!("|---|---|---|---|---|---|---|");
    [1, 16, 256].into_iter().for_each(race);
    println!("\n| idle | ours, ns | raft-rs 0.7, ns |\n|---|---|---|");
    ticks(0, "leader");
    ticks(1, "follower");
}
