//! A change of members as a caller asks for it, as the group remembers it, and as it is shown.
//!
//! Leaves to others: carrying it out (`replica/reconfigure`), its byte form (`codec`).
//! Invariant: a `Goal` is part of the replicated state: every replica that has applied the same entries has the same one.

use crate::ids::{Index, NodeId, ReplicaId};
use std::collections::BTreeSet;

/// Who the members of a group are to be. Nodes that are in neither list leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Nodes with a vote; at least one.
    pub voters: BTreeSet<NodeId>,
    /// Nodes with a copy and no vote; none of them a voter.
    pub learners: BTreeSet<NodeId>,
    /// Only if this is still the index of the group's configuration (`GroupStatus::conf_index`): a fence against
    /// callers who looked at different times. Not asked where nothing is to be done, or the same is under way.
    pub if_conf: Option<Index>,
    /// A new voter gets its vote once it lacks no more than so many entries. 0 waits until it has all.
    pub promote_lag: u64,
}

/// What the group itself remembers of a change under way: a new leader goes on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// As in the target.
    pub voters: BTreeSet<NodeId>,
    /// As in the target.
    pub learners: BTreeSet<NodeId>,
    /// As in the target.
    pub promote_lag: u64,
    /// Replica ids from here on were given for this goal.
    pub first: ReplicaId,
    /// Given up before the joint configuration: what was added for it goes again.
    pub aborted: Option<WhyAborted>,
}

/// Why a change of members was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyAborted {
    /// Somebody asked for it.
    Asked,
    /// This node did not catch up.
    NoProgress(NodeId),
}

/// How far a change of members is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// New nodes become learners and are caught up. It can be aborted.
    CatchingUp {
        /// The one that lacks most.
        node: NodeId,
        /// Entries that it lacks; known on the leader only.
        behind: Option<u64>,
    },
    /// Old and new configuration must both agree. It can no longer be aborted.
    Joint,
    /// It was given up: learners that were added for it go again.
    Aborting,
    /// The new configuration stands; the removed replicas are being let go.
    Done,
}

/// A change under way, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconfigureStatus {
    /// As asked for.
    pub voters: BTreeSet<NodeId>,
    /// As asked for.
    pub learners: BTreeSet<NodeId>,
    /// How far it is.
    pub phase: Phase,
}

impl Target {
    /// Everything that is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let zero = self.voters.contains(&NodeId(0)) || self.learners.contains(&NodeId(0));
        let rules = [
            (!self.voters.is_empty(), "there must be a voter"),
            (
                self.voters.len() + self.learners.len() <= crate::group_spec::MAX_MEMBERS,
                "there may be 64 members at most",
            ),
            (self.voters.is_disjoint(&self.learners), "a node is voter or learner, not both"),
            (!zero, "node ids must be above 0"),
        ];
        let wrong: Vec<&str> = rules.into_iter().filter(|r| !r.0).map(|r| r.1).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// The goal that it sets, with replica ids from `first` on.
    #[must_use]
    pub fn goal(&self, first: ReplicaId) -> Goal {
        let Target { voters, learners, promote_lag, .. } = self;
        let (voters, learners) = (voters.clone(), learners.clone());
        Goal { voters, learners, promote_lag: *promote_lag, first, aborted: None }
    }
}

impl Goal {
    /// Does it lead to where this target wants to go?
    #[must_use]
    pub fn serves(&self, target: &Target) -> bool {
        self.voters == target.voters && self.learners == target.learners
    }
}
