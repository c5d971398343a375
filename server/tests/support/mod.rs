//! What the process tests share: a cluster in a temporary directory, clients that write histories, and the verdict.
//!
//! Leaves to others: which faults (each test). Invariant: a refused command is left out of the history (it was never
//! appended); one without an answer stays as "unknown".
#![allow(clippy::unwrap_used, dead_code, clippy::print_stdout)]

#[path = "../../../engine/tests/common/until.rs"]
mod until;

use bytes::Bytes;
use pontoon_raftstore::testing::linearizability::{KvCall, KvVerdict, check_kv};
use pontoon_raftstore::testing::{KvOp, KvRet};
use pontoon_server::client::{Answer, ClusterClient, Value};
use pontoon_server::harness::{Nodes, NodesConfig, digests, wait_all_led};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[allow(unused_imports, reason = "not every test waits for each")]
pub(crate) use until::{PATIENCE, until, until_true};

/// Steps that the checker may take for one key.
const BUDGET: u64 = 20_000_000;

/// Three nodes below `dir`; not started.
pub(crate) fn three_nodes(dir: &Path, groups: u16, flags: &[&str]) -> Nodes {
    let binary = env!("CARGO_BIN_EXE_pontoon").into();
    let flags = flags.iter().map(|f| (*f).to_owned()).collect();
    Nodes::new(NodesConfig { binary, dir: dir.to_path_buf(), nodes: 3, groups, flags }).unwrap()
}

/// The same, started; all groups are led.
pub(crate) async fn running(dir: &Path, groups: u16, flags: &[&str]) -> Nodes {
    let mut nodes = three_nodes(dir, groups, flags);
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    nodes
}

/// The admin token of the nodes of a test.
pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// A file below `dir` that holds the token.
pub(crate) fn token_file(dir: &Path) -> String {
    let path = dir.join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Three nodes below `dir` whose leaders stay where they are put; not started.
pub(crate) fn unbalanced(dir: &Path, groups: u16) -> Nodes {
    unbalanced_with(dir, groups, "", &[])
}

/// The same with further lines of the table `[engine]` and further flags.
pub(crate) fn unbalanced_with(dir: &Path, groups: u16, engine: &str, flags: &[&str]) -> Nodes {
    let config = dir.join("pontoon.toml");
    std::fs::write(&config, format!("[engine]\nbalance = false\n{engine}")).unwrap();
    let token = token_file(dir);
    let own = ["--config", config.to_str().unwrap(), "--admin-token-file", &token];
    three_nodes(dir, groups, &[&own, flags].concat())
}

/// Hands all leaders to node 1 and waits until every node sees them there.
pub(crate) async fn lead_at_1(nodes: &Nodes) {
    until("node 1 leads all", async || {
        // Whether it came to it is looked at.
        transfer_all(nodes, 1);
        let rows: Vec<_> = nodes.nodes.iter().flat_map(|n| groups_at(&n.admin)).collect();
        let all = rows.len() == nodes.nodes.len() * usize::from(nodes.groups());
        if all && rows.iter().all(|row| row["leader"] == 1) { Ok(()) } else { Err(rows) }
    })
    .await;
}

/// Asks node 1 to hand the leaders of all groups over. Did all arrive?
pub(crate) fn transfer_all(nodes: &Nodes, to: u64) -> bool {
    transfer(nodes, "all", to)
}

/// The same of the groups that are named.
pub(crate) fn transfer(nodes: &Nodes, which: &str, to: u64) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(["group", "transfer", which, "--to", &to.to_string(), "--admin", &nodes.node(1).admin]);
    command.env("PONTOON_ADMIN_TOKEN", TOKEN).output().unwrap().status.success()
}

/// An admin page of a node.
pub(crate) fn page(admin: &str, path: &str) -> String {
    let page = Command::new("curl").args(["-s", &format!("http://{admin}{path}")]).output();
    String::from_utf8(page.unwrap().stdout).unwrap()
}

/// The groups' rows of a node's admin page.
pub(crate) fn groups_at(admin: &str) -> Vec<serde_json::Value> {
    let page: serde_json::Value = serde_json::from_str(&page(admin, "/groups?limit=1000")).unwrap();
    page["groups"].as_array().unwrap().clone()
}

/// A group as one node sees it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) applied: u64,
}

/// All groups that this node knows a leader of.
pub(crate) fn seen_at(admin: &str) -> BTreeMap<u64, Group> {
    let number = |row: &serde_json::Value, name: &str| row[name].as_u64();
    let row = |row: &serde_json::Value| {
        let (leader, term, applied) = (number(row, "leader")?, number(row, "term")?, number(row, "applied")?);
        Some((number(row, "group")?, Group { leader, term, applied }))
    };
    groups_at(admin).iter().filter_map(row).collect()
}

/// Groups, their leaders and terms.
pub(crate) fn terms(groups: &BTreeMap<u64, Group>) -> Vec<(u64, u64, u64)> {
    groups.iter().map(|(group, seen)| (*group, seen.leader, seen.term)).collect()
}

/// A signal to a node's process: `-STOP`, `-CONT`.
pub(crate) fn signal(name: &str, nodes: &Nodes, id: u64) {
    pontoon_server::harness::signal(nodes.node(id).pid().unwrap(), name).unwrap();
}

/// How many rounds a test runs: few in the gate, `PONTOON_ROUNDS` for the record.
pub(crate) fn rounds(default: u64) -> u64 {
    std::env::var("PONTOON_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(default)
}

/// Waits until every node sees every slot led; prints the nodes' logs if that does not happen.
pub(crate) async fn all_led(nodes: &Nodes) {
    let all = nodes.redis();
    if wait_all_led(&all, &all, PATIENCE).await.is_none() {
        for node in &nodes.nodes {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            println!("--- node {}\n{}", node.id, log.lines().rev().take(40).collect::<Vec<_>>().join("\n"));
        }
        panic!("the cluster did not come up within {PATIENCE:?}");
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    /// Commands that a client sends before it waits for their answers, in a pipeline to each node.
    pub(crate) at_once: usize,
    /// Length of a value; 0: what tells it from others and no more.
    pub(crate) value: usize,
}

/// Clients under way; each has one command in flight, or the load's `at_once`.
pub(crate) struct Clients {
    value: usize,
    stop: Arc<AtomicBool>,
    /// Writes, not reads.
    pub(crate) acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    running: JoinSet<Vec<KvCall>>,
    began: Instant,
    addrs: Vec<String>,
}

/// What clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) history: Vec<KvCall>,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl Clients {
    /// `round` names the keys: histories of different rounds share none.
    pub(crate) fn start(addrs: Vec<String>, clients: u64, keys: u64, round: &str, seed: u64) -> Clients {
        Clients::load(addrs, Load { clients, keys, at_once: 1, value: 0 }, round, seed)
    }

    /// The same with pipelines or large values.
    pub(crate) fn load(addrs: Vec<String>, load: Load, round: &str, seed: u64) -> Clients {
        let mut c = Clients {
            value: load.value,
            stop: Arc::default(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            running: JoinSet::new(),
            began: Instant::now(),
            addrs,
        };
        for id in 0..load.clients {
            let client = Client {
                id,
                rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ id,
                load,
                round: round.to_owned(),
                began: c.began,
                stop: Arc::clone(&c.stop),
                acknowledged: Arc::clone(&c.acknowledged),
                refused: Arc::clone(&c.refused),
            };
            c.running.spawn(client.run(c.addrs.clone()));
        }
        c
    }

    /// Acknowledged so far.
    pub(crate) fn writes(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many commands were acknowledged.
    pub(crate) async fn acknowledge(&self, at_least: u64) {
        // Every step of the way has the whole patience: a record run asks for many.
        loop {
            let now = self.acknowledged.load(Ordering::Relaxed);
            if now >= at_least {
                return;
            }
            let more = || self.acknowledged.load(Ordering::Relaxed) > now;
            until_true(&format!("more than {now} of {at_least} acknowledged"), more).await;
        }
    }

    /// Lets everybody finish, then reads every key once more through the cluster: a lost write shows as a violation.
    pub(crate) async fn finish(mut self, round: &str, keys: u64) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        while let Some(calls) = self.running.join_next().await {
            seen.history.extend(calls.unwrap());
        }
        seen.acknowledged = self.acknowledged.load(Ordering::Relaxed);
        seen.refused = self.refused.load(Ordering::Relaxed);
        seen.unknown = seen.history.iter().filter(|c| c.ended.is_none()).count() as u64;
        let mut client = ClusterClient::new(self.addrs.clone(), PATIENCE);
        for key in (0..keys).map(|k| key_name(round, k)) {
            let began = micros(self.began);
            let answer = client.call_retrying(&key, &[b"GET", &key], 500).await;
            let Answer::Done(value) = answer else { panic!("{key:?} cannot be read back: {answer:?}") };
            let ended = Some((micros(self.began), to_ret(&KvOp::Get(vec![key.clone()]), value, self.value)));
            seen.history.push(KvCall { op: KvOp::Get(vec![key]), began, ended });
        }
        seen
    }
}

impl Seen {
    /// The checker's verdict.
    pub(crate) fn verdict(&self) -> KvVerdict {
        check_kv(&self.history, BUDGET)
    }

    pub(crate) fn report(&self, what: &str) {
        println!(
            "{what}: {} writes acknowledged, {} commands refused, {} unknown",
            self.acknowledged, self.refused, self.unknown
        );
    }
}

/// Each group's contents are equal on all replicas.
pub(crate) async fn equal_contents(nodes: &Nodes) {
    equal_contents_at(&nodes.redis(), nodes.groups()).await;
}

/// As `equal_contents`, of the nodes with these Redis addresses.
pub(crate) async fn equal_contents_at(addrs: &[String], groups: u16) {
    for group in 1..=u64::from(groups) {
        let found = digests(addrs, group, PATIENCE).await;
        let found = found.unwrap_or_else(|| panic!("group {group}: replicas do not reach one applied index"));
        assert!(found.iter().all(|f| f.1 == found[0].1), "group {group}: contents differ: {found:?}");
    }
}

struct Client {
    id: u64,
    rng: u64,
    load: Load,
    round: String,
    began: Instant,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Client {
    async fn run(mut self, addrs: Vec<String>) -> Vec<KvCall> {
        let mut connection = ClusterClient::new(addrs, Duration::from_secs(6));
        let mut history = Vec::new();
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let drawn: Vec<(KvOp, Vec<Bytes>)> = (0..self.load.at_once)
                .map(|_| {
                    number += 1;
                    self.draw(number)
                })
                .collect();
            let args = drawn.iter().map(|(_, args)| (&*args[1], args.iter().map(|a| &**a).collect()));
            let commands: Vec<(&[u8], Vec<&[u8]>)> = args.collect();
            let (began, mut pause) = (micros(self.began), 0);
            let heard =
                |at: usize, answer| pause = pause.max(self.heard(drawn[at].0.clone(), began, answer, &mut history));
            connection.call_many(&commands, heard).await;
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        history
    }

    /// Writes an answer down. Milliseconds of pause: for a client that has no node to talk to; nothing waits for them.
    fn heard(&self, op: KvOp, began: u64, answer: Answer, history: &mut Vec<KvCall>) -> u64 {
        match answer {
            Answer::Done(value) => {
                let ret = to_ret(&op, value, self.load.value);
                self.acknowledged.fetch_add(u64::from(!op.is_read()), Ordering::Relaxed);
                history.push(KvCall { op, began, ended: Some((micros(self.began), ret)) });
                0
            }
            Answer::Unknown(_) => {
                history.push(KvCall { op, began, ended: None });
                10
            }
            Answer::Refused(why) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                if why.starts_with("MOVED") { 0 } else { 5 }
            }
        }
    }

    /// Three writes to one read; counters and values on keys of their own.
    fn draw(&mut self, number: u64) -> (KvOp, Vec<Bytes>) {
        self.rng = self.rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (key, dice) = ((self.rng >> 33) % self.load.keys, (self.rng >> 20) % 4);
        let name = key_name(&self.round, key);
        let b = |s: &'static str| Bytes::from_static(s.as_bytes());
        match (dice, key % 4) {
            (0, _) => (KvOp::Get(vec![name.clone()]), vec![b("GET"), name]),
            (_, 0) => (KvOp::Add(name.clone(), 1), vec![b("INCR"), name]),
            _ => {
                let value = Bytes::from(format!("{}-{number}", self.id));
                let long = padded(&value, self.load.value);
                (KvOp::Put(vec![(name.clone(), value)]), vec![b("SET"), name, long])
            }
        }
    }
}

fn key_name(round: &str, key: u64) -> Bytes {
    Bytes::from(format!("{round}:{key}"))
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// A value of this length. Histories keep what it begins with.
fn padded(value: &Bytes, len: usize) -> Bytes {
    let mut long = value.to_vec();
    long.resize(len.max(value.len()), b'.');
    long.into()
}

/// What a value began with (a counter: itself), if it is still whole; else what nobody wrote.
fn unpadded(long: Bytes, len: usize) -> Bytes {
    let value = Bytes::copy_from_slice(long.split(|b| *b == b'.').next().unwrap_or_default());
    let whole = if value.contains(&b'-') { padded(&value, len) } else { value.clone() };
    if whole == long { value } else { Bytes::from_static(b"broken") }
}

fn to_ret(op: &KvOp, value: Value, len: usize) -> KvRet {
    match (op, value) {
        (KvOp::Get(_), Value::Bulk(v)) => KvRet::Values(vec![Some(unpadded(v, len))]),
        (KvOp::Get(_), Value::Nil) => KvRet::Values(vec![None]),
        (KvOp::Put(_), Value::Simple(ok)) if ok == "OK" => KvRet::Done,
        (KvOp::Add(..), Value::Int(n)) => KvRet::Number(n),
        (op, value) => panic!("{op:?} was answered {value:?}"),
    }
}
