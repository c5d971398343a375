//! The next step from a group's members towards its goal, as a function without effects.
//!
//! Leaves to others: proposing it, catching up (`reconfigure`).
//! Invariant: only what adds or removes learners happens outside a joint configuration; a joint configuration is left by
//! a leader that keeps its vote (docs/membership.md: a removed leader would strand the rest).

use crate::codec::ReplicaRecord;
use crate::ids::{NodeId, ReplicaId};
use crate::reconfigure::Goal;
use pontoon_raft::{ConfChangeSingle, ConfChangeType};

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Leave the joint configuration.
    Leave,
    /// Hand the leadership to a voter of the new configuration: this leader loses its vote.
    HandOver,
    /// Make a replica on this node a learner.
    Add(NodeId),
    /// Remove this learner.
    Drop(ReplicaId),
    /// Enter the joint configuration, once those that get a vote have caught up.
    Switch {
        /// Learners that get a vote.
        promoted: Vec<ReplicaId>,
        /// All operations.
        changes: Vec<ConfChangeSingle>,
    },
    /// The members are as wished.
    Seal,
}

/// What to do next, on the leader `me`.
pub(super) fn next(record: &ReplicaRecord, goal: &Goal, me: ReplicaId) -> Next {
    let conf = &record.conf_state;
    if conf.is_joint() {
        return if conf.voters.contains(&me) { Next::Leave } else { Next::HandOver };
    }
    if goal.aborted.is_some() {
        let added = record.members.iter().find(|m| m.0 >= goal.first);
        return added.map_or(Next::Seal, |m| Next::Drop(m.0));
    }
    let mut wanted = goal.voters.iter().chain(&goal.learners);
    if let Some(missing) = wanted.find(|node| record.replica_on(**node).is_none()) {
        return Next::Add(*missing);
    }
    switch(record, goal)
}

fn switch(record: &ReplicaRecord, goal: &Goal) -> Next {
    let conf = &record.conf_state;
    let (mut promoted, mut changes) = (Vec::new(), Vec::new());
    for (replica, node, _) in &record.members {
        let votes = conf.voters.contains(replica);
        let kind = match (goal.voters.contains(node), goal.learners.contains(node)) {
            (true, _) if !votes => {
                promoted.push(*replica);
                ConfChangeType::AddNode
            }
            (_, true) if votes => ConfChangeType::AddLearnerNode,
            (false, false) => ConfChangeType::RemoveNode,
            _ => continue,
        };
        changes.push(ConfChangeSingle::new(kind, *replica));
    }
    let of_voters = |c: &ConfChangeSingle| conf.voters.contains(&c.id);
    match changes.first() {
        None => Next::Seal,
        Some(only) if promoted.is_empty() && !changes.iter().any(of_voters) => Next::Drop(only.id),
        Some(_) => Next::Switch { promoted, changes },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Incarnation;
    use pontoon_raft::ConfState;

    fn ids(list: &[u64]) -> Vec<ReplicaId> {
        list.iter().copied().map(ReplicaId).collect()
    }

    /// Replica n lives on node n.
    fn record(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> ReplicaRecord {
        let mut all: Vec<u64> = [voters, outgoing, learners].concat();
        all.sort_unstable();
        all.dedup();
        let next_replica = ReplicaId(all.last().unwrap() + 1);
        let conf_state = ConfState { voters_outgoing: ids(outgoing), ..ConfState::new(ids(voters), ids(learners)) };
        let members = all.into_iter().map(|n| (ReplicaId(n), NodeId(n), Incarnation(n))).collect();
        ReplicaRecord { conf_state, members, next_replica, ..ReplicaRecord::default() }
    }

    fn goal(voters: &[u64], learners: &[u64]) -> Goal {
        let nodes = |list: &[u64]| list.iter().copied().map(NodeId).collect();
        Goal { voters: nodes(voters), learners: nodes(learners), promote_lag: 0, first: ReplicaId(4), aborted: None }
    }

    fn step(r: &ReplicaRecord, g: &Goal) -> Next {
        next(r, g, ReplicaId(1))
    }

    #[test]
    fn new_nodes_are_learners_first() {
        assert_eq!(step(&record(&[1, 2, 3], &[], &[]), &goal(&[1, 4], &[])), Next::Add(NodeId(4)));
        assert_eq!(step(&record(&[1, 2, 3], &[], &[4]), &goal(&[1, 4], &[5])), Next::Add(NodeId(5)));
    }

    #[test]
    fn voters_change_in_one_joint_step() {
        let Next::Switch { promoted, changes } = step(&record(&[1, 2, 3], &[], &[4, 5]), &goal(&[1, 4], &[3])) else {
            panic!()
        };
        assert_eq!(promoted, ids(&[4]));
        let op = ConfChangeSingle::new;
        let expected = [
            op(ConfChangeType::RemoveNode, ReplicaId(2)),
            op(ConfChangeType::AddLearnerNode, ReplicaId(3)),
            op(ConfChangeType::AddNode, ReplicaId(4)),
            op(ConfChangeType::RemoveNode, ReplicaId(5)),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn learners_alone_need_no_joint_step() {
        assert_eq!(step(&record(&[1, 2], &[], &[3]), &goal(&[1, 2], &[])), Next::Drop(ReplicaId(3)));
        assert_eq!(step(&record(&[1, 2], &[], &[3]), &goal(&[1, 2], &[3])), Next::Seal);
    }

    #[test]
    fn a_leader_without_a_vote_to_come_hands_over() {
        assert_eq!(step(&record(&[2], &[1, 2], &[]), &goal(&[2], &[])), Next::HandOver);
        assert_eq!(step(&record(&[1], &[1, 2], &[]), &goal(&[1], &[])), Next::Leave);
    }

    #[test]
    fn what_was_added_for_an_aborted_goal_goes_again() {
        let given_up = Goal { aborted: Some(crate::reconfigure::WhyAborted::Asked), ..goal(&[1, 5], &[]) };
        assert_eq!(step(&record(&[1, 2], &[], &[3, 4, 5]), &given_up), Next::Drop(ReplicaId(4)));
        assert_eq!(step(&record(&[1, 2], &[], &[3]), &given_up), Next::Seal);
    }
}
