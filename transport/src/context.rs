//! What all tasks of a transport share: configuration, time, peers, and the three that it calls.
//!
//! Leaves to others: every decision. Calls of the gatekeeper may sync, so they run on blocking threads, a bounded
//! number at a time: a disk that hangs holds up handshakes, never the runtime.
//! Invariant: peers are never forgotten and at most `MAX_PEERS`; all of them were listed or admitted by the gatekeeper.

use crate::config::Config;
use crate::error::LocalFault;
use crate::peer::Peer;
use crate::resolver::Resolver;
use parking_lot::{Mutex, RwLock};
use pontoon_raftstore::env::{Gatekeeper, Inbound, Instant};
use pontoon_raftstore::ids::NodeId;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Bound of the peers of one node.
pub(crate) const MAX_PEERS: usize = 1024;
/// Calls of the gatekeeper at a time.
const GATE_CALLS: usize = 8;

/// What exists before anybody is served.
pub(crate) struct Shared {
    /// As given.
    pub(crate) config: Config,
    /// Origin of this transport's time.
    origin: tokio::time::Instant,
    /// All peers.
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
    /// True from `shutdown` on.
    stop: watch::Sender<bool>,
    /// How the last knock at each address ended badly.
    knocks: Mutex<BTreeMap<String, String>>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Shared {
        Shared {
            config,
            origin: tokio::time::Instant::now(),
            peers: RwLock::default(),
            stop: watch::Sender::new(false),
            knocks: Mutex::default(),
        }
    }

    /// Time since the transport was bound.
    pub(crate) fn now(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns at that time.
    pub(crate) async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep(at.since(self.now())).await;
    }

    /// A known peer.
    pub(crate) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().get(&id).cloned()
    }

    /// A known peer, or a new one; `None` over the bound.
    pub(crate) fn peer_or_new(&self, id: NodeId) -> Option<Arc<Peer>> {
        if let Some(peer) = self.peer(id) {
            return Some(peer);
        }
        let mut peers = self.peers.write();
        if peers.len() >= MAX_PEERS && !peers.contains_key(&id) {
            return None;
        }
        Some(peers.entry(id).or_insert_with(|| Arc::new(Peer::new(&self.config, id))).clone())
    }

    /// All known peers, by id.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.peers.read().values().cloned().collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// How a knock at an address ended; `None`: well.
    pub(crate) fn note_knock(&self, address: &str, why: Option<String>) {
        let mut knocks = self.knocks.lock();
        match why {
            Some(why) => drop(knocks.insert(address.to_owned(), why)),
            None => drop(knocks.remove(address)),
        }
    }

    /// Where knocking was in vain, and why.
    pub(crate) fn failed_knocks(&self) -> Vec<(String, String)> {
        self.knocks.lock().clone().into_iter().collect()
    }

    /// Tells every task to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Has `stop` been called?
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns once `stop` was called.
    pub(crate) async fn stopped(&self) {
        // An error would mean that the sender is gone, which `self` owns.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// `work`'s result, or `None` if `stop` comes first.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            done = work => Some(done),
        }
    }
}

/// What tasks get.
pub(crate) struct Context {
    /// Configuration, time, peers.
    pub(crate) shared: Arc<Shared>,
    /// Who is where.
    pub(crate) resolver: Arc<dyn Resolver>,
    /// Who takes frames.
    pub(crate) inbound: Arc<dyn Inbound>,
    /// Who may talk to this node.
    gate: Arc<dyn Gatekeeper>,
    /// Calls of the gatekeeper that may begin.
    gate_calls: Arc<Semaphore>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        resolver: Arc<dyn Resolver>,
        gate: Arc<dyn Gatekeeper>,
        inbound: Arc<dyn Inbound>,
    ) -> Context {
        Context { shared, resolver, inbound, gate, gate_calls: Arc::new(Semaphore::new(GATE_CALLS)) }
    }

    /// The gatekeeper, for calls that never block.
    pub(crate) fn gate(&self) -> &dyn Gatekeeper {
        &*self.gate
    }

    /// Calls the gatekeeper on a blocking thread. A call that was begun is finished even if nobody waits any more.
    pub(crate) async fn ask_gate<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Gatekeeper) -> T + Send + 'static,
    ) -> Result<T, LocalFault> {
        let turn = self.gate_calls.clone().acquire_owned().await.map_err(|_| LocalFault::Gate)?;
        let gate = self.gate.clone();
        let call = move || {
            let answer = ask(&*gate);
            drop(turn);
            answer
        };
        tokio::task::spawn_blocking(call).await.map_err(|_| LocalFault::Gate)
    }
}
