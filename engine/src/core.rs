//! The inside that all handles share: the node's door, the timer, and what is known of kinds.
//!
//! Leaves to others: everything that decides (raftstore); starting and stopping it (`wiring`).
//! Invariant: no method blocks; what waits is a future with a deadline.

use crate::config::Config;
use crate::erased::KindHooks;
use crate::group::AdminAnswer;
use crate::metrics::Meters;
use crate::oneshot::Within;
use crate::timer::Timer;
use crate::token::Token;
use parking_lot::Mutex;
use pontoon_raftstore::env::Reader;
use pontoon_raftstore::error::{AdminError, GroupError, ProposeError, ReadError};
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::{GroupId, Index, NodeId};
use pontoon_raftstore::node::NodeHandle;
use pontoon_raftstore::proposal::{AdminDone, Proposal, ReadRequest, ReadSlot};
use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

/// Who may do what over the admin endpoints.
#[derive(Debug)]
pub(crate) struct Access {
    /// Shown by who changes things; `None`: nobody may.
    pub(crate) token: Option<Token>,
    /// Do reads need it, too?
    pub(crate) guards_reads: bool,
}

/// See the file's head.
pub(crate) struct Core {
    /// This node.
    pub(crate) me: NodeId,
    /// As opened with.
    pub(crate) config: Config,
    /// The door to pollers and lifecycle.
    pub(crate) node: NodeHandle,
    /// Deadlines of all futures.
    pub(crate) timer: Arc<Timer>,
    /// Commands handed in and not answered.
    pub(crate) pending: Arc<AtomicUsize>,
    /// What becomes of proposals.
    pub(crate) meters: Meters,
    /// Who may do what over the admin endpoints.
    pub(crate) access: Access,
    /// Registered kinds by name.
    pub(crate) kinds: BTreeMap<String, Arc<dyn KindHooks>>,
    /// When the last confirmed linearizable read of a group began here. At most one entry per group of this node.
    confirmed: Mutex<HashMap<GroupId, Instant>>,
}

impl Core {
    pub(crate) fn new(
        me: NodeId,
        config: Config,
        node: NodeHandle,
        timer: Arc<Timer>,
        kinds: BTreeMap<String, Arc<dyn KindHooks>>,
        access: Access,
    ) -> Core {
        Core {
            me,
            config,
            node,
            timer,
            pending: Arc::default(),
            meters: Meters::new(),
            access,
            kinds,
            confirmed: Mutex::default(),
        }
    }

    pub(crate) fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        self.node.propose(proposal)
    }

    pub(crate) fn read(&self, group: GroupId, slot: Arc<dyn ReadSlot>) -> Result<(), ReadError> {
        self.node.read(ReadRequest { group, slot })
    }

    pub(crate) fn reader(&self, group: GroupId) -> Result<Reader, GroupError> {
        if self.node.router().health().is_stopping() {
            return Err(GroupError::ShuttingDown);
        }
        self.node.reader(group)
    }

    /// Lets go of every read view: the machines' storage is about to close.
    pub(crate) fn release_readers(&self) {
        for cell in self.node.router().cells() {
            cell.set_reader(Arc::new(()));
        }
    }

    pub(crate) fn status(&self, group: GroupId) -> Result<GroupStatus, GroupError> {
        self.node.status(group)
    }

    /// What is applied here, unless the replica stands still.
    pub(crate) fn applied(&self, group: GroupId) -> Result<Index, GroupError> {
        self.node.cell(group)?.with_status(|s| match &s.quarantined {
            Some(why) => Err(GroupError::Quarantined(why.clone())),
            None => Ok(s.applied),
        })
    }

    /// Was a read that began within the last `age` confirmed here?
    pub(crate) fn is_confirmed_within(&self, group: GroupId, age: Duration) -> bool {
        self.confirmed.lock().get(&group).is_some_and(|began| began.elapsed() <= age)
    }

    pub(crate) fn note_confirmed(&self, group: GroupId, began: Instant) {
        let mut confirmed = self.confirmed.lock();
        let last = confirmed.entry(group).or_insert(began);
        *last = (*last).max(began);
    }

    pub(crate) fn forget(&self, group: GroupId) {
        self.confirmed.lock().remove(&group);
    }

    pub(crate) async fn transfer(&self, group: GroupId, to: Option<NodeId>) -> Result<AdminDone, AdminError> {
        if to == Some(self.me) && self.status(group)?.is_leader() {
            return Ok(AdminDone::Leader(self.me));
        }
        let slot = Arc::new(AdminAnswer::default());
        self.node.transfer(group, to, slot.clone())?;
        self.admin(&slot).await
    }

    pub(crate) async fn snapshot_now(&self, group: GroupId) -> Result<AdminDone, AdminError> {
        let slot = Arc::new(AdminAnswer::default());
        self.node.snapshot_now(group, slot.clone())?;
        self.admin(&slot).await
    }

    pub(crate) async fn admin(&self, slot: &AdminAnswer) -> Result<AdminDone, AdminError> {
        let deadline = Instant::now() + self.config.admin_timeout.get();
        Within::new(slot.answer(), &self.timer, deadline).await.unwrap_or(Err(AdminError::TimedOut))
    }

    /// Is `machine` the type that the kind's groups have?
    pub(crate) fn check_kind(&self, kind: &str, machine: (TypeId, &'static str)) -> Result<(), String> {
        let Some(hooks) = self.kinds.get(kind) else {
            return Err(format!("no kind {kind:?} is registered"));
        };
        let (id, name) = hooks.machine_type();
        if id == machine.0 {
            return Ok(());
        }
        Err(format!("groups of kind {kind:?} run {name}, not {}", machine.1))
    }
}
