//! The race: rounds of both cores in turn, medians and their ratio; the cost of idle ticks.
//!
//! `cargo run --release -p pontoon-peers-cores --bin race` in `benches/peers`. CPU time of the one thread; compare the ratios of
//! one run only. `... -- ours 16 4096` (or `synchronous`, `raft-rs`) runs 4,096
//! batches of 16 through one of them alone, for a profiler.
#![allow(clippy::print_stdout)]

use pontoon_peers_cores::clock::time;
use pontoon_peers_cores::group::{Group, Replica};
use pontoon_peers_cores::ours::{Asynchronous, Synchronous};
use pontoon_peers_cores::theirs::Theirs;

const ROUNDS: usize = 9;
/// Entries of one round.
const ENTRIES: u64 = 1 << 17;

/// A round's time per entry or tick, in nanoseconds.
fn round<R: Replica>(group: &mut Group<R>, batch: usize) -> f64 {
    let batches = (ENTRIES / batch as u64).min(1 << 15);
    let spent = time(|| group.run(batches, batch));
    spent.as_nanos() as f64 / (batches * batch as u64) as f64
}

fn idle<R: Replica>(group: &mut Group<R>, number: usize, ticks: u64) -> f64 {
    let calls = 1 << 12;
    let spent = time(|| (0..calls).for_each(|_| group.replica(number).idle(ticks)));
    spent.as_nanos() as f64 / f64::from(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn race(batch: usize) {
    let (mut ours, mut synchronous) = (Group::<Asynchronous>::default(), Group::<Synchronous>::default());
    let mut theirs = Group::<Theirs>::default();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(round(&mut ours, batch));
        times[1].push(round(&mut synchronous, batch));
        times[2].push(round(&mut theirs, batch));
    }
    let [ours, synchronous, theirs] = times.map(median);
    let rate = |ns: f64| 1e3 / ns;
    println!(
        "| {batch} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} |",
        rate(ours),
        rate(synchronous),
        rate(theirs),
        theirs / ours,
        theirs / synchronous
    );
}

fn ticks(number: usize, role: &str) {
    for n in [1, 10, 100] {
        let (mut ours, mut theirs) = (Group::<Asynchronous>::default(), Group::<Theirs>::default());
        let [ours, theirs] = [
            median((0..ROUNDS).map(|_| idle(&mut ours, number, n)).collect()),
            median((0..ROUNDS).map(|_| idle(&mut theirs, number, n)).collect()),
        ];
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
    println!("| batch | ours, M entries/s | ours, synchronous | raft-rs 0.7 | ratio | ratio, synchronous |");
    println!("|---|---|---|---|---|---|");
    [1, 16, 256].into_iter().for_each(race);
    println!("\n| idle | ours, ns | raft-rs 0.7, ns |\n|---|---|---|");
    ticks(0, "leader");
    ticks(1, "follower");
}
