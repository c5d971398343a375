//! One member of the group: its roles in the configuration and what is known of it.
//!
//! Leaves to others: which combinations of roles are legal (`confchange`).
//! Invariant: an id never changes; `vote` and `read_ack` mean something in one role of `Raft` each and
//! are cleared by its resets.

use super::progress::Progress;
use crate::ids::{Index, ReplicaId};
use crate::status::ProgressStatus;

/// A member's places in the configuration, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No place: not a member.
    pub const NONE: Roles = Roles(0);
    /// Votes in the incoming (or only) half.
    pub const INCOMING: Roles = Roles(1);
    /// Votes in the outgoing half.
    pub const OUTGOING: Roles = Roles(2);
    /// Has no vote.
    pub const LEARNER: Roles = Roles(4);
    /// Becomes a learner when the joint state is left.
    pub const LEARNER_NEXT: Roles = Roles(8);

    /// Is any of `other` among these?
    #[must_use]
    pub fn has(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }

    /// Votes in either half?
    #[must_use]
    pub fn is_voter(self) -> bool {
        self.has(Roles::INCOMING) || self.has(Roles::OUTGOING)
    }

    /// Has no vote?
    #[must_use]
    pub fn is_learner(self) -> bool {
        self.has(Roles::LEARNER)
    }

    pub(crate) fn insert(&mut self, other: Roles) {
        self.0 |= other.0;
    }

    pub(crate) fn remove(&mut self, other: Roles) {
        self.0 &= !other.0;
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who it is.
    pub id: ReplicaId,
    /// Its places in the configuration.
    pub roles: Roles,
    /// What the leader knows of its log.
    pub progress: Progress,
    /// Its answer in the running election.
    pub vote: Option<bool>,
    /// Newest read position that it has confirmed in this leadership.
    pub read_ack: u64,
}

impl Member {
    pub(crate) fn new(id: ReplicaId, next: Index) -> Member {
        Member { id, roles: Roles::NONE, progress: Progress::new(next), vote: None, read_ack: 0 }
    }

    /// A copy of the progress for traces and status.
    #[must_use]
    pub fn status(&self) -> ProgressStatus {
        self.progress.status(self.roles.is_learner())
    }
}
