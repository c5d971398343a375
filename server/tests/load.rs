//! `pontoon load` against real processes: its JSON is the load driver's, it follows `MOVED`, and a killed leader costs
//! no acknowledged write.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../benches/tests/keys/mod.rs"]
mod keys;
mod support;

use keys::KEYS;
use pontoon_server::harness::Nodes;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::running;

/// Only one address is told: the others are learnt.
fn load(nodes: &Nodes, json: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(["load", "--redis", &nodes.node(3).redis, "--inflight", "64", "--json"]).arg(json);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn result(child: Child, json: &Path) -> Value {
    let output = child.wait_with_output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_tells_what_a_client_can_know_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("load.json");
    let mut nodes = running(dir.path(), 6, &[]).await;

    let admin: Vec<&str> = nodes.nodes.iter().map(|n| n.admin.as_str()).collect();
    let figures =
        result(load(&nodes, &json, &["--seconds", "1", "--admin", &admin.join(","), "--reads", "0.2"]), &json);
    let found: Vec<&str> = figures.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = KEYS;
    wanted.sort_unstable(); // as serde_json keeps them
    assert_eq!(found, wanted);
    assert_eq!(figures["groups"], 6);
    assert!(figures["entries_per_sync"].as_f64().unwrap() >= 1.0);
    assert!(figures["log_bytes_per_payload_byte"].as_f64().unwrap() >= 1.0);
    assert!(figures["cpu_us_per_write"].is_null(), "the nodes' processes are not the client's to look at");

    let figures = result(load(&nodes, &json, &["--seconds", "1", "--open-loop", "200", "--zipf", "1"]), &json);
    assert!(figures["writes_per_s"].as_f64().unwrap() < 400.0);
    assert!(figures["entries_per_sync"].is_null(), "no admin address was told");

    let under_way = load(&nodes, &json, &["--seconds", "4"]);
    nodes.kill(1).unwrap();
    result(under_way, &json);
}
