//! The replica record: what a machine keeps beside its data, in the same atomic write (law 5).
//!
//! Leaves to others: where it is stored (the machine's meta pairs, a snapshot's header).
//! Version 2 adds what a change of members leaves behind; a record that has none of it is written as version 1.
//! Invariant: a record that decodes has valid ids, and its next id lies above every member's.

use super::DecodeError;
use super::goal::{put_goal, take_goal};
use super::state::{MAX_MEMBERS, put_conf_state, put_pos, take_conf_state, take_pos};
use super::wire::{Reader, put_varint};
use crate::env::Destination;
use crate::group_spec::BIRTH;
use crate::ids::{Generation, GroupId, Incarnation, Index, LogPos, NodeId, ReplicaId};
use crate::reconfigure::Goal;
use bytes::{BufMut, Bytes};
use pontoon_raft::ConfState;

const RECORD_V1: u8 = 1;
const RECORD_V2: u8 = 2;

/// A replica, its node, the node's disk (0: not known yet).
pub type Member = (ReplicaId, NodeId, Incarnation);

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
    pub members: Vec<Member>,
    /// The id that the next new member gets.
    pub next_replica: ReplicaId,
    /// Index of the entry that changed the configuration last; the birth's if none did.
    pub conf_index: Index,
    /// Removed, and perhaps still needed by a member that does not know it yet (docs/membership.md).
    pub leaving: Vec<Member>,
    /// The change of members under way.
    pub goal: Option<Box<Goal>>,
}

impl ReplicaRecord {
    /// The meta key under which a machine keeps it.
    pub const META_KEY: &'static [u8] = b"pontoon/replica";

    /// The node of a replica.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.members.iter().find(|m| m.0 == replica).map(|m| m.1)
    }

    /// Where a member's frames go: its node, and its disk as far as the map knows it.
    #[must_use]
    pub fn destination(&self, replica: ReplicaId) -> Option<Destination> {
        let member = self.members.iter().find(|m| m.0 == replica)?;
        Some(Destination { node: member.1, disk: member.2 })
    }

    /// The replica on a node.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|m| m.1 == node).map(|m| m.0)
    }

    /// Was this replica a member, and is it none any more?
    #[must_use]
    pub fn has_removed(&self, replica: ReplicaId) -> bool {
        replica < self.next_replica && self.members.iter().all(|m| m.0 != replica)
    }

    /// Is a removed replica needed by nobody any more?
    #[must_use]
    pub fn has_dismissed(&self, replica: ReplicaId) -> bool {
        self.has_removed(replica) && self.leaving.iter().all(|m| m.0 != replica)
    }

    /// Did no change of members leave anything behind?
    fn is_plain(&self) -> bool {
        self.conf_index == BIRTH.index && self.leaving.is_empty() && self.goal.is_none()
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_at(self.applied)
    }

    /// Same, with everything up to this entry applied.
    #[must_use]
    pub fn encode_at(&self, applied: LogPos) -> Bytes {
        let mut out = Vec::with_capacity(64 + 16 * self.members.len());
        out.put_u8(if self.is_plain() { RECORD_V1 } else { RECORD_V2 });
        put_varint(&mut out, self.group.0);
        put_varint(&mut out, self.replica.0);
        put_varint(&mut out, self.generation.0);
        put_pos(&mut out, applied);
        put_conf_state(&mut out, &self.conf_state);
        put_members(&mut out, &self.members);
        put_varint(&mut out, self.next_replica.0);
        if !self.is_plain() {
            put_varint(&mut out, self.conf_index.0);
            put_members(&mut out, &self.leaving);
            out.put_u8(u8::from(self.goal.is_some()));
            self.goal.iter().for_each(|goal| put_goal(&mut out, goal));
        }
        out.into()
    }

    /// A record from its bytes.
    pub fn decode(bytes: Bytes) -> Result<ReplicaRecord, DecodeError> {
        let mut r = Reader::new("replica record", bytes);
        let version = r.u8()?;
        r.ensure(matches!(version, RECORD_V1 | RECORD_V2), "a version that this build does not know")?;
        let (group, replica) = (r.group()?, r.replica()?);
        let generation = Generation(r.varint()?);
        let applied = take_pos(&mut r)?;
        let conf_state = take_conf_state(&mut r)?;
        let members = take_members(&mut r, 4 * MAX_MEMBERS)?;
        let next_replica = r.replica()?;
        r.ensure(members.iter().all(|m| m.0 < next_replica), "next replica id is not above every member's")?;
        let (conf_index, leaving, goal) = match version {
            RECORD_V1 => (BIRTH.index, Vec::new(), None),
            _ => take_change(&mut r)?,
        };
        r.finish()?;
        let record = ReplicaRecord {
            group,
            replica,
            generation,
            applied,
            conf_state,
            members,
            next_replica,
            conf_index,
            leaving,
            goal,
        };
        let plain = record.is_plain();
        if plain != (version == RECORD_V1) {
            return Err(DecodeError { what: "replica record", why: "not in its shortest form".into() });
        }
        Ok(record)
    }
}

/// What version 2 adds.
type Change = (Index, Vec<Member>, Option<Box<Goal>>);

fn take_change(r: &mut Reader) -> Result<Change, DecodeError> {
    let conf_index = r.index()?;
    let leaving = take_members(r, 4 * MAX_MEMBERS)?;
    let goal = if r.flag()? { Some(Box::new(take_goal(r)?)) } else { None };
    Ok((conf_index, leaving, goal))
}

/// Appends a replica map, or news for one.
pub(super) fn put_members(out: &mut impl BufMut, members: &[Member]) {
    put_varint(out, members.len() as u64);
    for (replica, node, disk) in members {
        put_varint(out, replica.0);
        put_varint(out, node.0);
        out.put_u64_le(disk.0);
    }
}

/// Takes a replica map of at most `max` members.
pub(super) fn take_members(r: &mut Reader, max: usize) -> Result<Vec<Member>, DecodeError> {
    let n = r.count(max, 10)?;
    (0..n).map(|_| Ok((r.replica()?, r.node()?, Incarnation(r.fixed64()?)))).collect()
}
