//! Membership entries as they are applied: configuration, replica map, next replica id.
//!
//! Leaves to others: proposing changes of members (comes with its own API), what a change does (the core).
//! A change's context is the replica map's news: (replica, node, disk) each. The leader of a new group proposes one
//! whose only operation does nothing: it names the disks of the initial voters (boot.md 3). (A change without
//! operations would mean "leave the joint configuration".)
//! Invariant: a replica's node never changes, its disk only from unknown to known; ids are never used again.

use super::{Replica, Work};
use crate::codec::{Reader, put_varint};
use crate::ids::{Incarnation, NodeId, ReplicaId, Tick};
use bytes::{BufMut, Bytes, BytesMut};
use pontoon_raft::{ConfChangeSingle, ConfChangeType, ConfChangeV1, ConfChangeV2, Entry, EntryKind, StateRole};
use std::collections::BTreeMap;

/// Most members that one change may name.
const MAX_NAMED: usize = 256;

/// News for the replica map.
type Named = (ReplicaId, NodeId, Incarnation);

fn encode_named(named: &[Named]) -> Bytes {
    let mut out = BytesMut::new();
    put_varint(&mut out, named.len() as u64);
    for (replica, node, disk) in named {
        put_varint(&mut out, replica.0);
        put_varint(&mut out, node.0);
        out.put_u64_le(disk.0);
    }
    out.freeze()
}

fn decode_named(context: Bytes) -> Result<Vec<Named>, String> {
    if context.is_empty() {
        return Ok(Vec::new());
    }
    let read = || {
        let mut r = Reader::new("membership context", context.clone());
        let n = r.count(MAX_NAMED, 10)?;
        let named = (0..n).map(|_| Ok((r.replica()?, r.node()?, Incarnation(r.fixed64()?)))).collect();
        r.finish().and(named)
    };
    read().map_err(|e: crate::codec::DecodeError| e.to_string())
}

impl Replica {
    /// Lets a committed change take effect here. `Err` quarantines.
    pub(super) fn apply_membership(&mut self, entry: &Entry, work: &mut Work) -> Result<(), String> {
        let change: ConfChangeV2 = match entry.kind {
            EntryKind::Normal => return Ok(()),
            EntryKind::ConfChange => ConfChangeV1::decode(&entry.data).map_err(|e| e.to_string())?.into(),
            EntryKind::ConfChangeV2 => ConfChangeV2::decode(&entry.data).map_err(|e| e.to_string())?,
        };
        let conf = self.raft.apply_conf_change(work.now, &change).map_err(|e| e.to_string())?;
        let record = &mut self.machine.record;
        for (replica, node, disk) in decode_named(change.context)? {
            match record.members.iter_mut().find(|m| m.0 == replica) {
                Some(known) if known.1 == node && known.2 == Incarnation(0) => known.2 = disk,
                Some(_) => {}
                None => record.members.push((replica, node, disk)),
            }
            record.next_replica = record.next_replica.max(ReplicaId(replica.0.saturating_add(1)));
        }
        record.members.retain(|m| conf.contains(m.0));
        record.members.sort_unstable();
        if !conf.equivalent(&record.conf_state) {
            self.machine.note_conf(entry.index, conf);
        }
        self.publish_shape();
        Ok(())
    }

    /// On the leader: names the disks of members that the replica map does not know yet, once all were heard of.
    pub(super) fn fill_in_disks(&mut self, disks: &BTreeMap<NodeId, Incarnation>, work: &Work) {
        let unnamed = |m: &&Named| m.2 == Incarnation(0);
        if work.now < self.leading.name_disks_at || !self.machine.record.members.iter().any(|m| unnamed(&m)) {
            return;
        }
        let status = self.raft.basic_status();
        // Only after an own entry is applied: until then a change might be pending that is not known here.
        if status.role != StateRole::Leader || self.stored_term(self.machine.applied()) != Some(status.term) {
            return;
        }
        let name = |m: &Named| disks.get(&m.1).map(|disk| (m.0, m.1, *disk));
        let named: Option<Vec<Named>> = self.machine.record.members.iter().filter(unnamed).map(name).collect();
        let Some(named) = named else { return };
        let nothing = ConfChangeSingle { kind: ConfChangeType::UpdateNode, id: self.id };
        let context = encode_named(&named);
        let change = ConfChangeV2 { changes: vec![nothing], context, ..ConfChangeV2::default() };
        self.leading.name_disks_at = work.now + self.retry_after();
        // Refused: asked again later.
        let _refused = self.raft.propose_conf_change(work.now, change).is_err();
    }

    fn retry_after(&self) -> Tick {
        4 * self.limits.election_ticks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn contexts_come_back_and_nonsense_does_not() {
        let named = vec![(ReplicaId(1), NodeId(7), Incarnation(u64::MAX)), (ReplicaId(2), NodeId(8), Incarnation(3))];
        assert_eq!(decode_named(encode_named(&named)).unwrap(), named);
        assert_eq!(decode_named(Bytes::new()).unwrap(), vec![]);
        assert!(decode_named(Bytes::from_static(b"\xff\xff\xff\x7f")).is_err());
        assert!(decode_named(Bytes::from_static(b"\x01\x01")).is_err());
    }
}
