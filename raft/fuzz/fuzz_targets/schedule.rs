//! The schedule harness under cargo-fuzz: libFuzzer writes the bytes, coverage leads it to what seeds do not reach.
//!
//! `cargo +nightly fuzz run schedule` in `raft/`. A crash file is replayed and shrunk by
//! `PONTOON_SCRIPT=$(xxd -p FILE | tr -d '\n') cargo test -p pontoon-raft --test schedule promises`.
//! Invariant: the harness is the tests' own (`raft/tests/schedule`).
#![no_main]

#[path = "../../tests/schedule/mod.rs"]
mod schedule;

use libfuzzer_sys::fuzz_target;

/// Actions of one input at most.
const ACTIONS: usize = 600;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len().min(schedule::HEADER + schedule::FRAME * ACTIONS);
    schedule::run(&bytes[..length], false);
});
