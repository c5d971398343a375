//! The replica record: what a machine keeps beside its data, in the same atomic write (law 5).
//!
//! Leaves to others: where it is stored (the machine's meta pairs, a snapshot's header).
//! Invariant: a record that decodes has valid ids, and its next id lies above every member's.

use super::DecodeError;
use super::state::{MAX_MEMBERS, put_conf_state, put_pos, take_conf_state, take_pos};
use super::wire::{Reader, put_varint};
use crate::ids::{Generation, GroupId, Incarnation, LogPos, NodeId, ReplicaId};
use bytes::{BufMut, Bytes};
use pontoon_raft::ConfState;

const RECORD_V1: u8 = 1;

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
    /// The meta key under which a machine keeps it.
    pub const META_KEY: &'static [u8] = b"pontoon/replica";

    /// The node of a replica.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.members.iter().find(|m| m.0 == replica).map(|m| m.1)
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + 16 * self.members.len());
        out.put_u8(RECORD_V1);
        put_varint(&mut out, self.group.0);
        put_varint(&mut out, self.replica.0);
        put_varint(&mut out, self.generation.0);
        put_pos(&mut out, self.applied);
        put_conf_state(&mut out, &self.conf_state);
        put_varint(&mut out, self.members.len() as u64);
        for (replica, node, incarnation) in &self.members {
            put_varint(&mut out, replica.0);
            put_varint(&mut out, node.0);
            out.put_u64_le(incarnation.0);
        }
        put_varint(&mut out, self.next_replica.0);
        out.into()
    }

    /// A record from its bytes.
    pub fn decode(bytes: Bytes) -> Result<ReplicaRecord, DecodeError> {
        let mut r = Reader::new("replica record", bytes);
        r.version(RECORD_V1)?;
        let (group, replica) = (r.group()?, r.replica()?);
        let generation = Generation(r.varint()?);
        let applied = take_pos(&mut r)?;
        let conf_state = take_conf_state(&mut r)?;
        let n = r.count(4 * MAX_MEMBERS, 10)?;
        let mut members = Vec::with_capacity(n);
        for _ in 0..n {
            members.push((r.replica()?, r.node()?, Incarnation(r.fixed64()?)));
        }
        let next_replica = r.replica()?;
        r.ensure(members.iter().all(|m| m.0 < next_replica), "next replica id is not above every member's")?;
        r.finish()?;
        Ok(ReplicaRecord { group, replica, generation, applied, conf_state, members, next_replica })
    }
}
