//! The only file that names the adapters: it brings log store, network, machines and node together, in order.
//!
//! Lock, addresses, log store, identity, machines, recovery, network, admission, the peers' word, threads: each step may
//! refuse, and what was begun is undone by dropping it. Leaves to others: each part's own work.
//! Invariant: no message leaves before identity, log store and every group were found right (boot.md), and nothing
//! votes or acknowledges before this node is admitted.

use crate::admin::AdminApi;
use crate::builder::Builder;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::core::{Access, Core};
use crate::engine::{Directory, Engine, Peer};
use crate::error::OpenError;
use crate::files::{DirLock, SnapshotDir, make_dir};
use crate::http::{AdminListener, AdminServer};
use crate::metrics;
use crate::oneshot::Oneshot;
use crate::resolver::{Resolver, block_on};
use crate::ticker::{Ticker, Upkeep};
use crate::timer::Timer;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::codec::Digest;
use pontoon_raftstore::env::{Clock, Env, Gatekeeper, LogStore, Recovered, Transport, WriteFailed};
use pontoon_raftstore::error::BootError;
use pontoon_raftstore::identity::{Identity, IdentityOptions, PeerView, Start};
use pontoon_raftstore::ids::{ClusterId, NodeId};
use pontoon_raftstore::node::{NodeHandle, NodeInputs, NodeParts, boot};
use pontoon_raftstore::router::Router;
use pontoon_raftstore::threads::Threads;
use pontoon_transport::{BoxFuture, Config as NetConfig, ResolveError, StartError, TcpTransport};
pub(crate) use pontoon_wal::database;
use pontoon_wal::{OpenError as WalError, WalConfig, WalStore};
use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often a founder that waits looks for reasons to give up.
const ADMISSION_LOOK: Duration = Duration::from_millis(200);
/// How long a start waits for the word of peers that may be dead: peers dial again within a second.
const HEARING: Duration = Duration::from_secs(2);
/// How long a refused start waits for its log store to be let go.
const RELEASE: Duration = Duration::from_secs(5);
/// How often it looks.
const HEARING_LOOK: Duration = Duration::from_millis(10);
/// How often it says whom it waits for.
const ADMISSION_TELL: Duration = Duration::from_secs(5);
/// Room in a frame beyond the largest command.
const FRAME_ROOM: usize = 1 << 20;

/// What runs. Dropping it stops everything, hard.
pub(crate) struct Wired {
    /// The admin endpoint.
    admin: Option<AdminServer>,
    /// The once-a-second work.
    ticker: Option<Ticker>,
    /// What else than this value may look at peers.
    net: Option<Arc<Net>>,
    /// The node's parts.
    threads: Option<Threads>,
    /// The network.
    transport: Arc<TcpTransport>,
    /// Who this node is.
    identity: Arc<Identity>,
    /// To stop kinds and to let go of their readers.
    core: Arc<Core>,
    /// Released last.
    _lock: DirLock,
}

/// Opens a node. The work blocks, so it is done on a thread of its own.
pub(crate) async fn open(builder: Builder) -> Result<Engine, OpenError> {
    let answer = Arc::new(Oneshot::default());
    let told = Arc::clone(&answer);
    thread::Builder::new().name("pontoon-open".to_owned()).spawn(move || told.set(open_blocking(builder)))?;
    std::future::poll_fn(|cx| answer.poll_take(cx)).await
}

fn open_blocking(builder: Builder) -> Result<Engine, OpenError> {
    if builder.founders.is_empty() && builder.via.is_none() && !builder.dir.join("log").is_dir() {
        return Err(OpenError::NotFounded(builder.dir));
    }
    let lock = DirLock::take(&builder.dir)?;
    let admin = builder.admin.as_deref().map(AdminListener::bind).transpose()?;
    let transport = bind(&builder)?;
    if builder.install_metrics {
        let _host_has_its_own = metrics::install();
    }
    let log = open_log(&builder.dir.join("log"), builder.me, &builder.config)?;
    let recovered = log.load().map_err(|e| OpenError::LogStore(e.to_string()))?;
    let identity = open_identity(&builder, &log, &recovered, transport.local_addr())?;
    let node = recover(&builder, &log, &transport, &identity, recovered)?;
    let held = Arc::downgrade(&log);
    let opened = node.serve(builder, lock, log, transport, identity, admin);
    if opened.is_err() {
        wait_released(&held);
    }
    opened
}

/// A handshake that was being judged when the start was refused still holds the log store for a moment; whoever tries
/// again at once must not be told that the directory is in use.
fn wait_released(log: &Weak<WalStore>) {
    let deadline = Instant::now() + RELEASE;
    while log.strong_count() > 0 && Instant::now() < deadline {
        thread::sleep(HEARING_LOOK);
    }
}

fn bind(builder: &Builder) -> Result<Arc<TcpTransport>, OpenError> {
    let listen = builder.listen.as_deref().unwrap_or("127.0.0.1:0");
    let failed = |error| OpenError::Listen { addr: listen.to_owned(), error };
    let addr = listen.to_socket_addrs().map_err(failed)?.next();
    let addr = addr.ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))?;
    let mut config = NetConfig::new(builder.me, addr);
    config.insecure_peers = builder.insecure_peers;
    config.max_frame = config.max_frame.max(builder.config.raft().max_command + FRAME_ROOM);
    config.queue.append = config.queue.append.max(2 * config.max_frame);
    TcpTransport::bind(config, None).map_err(|e| match e {
        StartError::Bind { source, .. } => OpenError::Listen { addr: listen.to_owned(), error: source },
        other => OpenError::Config(vec![other.to_string()]),
    })
}

fn open_log(dir: &Path, me: NodeId, config: &Config) -> Result<Arc<WalStore>, OpenError> {
    make_dir(dir)?;
    let memtable_bytes = usize::try_from(config.log.file_of(me)).unwrap_or(usize::MAX);
    let store = WalStore::open(dir, &WalConfig { memtable_bytes, ..WalConfig::default() }).map_err(|e| match e {
        WalError::InUse(dir) => OpenError::InUse(dir),
        WalError::TooNew { found, .. } => OpenError::TooNew(found),
        WalError::Io { doing, source } => OpenError::Io(io::Error::new(source.kind(), format!("{doing}: {source}"))),
        other => OpenError::LogStore(other.to_string()),
    })?;
    Ok(Arc::new(store))
}

fn open_identity(
    builder: &Builder,
    log: &Arc<WalStore>,
    recovered: &Recovered,
    bound: SocketAddr,
) -> Result<Arc<Identity>, OpenError> {
    let listen = builder.listen.clone().filter(|l| !l.ends_with(":0"));
    let options = IdentityOptions {
        node: builder.me,
        start: start_of(builder),
        cluster: builder.cluster,
        listen: listen.unwrap_or_else(|| bound.to_string()),
        advert: builder.advert.clone(),
        digest: founding_digest(builder),
        entropy: entropy()?,
    };
    Ok(Identity::open(Arc::clone(log) as Arc<dyn LogStore>, &recovered.meta, options)?)
}

/// Addresses are for people here: dialling asks the resolver again.
fn start_of(builder: &Builder) -> Start {
    if builder.via.is_some() {
        return Start::Join;
    }
    if builder.founders.is_empty() {
        return Start::Existing;
    }
    let address = |node: NodeId| match &builder.resolver {
        Some(resolver) if node != builder.me => block_on(resolver.resolve(node)).unwrap_or_default(),
        _ => String::new(),
    };
    Start::Found { peers: builder.founders.iter().map(|n| (*n, address(*n))).collect() }
}

/// Node ids and charter; 0 where nothing is founded.
fn founding_digest(builder: &Builder) -> u64 {
    if builder.founders.is_empty() {
        return 0;
    }
    let mut digest = Digest::default();
    digest.update_u64(builder.founders.len() as u64);
    builder.founders.iter().for_each(|n| digest.update_u64(n.0));
    digest.update(&builder.charter);
    digest.finish()
}

fn entropy() -> io::Result<[u64; 4]> {
    use io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let words = bytes.as_chunks::<8>().0;
    Ok([words[0], words[1], words[2], words[3]].map(u64::from_le_bytes))
}

/// A node whose groups stand, with nothing running yet.
struct Recovery {
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
    handle: NodeHandle,
    parts: NodeParts,
}

fn recover(
    builder: &Builder,
    log: &Arc<WalStore>,
    transport: &Arc<TcpTransport>,
    identity: &Identity,
    recovered: Recovered,
) -> Result<Recovery, OpenError> {
    let kinds_dir = builder.dir.join("kinds");
    let mut kinds = std::collections::BTreeMap::new();
    for (name, hooks) in &builder.kinds {
        let dir: PathBuf = kinds_dir.join(name);
        make_dir(&dir)?;
        hooks.start(&dir).map_err(|error| OpenError::Kind { kind: name.clone(), error })?;
        kinds.insert(name.clone(), hooks.machine_kind(dir));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let env = Env {
        log: Arc::clone(log) as Arc<dyn LogStore>,
        transport: Arc::clone(transport) as Arc<dyn Transport>,
        clock: Arc::clone(&clock),
        kinds,
        files: Arc::new(SnapshotDir::open(&builder.dir.join("snapshots"))?),
    };
    let config = builder.config.raft();
    let (router, inboxes) = Router::new(&config);
    let inputs = NodeInputs { env, config, router: Arc::clone(&router), inboxes, me: identity.me(), recovered };
    let booted = boot(inputs).map_err(OpenError::from);
    if booted.is_err() {
        builder.kinds.values().for_each(|k| k.stop());
    }
    let (handle, parts) = booted?;
    Ok(Recovery { router, clock, handle, parts })
}

impl Recovery {
    /// Talks to peers, waits to be admitted, then lets everything run.
    fn serve(
        self,
        builder: Builder,
        lock: DirLock,
        log: Arc<WalStore>,
        transport: Arc<TcpTransport>,
        identity: Arc<Identity>,
        admin: Option<AdminListener>,
    ) -> Result<Engine, OpenError> {
        let Recovery { router, clock, handle, parts } = self;
        let wanted = builder.founders.clone();
        let access = Access { token: builder.admin_token, guards_reads: builder.insecure_admin };
        let core = Core::new(builder.me, builder.config, handle, Timer::start()?, builder.kinds, access);
        let core = Arc::new(core);
        // From here on an early return drops `wired`, and that stops what runs.
        let mut wired = Wired {
            admin: None,
            ticker: None,
            net: None,
            threads: None,
            transport: Arc::clone(&transport),
            identity: Arc::clone(&identity),
            core: Arc::clone(&core),
            _lock: lock,
        };
        let names = Arc::new(Names { given: builder.resolver, identity: Arc::clone(&identity) });
        let served = transport.serve(names, Arc::clone(&identity) as _, Arc::clone(&router) as _);
        served.map_err(|e| OpenError::LogStore(e.to_string()))?;
        let joins = builder.via.is_some();
        transport.knock(builder.via.unwrap_or_default());
        let net = Net { log, transport, identity, wanted, joins };
        net.dial();
        net.wait_admitted(core.config.found_timeout.get())?;
        net.wait_heard()?;
        wired.threads = Some(Threads::start(parts, Arc::clone(&router), &clock)?);
        router.open();
        let net = Arc::new(net);
        wired.ticker = Some(Ticker::start(Arc::clone(&core), Arc::clone(&net) as _, builder.dir)?);
        wired.net = Some(net);
        let engine = Engine::new(core, wired);
        if let Some(listener) = admin {
            let server = listener.serve(AdminApi::new(&engine))?;
            engine.with_wired(|w| w.admin = Some(server));
        }
        Ok(engine)
    }
}

/// What the ticker needs of log store, network and identity.
struct Net {
    log: Arc<WalStore>,
    transport: Arc<TcpTransport>,
    identity: Arc<Identity>,
    /// Founders, whether heard of or not.
    wanted: BTreeSet<NodeId>,
    /// Does it enter a cluster that stands?
    joins: bool,
}

impl Net {
    /// Keeps links with everybody known.
    fn dial(&self) {
        let mut all = self.wanted.clone();
        all.extend(self.identity.peers().iter().map(|p| p.node));
        self.transport.set_peers(all.into_iter().collect());
    }

    fn wait_admitted(&self, limit: Duration) -> Result<(), OpenError> {
        let (began, mut told) = (Instant::now(), Instant::now());
        while !self.identity.wait_admitted(ADMISSION_LOOK)? {
            if began.elapsed() >= limit {
                return Err(OpenError::NotAdmitted(self.missing()));
            }
            if told.elapsed() >= ADMISSION_TELL {
                told = Instant::now();
                tracing::warn!(target: "pontoon::identity", "not admitted yet: {}", self.missing());
            }
        }
        Ok(())
    }

    /// Gives every peer that lives the time to say what it knows of this disk before anything votes or acknowledges: an
    /// older copy must not take part with those that know less while the one that knows better still dials.
    fn wait_heard(&self) -> Result<(), OpenError> {
        let deadline = Instant::now() + HEARING;
        let heard = |p: &PeerView| p.confirmed || p.refusal.is_some();
        while !self.identity.peers().iter().all(heard) && Instant::now() < deadline {
            thread::sleep(HEARING_LOOK);
        }
        // A refusal for good ends the start here.
        self.identity.fatal().map_or(Ok(()), |why| Err(why.into()))
    }

    /// Who has not confirmed this node, and why as far as known.
    fn missing(&self) -> String {
        if self.joins {
            let why = |(address, why): (String, String)| format!("no way in at {address}: {why}");
            return self.transport.failed_knocks().into_iter().map(why).collect::<Vec<_>>().join("; ");
        }
        let why = |p: &PeerView| match &p.refusal {
            Some(refusal) => format!("node {} ({}): {refusal}", p.node, p.listen),
            None => format!("node {} ({}) has not answered", p.node, p.listen),
        };
        let missing: Vec<String> = self.identity.peers().iter().filter(|p| !p.confirmed).map(why).collect();
        missing.join("; ")
    }
}

impl Upkeep for Net {
    fn tick(&self) -> Result<(), WriteFailed> {
        self.dial();
        self.log.tick()?;
        self.identity.write_watermarks()
    }

    fn fatal(&self) -> Option<BootError> {
        self.identity.fatal()
    }

    fn live_log_bytes(&self) -> u64 {
        self.log.live_bytes()
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.transport.link(node) == pontoon_raftstore::env::LinkState::Up
    }
}

impl Directory for Net {
    fn peers(&self) -> Vec<Peer> {
        let peer = |p: PeerView| Peer {
            link: self.transport.link(p.node),
            node: p.node,
            disk: p.disk,
            address: p.listen,
            advert: p.advert,
        };
        self.identity.peers().into_iter().map(peer).collect()
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster()
    }

    fn advert(&self) -> Bytes {
        Gatekeeper::hello(&*self.identity).advert
    }
}

/// The host's resolver as the transport asks; where it has no answer, what the peer told itself.
struct Names {
    given: Option<Arc<dyn Resolver>>,
    identity: Arc<Identity>,
}

impl pontoon_transport::Resolver for Names {
    fn resolve(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move {
            let given = match &self.given {
                Some(resolver) => resolver.resolve(node).await,
                None => Err(io::Error::new(io::ErrorKind::NotFound, "there is no resolver")),
            };
            let told = || self.identity.peers().into_iter().find(|p| p.node == node).map(|p| p.listen);
            let name = match given {
                Ok(name) => name,
                Err(e) => told().filter(|l| !l.is_empty()).ok_or_else(|| ResolveError(e.to_string()))?,
            };
            let found = tokio::net::lookup_host(&name).await.map_err(|e| ResolveError(format!("{name}: {e}")))?;
            Ok(found.collect())
        })
    }
}

impl Wired {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster()
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    pub(crate) fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::addr)
    }

    pub(crate) fn advertise(&self, advert: Bytes) {
        self.identity.advertise(advert);
    }

    /// For looks that do not keep this alive.
    pub(crate) fn directory(&self) -> Option<Weak<dyn Directory>> {
        self.net.as_ref().map(|net| Arc::downgrade(net) as Weak<dyn Directory>)
    }

    /// Ends everything, on a thread of its own; what went wrong.
    pub(crate) async fn stop(self) -> Vec<String> {
        let answer = Arc::new(Oneshot::default());
        let told = Arc::clone(&answer);
        // Shared, so that it is still ours where no thread can be had.
        let held = Arc::new(Mutex::new(Some(self)));
        let taken = Arc::clone(&held);
        let spawned = thread::Builder::new().name("pontoon-stop".to_owned()).spawn(move || {
            let wired = taken.lock().take();
            told.set(wired.map(Wired::stop_now).unwrap_or_default());
        });
        match spawned {
            Ok(_detached) => std::future::poll_fn(|cx| answer.poll_take(cx)).await,
            Err(e) => vec![format!("no thread to stop on ({e}): stopped at once")],
        }
    }

    fn stop_now(mut self) -> Vec<String> {
        self.stop_blocking()
    }

    /// In the reverse order of the start. Idempotent.
    fn stop_blocking(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        self.admin = None;
        self.ticker = None;
        self.net = None;
        self.core.node.stop();
        if let Some(threads) = self.threads.take() {
            let panicked = threads.stop();
            if panicked > 0 {
                problems.push(format!("{panicked} thread(s) had panicked"));
            }
        }
        self.identity.stop();
        self.transport.shutdown_blocking();
        self.core.release_readers();
        self.core.kinds.values().for_each(|k| k.stop());
        problems
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        // On a thread of its own: the last handle may be dropped on a runtime's thread, where blocking is a panic.
        thread::scope(|scope| {
            let stopping = thread::Builder::new().name("pontoon-stop".to_owned());
            if let Ok(stopping) = stopping.spawn_scoped(scope, || self.stop_blocking()) {
                let _told_by_stop = stopping.join();
            }
        });
    }
}
