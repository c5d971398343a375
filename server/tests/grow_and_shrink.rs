//! A cluster of real processes grows from one node to three to five and shrinks back under load, by the command line
//! alone; two of five are killed on the way; removed nodes go on running and disturb nobody. A joined node whose disk is
//! lost is refused, and replaced.
//!
//! Each key has one writer, who repeats a write until it is acknowledged: a repeated SET of the same value is harmless.
//! Invariant: every write is acknowledged in the end, and at the end each key holds its writer's last value.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use bytes::Bytes;
use pontoon_server::client::{Answer, ClusterClient, Value};
use pontoon_server::harness::{Nodes, NodesConfig, digests, wait_all_led};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, equal_contents_at, token_file, until, until_true};
use tokio::task::JoinSet;

const GROUPS: u16 = 4;
const WRITERS: u64 = 6;

/// Writers under way.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    running: JoinSet<(Bytes, u64)>,
}

impl Load {
    fn start(seed: &str) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            repeated: Arc::default(),
            running: JoinSet::new(),
        };
        for writer in 0..WRITERS {
            let (stop, acknowledged) = (Arc::clone(&load.stop), Arc::clone(&load.acknowledged));
            let (repeated, seed) = (Arc::clone(&load.repeated), seed.to_owned());
            load.running.spawn(async move {
                let key = Bytes::from(format!("writer:{writer}"));
                // Only ever told of one node: all else it learns from MOVED.
                let mut client = ClusterClient::new(vec![seed], Duration::from_secs(6));
                let mut value = 0;
                while !stop.load(Ordering::Relaxed) {
                    value += 1;
                    write(&mut client, &key, value, &repeated).await;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                (key, value)
            });
        }
        load
    }

    /// Waits until so many more writes were acknowledged than now.
    async fn goes_on(&self, what: &str) {
        let target = self.acknowledged.load(Ordering::Relaxed) + 20 * WRITERS;
        until_true(what, || self.acknowledged.load(Ordering::Relaxed) >= target).await;
    }
}

/// Repeats a write until it is acknowledged.
async fn write(client: &mut ClusterClient, key: &Bytes, value: u64, repeated: &AtomicU64) {
    let (text, began) = (value.to_string(), Instant::now());
    loop {
        let answer = client.call_retrying(key, &[b"SET", key, text.as_bytes()], 10).await;
        match answer {
            Answer::Done(Value::Simple(ok)) if ok == "OK" => return,
            Answer::Done(other) => panic!("{other:?}"),
            Answer::Refused(_) | Answer::Unknown(_) => {
                assert!(began.elapsed() < PATIENCE, "never acknowledged: {key:?} = {value}: {answer:?}");
                repeated.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn pontoon(args: &[&str], nodes: &Nodes, at: u64) -> Output {
    let token = nodes.node(1).data.with_file_name("token");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(args).args(["--admin", &nodes.node(at).admin, "--admin-token-file"]).arg(token);
    command.output().unwrap()
}

/// Changes the members of all groups, asked at any node; again while a leader is being elected.
async fn members(nodes: &Nodes, at: u64, voters: &str) {
    let began = Instant::now();
    until(&format!("voters {voters}"), async || {
        let done = pontoon(&["group", "reconfigure", "all", "--voters", voters], nodes, at);
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let all = said.lines().filter(|l| l.contains("done")).count() == usize::from(GROUPS);
        if done.status.success() && all { Ok(()) } else { Err(said) }
    })
    .await;
    println!("voters {voters} after {:?}", began.elapsed());
}

async fn led(nodes: &Nodes, ask: &[u64], by: &[u64]) {
    let of = |ids: &[u64]| ids.iter().map(|id| nodes.node(*id).redis.clone()).collect::<Vec<_>>();
    if wait_all_led(&of(ask), &of(by), PATIENCE).await.is_none() {
        for node in &nodes.nodes {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            println!("--- node {}\n{}", node.id, log.lines().rev().take(30).collect::<Vec<_>>().join("\n"));
        }
        panic!("nodes {ask:?} do not all see every slot led by one of {by:?}");
    }
}

/// Redis addresses that a node names in CLUSTER SLOTS, masters and replicas.
async fn named(nodes: &Nodes, at: u64) -> Vec<String> {
    let addr = nodes.node(at).redis.clone();
    let mut client = ClusterClient::new(vec![addr.clone()], PATIENCE);
    let Answer::Done(Value::Array(rows)) = client.call_at(&addr, &[b"CLUSTER", b"SLOTS"]).await else { panic!() };
    let mut found = Vec::new();
    for row in rows {
        let Value::Array(cells) = row else { panic!() };
        for cell in &cells[2..] {
            let Value::Array(node) = cell else { panic!() };
            let [Value::Bulk(host), Value::Int(port), ..] = node.as_slice() else { panic!() };
            found.push(format!("{}:{port}", String::from_utf8_lossy(host)));
        }
    }
    found.sort();
    found.dedup();
    found
}

async fn names(nodes: &Nodes, at: u64, ids: &[u64]) {
    let mut want: Vec<String> = ids.iter().map(|id| nodes.node(*id).redis.clone()).collect();
    want.sort();
    until(&format!("node {at} names {want:?}"), async || {
        let found = named(nodes, at).await;
        if found == want { Ok(()) } else { Err(found) }
    })
    .await;
}

/// A cluster of one node, not started.
fn one_node(dir: &Path) -> Nodes {
    let flags = ["--admin-token-file".to_owned(), token_file(dir)].into();
    let binary = env!("CARGO_BIN_EXE_pontoon").into();
    let config = NodesConfig { binary, dir: dir.to_path_buf(), nodes: 1, groups: GROUPS, flags };
    Nodes::new(config).unwrap()
}

/// Ends the load; each key holds its writer's last value, as read through one node.
async fn nothing_is_lost(mut load: Load, nodes: &Nodes, through: u64) {
    load.stop.store(true, Ordering::Relaxed);
    let mut reader = ClusterClient::new(vec![nodes.node(through).redis.clone()], PATIENCE);
    while let Some(written) = load.running.join_next().await {
        let (key, value) = written.unwrap();
        let answer = reader.call_retrying(&key, &[b"GET", &key], 500).await;
        assert_eq!(answer, Answer::Done(Value::Bulk(value.to_string().into())), "{key:?}");
    }
    let (all, repeated) = (load.acknowledged.load(Ordering::Relaxed), load.repeated.load(Ordering::Relaxed));
    println!("{all} writes acknowledged, {repeated} repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_node_whose_disk_is_lost_is_refused_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = one_node(dir.path());
    nodes.start(1).unwrap();
    led(&nodes, &[1], &[1]).await;
    let load = Load::start(&nodes.node(1).redis);
    for _ in 0..2 {
        let id = nodes.add().unwrap();
        nodes.start(id).unwrap();
    }
    led(&nodes, &[2, 3], &[1]).await;
    members(&nodes, 1, "1,2,3").await;
    load.goes_on("writes on three nodes").await;

    // As if it had never been: it joins again under the id of a disk that had a vote.
    nodes.kill(3).unwrap();
    std::fs::remove_dir_all(&nodes.node(3).data).unwrap();
    nodes.start(3).unwrap();
    let log = nodes.node(3).log.clone();
    let said = || std::fs::read_to_string(&log).unwrap();
    let code = until("the wiped node ends", async || nodes.exit_code(3).unwrap().ok_or_else(said)).await;
    let said = said();
    assert_eq!(code, 1, "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("refused by node") && last.contains("start it under a new node id"), "{last:?}");
    led(&nodes, &[1, 2], &[1, 2]).await;
    load.goes_on("writes without the wiped node").await;

    // The way to go on (docs/operating.md): another node id takes its place.
    let id = nodes.add().unwrap();
    nodes.start(id).unwrap();
    led(&nodes, &[id], &[1, 2]).await;
    members(&nodes, 1, "1,2,4").await;
    load.goes_on("writes on three nodes again").await;
    nothing_is_lost(load, &nodes, id).await;
    let living = [1, 2, id].map(|id| nodes.node(id).redis.clone());
    equal_contents_at(&living, GROUPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_three_five_three_one_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = one_node(dir.path());
    nodes.start(1).unwrap();
    led(&nodes, &[1], &[1]).await;
    let load = Load::start(&nodes.node(1).redis);
    load.goes_on("writes on one node").await;

    for _ in 0..2 {
        let id = nodes.add().unwrap();
        nodes.start(id).unwrap();
    }
    // Nodes that joined and hold nothing send clients to the right place.
    led(&nodes, &[1, 2, 3], &[1]).await;
    members(&nodes, 2, "1,2,3").await;
    load.goes_on("writes on three nodes").await;
    names(&nodes, 3, &[1, 2, 3]).await;

    for _ in 0..2 {
        let id = nodes.add().unwrap();
        nodes.start(id).unwrap();
    }
    led(&nodes, &[4, 5], &[1, 2, 3]).await;
    members(&nodes, 5, "1,2,3,4,5").await;
    load.goes_on("writes on five nodes").await;
    names(&nodes, 1, &[1, 2, 3, 4, 5]).await;

    nodes.kill(2).unwrap();
    nodes.kill(4).unwrap();
    led(&nodes, &[1, 3, 5], &[1, 3, 5]).await;
    load.goes_on("writes on three of five").await;
    nodes.start(2).unwrap();
    nodes.start(4).unwrap();
    led(&nodes, &[2, 4], &[1, 2, 3, 4, 5]).await;

    // The founder leaves; it goes on running, and so does the one that joined second.
    members(&nodes, 1, "3,4,5").await;
    load.goes_on("writes without the founder").await;
    names(&nodes, 5, &[3, 4, 5]).await;
    led(&nodes, &[1, 2], &[3, 4, 5]).await;
    members(&nodes, 3, "5").await;
    load.goes_on("writes on the last node").await;
    led(&nodes, &[1, 2, 3, 4, 5], &[5]).await;

    nothing_is_lost(load, &nodes, 1).await;
    let last = nodes.node(5).redis.clone();
    for group in 1..=u64::from(GROUPS) {
        assert!(digests(std::slice::from_ref(&last), group, PATIENCE).await.is_some(), "group {group}");
    }
    for id in 1..=5 {
        assert_eq!(nodes.exit_code(id).unwrap(), None, "node {id} runs");
    }
}
