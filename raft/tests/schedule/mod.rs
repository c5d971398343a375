//! One group of cores under a schedule: a string of bytes that says what happens, action by action.
//!
//! `run` is the harness; its drivers are the seed sweep and the shrinker (`tests/schedule.rs`), the seeded bugs
//! (`tests/mutants.rs`) and cargo-fuzz (`raft/fuzz`). Any bytes are a schedule.
//! Invariant: the bytes determine everything; a broken promise panics.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code, unused_imports)]

mod action;
mod conduct;
mod driver;
mod group;
mod healing;
mod knobs;
mod replica;
mod script;
pub mod shrink;
mod summary;
mod witness;

pub use script::{FRAME, HEADER, Script, from_hex, from_seed, to_hex};
pub use summary::Summary;

use group::Group;
use std::io::Write;

/// Plays a schedule to its end, lets everything heal, and judges on the way. `tell`: with its story.
pub fn run(bytes: &[u8], tell: bool) -> Summary {
    let mut script = Script::new(bytes);
    let mut group = Group::new(&mut script, tell);
    let mut actions = 0;
    while let Some(mut frame) = script.next_frame() {
        group.act(&mut frame);
        actions += 1;
    }
    group.heal();
    group.summary(actions)
}

/// Not through `print!`: what happened shall be seen although the test passes.
pub fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
