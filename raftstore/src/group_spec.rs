//! What a group is created from, the same on each of its initial voters (boot.md 3).
//!
//! Leaves to others: writing it (lifecycle), checking it against a peer's (replica).
//! Invariant: replica ids are 1..n in node-id order, voters first; the digest depends on nothing but the spec, and its
//! formula is part of the disk and wire format.

use crate::codec::Digest;
use crate::env::Creation;
use crate::error::LifecycleError;
use crate::ids::{GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use pontoon_raft::{ConfState, HardState};
use std::collections::BTreeSet;

/// The position before a group's first entry. Not zero, so that a replica without any state is never mistaken for one
/// that was born, and a snapshot at birth is one.
pub const BIRTH: LogPos = LogPos { term: Term(1), index: Index(1) };

/// Most members of a group at birth.
pub const MAX_MEMBERS: usize = 64;
/// Longest name of a kind, bytes.
pub const MAX_KIND: usize = 64;

/// A group to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Above 0.
    pub id: GroupId,
    /// State-machine kind, as registered.
    pub kind: String,
    /// Nodes of the initial voters; at least one.
    pub voters: BTreeSet<NodeId>,
    /// Nodes of the initial learners.
    pub learners: BTreeSet<NodeId>,
}

impl GroupSpec {
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), LifecycleError> {
        let zero = self.voters.contains(&NodeId(0)) || self.learners.contains(&NodeId(0));
        let rules = [
            (self.id.0 > 0, "the group id must be above 0"),
            ((1..=MAX_KIND).contains(&self.kind.len()), "the kind's name must have 1 to 64 bytes"),
            (!self.voters.is_empty(), "there must be a voter"),
            (self.voters.len() + self.learners.len() <= MAX_MEMBERS, "there may be 64 members at most"),
            (self.voters.is_disjoint(&self.learners), "a node is voter or learner, not both"),
            (!zero, "node ids must be above 0"),
        ];
        let wrong: Vec<&str> = rules.into_iter().filter(|r| !r.0).map(|r| r.1).collect();
        if wrong.is_empty() { Ok(()) } else { Err(LifecycleError::BadSpec(wrong.join("; "))) }
    }

    /// Who is where at birth.
    #[must_use]
    pub fn members(&self) -> Vec<(ReplicaId, NodeId)> {
        let nodes = self.voters.iter().chain(&self.learners);
        (1..).map(ReplicaId).zip(nodes.copied()).collect()
    }

    /// The replica that `node` gets.
    #[must_use]
    pub fn replica_of(&self, node: NodeId) -> Option<ReplicaId> {
        self.members().into_iter().find(|m| m.1 == node).map(|m| m.0)
    }

    /// Lowest replica id that is not taken at birth.
    #[must_use]
    pub fn next_replica(&self) -> ReplicaId {
        ReplicaId((self.voters.len() + self.learners.len()) as u64 + 1)
    }

    /// The voter that should campaign first, so that leaders of many groups spread over the nodes.
    #[must_use]
    pub fn first_candidate(&self) -> Option<NodeId> {
        let at = (spread(self.id) >> 16).checked_rem(self.voters.len() as u64)?;
        self.voters.iter().nth(at as usize).copied()
    }

    /// Tells specs apart, on disk and on the wire: over the fields, each list preceded by its length.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut sum = Digest::default();
        sum.update_u64(self.id.0);
        sum.update_u64(self.kind.len() as u64);
        sum.update(self.kind.as_bytes());
        for nodes in [&self.voters, &self.learners] {
            sum.update_u64(nodes.len() as u64);
            nodes.iter().for_each(|n| sum.update_u64(n.0));
        }
        sum.finish()
    }

    /// The spec that a creation record was made from; `None` if none makes this one.
    #[must_use]
    pub fn of(group: GroupId, creation: &Creation) -> Option<GroupSpec> {
        let nodes = |listed: &[ReplicaId]| {
            let of_list = creation.members.iter().filter(|m| listed.contains(&m.0));
            of_list.map(|m| m.1).collect()
        };
        let (voters, learners) = (nodes(&creation.conf_state.voters), nodes(&creation.conf_state.learners));
        let spec = GroupSpec { id: group, kind: creation.kind.clone(), voters, learners };
        (spec.check().is_ok() && spec.creation() == *creation).then_some(spec)
    }

    /// The record that every initial member writes.
    #[must_use]
    pub fn creation(&self) -> Creation {
        let (voters, learners) =
            (1..self.next_replica().0).map(ReplicaId).partition(|r| r.0 <= self.voters.len() as u64);
        Creation {
            kind: self.kind.clone(),
            digest: self.digest(),
            members: self.members(),
            conf_state: ConfState::new(voters, learners),
            birth: BIRTH,
        }
    }

    /// Hard state at birth: everything up to `BIRTH` counts as committed.
    #[must_use]
    pub fn hard_state() -> HardState {
        HardState { term: BIRTH.term, vote: ReplicaId::NONE, commit: BIRTH.index }
    }
}

/// A fixed mixing of the group id (the finaliser of splitmix64): neighbours land apart.
#[must_use]
pub fn spread(group: GroupId) -> u64 {
    let mut x = group.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(id: u64) -> GroupSpec {
        GroupSpec {
            id: GroupId(id),
            kind: "kv".into(),
            voters: [5, 2, 9].map(NodeId).into(),
            learners: [1].map(NodeId).into(),
        }
    }

    #[test]
    fn replica_ids_follow_node_ids_voters_first() {
        let s = spec(7);
        let ids: Vec<(u64, u64)> = s.members().iter().map(|m| (m.0.0, m.1.0)).collect();
        assert_eq!(ids, [(1, 2), (2, 5), (3, 9), (4, 1)]);
        assert_eq!(s.replica_of(NodeId(9)), Some(ReplicaId(3)));
        assert_eq!(s.replica_of(NodeId(4)), None);
        let c = s.creation();
        assert_eq!(c.conf_state, ConfState::new([1, 2, 3].map(ReplicaId).into(), [4].map(ReplicaId).into()));
        assert_eq!(s.next_replica(), ReplicaId(5));
    }

    #[test]
    fn digest_is_pinned_and_sees_every_field() {
        let base = spec(7).digest();
        assert_eq!(base, DIGEST_OF_SEVEN, "the digest is on disk and on the wire: {base:#x}");
        let mut others = vec![spec(8)];
        others.push(GroupSpec { kind: "kw".into(), ..spec(7) });
        others.push(GroupSpec { voters: [5, 2].map(NodeId).into(), ..spec(7) });
        others.push(GroupSpec { learners: [].into(), ..spec(7) });
        assert!(others.iter().all(|o| o.digest() != base));
    }

    const DIGEST_OF_SEVEN: u64 = 0xf37f_5e62_34d7_cc2b;

    #[test]
    fn first_candidates_spread() {
        let mut counts = std::collections::BTreeMap::new();
        for id in 1..=300 {
            *counts.entry(spec(id).first_candidate().unwrap()).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|c| (60..=140).contains(c)), "{counts:?}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let bad = GroupSpec { id: GroupId(0), kind: String::new(), voters: [].into(), learners: [].into() };
        let LifecycleError::BadSpec(why) = bad.check().unwrap_err() else { panic!() };
        assert_eq!(why.matches(';').count(), 2, "{why}");
        assert!(spec(1).check().is_ok());
    }
}
