//! The gate on the data path: what a write costs in syncs, messages, allocations and bytes, at two numbers of groups.
//!
//! Counters only, never times: a slow or busy machine batches more, not less. The bounds are two to three times what a busy
//! machine shows in a debug build (a short window has the most of the flush at the end in its device bytes). One test, so
//! that no other load runs beside it. Allocations are counted with the feature `allocations`, which the gate asks for.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use serde_json::Value;
use std::process::Command;

fn drive(groups: u64) -> impl Fn(&str) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("point.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drive"));
    command.args(["--groups", &groups.to_string(), "--inflight", "1024", "--bytes", "128", "--seconds", "2"]);
    let output = command.arg("--json").arg(&json).arg("--data").arg(dir.path()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{output:?}");
    let point: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    move |key| point[key].as_f64().unwrap()
}

#[test]
fn a_write_costs_few_syncs_messages_allocations_and_bytes() {
    let (few, many) = (drive(3), drive(192));
    for (point, messages, allocations) in [(&few, 0.1, 5.0), (&many, 6.0, 40.0)] {
        assert!(point("entries_per_sync") >= 50.0);
        assert!(point("messages_per_write") <= messages);
        if cfg!(feature = "allocations") {
            assert!(point("allocations_per_write") <= allocations);
        }
        assert!((1.0..1.3).contains(&point("log_bytes_per_payload_byte")));
        assert!((1.0..12.0).contains(&point("device_bytes_per_payload_byte")));
    }
    // All groups of a node share its syncs.
    let ratio = few("entries_per_sync") / many("entries_per_sync");
    assert!((0.25..4.0).contains(&ratio), "{ratio}");
}
