//! Membership changes as they are proposed: operations, the protocol to use, an opaque context.
//!
//! Leaves to others: what an operation does (`confchange`), when one may be proposed (`Raft`).
//! The byte form is etcd raft's protobuf (optional fields, by number), since its *length* is visible in
//! limits (README 4.11). Invariant: decoding takes any bytes and never panics.

use crate::entry::{Entry, EntryKind};
use crate::ids::ReplicaId;
use bytes::Bytes;

mod wire;

/// The payload of a membership change cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed membership change")]
pub struct BadConfChange;

/// What one operation asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfChangeType {
    /// Make the node a voter.
    #[default]
    AddNode,
    /// Remove the node.
    RemoveNode,
    /// Nothing; carries a context only.
    UpdateNode,
    /// Make the node a learner.
    AddLearnerNode,
    /// A number that this version does not know. Applying it is an error.
    Unknown(i32),
}

/// Which protocol applies a change (raft-core 10.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConfChangeTransition {
    /// Simple if one operation, else joint; the joint state is left by itself.
    #[default]
    Auto,
    /// Joint; the joint state is left by itself.
    JointImplicit,
    /// Joint; the joint state is left by a proposal.
    JointExplicit,
    /// A number that this version does not know: treated as `JointImplicit`.
    Unknown(i32),
}

/// One operation on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeSingle {
    /// What to do.
    pub kind: ConfChangeType,
    /// With whom. `NONE` makes the operation void: so an application vetoes it.
    pub id: ReplicaId,
}

/// A change in the old form: one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV1 {
    /// The operation.
    pub change: ConfChangeSingle,
    /// Opaque to the core.
    pub context: Bytes,
}

/// A change of any number of operations. Without operations, and `Auto`: leave the joint state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfChangeV2 {
    /// Which protocol.
    pub transition: ConfChangeTransition,
    /// What to do, in this order.
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

/// How a change is applied to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// At most one voter changes.
    Simple,
    /// Enter a joint state.
    EnterJoint {
        /// The leader leaves it by itself.
        auto_leave: bool,
    },
    /// Leave the joint state.
    LeaveJoint,
}

impl ConfChangeSingle {
    /// The operation `kind` on `id`.
    #[must_use]
    pub fn new(kind: ConfChangeType, id: ReplicaId) -> ConfChangeSingle {
        ConfChangeSingle { kind, id }
    }
}

impl ConfChangeV1 {
    /// The operation `kind` on `id`, without context.
    #[must_use]
    pub fn new(kind: ConfChangeType, id: ReplicaId) -> ConfChangeV1 {
        ConfChangeV1 { change: ConfChangeSingle { kind, id }, context: Bytes::new() }
    }

    /// Its byte form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::encode_v1(self)
    }

    /// Reads the byte form.
    pub fn decode(data: &Bytes) -> Result<ConfChangeV1, BadConfChange> {
        wire::decode_v1(data)
    }

    /// An entry that waits for its position.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        Entry { kind: EntryKind::ConfChange, data: self.encode(), ..Entry::default() }
    }
}

impl ConfChangeV2 {
    /// The request to leave the joint state.
    #[must_use]
    pub fn leave_joint() -> ConfChangeV2 {
        ConfChangeV2::default()
    }

    /// Its byte form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::encode_v2(self)
    }

    /// Reads the byte form. No bytes: leave the joint state.
    pub fn decode(data: &Bytes) -> Result<ConfChangeV2, BadConfChange> {
        wire::decode_v2(data)
    }

    /// An entry that waits for its position.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        Entry { kind: EntryKind::ConfChangeV2, data: self.encode(), ..Entry::default() }
    }

    /// The change that `entry` carries, the old form converted; `None` if it carries a command.
    pub fn from_entry(entry: &Entry) -> Result<Option<ConfChangeV2>, BadConfChange> {
        match entry.kind {
            EntryKind::Normal => Ok(None),
            EntryKind::ConfChange => ConfChangeV1::decode(&entry.data).map(|cc| Some(cc.into())),
            EntryKind::ConfChangeV2 => ConfChangeV2::decode(&entry.data).map(Some),
        }
    }

    /// How it is to be applied (raft-core 10.3).
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match (self.transition, self.changes.len()) {
            (ConfChangeTransition::Auto, 0) => Protocol::LeaveJoint,
            (ConfChangeTransition::Auto, 1) => Protocol::Simple,
            (transition, _) => Protocol::EnterJoint { auto_leave: transition != ConfChangeTransition::JointExplicit },
        }
    }
}

impl ConfChange {
    /// An entry that waits for its position.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        match self {
            ConfChange::V1(cc) => cc.to_entry(),
            ConfChange::V2(cc) => cc.to_entry(),
        }
    }
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

impl From<ConfChangeV1> for ConfChangeV2 {
    fn from(old: ConfChangeV1) -> ConfChangeV2 {
        ConfChangeV2 { transition: ConfChangeTransition::Auto, changes: vec![old.change], context: old.context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
        ConfChangeSingle::new(kind, ReplicaId(id))
    }

    #[test]
    fn lengths_are_those_of_the_original() {
        assert_eq!(ConfChangeV2::default().encode().len(), 2);
        assert_eq!(ConfChangeV1::new(ConfChangeType::RemoveNode, ReplicaId(7)).encode().len(), 4);
        assert_eq!(ConfChangeV1::new(ConfChangeType::AddNode, ReplicaId(200)).encode().len(), 5);
        let two = vec![op(ConfChangeType::AddNode, 1), op(ConfChangeType::RemoveNode, 300)];
        assert_eq!(ConfChangeV2 { changes: two, ..ConfChangeV2::default() }.encode().len(), 2 + 6 + 7);
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        let kinds = [
            ConfChangeType::AddNode,
            ConfChangeType::RemoveNode,
            ConfChangeType::UpdateNode,
            ConfChangeType::AddLearnerNode,
            ConfChangeType::Unknown(77),
            ConfChangeType::Unknown(-3),
        ];
        for kind in kinds {
            for context in [Bytes::new(), Bytes::from_static(b"why")] {
                let v1 = ConfChangeV1 { change: op(kind, 1 << 40), context: context.clone() };
                assert_eq!(ConfChangeV1::decode(&v1.encode()), Ok(v1));
                for transition in [
                    ConfChangeTransition::Auto,
                    ConfChangeTransition::JointImplicit,
                    ConfChangeTransition::JointExplicit,
                    ConfChangeTransition::Unknown(9),
                ] {
                    let changes = vec![op(kind, 3), op(kind, u64::MAX)];
                    let v2 = ConfChangeV2 { transition, changes, context: context.clone() };
                    assert_eq!(ConfChangeV2::decode(&v2.encode()), Ok(v2));
                }
            }
        }
        assert_eq!(ConfChangeV2::decode(&Bytes::new()), Ok(ConfChangeV2::leave_joint()));
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let mut state = 1u64;
        for len in 0..40 {
            for _ in 0..500 {
                let bytes: Vec<u8> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                        (state >> 56) as u8 & if state & 1 == 0 { 0x3f } else { 0xff }
                    })
                    .collect();
                let bytes = Bytes::from(bytes);
                let _ = ConfChangeV1::decode(&bytes);
                let _ = ConfChangeV2::decode(&bytes);
            }
        }
    }

    #[test]
    fn protocols() {
        let change = |transition, n| ConfChangeV2 {
            transition,
            changes: vec![op(ConfChangeType::UpdateNode, 1); n],
            context: Bytes::new(),
        };
        assert_eq!(change(ConfChangeTransition::Auto, 0).protocol(), Protocol::LeaveJoint);
        assert_eq!(change(ConfChangeTransition::Auto, 1).protocol(), Protocol::Simple);
        assert_eq!(change(ConfChangeTransition::Auto, 2).protocol(), Protocol::EnterJoint { auto_leave: true });
        assert_eq!(
            change(ConfChangeTransition::JointImplicit, 1).protocol(),
            Protocol::EnterJoint { auto_leave: true }
        );
        assert_eq!(
            change(ConfChangeTransition::JointExplicit, 0).protocol(),
            Protocol::EnterJoint { auto_leave: false }
        );
    }
}
