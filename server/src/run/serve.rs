//! `pontoon serve`: one node. Checks all flags at once, founds or reopens, then serves until told to stop.
//!
//! Leaves to others: the protocol (`conn`), everything durable (the engine).
//! Invariant: no client is accepted before every group has a handle here.

use crate::advert::Advert;
use crate::cli::Failure;
use crate::conn;
use crate::layout::Layout;
use crate::node::ServerNode;
use crate::shards::Shards;
use clap::Args;
use pontoon::kv::{KvMachine, KvStore};
use pontoon::{Config, Engine, Event, Group, GroupId, GroupSpec, NodeId, Shutdown};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Most client connections at once.
const CONNECTIONS: usize = 10_000;
const KIND: &str = "kv";
/// How long one wait for an event lasts.
const LISTEN: Duration = Duration::from_secs(1);

/// Flags of `pontoon serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeOptions {
    /// This node's id, one of those in --cluster
    #[arg(long)]
    node: u64,
    /// All founding nodes and where they listen for each other: 1=HOST:PORT,2=HOST:PORT,..
    #[arg(long)]
    cluster: String,
    /// Directory of this node alone
    #[arg(long)]
    data: PathBuf,
    /// Number of groups that share the 16,384 slots; fixed at the first start
    #[arg(long, default_value_t = 48)]
    groups: u16,
    /// Where clients connect, HOST:PORT; told to clients of other nodes as it is given here
    #[arg(long)]
    redis: String,
    /// Where /metrics, /healthz, /readyz and /groups are served, HOST:PORT (loopback)
    #[arg(long)]
    admin: String,
    /// Let peers connect from other machines although links are not encrypted yet
    #[arg(long)]
    insecure_peers: bool,
    /// Threads that own groups; 0: one for every two cores
    #[arg(long, default_value_t = 0)]
    pollers: usize,
    /// Milliseconds after which a command without an answer is `outcome unknown`
    #[arg(long, default_value_t = 5000)]
    deadline_ms: u64,
}

/// Flags that were found to make sense.
struct Checked {
    me: NodeId,
    peers: BTreeMap<NodeId, String>,
    listen: String,
    shards: Shards,
    layout: Layout,
}

impl ServeOptions {
    fn check(&self) -> Result<Checked, Failure> {
        let mut problems = Vec::new();
        let mut peers = BTreeMap::new();
        for part in self.cluster.split(',').filter(|p| !p.is_empty()) {
            match parse_peer(part) {
                Ok((id, addr)) => {
                    if peers.insert(NodeId(id), addr.to_owned()).is_some() {
                        problems.push(format!("--cluster names node {id} twice"));
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        let me = NodeId(self.node);
        if !peers.contains_key(&me) {
            problems.push(format!("--node {} is not one of --cluster {}", self.node, self.cluster));
        }
        if peers.len().is_multiple_of(2) {
            problems.push(format!("--cluster names {} nodes: an odd number (1, 3, 5 or 7) is needed", peers.len()));
        } else if peers.len() > 7 {
            problems.push(format!("--cluster names {} nodes: at most 7 may vote", peers.len()));
        }
        for (flag, addr) in [("--redis", &self.redis), ("--admin", &self.admin)] {
            if !is_host_port(addr) {
                problems.push(format!("{flag} {addr}: must be HOST:PORT"));
            }
        }
        if self.redis == self.admin {
            problems.push(format!("--redis and --admin are both {}", self.redis));
        }
        if !(50..=600_000).contains(&self.deadline_ms) {
            problems.push(format!("--deadline-ms {}: must be 50 to 600000", self.deadline_ms));
        }
        let shards = Shards::new(self.groups);
        if shards.is_none() {
            problems.push(format!("--groups {}: must be 1 to 16384", self.groups));
        }
        match (shards, peers.get(&me).cloned()) {
            (Some(shards), Some(listen)) if problems.is_empty() => {
                let layout = Layout { groups: self.groups, voters: peers.keys().copied().collect() };
                Ok(Checked { me, peers, listen, shards, layout })
            }
            _ => Err(Failure::Config(problems)),
        }
    }
}

fn parse_peer(part: &str) -> Result<(u64, &str), String> {
    let (id, addr) = part.split_once('=').ok_or_else(|| format!("--cluster {part}: must be ID=HOST:PORT"))?;
    let id = id.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("--cluster {part}: the id must be above 0"))?;
    if is_host_port(addr) { Ok((id, addr)) } else { Err(format!("--cluster {part}: {addr:?} is not HOST:PORT")) }
}

fn is_host_port(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

/// Runs one node until SIGTERM or SIGINT, or until it may promise nothing any more.
pub(crate) fn serve(options: ServeOptions) -> Result<(), Failure> {
    let checked = options.check()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?.block_on(run(options, checked))
}

async fn run(options: ServeOptions, checked: Checked) -> Result<(), Failure> {
    let listener = TcpListener::bind(&options.redis).await;
    let listener = listener.map_err(|e| Failure::Config(vec![format!("--redis {}: {e}", options.redis)]))?;
    checked.layout.settle(&options.data).map_err(|e| Failure::Config(vec![e.to_string()]))?;
    let own = Advert { redis: options.redis.clone(), admin: options.admin.clone() };
    let engine = open(&options, &checked, &own).await?;
    let mut events = engine.events();
    let groups = create_groups(&engine, &checked).await?;
    let deadline = Duration::from_millis(options.deadline_ms);
    let node = Arc::new(ServerNode::new(engine, checked.me, own, checked.shards, groups, deadline));
    tracing::info!(node = %checked.me, redis = %options.redis, admin = %options.admin, "serving");
    let mut term = signal(SignalKind::terminate()).map_err(|e| Failure::Failed(e.to_string()))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| Failure::Failed(e.to_string()))?;
    tokio::select! {
        result = accept(listener, Arc::clone(&node)) => result,
        why = poisoned(&mut events) => Err(Failure::Failed(format!("this node promises nothing any more: {why}"))),
        _ = term.recv() => Ok(shut_down(&node).await),
        _ = int.recv() => Ok(shut_down(&node).await),
    }
}

async fn open(options: &ServeOptions, checked: &Checked, own: &Advert) -> Result<Engine, Failure> {
    let mut config = Config::default();
    if options.pollers > 0 {
        config.raft.pollers = options.pollers;
    }
    let engine = Engine::builder(options.data.join("engine"), checked.me)
        .config(config)
        .found(checked.peers.keys().copied().collect())
        .charter(checked.layout.charter())
        .listen(&checked.listen)
        .admin(&options.admin)
        .insecure_peers(options.insecure_peers)
        .metrics(true)
        .resolver(checked.peers.clone())
        .advert(own.encode())
        .kind(KIND, KvStore::default());
    engine.open().await.map_err(|e| Failure::Failed(e.to_string()))
}

async fn create_groups(engine: &Engine, checked: &Checked) -> Result<Vec<Group<KvMachine>>, Failure> {
    let mut creations = Vec::new();
    for (id, _, _) in checked.shards.ranges() {
        let engine = engine.clone();
        let voters = checked.layout.voters.clone();
        creations.push(tokio::spawn(async move { engine.create::<KvMachine>(spec(id, voters)).await }));
    }
    let mut groups = Vec::with_capacity(creations.len());
    for creation in creations {
        let created = creation.await.map_err(|e| Failure::Failed(e.to_string()))?;
        groups.push(created.map_err(|e| Failure::Failed(e.to_string()))?);
    }
    Ok(groups)
}

fn spec(id: GroupId, voters: std::collections::BTreeSet<NodeId>) -> GroupSpec {
    GroupSpec { id, kind: KIND.to_owned(), voters, learners: std::collections::BTreeSet::new() }
}

async fn accept(listener: TcpListener, node: Arc<ServerNode>) -> Result<(), Failure> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.map_err(|e| Failure::Failed(e.to_string()))?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    if let Err(error) = conn::serve(stream, node).await {
                        tracing::debug!(%error, "client connection ended");
                    }
                    drop(permit);
                });
            }
            // Out of descriptors: let connections end before the next try.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn poisoned(events: &mut pontoon::Events) -> String {
    loop {
        match events.next(LISTEN).await {
            Some(Event::Poisoned(why)) => return why,
            Some(Event::Quarantined { group, why }) => tracing::error!(%group, why, "replica quarantined"),
            _ => {}
        }
    }
}

async fn shut_down(node: &ServerNode) {
    let limits = Shutdown { hand_off: Duration::from_secs(5), drain: Duration::from_secs(2) };
    let report = node.engine.shutdown(limits).await;
    tracing::info!(?report, "stopped");
}
