//! Real processes: SIGKILL of one, of a majority, of all, under load; nothing acknowledged is lost, histories stay
//! linearizable, replicas end equal. SIGSTOP of a follower: when it runs again it disrupts no leader.
//!
//! The gate runs one round of each; `PONTOON_ROUNDS=20 cargo test -p pontoon-server --release --test kills -- --nocapture`
//! is the record.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::Nodes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Clients, all_led, equal_contents, groups_at, lead_at_1, rounds, three_nodes, unbalanced, until_true};

const CLIENTS: u64 = 16;
const KEYS: u64 = 800;
const WRITES: u64 = 20_000;
/// The longest that a follower waits for a word from its leader: twice `election_ticks`.
const ELECTION: Duration = Duration::from_secs(2);

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

/// A group as one node sees it.
#[derive(Debug)]
struct Seen {
    leader: u64,
    term: u64,
    applied: u64,
}

/// All groups that this node knows a leader of.
fn seen_at(admin: &str) -> BTreeMap<u64, Seen> {
    let number = |row: &Value, name: &str| row[name].as_u64();
    let row = |row: &Value| {
        let (leader, term, applied) = (number(row, "leader")?, number(row, "term")?, number(row, "applied")?);
        Some((number(row, "group")?, Seen { leader, term, applied }))
    };
    groups_at(admin).iter().filter_map(row).collect()
}

fn terms(groups: &BTreeMap<u64, Seen>) -> Vec<(u64, u64, u64)> {
    groups.iter().map(|(group, seen)| (*group, seen.leader, seen.term)).collect()
}

fn signal(name: &str, nodes: &Nodes, id: u64) {
    let pid = nodes.node(id).pid().unwrap().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_stopped_disrupts_no_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = unbalanced(dir.path(), 12);
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    let admin = |id: u64| nodes.node(id).admin.clone();
    lead_at_1(&nodes).await;

    let clients = Clients::start(nodes.redis()[..2].to_vec(), 4, KEYS, "stopped", 1);
    clients.acknowledge(100).await;
    signal("-STOP", &nodes, 3);
    // The silence is the fault: several election timeouts of it, under load.
    let (began, mut writes) = (Instant::now(), 100);
    while began.elapsed() < 3 * ELECTION {
        writes += 100;
        clients.acknowledge(writes).await;
    }
    let before = seen_at(&admin(1));
    assert_eq!(before.len(), 12, "all are led: {before:?}");
    signal("-CONT", &nodes, 3);
    // Its first turn finds every deadline passed. Had that raised its term, it could not follow the leaders of `before`.
    let caught_up =
        |seen: &BTreeMap<u64, Seen>| before.iter().all(|(g, b)| seen.get(g).is_some_and(|s| s.applied >= b.applied));
    until_true("node 3 catches up", || caught_up(&seen_at(&admin(3)))).await;
    for id in [1, 2, 3] {
        assert_eq!(terms(&seen_at(&admin(id))), terms(&before), "groups, leaders, terms as node {id} sees them");
    }
    let seen = clients.finish("stopped", KEYS).await;
    seen.report("stopped");
    assert_eq!(seen.verdict(), KvVerdict::Ok);
    equal_contents(&nodes).await;
}
