//! A handle on one group: propose, read, look, wait, and the administrative calls.
//!
//! Leaves to others: consensus and routing (raftstore), forgetting types (`erased`).
//! Invariant: a handle exists only for a group whose kind's machine is `S`; holding one keeps nothing alive on disk.

use crate::core::Core;
use crate::oneshot::{Oneshot, Within};
use crate::proposal::Proposal;
use crate::read::{Read, ReadView, Waiting};
use crate::reconfigure::Reconfigure;
use crate::state_machine::StateMachine;
use crate::timer::sleep_until;
use bytes::Bytes;
use pontoon_raftstore::error::{AdminError, GroupError, ProposeError, ReadError};
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::{GroupId, Index, LogPos, NodeId};
use pontoon_raftstore::proposal::{AdminDone, AdminSlot, Fence};
use pontoon_raftstore::reconfigure::Target;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often `wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One group on this node. Cheap to clone.
pub struct Group<S> {
    /// The engine's inside.
    core: Arc<Core>,
    /// The group.
    id: GroupId,
    /// The machine's type.
    machine: PhantomData<fn() -> S>,
}

impl<S> Clone for Group<S> {
    fn clone(&self) -> Group<S> {
        Group { core: Arc::clone(&self.core), id: self.id, machine: PhantomData }
    }
}

impl<S: StateMachine> Group<S> {
    pub(crate) fn new(core: &Arc<Core>, id: GroupId) -> Group<S> {
        Group { core: Arc::clone(core), id, machine: PhantomData }
    }

    /// The group's id, for a queue of this engine. A handle of another engine in this process names nothing there.
    pub(crate) fn id_in(&self, core: &Arc<Core>) -> Result<GroupId, GroupError> {
        if Arc::ptr_eq(&self.core, core) { Ok(self.id) } else { Err(GroupError::NotFound(self.id)) }
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Hands a command in; waits for admission where the node is overloaded. Commands that one thread hands in are
    /// appended in that order unless one of them had to wait.
    pub fn propose(&self, command: impl Into<Bytes>) -> Proposal<S::Response> {
        Proposal::new(&self.core, self.id, command.into(), None, true)
    }

    /// Hands a command in, or says at once why not. Never waits for admission; `Overloaded` may still come later, and
    /// like at the door it means that nothing was appended.
    ///
    /// # Errors
    /// Whatever is known at the door. Nothing was appended.
    pub fn try_propose(&self, command: impl Into<Bytes>) -> Result<Proposal<S::Response>, ProposeError> {
        Proposal::new(&self.core, self.id, command.into(), None, false).refused()
    }

    /// Like `try_propose`, in line: what one thread hands in with the same fence takes effect in the order of the calls,
    /// or is refused from some call on.
    ///
    /// # Errors
    /// As `try_propose`, `Fenced` and `Behind` (at the door, or from the proposal).
    pub fn try_propose_in(
        &self,
        command: impl Into<Bytes>,
        fence: &Fence,
    ) -> Result<Proposal<S::Response>, ProposeError> {
        Proposal::new(&self.core, self.id, command.into(), Some(fence.clone()), false).refused()
    }

    /// A view that keeps what `mode` promises, on any replica. The read itself runs on the caller's thread.
    ///
    /// # Errors
    /// Reads change nothing: any error may be retried.
    pub async fn read(&self, mode: Read) -> Result<ReadView<S::Reader>, ReadError> {
        self.read_within(mode, self.core.config.request_timeout.get()).await
    }

    /// As `read`, with a deadline of its own.
    ///
    /// # Errors
    /// As `read`; `Unconfirmed` when the deadline passed.
    pub async fn read_within(&self, mode: Read, limit: Duration) -> Result<ReadView<S::Reader>, ReadError> {
        let index = match mode {
            Read::Linearizable => self.confirm(limit).await?,
            Read::Local { max_staleness: None } => self.core.applied(self.id)?,
            Read::Local { max_staleness: Some(age) } if self.core.is_confirmed_within(self.id, age) => {
                self.core.applied(self.id)?
            }
            Read::Local { max_staleness: Some(_) } => self.confirm(limit).await?,
        };
        Ok(ReadView::new(index, self.local_reader()?))
    }

    /// This replica's read view as it is, however far behind: no promise on freshness at all.
    ///
    /// # Errors
    /// The replica is not here or stands still.
    pub fn local_reader(&self) -> Result<S::Reader, GroupError> {
        let reader = self.core.reader(self.id)?;
        let typed = reader.downcast_ref::<S::Reader>().cloned();
        typed.ok_or_else(|| GroupError::Quarantined("the group has another kind now".to_owned()))
    }

    /// One confirmation that what is applied here was current after this call began.
    async fn confirm(&self, limit: Duration) -> Result<Index, ReadError> {
        let began = Instant::now();
        let slot = Arc::new(Waiting::default());
        self.core.read(self.id, slot.clone())?;
        let answer = Within::new(slot.answer(), &self.core.timer, began + limit).await;
        let index = answer.unwrap_or(Err(ReadError::Unconfirmed))?;
        self.core.note_confirmed(self.id, began);
        Ok(index)
    }

    /// What this replica knows: an owned copy. All zero if the group is gone.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let gone = GroupStatus { group: self.id, ..GroupStatus::default() };
        self.core.status(self.id).unwrap_or(gone)
    }

    /// Waits until `f` holds for the status.
    ///
    /// # Errors
    /// `TimedOut` after `limit`; `Group` if the group is gone.
    pub async fn wait(
        &self,
        mut f: impl FnMut(&GroupStatus) -> bool,
        limit: Duration,
    ) -> Result<GroupStatus, AdminError> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.core.status(self.id)?;
            if f(&status) {
                return Ok(status);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(AdminError::TimedOut);
            }
            sleep_until(&self.core.timer, deadline.min(now + LOOK_EVERY)).await;
        }
    }

    /// Hands the leadership to `to`, or to whoever is most up to date. Answers with the new leader's node.
    ///
    /// # Errors
    /// `NotLeader` where this node does not lead, `TimedOut` when nobody took over.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, AdminError> {
        match self.core.transfer(self.id, to).await? {
            AdminDone::Leader(node) => Ok(node),
            other => Err(AdminError::Refused(format!("unexpected answer {other:?}"))),
        }
    }

    /// Changes who the members are: new nodes become learners and are caught up, then the group goes through a joint
    /// configuration; nodes that are not named leave, the leader too. The group remembers what was asked: it goes on
    /// without the caller and under another leader. Call it at the leader; the same target again joins what is under way.
    pub fn reconfigure(&self, to: Target) -> Reconfigure {
        Reconfigure::begin(&self.core, self.id, to)
    }

    /// Takes a snapshot now: a volatile machine's is kept, a durable one's contents are flushed; the log may be cut behind it.
    /// Returns the position that is durable in it.
    ///
    /// # Errors
    /// `Refused` if the machine could not give one.
    pub async fn snapshot_now(&self) -> Result<LogPos, AdminError> {
        match self.core.snapshot_now(self.id).await? {
            AdminDone::Snapshot(at) => Ok(at),
            other => Err(AdminError::Refused(format!("unexpected answer {other:?}"))),
        }
    }
}

/// Where the result of an administrative call arrives.
#[derive(Default)]
pub(crate) struct AdminAnswer {
    answer: Arc<Oneshot<Result<AdminDone, AdminError>>>,
}

impl AdminAnswer {
    pub(crate) fn answer(&self) -> Arc<Oneshot<Result<AdminDone, AdminError>>> {
        Arc::clone(&self.answer)
    }
}

impl AdminSlot for AdminAnswer {
    fn done(&self, result: Result<AdminDone, AdminError>) {
        self.answer.set(result);
    }
}
