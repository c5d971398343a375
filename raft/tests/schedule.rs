//! Random schedules against the promises of Raft (figure 3) and of this crate's driver contract.
//!
//! The harness is `schedule/mod.rs`; this is the sweep over seeds. After every call of the core a witness that sees
//! all replicas judges; at the end everything heals and the group must make progress. A failure is shrunk and printed
//! with its replay line.
//!
//! `PONTOON_SEEDS=n` or `a..b` runs those seeds (default `SCHEDULES`), `PONTOON_SEED=n` one with its story,
//! `PONTOON_SCRIPT=hex` a shrunk one with its story; `PONTOON_ACTIONS=n` sets the length, `PONTOON_SHRINK=n` the runs
//! that a shrink may take (0: whoever only asks whether the seeds pass).
//! Invariant: the seed determines everything.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "schedule/mod.rs"]
mod schedule;

use schedule::{FRAME, HEADER, Summary, from_hex, from_seed, run, say, shrink, to_hex};
use std::ops::Range;
use std::panic::{catch_unwind, set_hook, take_hook};

/// A few seconds of one core in the dev profile.
const SCHEDULES: u64 = 5_000;

/// Actions of one schedule.
const ACTIONS: usize = 300;

/// Runs that a shrink may take.
const SHRINKING: usize = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// `a..b`, or a number of seeds from 0.
fn seeds() -> Range<u64> {
    let text = std::env::var("PONTOON_SEEDS").unwrap_or(SCHEDULES.to_string());
    match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..text.parse().unwrap(),
    }
}

/// What this thread has had of a core: a machine that does other things, too, does not spoil the figure.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}

fn fails(bytes: &[u8]) -> bool {
    catch_unwind(|| run(bytes, false)).is_err()
}

/// Small, with its story and the line that plays it again.
fn report_failure(seed: u64, bytes: &[u8]) -> ! {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let budget = number("PONTOON_SHRINK").map_or(SHRINKING, |n| n as usize);
    let small = shrink::shrink(bytes, budget, fails);
    set_hook(hook);
    say(&format!("seed {seed}, shrunk to {} actions:", small.len().saturating_sub(HEADER).div_ceil(FRAME)));
    let _ = catch_unwind(|| run(&small, true));
    say("replay:");
    say(&format!("PONTOON_SCRIPT={} cargo test -p pontoon-raft --test schedule promises", to_hex(&small)));
    panic!("PONTOON_SEED={seed} cargo test -p pontoon-raft --test schedule promises");
}

#[test]
fn promises_hold_on_random_schedules() {
    let actions = number("PONTOON_ACTIONS").map_or(ACTIONS, |n| n as usize);
    if let Ok(script) = std::env::var("PONTOON_SCRIPT") {
        return say(&format!("{:?}", run(&from_hex(&script), true)));
    }
    if let Some(seed) = number("PONTOON_SEED") {
        return say(&format!("{:?}", run(&from_seed(seed, actions), true)));
    }
    let (seeds, start, mut total) = (seeds(), cpu_seconds(), Summary::default());
    for seed in seeds.clone() {
        let bytes = from_seed(seed, actions);
        match catch_unwind(|| run(&bytes, false)) {
            Ok(summary) => total.add(&summary),
            Err(_) => report_failure(seed, &bytes),
        }
    }
    let seconds = cpu_seconds() - start;
    let rate = total.schedules as f64 / seconds;
    say(&format!("seeds {seeds:?}, {seconds:.0} s of one core, {rate:.0} schedules a second: {total:?}"));
    assert!(total.schedules < 1_000 || total.is_lively(), "the schedules did little: {total:?}");
}

/// What a seed means must not change between two runs.
#[test]
fn a_seed_determines_its_schedule() {
    let bytes = from_seed(7, ACTIONS);
    assert_eq!(run(&bytes, false), run(&bytes, false));
}

/// Any bytes are a schedule, also none.
#[test]
fn any_bytes_are_a_schedule() {
    for length in [0, 1, HEADER - 1, HEADER, HEADER + 1, HEADER + FRAME + 2] {
        run(&from_seed(3, 10)[..length], false);
    }
}

/// The shrinker is shown to shrink: of a long schedule in which a replica crashes, little more than the crash is left.
#[test]
fn a_schedule_shrinks_to_what_matters() {
    let crashes = |bytes: &[u8]| run(bytes, false).crashes > 0;
    let long = (0..).map(|seed| from_seed(seed, 100)).find(|bytes| crashes(bytes)).unwrap();
    let small = shrink::shrink(&long, 2_000, crashes);
    assert_eq!(small.len(), HEADER + FRAME, "{}", to_hex(&small));
    assert_eq!(from_hex(&to_hex(&small)), small);
}
