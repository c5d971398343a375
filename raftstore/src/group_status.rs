//! A group as a caller sees it: the owned copy of what its replica here knows.
//!
//! Leaves to others: keeping it current (the replica, through its cell in the router).
//! Invariant: a status is a copy; holding one blocks nobody.

use crate::error::LeaderHint;
use crate::ids::{Generation, GroupId, Incarnation, Index, NodeId, ReplicaId, Term};
use crate::reconfigure::ReconfigureStatus;
use pontoon_raft::{ConfState, FlowState, StateRole};

/// Owned copy of what one replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// State-machine kind.
    pub kind: String,
    /// Own replica.
    pub replica: ReplicaId,
    /// Generation of the machine's contents.
    pub generation: Generation,
    /// Own role.
    pub role: StateRole,
    /// The leader as far as known (this node, if it leads).
    pub leader: Option<LeaderHint>,
    /// Own term.
    pub term: Term,
    /// First index in the log.
    pub first: Index,
    /// Last index in the log.
    pub last: Index,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Highest index applied by the state machine.
    pub applied: Index,
    /// Bytes of log, roughly.
    pub log_bytes: u64,
    /// To which node a transfer of the leadership runs.
    pub transferring: Option<NodeId>,
    /// Configuration after the last entry handed to the state machine.
    pub conf_state: ConfState,
    /// Index of the entry that changed the configuration last; the birth's if none did.
    pub conf_index: Index,
    /// The change of members under way.
    pub reconfigure: Option<ReconfigureStatus>,
    /// Replica, node, disk.
    pub members: Vec<(ReplicaId, NodeId, Incarnation)>,
    /// On a leader: how the others stand; refreshed about once a second.
    pub followers: Vec<FollowerStatus>,
    /// Why this replica stands still, if it does.
    pub quarantined: Option<String>,
}

impl GroupStatus {
    /// Does this replica lead?
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == StateRole::Leader
    }
}

/// One follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node, if known.
    pub node: Option<NodeId>,
    /// Highest index known to be durable there.
    pub matched: Index,
    /// How it is fed.
    pub flow: FlowState,
    /// Heard of lately?
    pub active: bool,
    /// Without a vote?
    pub learner: bool,
}
