//! `TcpTransport`: the face of the crate, and the owner of every task and thread in it.
//!
//! `bind` takes the address, `serve` begins to talk (raftstore needs the transport before the transport can be given
//! raftstore), `start` does both. Leaves to others: everything between (`listener`, `dialer`, `driver`).
//! Invariant: every task is in `tasks` or in a set that one of these owns; `shutdown` returns after all have ended.

use crate::config::Config;
use crate::context::{Context, Shared};
use crate::dialer::keep_link;
use crate::error::StartError;
use crate::knocker::knock;
use crate::link::is_dialer;
use crate::listener::accept;
use crate::resolver::Resolver;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::env::{Destination, Gatekeeper, Inbound, Lane, LinkState, SendError, Transport};
use pontoon_raftstore::ids::NodeId;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;

/// Connections that the system queues for `accept`.
const BACKLOG: u32 = 128;
/// Threads of an own runtime.
const THREADS: usize = 2;

/// A link as the admin endpoint shows it.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// The peer.
    pub peer: NodeId,
    /// Its state.
    pub state: LinkState,
    /// Is it one of `set_peers`?
    pub wanted: bool,
    /// Round trip of the last answered beacon.
    pub rtt: Option<Duration>,
    /// Bytes waiting: urgent, append, snapshot.
    pub queued: [usize; 3],
}

/// What runs.
enum Tasks {
    /// Bound, not serving.
    Bound(TcpListener),
    /// Serving. The set holds the listener's task and one dialer per peer in `dialers`.
    Serving { cx: Arc<Context>, set: JoinSet<()>, dialers: BTreeSet<NodeId> },
    /// Shut down.
    Stopped,
}

/// The network over TCP.
pub struct TcpTransport {
    /// What all tasks share.
    shared: Arc<Shared>,
    /// Where peers are served.
    local_addr: SocketAddr,
    /// Who runs the tasks.
    handle: Handle,
    /// The own runtime, if none was given.
    runtime: Mutex<Option<Runtime>>,
    /// What runs. Invariant: goes forward only.
    tasks: Mutex<Tasks>,
    /// Whom `set_peers` named last; dialled once serving.
    wanted: Mutex<BTreeSet<NodeId>>,
}

impl TcpTransport {
    /// `bind`, then `serve`.
    pub fn start(
        config: Config,
        runtime: Option<Handle>,
        resolver: Arc<dyn Resolver>,
        gate: Arc<dyn Gatekeeper>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Arc<TcpTransport>, StartError> {
        let transport = TcpTransport::bind(config, runtime)?;
        transport.serve(resolver, gate, inbound)?;
        Ok(transport)
    }

    /// Takes the address. Nobody is answered and every `send` says `Down` until `serve`. Runs on `runtime`, which
    /// needs I/O and time enabled, or on two threads of its own.
    pub fn bind(config: Config, runtime: Option<Handle>) -> Result<Arc<TcpTransport>, StartError> {
        let faults = config.validate();
        if !faults.is_empty() {
            return Err(StartError::Config(faults));
        }
        if !config.listen.ip().is_loopback() && !config.insecure_peers {
            return Err(StartError::Insecure { listen: config.listen });
        }
        let own = if runtime.is_none() { Some(own_runtime().map_err(StartError::Runtime)?) } else { None };
        let handle = runtime.or_else(|| own.as_ref().map(|own| own.handle().clone()));
        let handle = handle.expect("one of the two exists");
        let _entered = handle.enter();
        let bound = listen(config.listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (local_addr, listener) = bound.map_err(|source| StartError::Bind { listen: config.listen, source })?;
        Ok(Arc::new(TcpTransport {
            shared: Arc::new(Shared::new(config)),
            local_addr,
            handle: handle.clone(),
            runtime: Mutex::new(own),
            tasks: Mutex::new(Tasks::Bound(listener)),
            wanted: Mutex::default(),
        }))
    }

    /// Begins to accept, and to dial whom `set_peers` names.
    pub fn serve(
        &self,
        resolver: Arc<dyn Resolver>,
        gate: Arc<dyn Gatekeeper>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<(), StartError> {
        let mut tasks = self.tasks.lock();
        let listener = match std::mem::replace(&mut *tasks, Tasks::Stopped) {
            Tasks::Bound(listener) => listener,
            other => {
                *tasks = other;
                return Err(StartError::NotIdle);
            }
        };
        let cx = Arc::new(Context::new(self.shared.clone(), resolver, gate, inbound));
        let mut set = JoinSet::new();
        set.spawn_on(accept(cx.clone(), listener), &self.handle);
        *tasks = Tasks::Serving { cx, set, dialers: BTreeSet::new() };
        drop(tasks);
        self.dial_wanted();
        Ok(())
    }

    /// Dials these addresses, whoever is there, while this node has no link at all. Call it once, after `serve`.
    pub fn knock(&self, addresses: Vec<String>) {
        if addresses.is_empty() {
            return;
        }
        if let Tasks::Serving { cx, set, .. } = &mut *self.tasks.lock() {
            set.spawn_on(knock(cx.clone(), addresses), &self.handle);
        }
    }

    /// At which addresses knocking was in vain, and why.
    #[must_use]
    pub fn failed_knocks(&self) -> Vec<(String, String)> {
        self.shared.failed_knocks()
    }

    /// Where peers are served; tells the port if the system chose it.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Whom to keep links with (this node itself is left out). Of each pair the lower id dials. Links to nodes no longer
    /// named are not cut, only not made again from here.
    pub fn set_peers(&self, peers: Vec<NodeId>) {
        let wanted: BTreeSet<_> = peers.into_iter().filter(|peer| *peer != self.shared.config.node).collect();
        *self.wanted.lock() = wanted.clone();
        for id in &wanted {
            if self.shared.peer_or_new(*id).is_none() {
                tracing::error!(peer = id.0, "too many peers: no link to this one");
            }
        }
        for peer in self.shared.peers() {
            peer.link.lock().on_listed(wanted.contains(&peer.id));
            peer.redial.notify_one();
        }
        self.dial_wanted();
    }

    /// Sees to it that each wanted peer that this node dials has its dialer.
    fn dial_wanted(&self) {
        let wanted = self.wanted.lock().clone();
        let mut tasks = self.tasks.lock();
        let Tasks::Serving { cx, set, dialers } = &mut *tasks else { return };
        for id in wanted.into_iter().filter(|id| is_dialer(self.shared.config.node, *id)) {
            let Some(peer) = self.shared.peer(id) else { continue };
            if dialers.insert(id) {
                set.spawn_on(keep_link(cx.clone(), peer), &self.handle);
            }
        }
    }

    /// All known peers, by id.
    #[must_use]
    pub fn links(&self) -> Vec<LinkInfo> {
        let info = |peer: Arc<crate::peer::Peer>| {
            let link = peer.link.lock();
            let (state, wanted) = (link.state(), link.is_listed());
            LinkInfo { peer: peer.id, state, wanted, rtt: link.rtt(), queued: link.queued() }
        };
        self.shared.peers().into_iter().map(info).collect()
    }

    /// Ends all links and tasks and waits for them. Queued frames are lost. Every `send` says `Down` from then on.
    pub async fn shutdown(&self) {
        self.shared.stop();
        let tasks = std::mem::replace(&mut *self.tasks.lock(), Tasks::Stopped);
        if let Tasks::Serving { mut set, .. } = tasks {
            while set.join_next().await.is_some() {}
        }
        if let Some(own) = self.runtime.lock().take() {
            own.shutdown_background();
        }
    }

    /// `shutdown` from a thread that is not one of a runtime.
    pub fn shutdown_blocking(&self) {
        self.handle.clone().block_on(self.shutdown());
    }
}

impl Transport for TcpTransport {
    fn send(&self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError> {
        self.shared.peer(to.node).ok_or(SendError::Down)?.send(to, lane, body)
    }

    fn link(&self, to: NodeId) -> LinkState {
        self.shared.peer(to).map_or(LinkState::Down, |peer| peer.link.lock().state())
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(own) = self.runtime.get_mut().take() {
            own.shutdown_background();
        }
    }
}

fn own_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("pontoon-net")
        .enable_io()
        .enable_time()
        .build()
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}
