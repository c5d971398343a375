//! A change of a group's members: what was asked, how far it is, how it ended.
//!
//! The group itself remembers the change (raftstore): it survives the caller and the leader that took it. This handle
//! only waits and looks. Leaves to others: carrying it out. Invariant: dropping the handle changes nothing.

use crate::core::Core;
use crate::group::AdminAnswer;
use pontoon_raftstore::error::AdminError;
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::{GroupId, Index, NodeId};
use pontoon_raftstore::proposal::AdminDone;
use pontoon_raftstore::reconfigure::{Phase, Target};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

type Work = Pin<Box<dyn Future<Output = Result<Index, AdminError>> + Send>>;

/// A change of members under way. A future of the index of the new configuration; dropping it does not cancel.
#[must_use = "dropping it does not cancel the change, but its end is not seen"]
pub struct Reconfigure {
    /// The engine's inside.
    core: Arc<Core>,
    /// The group.
    group: GroupId,
    /// As asked for.
    target: Target,
    /// Waits for the end.
    work: Work,
}

impl Reconfigure {
    pub(crate) fn begin(core: &Arc<Core>, group: GroupId, target: Target) -> Reconfigure {
        let slot = Arc::new(AdminAnswer::default());
        let asked = core.node.reconfigure(group, target.clone(), slot.clone());
        let work: Work = match asked {
            Ok(()) => Box::pin(async move { follow(&slot).await }),
            Err(error) => Box::pin(async move { Err(error.into()) }),
        };
        Reconfigure { core: Arc::clone(core), group, target, work }
    }

    /// How far it is, as this node knows. Before the group has taken it: `CatchingUp`.
    #[must_use]
    pub fn phase(&self) -> Phase {
        phase(&self.core, self.group, &self.target)
    }

    /// Waits until the new configuration stands; answers with its index.
    ///
    /// # Errors
    /// All of them may be tried again: a target says where to go, so nothing happens twice. `NotLeader`: ask there.
    /// `UnknownNode`: connect that node first. `ReconfigureInProgress`, `ConfChanged`: look again. `NoProgress`, `Aborted`:
    /// nothing has changed. `TimedOut`: the leadership went elsewhere and this node lost sight of the change, which may go
    /// on. `Group(Destroyed)`: this node's replica left with the change; look at a member.
    pub async fn done(self) -> Result<Index, AdminError> {
        self.work.await
    }

    /// Asks for giving it up; the end says `Aborted`. Too late once the configuration is joint: then it is completed.
    pub fn abort(&self) {
        let _told_by_the_end = self.core.node.abort_reconfigure(self.group, Arc::new(AdminAnswer::default()));
    }
}

impl Future for Reconfigure {
    type Output = Result<Index, AdminError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.work.as_mut().poll(cx)
    }
}

/// The answer of the replica that took the change: it waits on although the leadership moves.
async fn follow(slot: &AdminAnswer) -> Result<Index, AdminError> {
    let answer = slot.answer();
    match std::future::poll_fn(|cx| answer.poll_take(cx)).await? {
        AdminDone::Reconfigured(at) => Ok(at),
        AdminDone::Aborted => Err(AdminError::Aborted),
        other => Err(AdminError::Refused(format!("unexpected answer {other:?}"))),
    }
}

fn phase(core: &Core, group: GroupId, target: &Target) -> Phase {
    let Ok(status) = core.status(group) else { return Phase::Done };
    match &status.reconfigure {
        Some(under_way) => under_way.phase,
        None if is_reached(&status, target) => Phase::Done,
        None => {
            let known = |n: &&NodeId| status.members.iter().any(|m| m.1 == **n);
            let mut wanted = target.voters.iter().chain(&target.learners);
            let node = wanted.find(|n| !known(n)).copied().unwrap_or_default();
            Phase::CatchingUp { node, behind: None }
        }
    }
}

fn is_reached(status: &GroupStatus, target: &Target) -> bool {
    let (voters, learners) = members_of(status);
    let over = status.reconfigure.as_ref().is_none_or(|r| r.phase == Phase::Done);
    over && voters == target.voters && learners == target.learners && !is_joint(status)
}

fn is_joint(status: &GroupStatus) -> bool {
    !status.conf_state.voters_outgoing.is_empty()
}

/// The nodes of a group's voters and learners, as its status shows them. While the configuration is joint: of the
/// incoming one.
#[must_use]
pub fn members_of(status: &GroupStatus) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let conf = &status.conf_state;
    let of = |ids: &[pontoon_raftstore::ids::ReplicaId]| {
        status.members.iter().filter(|m| ids.contains(&m.0)).map(|m| m.1).collect::<BTreeSet<NodeId>>()
    };
    let (voters, mut learners) = (of(&conf.voters), of(&conf.learners));
    learners.extend(of(&conf.learners_next));
    (voters, learners)
}
