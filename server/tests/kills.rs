//! Real processes: SIGKILL of one, of a majority, of all, under load; nothing acknowledged is lost, histories stay
//! linearizable, replicas end equal; clients send one command at a time, or pipelines. SIGSTOP of a follower: when it runs
//! again it disrupts no leader.
//!
//! The gate runs one round of each; `PONTOON_ROUNDS=20 cargo test -p pontoon-server --release --test kills -- --nocapture`
//! is the record.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::Nodes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{Clients, Group, Load, all_led, equal_contents, lead_at_1, rounds, running, unbalanced, until_true};
use support::{seen_at, signal, terms};

const CLIENTS: u64 = 16;
const KEYS: u64 = 800;
const WRITES: u64 = 20_000;
/// Commands of a client's pipelines.
const AT_ONCE: usize = 16;
/// The longest that a follower waits for a word from its leader: twice `election_ticks`.
const ELECTION: Duration = Duration::from_secs(2);

async fn round(nodes: &mut Nodes, name: &str, at_once: usize, victims: &[u64], seed: u64) {
    let load = Load { clients: CLIENTS, keys: KEYS, at_once, value: 0 };
    let clients = Clients::load(nodes.redis(), load, name, seed);
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
    let mut nodes = running(dir.path(), 12, &[]).await;
    for n in 0..rounds(1) {
        let first = n % 3 + 1;
        let second = first % 3 + 1;
        round(&mut nodes, &format!("one-{n}"), 1, &[first], n).await;
        round(&mut nodes, &format!("majority-{n}"), 1, &[first, second], n).await;
        round(&mut nodes, &format!("all-{n}"), 1, &[1, 2, 3], n).await;
    }
    equal_contents(&nodes).await;
}

/// What each node does then comes in bulk: proposals, batches of the log writer, answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_in_pipelines_is_lost_when_processes_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = running(dir.path(), 12, &[]).await;
    for n in 0..rounds(1) {
        let victim = n % 3 + 1;
        round(&mut nodes, &format!("one-in-bulk-{n}"), AT_ONCE, &[victim], n).await;
        round(&mut nodes, &format!("all-in-bulk-{n}"), AT_ONCE, &[1, 2, 3], n).await;
    }
    equal_contents(&nodes).await;
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
        |seen: &BTreeMap<u64, Group>| before.iter().all(|(g, b)| seen.get(g).is_some_and(|s| s.applied >= b.applied));
    until_true("node 3 catches up", || caught_up(&seen_at(&admin(3)))).await;
    for id in [1, 2, 3] {
        assert_eq!(terms(&seen_at(&admin(id))), terms(&before), "groups, leaders, terms as node {id} sees them");
    }
    let seen = clients.finish("stopped", KEYS).await;
    seen.report("stopped");
    assert_eq!(seen.verdict(), KvVerdict::Ok);
    equal_contents(&nodes).await;
}
