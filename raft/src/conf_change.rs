//! Membership changes as values (Raft 6): what a user asks for.
//!
//! Leaves to others: what a change does (`confchange`).

use crate::ids::ReplicaId;
use bytes::Bytes;

/// What happens to one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfChangeType {
    /// Make it a voter.
    #[default]
    AddNode,
    /// Remove it.
    RemoveNode,
    /// Nothing.
    UpdateNode,
    /// Make it a learner.
    AddLearnerNode,
}

/// How a change of several operations is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfChangeTransition {
    /// Simple if possible, else joint and left by itself.
    #[default]
    Auto,
    /// Joint, left by itself.
    JointImplicit,
    /// Joint, left by an empty change.
    JointExplicit,
}

/// One operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeSingle {
    /// What happens.
    pub kind: ConfChangeType,
    /// To whom; id 0 is skipped.
    pub id: ReplicaId,
}

/// The old form: one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV1 {
    /// The operation.
    pub change: ConfChangeSingle,
    /// Opaque to the core.
    pub context: Bytes,
}

/// The new form: any number of operations; none means: leave the joint configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV2 {
    /// How.
    pub transition: ConfChangeTransition,
    /// What, in order.
    pub changes: Vec<ConfChangeSingle>,
    /// Opaque to the core.
    pub context: Bytes,
}

/// Either form, as proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConfChange {
    /// The old form.
    V1(ConfChangeV1),
    /// The new form.
    V2(ConfChangeV2),
}

impl From<ConfChangeV1> for ConfChange {
    fn from(cc: ConfChangeV1) -> ConfChange {
        ConfChange::V1(cc)
    }
}

impl From<ConfChangeV2> for ConfChange {
    fn from(cc: ConfChangeV2) -> ConfChange {
        ConfChange::V2(cc)
    }
}
