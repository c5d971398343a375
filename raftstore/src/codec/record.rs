//! The replica record: what a machine keeps beside its data, in the same atomic write (law 5).

use crate::ids::{Generation, GroupId, Incarnation, LogPos, NodeId, ReplicaId};
use pontoon_raft::ConfState;

/// (replica id, applied, ConfState, replica map, next replica id) of one replica, written with the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Generation of the contents.
    pub generation: Generation,
    /// Last applied entry.
    pub applied: LogPos,
    /// Configuration after it.
    pub conf_state: ConfState,
    /// Who is where: replica, node, disk (0 until the leader's first entry filled it in).
    pub members: Vec<(ReplicaId, NodeId, Incarnation)>,
    /// The id that the next new member gets.
    pub next_replica: ReplicaId,
}

impl ReplicaRecord {
    /// The node of a replica.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.members.iter().find(|m| m.0 == replica).map(|m| m.1)
    }
}
