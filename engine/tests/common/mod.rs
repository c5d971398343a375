//! Three engines in one process, on the loopback and in temporary directories.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

mod until;

use pontoon::config::{Size, Span};
use pontoon::kv::{KvCommand, KvMachine, KvResponse, KvStore, When};
use pontoon::{
    Applied, Builder, Config, Engine, Group, GroupId, GroupSpec, NodeId, ProposeError, Read, Shutdown, StateMachine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;

#[allow(unused_imports, reason = "not every test waits")]
pub use until::{PATIENCE, until, until_true};

pub struct Cluster {
    dir: TempDir,
    pub addrs: BTreeMap<NodeId, String>,
    pub engines: BTreeMap<NodeId, Engine>,
    make: fn(Builder) -> Builder,
}

pub fn quick() -> Config {
    let mut config = Config::default();
    config.raft.tick = Span::millis(20);
    config.request_timeout = Span::millis(20_000);
    config.found_timeout = Span::millis(60_000);
    config.disk_reserve = Size::bytes(0);
    config
}

impl Cluster {
    /// Founded and running.
    pub async fn start(nodes: u64, make: fn(Builder) -> Builder) -> Cluster {
        let mut cluster = Cluster::prepare(nodes, make);
        cluster.open_all().await;
        cluster
    }

    /// Addresses and directories, nothing running.
    pub fn prepare(nodes: u64, make: fn(Builder) -> Builder) -> Cluster {
        let addrs = (1..=nodes).map(|n| (NodeId(n), format!("127.0.0.1:{}", free_port()))).collect();
        Cluster { dir: tempfile::tempdir().unwrap(), addrs, engines: BTreeMap::new(), make }
    }

    pub fn ids(&self) -> BTreeSet<NodeId> {
        self.addrs.keys().copied().collect()
    }

    pub fn dir(&self, node: NodeId) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    pub fn builder(&self, node: NodeId) -> Builder {
        let builder = Engine::builder(self.dir(node), node)
            .config(quick())
            .found(self.ids())
            .charter("tests")
            .listen(&self.addrs[&node])
            .resolver(self.addrs.clone());
        (self.make)(builder)
    }

    pub async fn open_all(&mut self) {
        let opening: Vec<_> = self.ids().into_iter().map(|n| (n, tokio::spawn(self.builder(n).open()))).collect();
        for (node, open) in opening {
            self.engines.insert(node, open.await.unwrap().unwrap());
        }
    }

    pub async fn stop(&mut self, node: NodeId, how: Shutdown) {
        let engine = self.engines.remove(&node).unwrap();
        let report = engine.shutdown(how).await;
        assert!(report.problems.is_empty(), "{report:?}");
    }

    pub async fn stop_all(&mut self) {
        for node in self.ids() {
            self.stop(node, hard()).await;
        }
    }

    pub fn spec(&self, group: u64, kind: &str) -> GroupSpec {
        GroupSpec { id: GroupId(group), kind: kind.to_owned(), voters: self.ids(), learners: BTreeSet::new() }
    }

    pub async fn create<S: StateMachine>(&self, group: u64, kind: &str) {
        for engine in self.engines.values() {
            engine.create::<S>(self.spec(group, kind)).await.unwrap();
        }
    }

    pub fn group<S: StateMachine>(&self, node: NodeId, group: u64) -> Group<S> {
        self.engines[&node].group::<S>(GroupId(group)).unwrap()
    }

    /// The node that leads, once one does.
    pub async fn leader(&self, group: u64) -> NodeId {
        let leads = |engine: &Engine| engine.status(GroupId(group)).is_ok_and(|s| s.is_leader());
        until("a leader", async || self.engines.iter().find(|e| leads(e.1)).map(|e| *e.0).ok_or(group)).await
    }

    /// Proposes wherever the leader is, until it is applied. Only for commands that may be repeated.
    pub async fn write<S: StateMachine>(&self, group: u64, command: impl Into<bytes::Bytes>) -> Applied<S::Response> {
        let command = command.into();
        until("applied", async || {
            let leader = self.leader(group).await;
            self.group::<S>(leader, group).propose(command.clone()).await
        })
        .await
    }
}

/// A port that is free, and that the system gives to nobody else between two starts of a node: below the ephemeral ones.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 15_000 + (std::process::id() % 160) as u16 * 100;
    let mut ports = std::iter::repeat_with(|| base + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

pub fn hard() -> Shutdown {
    Shutdown { hand_off: Duration::ZERO, drain: Duration::ZERO }
}

pub fn kv(builder: Builder) -> Builder {
    builder.kind("kv", KvStore::default())
}

/// As `kv`; what is asked waits for a second at the most.
pub fn impatient(builder: Builder) -> Builder {
    let mut config = quick();
    config.request_timeout = Span::millis(1_000);
    kv(builder).config(config)
}

pub fn set(key: &str, value: &str) -> bytes::Bytes {
    let (key, value) = (bytes::Bytes::from(key.to_owned()), bytes::Bytes::from(value.to_owned()));
    KvCommand::Set { key, value, when: When::Always, get: false }.encode()
}

/// Three nodes with groups of KV machines that are written to.
pub async fn led(make: fn(Builder) -> Builder, groups: u64) -> Cluster {
    let cluster = Cluster::start(3, make).await;
    for group in 1..=groups {
        cluster.create::<KvMachine>(group, "kv").await;
        put(&cluster, group, "led", "1").await;
    }
    cluster
}

pub async fn put(cluster: &Cluster, group: u64, key: &str, value: &str) {
    let applied = cluster.write::<KvMachine>(group, set(key, value)).await;
    assert_eq!(applied.response, KvResponse::Set(true));
}

/// A linearizable read, tried again while nobody leads.
pub async fn get(cluster: &Cluster, node: NodeId, group: u64, key: &str) -> Option<String> {
    let group = cluster.group::<KvMachine>(node, group);
    let view = until("a read", async || group.read(Read::Linearizable).await).await;
    view.get(key.as_bytes()).unwrap().map(|v| String::from_utf8(v.to_vec()).unwrap())
}

pub fn is_refused_at_the_door(e: &ProposeError) -> bool {
    e.never_appended()
}
