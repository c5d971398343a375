//! Real processes: SIGKILL of one, of a majority, of all, under load; nothing acknowledged is lost, histories stay
//! linearizable, replicas end equal.
//!
//! The gate runs one round of each; `PONTOON_ROUNDS=20 cargo test -p pontoon-server --release --test kills -- --nocapture`
//! is the record.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::Nodes;
use support::{Clients, all_led, equal_contents, rounds, three_nodes};

const CLIENTS: u64 = 16;
const KEYS: u64 = 800;
const WRITES: u64 = 20_000;

async fn round(nodes: &mut Nodes, name: &str, victims: &[u64], seed: u64) {
    let clients = Clients::start(nodes.redis(), CLIENTS, KEYS, name, seed);
    clients.acknowledge(WRITES / 2).await;
    if victims.len() == nodes.nodes.len() {
        nodes.kill_all().unwrap();
    } else {
        victims.iter().for_each(|id| nodes.kill(*id).unwrap());
    }
    victims.iter().for_each(|id| nodes.start(*id).unwrap());
    clients.acknowledge(WRITES).await;
    all_led(nodes).await;
    let seen = clients.finish(name, KEYS).await;
    seen.report(name);
    assert_eq!(seen.verdict(), KvVerdict::Ok, "{name}, seed {seed}");
    assert!(seen.acknowledged >= WRITES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes(dir.path(), 12, &[]);
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    for n in 0..rounds(1) {
        let first = n % 3 + 1;
        let second = first % 3 + 1;
        round(&mut nodes, &format!("one-{n}"), &[first], n).await;
        round(&mut nodes, &format!("majority-{n}"), &[first, second], n).await;
        round(&mut nodes, &format!("all-{n}"), &[1, 2, 3], n).await;
    }
    equal_contents(&nodes).await;
}
