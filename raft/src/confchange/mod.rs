//! Joint consensus: how a configuration becomes the next one (Raft 6, raft-core 10).
//!
//! Leaves to others: proposing and agreeing on a change (`Raft`).
//! Invariant: works on a copy of the tracker, which is judged before and after; an error leaves nothing behind.

mod changer;
mod restore;

pub use changer::Changer;
pub use restore::restore;

use crate::ids::ReplicaId;
use crate::state::ConfState;

/// A change that cannot be applied. On a committed entry this means: quarantine the replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfChangeError {
    /// Leave the joint state first.
    #[error("config is already joint")]
    AlreadyJoint,
    /// A first voter must be added by a simple change.
    #[error("can't make a zero-voter config joint")]
    ZeroVoters,
    /// There is nothing to leave.
    #[error("can't leave a non-joint config")]
    NotJoint,
    /// Leave the joint state first.
    #[error("can't apply simple config change in joint config")]
    SimpleInJoint,
    /// Needs a joint state.
    #[error("more than one voter changed without entering joint config")]
    ManyVoters,
    /// A group needs a voter.
    #[error("removed all voters")]
    NoVoters,
    /// An operation of a later version.
    #[error("unexpected conf type {0}")]
    UnknownKind(i32),
    /// The configuration contradicts itself: a bug, or a forged snapshot.
    #[error(transparent)]
    Broken(#[from] BrokenConfig),
    /// A snapshot's configuration cannot be built from scratch.
    #[error("restoring {wanted:?} gave {got:?}")]
    NotRestored {
        /// What the snapshot says.
        wanted: Box<ConfState>,
        /// What came out.
        got: Box<ConfState>,
    },
}

/// Which rule of raft-core 10.1 is broken. What the tracker's shape rules out is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenConfig {
    /// A member without any role.
    #[error("{0} is tracked, but not a member")]
    Roleless(ReplicaId),
    /// Only an outgoing voter can be about to become a learner.
    #[error("{0} is in LearnersNext, but not Voters[1]")]
    NextNotOutgoing(ReplicaId),
    /// It is a learner already.
    #[error("{0} is in LearnersNext, but is already marked as learner")]
    NextIsLearner(ReplicaId),
    /// A learner has no vote.
    #[error("{0} is in Learners and Voters[1]")]
    LearnerOutgoing(ReplicaId),
    /// A learner has no vote.
    #[error("{0} is in Learners and Voters[0]")]
    LearnerIncoming(ReplicaId),
    /// Only a joint state can be left.
    #[error("AutoLeave must be false when not joint")]
    AutoLeaveNotJoint,
}

#[cfg(test)]
mod tests;
