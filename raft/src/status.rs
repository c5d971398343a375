//! Copies of a replica's state for people, metrics and the layers above.
//!
//! Leaves to others: printed forms. Invariant: a copy never changes with the replica.

use crate::ids::{Index, ReplicaId, Term};
use crate::state::{ConfState, StateRole};

/// What costs nothing to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BasicStatus {
    /// Own id.
    pub id: ReplicaId,
    /// Own role.
    pub role: StateRole,
    /// The leader as far as known; `NONE` if unknown.
    pub lead: ReplicaId,
    /// Own term.
    pub term: Term,
    /// Own vote in `term`.
    pub vote: ReplicaId,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Highest index reported as applied.
    pub applied: Index,
    /// Last index of the log, unstable part included.
    pub last_index: Index,
    /// Whom a leader is handing over to; `NONE` if nobody.
    pub transferee: ReplicaId,
}

/// Basic status, membership and, on a leader, the progress of every member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The cheap part.
    pub basic: BasicStatus,
    /// The current membership.
    pub conf: ConfState,
    /// By ascending id; empty unless leader.
    pub progress: Vec<(ReplicaId, ProgressStatus)>,
}

/// How the leader feeds a follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// One append at a time, to find where the logs match.
    #[default]
    Probe,
    /// Optimistically, a window of appends.
    Replicate,
    /// Not at all: a snapshot is on its way.
    Snapshot,
}

/// Copy of one member's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressStatus {
    /// Highest index known to be durable there.
    pub matched: Index,
    /// Next index to send.
    pub next: Index,
    /// How it is fed.
    pub state: FlowState,
    /// Without a vote?
    pub learner: bool,
    /// Nothing is sent at the moment?
    pub paused: bool,
    /// Index of the snapshot on its way; `NONE` if none.
    pub pending_snapshot: Index,
    /// Heard from since the last check?
    pub active: bool,
    /// Appends on their way.
    pub inflight: usize,
    /// Is the window of appends full?
    pub full: bool,
}
