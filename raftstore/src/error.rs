//! Errors of the face: one narrow enum per operation family; the type says whether a retry can duplicate (law 6).
//!
//! Invariant: every variant of `ProposeError` but `OutcomeUnknown` is given at the door and means "never appended".

use crate::ids::{GroupId, Index, LogPos, NodeId, Term};
use pontoon_raft::{ConfChangeError, Fetch, StepError};

/// Whom to ask instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader's node.
    pub node: NodeId,
    /// In which term.
    pub term: Term,
}

/// Why a group does not serve here. At the door only: nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Ask a node that has it.
    #[error("group {0} not found here")]
    NotFound(GroupId),
    /// It will not come back here.
    #[error("group {0} was destroyed here")]
    Destroyed(GroupId),
    /// This replica stands still; others go on. Replace it.
    #[error("replica stopped: {0}")]
    Quarantined(String),
    /// Ask another node.
    #[error("engine is shutting down")]
    ShuttingDown,
}

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Proposals of this group that wait for their commit: more than may ever wait, or, while the node is busy, more than it
    /// got done in the last moment.
    GroupInflight,
    /// The node-wide budget.
    NodeInflight,
    /// Live bytes in the log store.
    Wal,
    /// Committed entries that wait for the state machine.
    ApplyBacklog,
    /// The disk reserve.
    DiskFull,
}

/// Why the outcome of a proposal is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Leadership went elsewhere while the entry was uncommitted.
    Leadership,
    /// The caller's deadline passed.
    Timeout,
    /// Another leader's entry took the place: it was not applied, and will not be. (Told as unknown: law 6.)
    Overwritten,
    /// The replica was stopped, quarantined, or the node is shutting down or poisoned.
    ReplicaStopped,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Not appended: ask the leader.
    #[error("not leader (try {leader:?})")]
    NotLeader {
        /// As far as known.
        leader: Option<LeaderHint>,
    },
    /// Not appended: back off.
    #[error("overloaded: {0:?}")]
    Overloaded(Limit),
    /// Not appended: try again shortly, at `to`.
    #[error("leadership is moving to node {to}")]
    Transferring {
        /// The next leader, probably.
        to: NodeId,
    },
    /// Not appended: never will be.
    #[error("command of {0} bytes is over the limit of {1}")]
    TooLarge(usize, usize),
    /// Not appended: never will be.
    #[error("a command must have at least one byte")]
    Empty,
    /// Not appended: another term than asked for.
    #[error("term is {now}")]
    Fenced {
        /// Current term.
        now: Term,
    },
    /// Not appended: one before it, under the same fence, was not.
    #[error("a command before this one was refused")]
    Behind,
    /// Not appended.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// May have been applied, or may be later.
    #[error("outcome unknown: {why:?}")]
    OutcomeUnknown {
        /// What happened.
        why: Lost,
        /// Where it was appended, if known.
        at: Option<LogPos>,
    },
}

impl ProposeError {
    /// Can a retry not duplicate?
    #[must_use]
    pub fn never_appended(&self) -> bool {
        !matches!(self, ProposeError::OutcomeUnknown { .. })
    }
}

/// Why a read was not served. Reads change nothing: any of them may be retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader known: retry later or elsewhere.
    #[error("no leader known")]
    NoLeader,
    /// The deadline passed, or leadership changed while the read waited.
    #[error("the read could not be confirmed in time")]
    Unconfirmed,
    /// Back off.
    #[error("overloaded: {0:?}")]
    Overloaded(Limit),
    /// As for proposals.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Why a group could not be created or destroyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// Fix the spec.
    #[error("bad group spec: {0}")]
    BadSpec(String),
    /// Another spec stands for this group: both digests.
    #[error("group {group} exists with another spec (here {here:#x}, asked {asked:#x})")]
    OtherSpec {
        /// The group.
        group: GroupId,
        /// Digest on disk.
        here: u64,
        /// Digest asked for.
        asked: u64,
    },
    /// The state machine could not be opened.
    #[error("state machine: {0}")]
    StateMachine(String),
    /// As for proposals.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Why an administrative call did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Ask the leader.
    #[error("not leader (try {leader:?})")]
    NotLeader {
        /// As far as known.
        leader: Option<LeaderHint>,
    },
    /// The deadline passed; it may still happen.
    #[error("timed out")]
    TimedOut,
    /// Not possible as asked.
    #[error("refused: {0}")]
    Refused(String),
    /// Connect this node first: only a node that the leader has a link to, and whose disk it so knows, can become a
    /// member.
    #[error("node {0} is not connected to the leader: its disk is not known")]
    UnknownNode(NodeId),
    /// Another change of members is under way: wait for it, or abort it.
    #[error("another change of members is under way (voters {voters:?}, learners {learners:?})")]
    ReconfigureInProgress {
        /// Its voters.
        voters: Vec<NodeId>,
        /// Its learners.
        learners: Vec<NodeId>,
    },
    /// The configuration is not the one that the caller named: look again.
    #[error("the configuration is the one of index {now}")]
    ConfChanged {
        /// Index of the configuration.
        now: Index,
    },
    /// The change of members was given up: this node did not catch up. Nothing has changed.
    #[error("node {0} did not catch up: the change of members was given up")]
    NoProgress(NodeId),
    /// The change of members was given up by somebody. Nothing has changed.
    #[error("the change of members was aborted")]
    Aborted,
    /// Too late to abort: the group is in the joint configuration and will leave it for the new one.
    #[error("the joint configuration is entered: the change of members will be completed")]
    PastAbort,
    /// There is no change of members to abort.
    #[error("no change of members is under way")]
    NoReconfigure,
    /// As for proposals.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// Why a node could not start. Nothing was changed on disk beyond what recovery itself needs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Fix these, all at once.
    #[error("configuration problems: {0:?}")]
    Config(Vec<String>),
    /// Another node's directory, or another cluster's.
    #[error("directory belongs to {found}, asked for {asked}")]
    WrongIdentity {
        /// On disk.
        found: String,
        /// Given.
        asked: String,
    },
    /// The log store could not be loaded.
    #[error(transparent)]
    Load(#[from] crate::env::LoadError),
    /// The log store could not be written.
    #[error(transparent)]
    Write(#[from] crate::env::WriteFailed),
    /// The log lost what the machine has (boot.md 4): restore the disk, or replace the node under a new id.
    #[error(
        "group {group}: log ends at {last} (commit {commit}), but the state machine has applied {applied}: the log lost acknowledged entries"
    )]
    LogBehindMachine {
        /// The group.
        group: GroupId,
        /// Last index in the log.
        last: Index,
        /// Stored commit.
        commit: Index,
        /// Applied by the machine.
        applied: Index,
    },
    /// A peer refused this node for good (boot.md 1).
    #[error("refused by node {by}: {why}")]
    Refused {
        /// The peer.
        by: NodeId,
        /// Its reason.
        why: crate::env::Refusal,
    },
    /// A state-machine kind named on disk was not registered.
    #[error("group {group} is of kind {kind:?}, which was not registered")]
    UnknownKind {
        /// The group.
        group: GroupId,
        /// On disk.
        kind: String,
    },
}

/// A node that its host drives has ended. What was asked did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// Why a node that its host drives did not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoloError {
    /// Not taken. A tick or a message counts as lost, a proposal may be tried again.
    #[error("the line is full")]
    Full,
    /// Not proposed. Try again, or start with `WithoutLeader::Wait`.
    #[error("no leader is known")]
    NoLeader,
    /// The core says no: nothing was appended or forwarded.
    #[error(transparent)]
    Refused(#[from] StepError),
    /// It still waits for a leader and may be proposed yet: a second attempt may do it twice.
    #[error("the caller's patience ended")]
    OutcomeUnknown,
    /// Not taken.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why what a host says about its `Ready` had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// The host has no `Ready`, or its membership changes are all applied.
    #[error("nothing waits for this")]
    NotDue,
    /// So many membership changes of the `Ready` are to be applied first.
    #[error("{0} membership changes are not applied")]
    Unapplied(usize),
    /// A committed change cannot work: stop this replica for good.
    #[error(transparent)]
    BadChange(#[from] ConfChangeError),
    /// Restart from storage.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a node that its host drives ended without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Halted {
    /// A message proves that data was lost or mixed up here. Quarantine the replica, repair nothing.
    #[error(transparent)]
    LostData(StepError),
    /// The storage broke its contract.
    #[error("the storage answers Uncached for {}..{}", .0.low, .0.high)]
    Uncached(Fetch),
}
