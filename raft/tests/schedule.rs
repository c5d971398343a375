//! Random schedules against the promises of Raft (figure 3) and of this crate's driver contract.
//!
//! A schedule is a string of bytes: each action takes some (`world`). After every call of the core an observer
//! that sees all replicas judges (`witness`); at the end everything heals and the group must make progress.
//! `PONTOON_SEEDS=n` runs n schedules (default `SCHEDULES`), `PONTOON_SEED=n` that one alone, with its story.
//! Invariant: the seed determines everything.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "schedule/replica.rs"]
mod replica;
#[path = "schedule/witness.rs"]
mod witness;
#[path = "schedule/world.rs"]
mod world;

use std::io::Write;
use std::panic::catch_unwind;
use world::World;

/// About 20 s of the dev profile on a busy machine.
const SCHEDULES: u64 = 5_000;

/// Bytes of one schedule; an action takes two or three.
const LENGTH: usize = 12_000;

/// A schedule as it is consumed. Behind its end everything is 0.
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    /// SplitMix64 over the seed.
    fn from_seed(seed: u64, len: usize) -> Script {
        let mut state = seed;
        let next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z >> 40) as u8
        };
        Script { bytes: std::iter::repeat_with(next).take(len).collect(), at: 0 }
    }

    fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) * n / 256
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn run(seed: u64, tell: bool) -> world::Summary {
    let mut script = Script::from_seed(seed, LENGTH);
    let mut world = World::new(seed, tell, &mut script);
    while !script.is_over() {
        world.act(&mut script);
    }
    world.heal();
    world.summary()
}

/// Not through `print!`: what happened shall be seen although the test passes.
pub fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn promises_hold_on_random_schedules() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let only = number("PONTOON_SEED");
    let seeds = only.map_or(0..number("PONTOON_SEEDS").unwrap_or(SCHEDULES), |seed| seed..seed + 1);
    let mut total = world::Summary::default();
    for seed in seeds {
        match catch_unwind(|| run(seed, only.is_some())) {
            Ok(summary) => total.add(&summary),
            Err(_) => panic!("replay: PONTOON_SEED={seed} cargo test -p pontoon-raft --test schedule"),
        }
    }
    say(&format!("{total:?}"));
    assert!(only.is_some() || total.is_lively(), "the schedules did little: {total:?}");
}

/// What a seed means must not change between two runs.
#[test]
fn a_seed_determines_its_schedule() {
    assert_eq!(run(7, false), run(7, false));
}
