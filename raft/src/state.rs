//! The small states that are stored or shown: hard state, soft state, configuration, snapshot.

use crate::ids::{Index, LogPos, ReplicaId, Term};
use bytes::Bytes;

/// What a replica must remember across a crash besides its log (Raft, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// Whom this replica voted for in `term`; `NONE` if nobody.
    pub vote: ReplicaId,
    /// Highest index known to be committed. May lag: it is learnt again.
    pub commit: Index,
}

impl HardState {
    /// Nothing to store yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == HardState::default()
    }
}

/// The part of the state that may be forgotten in a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SoftState {
    /// The leader as far as known; `NONE` if unknown.
    pub lead: ReplicaId,
    /// The own role.
    pub role: StateRole,
}

/// The roles of Raft 5.1 and the pre-candidate of thesis 9.6. A learner is a follower without a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateRole {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for real votes.
    Candidate,
    /// Leads.
    Leader,
    /// Asks whether it could win before it disturbs anybody.
    PreCandidate,
}

/// A configuration as it is stored: who votes, who learns, and whether two halves overlap (Raft 6).
/// Lists that the core hands out are sorted ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfState {
    /// Voters of the incoming (or only) half.
    pub voters: Vec<ReplicaId>,
    /// Voters of the outgoing half; empty unless joint.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Members without a vote.
    pub learners: Vec<ReplicaId>,
    /// Outgoing voters that become learners when the joint state is left.
    pub learners_next: Vec<ReplicaId>,
    /// The leader leaves the joint state by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// A plain configuration of these voters and learners, sorted.
    #[must_use]
    pub fn new(mut voters: Vec<ReplicaId>, mut learners: Vec<ReplicaId>) -> ConfState {
        voters.sort_unstable();
        learners.sort_unstable();
        ConfState { voters, learners, ..ConfState::default() }
    }

    /// Is `id` a member in any of the lists?
    #[must_use]
    pub fn contains(&self, id: ReplicaId) -> bool {
        [&self.voters, &self.voters_outgoing, &self.learners, &self.learners_next].iter().any(|l| l.contains(&id))
    }

    /// Must two configurations agree?
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Does `id` vote in either half?
    #[must_use]
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// The same configuration, whatever the order of the lists?
    #[must_use]
    pub fn equivalent(&self, other: &ConfState) -> bool {
        self.sorted() == other.sorted()
    }

    fn sorted(&self) -> ConfState {
        let mut s = self.clone();
        for list in [&mut s.voters, &mut s.voters_outgoing, &mut s.learners, &mut s.learners_next] {
            list.sort_unstable();
        }
        s
    }
}

/// Where a snapshot stands and the configuration there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotMeta {
    /// Index of the last entry that the snapshot covers.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Configuration after that entry.
    pub conf_state: ConfState,
}

impl SnapshotMeta {
    /// Term and index together.
    #[must_use]
    pub fn pos(&self) -> LogPos {
        LogPos { term: self.term, index: self.index }
    }
}

/// A snapshot as the core sees it. `data` describes where the contents are (a few hundred bytes); the
/// contents never pass through the core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Position and configuration.
    pub meta: SnapshotMeta,
    /// Opaque to the core.
    pub data: Bytes,
}

impl Snapshot {
    /// No snapshot at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.index == Index::NONE
    }
}
