//! A replicated key-value map in memory, whole: the state machine, its kind, and three nodes that run it.
//!
//! The map itself keeps nothing on disk. The engine keeps the log and its own snapshots of the map, so everything is
//! there again after all nodes have been stopped. Run it with `cargo run -p pontoon --example in_memory_kv`.

use bytes::Bytes;
use parking_lot::RwLock;
use pontoon::{
    Batch, Codec, Durable, Engine, Generation, GroupId, GroupSpec, Kind, Meta, NodeId, Part, Read, ReplicaId, Shutdown,
    SmError, SnapshotSink, SnapshotSource, SnapshotStream, StateMachine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Map = BTreeMap<Bytes, Bytes>;

/// The state machine: a map that readers share. A command is one byte of key, then the value.
#[derive(Clone, Default)]
pub struct Kv {
    map: Arc<RwLock<Arc<Map>>>,
}

/// Reads beside applies.
#[derive(Clone)]
pub struct KvReader(Arc<RwLock<Arc<Map>>>);

impl KvReader {
    /// A value.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.read().get(key).cloned()
    }
}

/// The answer: the value before.
#[derive(Clone, Debug, PartialEq)]
pub struct Prev(pub Option<Bytes>);

impl Codec for Prev {
    fn encode(&self) -> Bytes {
        self.0.clone().unwrap_or_default()
    }
    fn decode(bytes: Bytes) -> Result<Self, SmError> {
        Ok(Prev((!bytes.is_empty()).then_some(bytes)))
    }
}

/// A state: the map as it was, shared until somebody changes it.
pub struct KvSnapshot(Arc<Map>);

impl SnapshotSource for KvSnapshot {
    fn write_to(self, out: &mut SnapshotSink<'_>) -> Result<(), SmError> {
        for (key, value) in self.0.iter() {
            out.chunk(key.clone())?;
            out.chunk(value.clone())?;
        }
        Ok(())
    }
}

impl StateMachine for Kv {
    const DURABLE: bool = false;
    type Stage = ();
    type Response = Prev;
    type Reader = KvReader;
    type Snapshot = KvSnapshot;

    fn recover(&mut self) -> Result<Meta, SmError> {
        Ok(Meta::new())
    }

    fn apply(&mut self, _: &mut (), batch: &mut Batch<'_, Prev>) -> Result<(), SmError> {
        let mut guard = self.map.write();
        let map = Arc::make_mut(&mut guard);
        for (_, command) in batch.entries() {
            let (key, value) = (command.slice(..1), command.slice(1..));
            batch.reply(Prev(map.insert(key, value)));
        }
        let _nothing_survives_here_anyway = batch.finish();
        Ok(())
    }

    fn reader(&self) -> KvReader {
        KvReader(Arc::clone(&self.map))
    }

    fn snapshot(&mut self) -> Result<KvSnapshot, SmError> {
        Ok(KvSnapshot(Arc::clone(&self.map.read())))
    }

    fn restore(&mut self, from: &mut SnapshotStream<'_>) -> Result<(), SmError> {
        let mut map = Map::new();
        while let (Some(Part::Chunk(key)), Some(Part::Chunk(value))) = (from.next()?, from.next()?) {
            map.insert(key, value);
        }
        *self.map.write() = Arc::new(map);
        Ok(())
    }
}

/// The kind: nothing shared, nothing to commit.
pub struct Kvs;

impl Kind for Kvs {
    type Sm = Kv;

    fn open(&self, _: GroupId, _: ReplicaId, _: Generation, _: &Path) -> Result<Kv, SmError> {
        Ok(Kv::default())
    }
    fn commit(&self, (): ()) -> Result<(), SmError> {
        Ok(())
    }
    fn durable(&self, _: &mut Durable<'_>) -> Result<(), SmError> {
        Ok(())
    }
}

/// Opens the three nodes, as three processes would.
async fn open(dir: &Path, nodes: &BTreeMap<NodeId, String>) -> Result<Vec<Engine>, Box<dyn Error>> {
    let builder = |node: NodeId| {
        Engine::builder(dir.join(node.to_string()), node)
            .found(nodes.keys().copied().collect())
            .listen(&nodes[&node])
            .resolver(nodes.clone())
            .kind("kv", Kvs)
    };
    let opening: Vec<_> = nodes.keys().map(|node| tokio::spawn(builder(*node).open())).collect();
    let mut engines = Vec::new();
    for engine in opening {
        engines.push(engine.await??);
    }
    Ok(engines)
}

/// Found, write, stop everything, open again, read.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("pontoon-example-{}", std::process::id()));
    let port = 10_000 + std::process::id() % 1_000 * 3;
    let nodes: BTreeMap<NodeId, String> =
        (0..3).map(|n| (NodeId(n + 1), format!("127.0.0.1:{}", u64::from(port) + n))).collect();

    let engines = open(&dir, &nodes).await?;
    let voters: BTreeSet<NodeId> = nodes.keys().copied().collect();
    for engine in &engines {
        let spec =
            GroupSpec { id: GroupId(7), kind: "kv".to_owned(), voters: voters.clone(), learners: BTreeSet::new() };
        engine.create::<Kv>(spec).await?;
    }
    let group = engines[0].group::<Kv>(GroupId(7))?;
    let status = group.wait(|s| s.leader.is_some(), Duration::from_secs(30)).await?;
    let leader = status.leader.ok_or("no leader")?.node;
    let leader = engines.iter().find(|e| e.me() == leader).ok_or("the leader is one of us")?;
    let before = leader.group::<Kv>(GroupId(7))?.propose(&b"khello"[..]).await?.response;
    assert_eq!(before, Prev(None));
    for engine in engines {
        engine.shutdown(Shutdown::default()).await;
    }

    let engines = open(&dir, &nodes).await?;
    for engine in &engines {
        let group = engine.group::<Kv>(GroupId(7))?;
        group.wait(|s| s.leader.is_some(), Duration::from_secs(30)).await?;
        let found = group.read(Read::Linearizable).await?.get(b"k");
        assert_eq!(found.as_deref(), Some(&b"hello"[..]));
    }
    for engine in engines {
        engine.shutdown(Shutdown::default()).await;
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
