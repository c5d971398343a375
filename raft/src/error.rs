//! What can go wrong, by the call that reports it; the variant says what the caller does next.
//!
//! Leaves to others: membership errors (`confchange`), storage errors (`storage`).
//! Invariant: an error leaves the replica as it was; nothing here is fatal for the process.

use crate::confchange::ConfChangeError;
use crate::ids::{Index, LogPos};

/// One rule of `Config` that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must {must}")]
pub struct ConfigProblem {
    /// Name of the field.
    pub field: &'static str,
    /// What it must be or do.
    pub must: &'static str,
}

/// Why a replica cannot start. All but `Config` prove lost or mixed-up data: quarantine it, repair nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration breaks these rules: all of them at once.
    #[error("configuration: {}", list(.0))]
    Config(Vec<ConfigProblem>),
    /// The stored commit index lies outside the log (raft-core S41).
    #[error("hard state commits {commit}, but the log holds ({compacted}, {last}]")]
    CommitOutsideLog {
        /// The hard state's commit index.
        commit: Index,
        /// Last index that was compacted.
        compacted: Index,
        /// Last index of the log.
        last: Index,
    },
    /// `Config::applied` lies outside what is committed.
    #[error("applied is {applied}, but ({compacted}, {commit}] can be")]
    AppliedOutsideLog {
        /// As given.
        applied: Index,
        /// Last index that was compacted.
        compacted: Index,
        /// The commit index.
        commit: Index,
    },
    /// The stored membership cannot be rebuilt, or is not what was stored.
    #[error("stored membership: {0}")]
    Membership(#[from] ConfChangeError),
    /// The storage does not answer for a term in its own range (raft-core S20).
    #[error("storage does not know the term of index {0}")]
    TermUnknown(Index),
}

/// Why a call or a message had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// Only the node itself may say this. Count it; the sender is faulty.
    #[error("raft: cannot step raft local message")]
    LocalMessage,
    /// A response from somebody who is not a member (any more). Drop it.
    #[error("raft: cannot step as peer not found")]
    PeerNotFound,
    /// Nothing was appended or forwarded: no leader here, a transfer runs, or the limit of uncommitted bytes.
    /// Surely not proposed; may be tried again.
    #[error("raft proposal dropped")]
    ProposalDropped,
    /// No leader to ask, or too many reads wait. May be tried again.
    #[error("raft read dropped")]
    ReadDropped,
    /// The message contradicts itself. Count it; the sender is faulty.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A leader knows an index as committed here that is not in the log: data was lost (raft-core S41). Quarantine.
    #[error("told that {commit} is committed, but the log ends at {last}: data was lost")]
    CommitOutsideLog {
        /// What the leader said.
        commit: Index,
        /// Last index of the log.
        last: Index,
    },
    /// A leader's entry contradicts a committed one (raft-core 7.2): data was lost or mixed up. Quarantine.
    #[error("entry {found:?} contradicts the committed one there (commit {commit})")]
    ConflictBelowCommit {
        /// Position of the entry that came in.
        found: LogPos,
        /// Own commit index.
        commit: Index,
    },
    /// A snapshot's membership cannot be rebuilt. Quarantine.
    #[error("the snapshot's membership is inconsistent")]
    BadSnapshot,
}

impl StepError {
    /// Does this prove lost or mixed-up data, so that the replica must not go on?
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            StepError::CommitOutsideLog { .. } | StepError::ConflictBelowCommit { .. } | StepError::BadSnapshot
        )
    }
}

fn list(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("; ")
}
