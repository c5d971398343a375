//! The engine on one node: groups by name, peers, events, health, and the orderly end.
//!
//! Leaves to others: opening (`builder`, `wiring`), one group's work (`group`).
//! Invariant: after `shutdown` returns, no thread of the engine runs and every waiter was answered.

use crate::builder::{Builder, MAX_ADVERT};
use crate::completions::Completions;
use crate::confirmations::Confirmations;
use crate::core::Core;
use crate::error::{AdminError, LifecycleError};
use crate::events::Events;
use crate::group::{AdminAnswer, Group};
use crate::health::Health;
use crate::oneshot::{Oneshot, Within};
use crate::state_machine::StateMachine;
use crate::timer::sleep_until;
use crate::wiring::Wired;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::env::LinkState;
use pontoon_raftstore::error::GroupError;
use pontoon_raftstore::group_spec::GroupSpec;
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::{ClusterId, GroupId, Incarnation, NodeId};
use pontoon_raftstore::task::LifecycleSlot;
use std::any::{TypeId, type_name};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often `shutdown` looks whether its leaders are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// When to ask again for a transfer that did not begin: a fresh leader knows no follower that is well.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// One node's engine. Cheap to clone; every method may be called from any thread and any executor.
#[derive(Clone)]
pub struct Engine {
    /// The inside.
    core: Arc<Core>,
    /// What runs, until `shutdown` takes it.
    wired: Arc<Mutex<Option<Wired>>>,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its disk, as it showed itself or as others say. What a configuration names with the node.
    pub disk: Option<Incarnation>,
    /// Where it listens for peers, as it said itself or as others say; empty if nobody knows.
    pub address: String,
    /// Opaque to the engine: what the node's host put there.
    pub advert: Bytes,
    /// State of the link.
    pub link: LinkState,
}

/// How to end.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// How long to wait until other nodes lead what this one leads.
    pub hand_off: Duration,
    /// How long to wait for commands under way.
    pub drain: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { hand_off: Duration::from_secs(5), drain: Duration::from_secs(2) }
    }
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Groups led when it began.
    pub led: usize,
    /// Of those, still led here when the wait ended: their next leader is elected.
    pub still_led: usize,
    /// Nothing was under way any more when the threads were stopped.
    pub drained: bool,
    /// What went wrong on the way.
    pub problems: Vec<String>,
}

impl Engine {
    /// An engine on `dir` that is node `me`.
    pub fn builder(dir: impl Into<PathBuf>, me: NodeId) -> Builder {
        Builder::new(dir.into(), me)
    }

    pub(crate) fn new(core: Arc<Core>, wired: Wired) -> Engine {
        Engine { core, wired: Arc::new(Mutex::new(Some(wired))) }
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.core.me
    }

    /// The cluster's id. `None` after `shutdown`.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.wired.lock().as_ref().and_then(Wired::cluster)
    }

    /// Where peers are served; tells the port if the system chose it. `None` after `shutdown`.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.wired.lock().as_ref().map(Wired::peer_addr)
    }

    /// Where the admin endpoints are served, if they are.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.wired.lock().as_ref().and_then(Wired::admin_addr)
    }

    /// Creates this node's replica of a group; the same spec again is fine. Call it on each initial voter.
    ///
    /// # Errors
    /// `BadSpec`, `OtherSpec`: fix the spec. `StateMachine`: it could not be opened, or `S` is not the kind's machine.
    pub async fn create<S: StateMachine>(&self, spec: GroupSpec) -> Result<Group<S>, LifecycleError> {
        self.check_machine::<S>(&spec.kind)?;
        let id = spec.id;
        let slot = Arc::new(LifecycleAnswer::default());
        self.core.node.create(spec, slot.clone());
        self.lifecycle(&slot).await?;
        Ok(Group::new(&self.core, id))
    }

    /// A queue for commands in bulk to groups with this machine.
    #[must_use]
    pub fn completions<S: StateMachine>(&self) -> Completions<S> {
        Completions::new(&self.core)
    }

    /// A queue for linearizable reads in bulk.
    #[must_use]
    pub fn confirmations(&self) -> Confirmations {
        Confirmations::new(&self.core)
    }

    /// A handle on a group that has a replica here.
    ///
    /// # Errors
    /// `Group` if there is none, `StateMachine` if `S` is not its machine.
    pub fn group<S: StateMachine>(&self, id: GroupId) -> Result<Group<S>, LifecycleError> {
        let cell = self.core.node.cell(id)?;
        self.check_machine::<S>(&cell.kind)?;
        Ok(Group::new(&self.core, id))
    }

    /// All groups with a replica here, ascending: owned copies.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        self.core.node.groups()
    }

    /// One group's status.
    ///
    /// # Errors
    /// `NotFound` or `Destroyed`.
    pub fn status(&self, id: GroupId) -> Result<GroupStatus, GroupError> {
        self.core.status(id)
    }

    /// The other nodes as far as known.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.look().peers()
    }

    /// Peers that connect from now on are shown this advert; for what is known only after the node has joined.
    ///
    /// # Errors
    /// `Refused` if it is longer than 4096 bytes. Nothing was changed.
    pub fn advertise(&self, advert: impl Into<Bytes>) -> Result<(), AdminError> {
        let advert = advert.into();
        if advert.len() > MAX_ADVERT {
            return Err(AdminError::Refused(format!("an advert of {} bytes is over the limit", advert.len())));
        }
        self.with_wired(|w| w.advertise(advert));
        Ok(())
    }

    /// Destroys this node's replica of a group; a tombstone stays.
    ///
    /// # Errors
    /// `Group` if there is none.
    pub async fn destroy(&self, id: GroupId) -> Result<(), LifecycleError> {
        let slot = Arc::new(LifecycleAnswer::default());
        self.core.node.destroy(id, slot.clone());
        self.lifecycle(&slot).await?;
        self.core.forget(id);
        Ok(())
    }

    /// Events from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(&self.core)
    }

    /// Is this node well?
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.core)
    }

    /// Why the node promises nothing any more, if so: end the process, nothing else helps.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.core.node.health(Duration::MAX).poisoned
    }

    /// Hands leaders to other nodes, drains, flushes and joins every thread. A second call does nothing.
    pub async fn shutdown(&self, how: Shutdown) -> ShutdownReport {
        let Some(wired) = self.wired.lock().take() else { return ShutdownReport::default() };
        let mut report = ShutdownReport::default();
        self.hand_off(how.hand_off, &mut report).await;
        self.core.node.refuse_new_work();
        report.drained = self.drain(how.drain).await;
        report.problems = wired.stop().await;
        report
    }

    /// Asks for a transfer of every group led here, again where it was refused or failed, until none is led.
    async fn hand_off(&self, limit: Duration, report: &mut ShutdownReport) {
        let deadline = Instant::now() + limit;
        report.led = self.led().len();
        let mut ask_at = Instant::now();
        loop {
            let led = self.led();
            report.still_led = led.len();
            let now = Instant::now();
            if led.is_empty() || now >= deadline {
                return;
            }
            if now >= ask_at {
                ask_at = now + ASK_AGAIN;
                self.ask_transfers(&led);
            }
            sleep_until(&self.core.timer, deadline.min(now + LOOK_EVERY)).await;
        }
    }

    fn ask_transfers(&self, led: &[GroupId]) {
        let idle = |id: &GroupId| self.core.node.cell(*id).is_ok_and(|c| c.with_status(|s| s.transferring.is_none()));
        for group in led.iter().copied().filter(idle) {
            // The answer is seen by looking: nobody waits on the slot.
            let _gone_meanwhile = self.core.node.transfer(group, None, Arc::new(AdminAnswer::default()));
        }
    }

    /// Groups led here that somebody else could lead.
    fn led(&self) -> Vec<GroupId> {
        let cells = self.core.node.router().cells();
        let led = cells.iter().filter(|c| c.with_status(|s| s.is_leader() && s.conf_state.voters.len() > 1));
        led.map(|c| c.group).collect()
    }

    /// Waits until every command that was handed in is answered.
    async fn drain(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let pending = self.core.pending.load(Ordering::Relaxed);
            if pending == 0 || Instant::now() >= deadline {
                return pending == 0;
            }
            sleep_until(&self.core.timer, deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    fn check_machine<S: StateMachine>(&self, kind: &str) -> Result<(), LifecycleError> {
        self.core.check_kind(kind, (TypeId::of::<S>(), type_name::<S>())).map_err(LifecycleError::StateMachine)
    }

    async fn lifecycle(&self, slot: &LifecycleAnswer) -> Result<(), LifecycleError> {
        let deadline = Instant::now() + self.core.config.admin_timeout.get();
        let answer = Within::new(Arc::clone(&slot.answer), &self.core.timer, deadline).await;
        answer.unwrap_or_else(|| Err(LifecycleError::StateMachine("timed out; it may still happen".to_owned())))
    }

    /// A look that does not keep the engine running.
    pub(crate) fn look(&self) -> Look {
        Look { core: Arc::clone(&self.core), directory: self.wired.lock().as_ref().and_then(Wired::directory) }
    }

    pub(crate) fn with_wired(&self, f: impl FnOnce(&mut Wired)) {
        if let Some(wired) = self.wired.lock().as_mut() {
            f(wired);
        }
    }
}

/// Who knows the peers.
pub(crate) trait Directory: Send + Sync {
    fn peers(&self) -> Vec<Peer>;
    fn cluster(&self) -> Option<ClusterId>;
    fn advert(&self) -> Bytes;
}

/// What the admin endpoints see: they live inside what runs, and must not keep it alive.
#[derive(Clone)]
pub(crate) struct Look {
    pub(crate) core: Arc<Core>,
    directory: Option<Weak<dyn Directory>>,
}

impl Look {
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let directory = self.directory.as_ref().and_then(Weak::upgrade);
        directory.map(|d| d.peers()).unwrap_or_default()
    }

    /// As peers are shown.
    pub(crate) fn advert(&self) -> Bytes {
        self.directory.as_ref().and_then(Weak::upgrade).map(|d| d.advert()).unwrap_or_default()
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.directory.as_ref().and_then(Weak::upgrade)?.cluster()
    }
}

/// Where the result of a creation or destruction arrives.
#[derive(Default)]
struct LifecycleAnswer {
    answer: Arc<Oneshot<Result<(), LifecycleError>>>,
}

impl LifecycleSlot for LifecycleAnswer {
    fn done(&self, result: Result<(), LifecycleError>) {
        self.answer.set(result);
    }
}
