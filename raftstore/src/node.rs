//! Assembly of a node's parts, and the face that callers hold.
//!
//! Leaves to others: recovery (`boot`), threads (`threads`), typed requests and answers (the engine).
//! Invariant: no call here blocks or touches raft: it looks at status copies, takes from the budget and writes a letter.
//! Invariant: no part turns before the node is admitted (boot.md 2): whoever drives the parts waits for that.

use crate::applier::Applier;
use crate::boot::{Prepared, prepare};
use crate::config::Config;
use crate::durability::Durability;
use crate::env::{Clock, Env, Instant, PeerIdentity, Reader, Recovered};
use crate::error::{BootError, GroupError, Limit, ProposeError, ReadError};
use crate::events::EventStream;
use crate::group_spec::GroupSpec;
use crate::group_status::GroupStatus;
use crate::health::HealthReport;
use crate::ids::{GroupId, NodeId, PollerId};
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::lifecycle::Lifecycle;
use crate::log_reader::LogReader;
use crate::log_writer::{LogWriter, SharedLog};
use crate::mail::Inboxes;
use crate::poller::{Poller, PollerParts};
use crate::proposal::{AdminSlot, Fence, Proposal, ReadRequest, weigh};
use crate::reconfigure::Target;
use crate::router::{GroupCell, Route, Router};
use crate::snapshotter::Snapshotter;
use crate::task::{Control, LifecycleMsg, LifecycleSlot, PollerMsg};
use std::sync::Arc;
use std::time::Duration;

/// Everything active on a node. Threads or the simulator drive each by its `turn`.
pub struct NodeParts {
    /// By `PollerId`.
    pub pollers: Vec<Poller>,
    /// One.
    pub log_writer: LogWriter,
    /// One.
    pub log_reader: LogReader,
    /// By the number in `Mail::applier`.
    pub appliers: Vec<Applier>,
    /// One.
    pub snapshotter: Snapshotter,
    /// One.
    pub lifecycle: Lifecycle,
    /// One.
    pub durability: Durability,
}

/// What a node is made from.
pub struct NodeInputs {
    /// The seams.
    pub env: Env,
    /// Judged by the caller (`Config::violations`).
    pub config: Config,
    /// Closed; opened by the caller once the node is admitted and its parts are driven.
    pub router: Arc<Router>,
    /// From `Router::new`.
    pub inboxes: Inboxes,
    /// Own identity at this start, synced.
    pub me: PeerIdentity,
    /// What the log store's `load` found.
    pub recovered: Recovered,
}

/// Recovers every group (boot.md 4), assembles the parts, hands the replicas to them. Nothing runs yet.
pub fn boot(inputs: NodeInputs) -> Result<(NodeHandle, NodeParts), BootError> {
    let NodeInputs { env, config, router, inboxes, me, recovered } = inputs;
    let tombstones = recovered.tombstones.clone();
    let prepared = prepare(&env, recovered, me.epoch, config.node_bytes)?;
    let now = env.clock.now();
    let ledger = Arc::new(Ledger::new(me.node));
    let lifecycle = Inbox::new(inboxes.lifecycle);
    let lifecycle = Lifecycle::new(lifecycle, router.clone(), &env, me, &prepared, &tombstones);
    let Prepared { replicas, stopped, kept } = prepared;
    tombstones.iter().for_each(|t| router.mark_destroyed(t.group));
    replicas.into_iter().for_each(|r| r.launch(&router));
    stopped.iter().for_each(|s| s.show(&router));
    let log = SharedLog::new(env.log.clone(), env.clock.clone(), router.clone());
    let inline = config.inline_sync.then(|| log.clone());
    let applier =
        |(number, inbox)| Applier::new(number, Inbox::new(inbox), router.mail().clone(), &env, ledger.clone());
    let parts = NodeParts {
        appliers: inboxes.appliers.into_iter().enumerate().map(applier).collect(),
        pollers: pollers(&env, &config, &router, inboxes.pollers, me, &inline, now),
        log_writer: LogWriter::new(log, Inbox::new(inboxes.writer), router.clone()),
        log_reader: LogReader::new(env.log.clone(), Inbox::new(inboxes.log_reader), router.clone()),
        snapshotter: Snapshotter::new(
            Inbox::new(inboxes.snapshotter),
            router.clone(),
            &env,
            &config,
            kept,
            ledger.clone(),
        ),
        lifecycle,
        durability: Durability::new(Inbox::new(inboxes.durability), router.clone(), &env, &config, ledger, now),
    };
    Ok((NodeHandle::new(router, env.clock.clone(), &config), parts))
}

fn pollers(
    env: &Env,
    config: &Config,
    router: &Arc<Router>,
    inboxes: Vec<crossbeam_channel::Receiver<PollerMsg>>,
    me: PeerIdentity,
    inline: &Option<Arc<SharedLog>>,
    now: Instant,
) -> Vec<Poller> {
    let poller = |(id, inbox)| {
        let parts = PollerParts {
            id: PollerId(id),
            me,
            transport: env.transport.clone(),
            inline: inline.clone(),
            router: router.clone(),
            inbox: Inbox::new(inbox),
            now,
        };
        Poller::new(config, parts)
    };
    (0..).zip(inboxes).map(poller).collect()
}

/// What callers hold. Cheap to clone; every method may be called from any thread.
#[derive(Clone)]
pub struct NodeHandle {
    /// Routes, budget, health, inboxes.
    router: Arc<Router>,
    /// For ages.
    clock: Arc<dyn Clock>,
    /// Largest command. Bytes.
    max_command: usize,
}

impl NodeHandle {
    /// A handle on the node behind `router`.
    #[must_use]
    pub fn new(router: Arc<Router>, clock: Arc<dyn Clock>, config: &Config) -> NodeHandle {
        NodeHandle { router, clock, max_command: config.max_command }
    }

    /// Hands a command in. `Err`: refused at the door, nothing was appended and the slot is not answered.
    /// `Ok`: the slot is answered exactly once.
    pub fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        let door = self.door(proposal.group, proposal.fence.as_ref());
        let cell = door.and_then(|cell| self.admit(proposal.command.len()).map(|()| cell));
        let cell = cell.inspect_err(|_| proposal.fence.iter().for_each(Fence::shut))?;
        self.router.mail().poller(cell.poller, PollerMsg::Propose(proposal));
        Ok(())
    }

    /// Where the group's commands go, if it takes any.
    pub(crate) fn door(&self, group: GroupId, fence: Option<&Fence>) -> Result<Arc<GroupCell>, ProposeError> {
        let cell = self.serving(group)?;
        if self.router.health().is_disk_full() {
            return Err(ProposeError::Overloaded(Limit::DiskFull));
        }
        if self.router.health().is_log_full() {
            return Err(ProposeError::Overloaded(Limit::Wal));
        }
        cell.with_status(|s| may_propose(s, fence))?;
        if cell.room() == 0 { Err(ProposeError::Overloaded(Limit::GroupInflight)) } else { Ok(cell) }
    }

    /// Takes the weight of a command of so many bytes from the budget, if it is one and fits.
    fn admit(&self, size: usize) -> Result<(), ProposeError> {
        self.measure(size)?;
        let fits = self.router.budget().try_admit(weigh(size as u64, 1));
        fits.then_some(()).ok_or(ProposeError::Overloaded(Limit::NodeInflight))
    }

    /// May a command be of so many bytes?
    pub(crate) fn measure(&self, size: usize) -> Result<(), ProposeError> {
        if size == 0 {
            // An empty entry is the leader's own; the machine would never see it, nor answer.
            return Err(ProposeError::Empty);
        }
        if size > self.max_command {
            return Err(ProposeError::TooLarge(size, self.max_command));
        }
        Ok(())
    }

    /// Hands a linearizable read in, on any replica. `Err`: refused at the door, the slot is not answered.
    pub fn read(&self, request: ReadRequest) -> Result<(), ReadError> {
        let cell = self.serving(request.group)?;
        if !self.router.budget().try_take(ReadRequest::COST) {
            return Err(ReadError::Overloaded(Limit::NodeInflight));
        }
        self.router.mail().poller(cell.poller, PollerMsg::Read(request));
        Ok(())
    }

    /// Creates this node's replica of a group; the same spec again is fine. The slot is answered.
    pub fn create(&self, spec: GroupSpec, done: Arc<dyn LifecycleSlot>) {
        self.router.mail().lifecycle(LifecycleMsg::Create { spec, done });
    }

    /// Destroys this node's replica of a group and leaves a tombstone. The slot is answered.
    pub fn destroy(&self, group: GroupId, done: Arc<dyn LifecycleSlot>) {
        self.router.mail().lifecycle(LifecycleMsg::Destroy { group, done });
    }

    /// Hands the leadership of a group over, to whoever is most up to date if `to` is `None`.
    pub fn transfer(&self, group: GroupId, to: Option<NodeId>, done: Arc<dyn AdminSlot>) -> Result<(), GroupError> {
        self.control(group, Control::Transfer { group, to, done })
    }

    /// Takes a snapshot of a group now.
    pub fn snapshot_now(&self, group: GroupId, done: Arc<dyn AdminSlot>) -> Result<(), GroupError> {
        self.control(group, Control::SnapshotNow { group, done })
    }

    /// Changes the members of a group; the leader's node must be asked. Answered with `AdminDone::Reconfigured` once the
    /// new configuration stands; asking again for the same joins the change under way.
    pub fn reconfigure(&self, group: GroupId, target: Target, done: Arc<dyn AdminSlot>) -> Result<(), GroupError> {
        self.control(group, Control::Reconfigure { group, target, done })
    }

    /// Gives the change of members up that is under way, unless the joint configuration is entered.
    pub fn abort_reconfigure(&self, group: GroupId, done: Arc<dyn AdminSlot>) -> Result<(), GroupError> {
        self.control(group, Control::AbortReconfigure { group, done })
    }

    /// Campaigns for a group now (spreading leaders of new groups).
    pub fn campaign(&self, group: GroupId) -> Result<(), GroupError> {
        self.control(group, Control::Campaign(group))
    }

    /// What this node knows of a group: an owned copy.
    pub fn status(&self, group: GroupId) -> Result<GroupStatus, GroupError> {
        self.here(group).map(|cell| cell.status())
    }

    /// All groups here, ascending.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        self.router.cells().iter().map(|c| c.status()).collect()
    }

    /// The read view of a group's state machine here.
    pub fn reader(&self, group: GroupId) -> Result<Reader, GroupError> {
        self.here(group)?.reader().ok_or(GroupError::NotFound(group))
    }

    /// The outside of a group's replica here: what callers cache.
    pub fn cell(&self, group: GroupId) -> Result<Arc<GroupCell>, GroupError> {
        self.here(group)
    }

    /// Events from now on; bounded, a slow reader sees `Event::Lagged`.
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.router.events().listen()
    }

    /// Poison, the age of the write in flight, parts that did not turn for longer than `patience`.
    #[must_use]
    pub fn health(&self, patience: Duration) -> HealthReport {
        let report = self.router.health().report(self.clock.now(), patience);
        let budget = self.router.budget();
        HealthReport { budget_used: budget.used(), budget_limit: budget.limit(), ..report }
    }

    /// The disk reserve is reached (proposals get `Overloaded(DiskFull)`), or free again.
    pub fn set_disk_full(&self, full: bool) {
        self.router.health().set_disk_full(full);
    }

    /// No new work from now on; what was admitted goes on.
    pub fn refuse_new_work(&self) {
        self.router.health().set_stopping();
    }

    /// Stops all parts; what still waits is answered `OutcomeUnknown`. `Threads::join` waits for the end.
    pub fn stop(&self) {
        self.refuse_new_work();
        self.router.close();
        self.router.stop_pollers();
    }

    /// Router, for the transport and the parts.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    fn control(&self, group: GroupId, control: Control) -> Result<(), GroupError> {
        let cell = self.serving(group)?;
        self.router.mail().poller(cell.poller, PollerMsg::Control(control));
        Ok(())
    }

    fn here(&self, group: GroupId) -> Result<Arc<GroupCell>, GroupError> {
        match self.router.route(group) {
            Some(Route::Here(cell)) => Ok(cell),
            Some(Route::Destroyed) => Err(GroupError::Destroyed(group)),
            None => Err(GroupError::NotFound(group)),
        }
    }

    /// Does the node take work at all?
    pub(crate) fn works(&self) -> Result<(), GroupError> {
        let health = self.router.health();
        if health.is_stopping() || health.is_poisoned() { Err(GroupError::ShuttingDown) } else { Ok(()) }
    }

    fn serving(&self, group: GroupId) -> Result<Arc<GroupCell>, GroupError> {
        self.works()?;
        let cell = self.here(group)?;
        match cell.with_status(|s| s.quarantined.clone()) {
            Some(why) => Err(GroupError::Quarantined(why)),
            None => Ok(cell),
        }
    }
}

/// The door's view of leadership; the poller asks again.
fn may_propose(status: &GroupStatus, fence: Option<&Fence>) -> Result<(), ProposeError> {
    if !status.is_leader() {
        return Err(ProposeError::NotLeader { leader: status.leader });
    }
    if let Some(to) = status.transferring {
        return Err(ProposeError::Transferring { to });
    }
    fence.map_or(Ok(()), |fence| fence.at_door(status.term))
}
