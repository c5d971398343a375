//! Real processes on a disk that is slow, full, or nearly full: nothing acknowledged is lost, histories stay linearizable,
//! a refusal means "never appended", and the cluster serves again when the fault is over.
//!
//! Leaves to others: processes that die (`kills`), disks that forget (`pagecache`).
//! Invariant: a disk's faults are switched on and off while the process runs (`wal/tests/faults/shim.c`).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../wal/tests/faults/mod.rs"]
mod faults;
mod support;

use faults::{ENOSPC, Faults};
use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::client::{Answer, ClusterClient};
use pontoon_server::harness::Nodes;
use std::time::{Duration, Instant};
use support::{Clients, PATIENCE, all_led, equal_contents, groups_at, lead_at_1, running, unbalanced, until};
use tempfile::TempDir;

const CLIENTS: u64 = 16;
const KEYS: u64 = 400;
const GROUPS: usize = 12;

/// The files of node 1.
const DISK: &str = "*/node-1/*";

/// Starts node 1 under the shim.
fn start_1(faults: &Faults, nodes: &mut Nodes) {
    let env = faults.env();
    nodes.start_with(1, &env.iter().map(|(k, v)| (*k, v.as_path())).collect::<Vec<_>>()).unwrap();
}

/// Three nodes under load, all groups led by node 1, whose disk it is. Taken apart in this order they end in the other.
struct Scene {
    _dir: TempDir,
    disk: Faults,
    nodes: Nodes,
    clients: Clients,
}

async fn led_by_1(round: &str, seed: u64) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faults::build(dir.path());
    let mut nodes = unbalanced(dir.path(), GROUPS as u16);
    start_1(&disk, &mut nodes);
    nodes.start(2).unwrap();
    nodes.start(3).unwrap();
    all_led(&nodes).await;
    lead_at_1(&nodes).await;
    let clients = Clients::start(nodes.redis(), CLIENTS, KEYS, round, seed);
    clients.acknowledge(1_000).await;
    Scene { _dir: dir, disk, nodes, clients }
}

/// Leader and term of each group as a node sees them.
fn leaders(nodes: &Nodes, at: u64) -> Vec<(u64, u64)> {
    let rows = groups_at(&nodes.node(at).admin);
    assert_eq!(rows.len(), GROUPS);
    rows.iter().map(|row| (row["leader"].as_u64().unwrap_or_default(), row["term"].as_u64().unwrap())).collect()
}

async fn judged(clients: Clients, nodes: &Nodes, round: &str) {
    let seen = clients.finish(round, KEYS).await;
    seen.report(round);
    assert_eq!(seen.verdict(), KvVerdict::Ok, "{round}");
    equal_contents(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_syncs_cost_no_leadership() {
    let Scene { _dir, disk, nodes, clients } = led_by_1("slow", 1).await;
    let before = leaders(&nodes, 2);
    disk.slow(Duration::from_secs(2), DISK);
    let (began, at) = (Instant::now(), clients.writes());
    while began.elapsed() < Duration::from_secs(12) {
        clients.acknowledge(clients.writes() + 1).await;
    }
    println!("{} writes acknowledged in {:?} of slow syncs", clients.writes() - at, began.elapsed());
    assert_eq!(leaders(&nodes, 2), before, "leaders and terms");
    disk.disarm();
    clients.acknowledge(clients.writes() + 1_000).await;
    judged(clients, &nodes, "slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_hangs_hands_leaders_over_and_the_others_serve() {
    let Scene { _dir, disk, nodes, clients } = led_by_1("hung", 2).await;
    disk.slow(Duration::from_secs(600), DISK);
    until("others lead all", async || {
        let seen = leaders(&nodes, 2);
        if seen.iter().all(|(leader, _)| [2, 3].contains(leader)) { Ok(()) } else { Err(seen) }
    })
    .await;
    // Two of three disks are enough.
    clients.acknowledge(clients.writes() + 2_000).await;
    disk.disarm();
    clients.acknowledge(clients.writes() + 1_000).await;
    judged(clients, &nodes, "hung").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_one_node_and_it_comes_back_when_there_is_room() {
    let Scene { _dir, disk, mut nodes, clients } = led_by_1("full", 3).await;
    disk.arm("write", ENOSPC, 0, 0, DISK);
    let mut code = None;
    while code.is_none() {
        clients.acknowledge(clients.writes() + 1).await;
        code = nodes.exit_code(1).unwrap();
    }
    assert_ne!(code, Some(0));
    let log = std::fs::read_to_string(&nodes.node(1).log).unwrap();
    assert!(log.contains("No space left on device"), "{log}");
    clients.acknowledge(clients.writes() + 2_000).await;
    disk.disarm();
    start_1(&disk, &mut nodes);
    all_led(&nodes).await;
    clients.acknowledge(clients.writes() + 1_000).await;
    judged(clients, &nodes, "full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_disk_reserve_writes_are_refused_and_reads_served() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("pontoon.toml");
    let reserve = |size: &str| std::fs::write(&config, format!("[engine]\ndisk_reserve = \"{size}\"\n")).unwrap();
    reserve("1MiB");
    let mut nodes = running(dir.path(), GROUPS as u16, &["--config", config.to_str().unwrap()]).await;
    let mut client = ClusterClient::new(nodes.redis(), PATIENCE);
    let key = b"key".as_slice();
    let done = client.call_retrying(key, &[b"SET", key, b"1"], 500).await;
    assert!(matches!(done, Answer::Done(_)), "{done:?}");

    nodes.kill_all().unwrap();
    reserve("1000000GiB");
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    let mut client = ClusterClient::new(nodes.redis(), PATIENCE);
    until("the reserve is noticed", async || match client.call(key, &[b"SET", key, b"2"]).await {
        Answer::Refused(why) if why.contains("DiskFull") => Ok(()),
        other => Err(other),
    })
    .await;
    let read = client.call_retrying(key, &[b"GET", key], 500).await;
    println!("read at the reserve: {read:?}");
    assert!(matches!(read, Answer::Done(_)));

    nodes.kill_all().unwrap();
    reserve("1MiB");
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    let mut client = ClusterClient::new(nodes.redis(), PATIENCE);
    let done = client.call_retrying(key, &[b"SET", key, b"3"], 500).await;
    assert!(matches!(done, Answer::Done(_)), "{done:?}");
    equal_contents(&nodes).await;
}
