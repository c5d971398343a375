//! The load driver end to end, a second long: its JSON has the agreed keys, its counters make sense, its check ran.
#![allow(clippy::unwrap_used, missing_docs)]

mod keys;

use keys::KEYS;
use serde_json::Value;
use std::process::Command;

fn drive(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("point.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drive"));
    command.args(["--groups", "6", "--inflight", "48", "--bytes", "64", "--seconds", "1", "--json"]).arg(&json);
    let output = command.arg("--data").arg(dir.path()).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

#[test]
fn a_point_has_exactly_the_agreed_keys() {
    let point = drive(&["--machine", "count"]);
    let mut found: Vec<&str> = point.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = KEYS.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    // Three nodes write each entry, and at most 48 are in flight: three batches could hold all of them.
    let entries = point["entries_per_sync"].as_f64().unwrap();
    assert!((1.0..=48.0).contains(&entries), "{entries}");
    assert_eq!(point["allocations_per_write"].is_null(), cfg!(not(feature = "allocations")));
    // Payloads are written once a replica, and not much besides.
    assert!(point["log_bytes_per_payload_byte"].as_f64().unwrap() >= 1.0);
}

#[test]
fn keys_are_read_back_after_the_restart() {
    for machine in ["memory", "kv"] {
        let point = drive(&["--machine", machine, "--reads", "0.2", "--zipf", "1.0"]);
        assert_eq!(point["machine"], machine);
    }
}

#[test]
fn an_open_loop_neither_hurries_nor_hides_what_is_late() {
    let slow = drive(&["--open-loop", "300"]);
    assert!(slow["writes_per_s"].as_f64().unwrap() < 600.0);
    // Far more than can be done: most of what is due waits since the load began, three seconds ago, or never begins.
    let late = drive(&["--open-loop", "3000000"]);
    assert!(late["p50_us"].as_u64().unwrap() > 500_000, "{late}");
}
