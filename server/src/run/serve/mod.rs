//! `pontoon serve`: one node. Checks all flags at once, founds or reopens, then serves until told to stop.
//!
//! Leaves to others: the protocol (`conn`), everything durable (the engine).
//! Invariant: no client is accepted before every group has a handle here.

use crate::advert::Advert;
use crate::cli::Failure;
use crate::conn;
use crate::layout::{Layout, LayoutError};
use crate::node::ServerNode;
use crate::shards::{SLOTS, Shards};
use clap::Args;
use pontoon::config::{Size, Span};
use pontoon::kv::{KvMachine, KvStore};
use pontoon::{Builder, Config, Engine, Event, Group, GroupId, GroupSpec, NodeId, OpenError, Shutdown};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::RangeInclusive;
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
    node: String,
    /// All founding nodes and where they listen for each other: 1=HOST:PORT,2=HOST:PORT,..
    #[arg(long)]
    cluster: String,
    /// Directory of this node alone
    #[arg(long)]
    data: PathBuf,
    /// Number of groups that share the 16,384 slots; fixed at the first start
    #[arg(long, default_value = "48")]
    groups: String,
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
    #[arg(long, default_value = "0")]
    pollers: String,
    /// Milliseconds after which a command without an answer is `outcome unknown`
    #[arg(long, default_value = "5000")]
    deadline_ms: String,
    /// Size of a file of the log, 64KiB to 4GiB: smaller ones are recycled sooner and need less memory
    #[arg(long, default_value = "64MiB")]
    log_file: String,
    /// Log kept per group for nodes that were away; one that misses more gets a snapshot
    #[arg(long, default_value = "64MiB")]
    log_keep: String,
    /// How often contents are flushed, so that the log before them may go
    #[arg(long, default_value = "10s")]
    flush_every: String,
}

/// Flags that were found to make sense.
struct Checked {
    me: NodeId,
    peers: BTreeMap<NodeId, String>,
    shards: Shards,
    layout: Layout,
    deadline: Duration,
    config: Config,
}

impl ServeOptions {
    /// Everything that is wrong, at once: numbers are read here and not by the parser, which stops at the first.
    fn check(&self) -> Result<Checked, Failure> {
        let mut problems = Vec::new();
        let me = NodeId(number("--node", &self.node, 1..=u64::MAX, &mut problems));
        let peers = self.peers(me, &mut problems);
        if !is_host_port(&self.redis) {
            problems.push(format!("--redis {}: must be HOST:PORT", self.redis));
        }
        if self.redis == self.admin {
            problems.push(format!("--redis and --admin are both {}", self.redis));
        }
        let groups = number("--groups", &self.groups, 1..=u64::from(SLOTS), &mut problems);
        let deadline = number("--deadline-ms", &self.deadline_ms, 50..=600_000, &mut problems);
        let pollers = number("--pollers", &self.pollers, 0..=1024, &mut problems);
        let config = self.config(usize::try_from(pollers).unwrap_or_default());
        problems.extend(self.builder(me, &peers, config.clone()).violations());
        match u16::try_from(groups).ok().and_then(|n| Some((n, Shards::new(n)?))) {
            Some((groups, shards)) if problems.is_empty() => {
                let layout = Layout { groups, voters: peers.keys().copied().collect() };
                Ok(Checked { me, peers, shards, layout, deadline: Duration::from_millis(deadline), config })
            }
            _ => Err(Failure::Config(problems)),
        }
    }

    fn peers(&self, me: NodeId, problems: &mut Vec<String>) -> BTreeMap<NodeId, String> {
        let mut peers = BTreeMap::new();
        for part in self.cluster.split(',').filter(|p| !p.is_empty()) {
            match parse_peer(part) {
                Ok((id, addr)) => {
                    if peers.values().any(|a| a == addr) {
                        problems.push(format!("--cluster names {addr} twice"));
                    }
                    if peers.insert(NodeId(id), addr.to_owned()).is_some() {
                        problems.push(format!("--cluster names node {id} twice"));
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        if me.0 > 0 && !peers.contains_key(&me) {
            problems.push(format!("--node {me} is not one of --cluster {}", self.cluster));
        }
        let named = self.cluster.split(',').filter(|p| !p.is_empty()).count();
        if named.is_multiple_of(2) {
            problems.push(format!("--cluster names {named} nodes: an odd number (1, 3, 5 or 7) is needed"));
        } else if named > 7 {
            problems.push(format!("--cluster names {named} nodes: at most 7 may vote"));
        }
        peers
    }

    fn config(&self, pollers: usize) -> Config {
        let mut config = Config::default();
        if pollers > 0 {
            config.raft.pollers = pollers;
        }
        config.log.file = Size::parse(&self.log_file);
        config.raft.log_keep = Size::parse(&self.log_keep);
        config.raft.durable_every = Span::parse(&self.flush_every);
        config
    }

    /// What the engine is opened with. A node that is not one of its peers (told by `check`) is given a place, so that
    /// the engine finds only its own problems.
    fn builder(&self, me: NodeId, peers: &BTreeMap<NodeId, String>, config: Config) -> Builder {
        let listen = peers.get(&me).map_or("127.0.0.1:1", String::as_str);
        let own = Advert { redis: self.redis.clone(), admin: self.admin.clone() };
        Engine::builder(self.data.join("engine"), NodeId(me.0.max(1)))
            .config(config)
            .found(peers.keys().copied().chain([NodeId(me.0.max(1))]).collect())
            .listen(listen)
            .admin(&self.admin)
            .insecure_peers(self.insecure_peers)
            .metrics(true)
            .resolver(peers.clone())
            .advert(own.encode())
            .kind(KIND, KvStore::default())
    }
}

/// A number in a range; 0 and a problem if it is none.
fn number(flag: &str, text: &str, range: RangeInclusive<u64>, problems: &mut Vec<String>) -> u64 {
    match text.parse().ok().filter(|n| range.contains(n)) {
        Some(n) => n,
        None => {
            let (least, most) = (range.start(), range.end());
            let limit = if *most == u64::MAX { format!("a number from {least}") } else { format!("{least} to {most}") };
            problems.push(format!("{flag} {text}: must be {limit}"));
            0
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
pub(crate) fn serve(options: &ServeOptions) -> Result<(), Failure> {
    let checked = options.check()?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?.block_on(run(options, checked))
}

async fn run(options: &ServeOptions, checked: Checked) -> Result<(), Failure> {
    let listener = TcpListener::bind(&options.redis).await;
    let listener = listener.map_err(|e| Failure::Failed(format!("cannot listen on --redis {}: {e}", options.redis)))?;
    let unfit = |e: LayoutError| Failure::Config(vec![e.to_string()]);
    checked.layout.check(&options.data).map_err(unfit)?;
    let builder = options.builder(checked.me, &checked.peers, checked.config.clone());
    let engine = builder.charter(checked.layout.charter()).open().await.map_err(refused)?;
    checked.layout.keep(&options.data).map_err(unfit)?;
    let mut events = engine.events();
    let groups = create_groups(&engine, &checked).await?;
    let own = Advert { redis: options.redis.clone(), admin: options.admin.clone() };
    let node = Arc::new(ServerNode::new(engine, checked.me, own, checked.shards, groups, checked.deadline));
    tracing::info!(node = %checked.me, redis = %options.redis, admin = %options.admin, "serving");
    let mut term = signal(SignalKind::terminate()).map_err(|e| Failure::Failed(e.to_string()))?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| Failure::Failed(e.to_string()))?;
    tokio::select! {
        result = accept(listener, Arc::clone(&node)) => result,
        why = poisoned(&node.engine, &mut events) => Err(Failure::Failed(format!("this node promises nothing any more: {why}"))),
        _ = term.recv() => shut_down(&node).await,
        _ = int.recv() => shut_down(&node).await,
    }
}

/// What must be changed on the command line is told apart from what is wrong with disk or network.
fn refused(error: OpenError) -> Failure {
    match error {
        OpenError::Config(problems) => Failure::Config(problems),
        wrong @ OpenError::WrongIdentity { .. } => Failure::Config(vec![wrong.to_string()]),
        other => Failure::Failed(other.to_string()),
    }
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

/// Why the node promises nothing any more. The state counts, not the event: a busy listener may lose events.
async fn poisoned(engine: &Engine, events: &mut pontoon::Events) -> String {
    loop {
        if let Some(why) = engine.poisoned() {
            return why;
        }
        if let Some(Event::Quarantined { group, why }) = events.next(LISTEN).await {
            tracing::error!(%group, why, "replica quarantined");
        }
    }
}

async fn shut_down(node: &ServerNode) -> Result<(), Failure> {
    let limits = Shutdown { hand_off: Duration::from_secs(5), drain: Duration::from_secs(2) };
    let report = node.engine.shutdown(limits).await;
    tracing::info!(?report, "stopped");
    Ok(())
}
