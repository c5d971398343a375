//! Simulated worlds. `PONTOON_SEED=7` runs one, `PONTOON_SEEDS=0..2000` many (use `--release`); the summary is printed.
//! `PONTOON_STORY=3` beside a seed prints what happened to group 3.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use pontoon_raftstore::ids::GroupId;
use pontoon_raftstore::sim::{Report, Swarm, Verdict, run, run_told};
use pontoon_raftstore::testing::seeds;
use std::collections::BTreeMap;
use std::time::Instant;

/// Seeds of an ordinary test run.
const SEEDS: u64 = if cfg!(debug_assertions) { 6 } else { 40 };

fn replay_line(seed: u64) -> String {
    format!("replay: PONTOON_SEED={seed} cargo test --release -p pontoon-raftstore --test sim worlds -- --nocapture")
}

#[test]
fn worlds() {
    let (began, mut totals, mut failed) = (Instant::now(), BTreeMap::new(), Vec::new());
    let range = seeds(SEEDS);
    let n = range.end - range.start;
    for seed in range {
        let began = Instant::now();
        let about = std::env::var("PONTOON_STORY").ok().map(|g| GroupId(g.parse().unwrap()));
        let report = run_told(seed, Swarm::draw(seed), about);
        report.story.iter().for_each(|line| println!("{line}"));
        if !report.passed() || n == 1 {
            println!("{report}\n{}", replay_line(seed));
        }
        if began.elapsed().as_secs() > 20 {
            println!("seed {seed} took {:?}", began.elapsed());
        }
        report.counts.iter().for_each(|(name, n)| *totals.entry(name.clone()).or_insert(0) += n);
        if !report.passed() {
            failed.push(report);
        }
    }
    let per_hour = n as f64 * 3600.0 / began.elapsed().as_secs_f64();
    println!("{n} seeds, {} failed, {per_hour:.0} seeds an hour; totals: {totals:#?}", failed.len());
    assert!(failed.is_empty(), "{}", failed.iter().map(|r: &Report| replay_line(r.seed) + "\n").collect::<String>());
}

#[test]
fn the_same_seed_is_the_same_world() {
    let seed = 3;
    let (one, two) = (run(seed, Swarm::draw(seed)), run(seed, Swarm::draw(seed)));
    assert_eq!((one.trace, one.events, &one.counts), (two.trace, two.events, &two.counts));
    assert!(!matches!(one.verdict, Verdict::Violation(_)), "{one}");
}
