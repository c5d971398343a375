//! What happened inside a replica, as values: the transcripts' log lines and a driver's tracing come from these.
//!
//! Leaves to others: text and levels. A variant holds the numbers of the moment at which it was noted.
//! Invariant: collected only if `Config::trace`; bounded, the newest are dropped when nobody takes them.

use crate::conf_change::ConfChangeV2;
use crate::confchange::ConfChangeError;
use crate::error::StepError;
use crate::ids::{Index, LogPos, ReplicaId, Term};
use crate::message::MessageKind;
use crate::state::{ConfState, StateRole};
use crate::status::ProgressStatus;

/// One thing that happened. "Own" is the replica that notes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "a field is named after what it holds")]
pub enum Trace {
    /// Construction is complete. `peers`: voters of both halves, ascending.
    Started { peers: Vec<ReplicaId>, term: Term, commit: Index, applied: Index, last: LogPos },
    /// A configuration took effect.
    SwitchedConf { conf: ConfState },
    /// Follows (again).
    BecameFollower { term: Term },
    /// Asks for votes, after the term was raised.
    BecameCandidate { term: Term },
    /// Asks for prevotes.
    BecamePreCandidate { term: Term },
    /// Leads; the empty entry is appended.
    BecameLeader { term: Term },
    /// An election was due on a leader.
    HupIgnored,
    /// An election was due on a replica that cannot win one.
    Unpromotable,
    /// An election was due with a membership change to apply.
    CampaignBlocked { term: Term },
    /// An election starts; the term before it.
    CampaignStarted { term: Term },
    /// A vote was asked for. `kind`: `Vote` or `PreVote`.
    VoteRequested { kind: MessageKind, to: ReplicaId, last: LogPos, term: Term },
    /// An answer to a vote request was handled. `kind`: `VoteResp` or `PreVoteResp`.
    VoteReceived { kind: MessageKind, from: ReplicaId, granted: bool, term: Term },
    /// Votes so far, right after `VoteReceived`.
    VotesCounted { kind: MessageKind, granted: usize, rejected: usize },
    /// A vote was granted; `vote` is the own one before that.
    VoteCast(VoteTrace),
    /// A vote was refused.
    VoteRejected(VoteTrace),
    /// A vote request was ignored within a lease.
    VoteIgnored { request: VoteTrace, remaining: u64 },
    /// A message of a higher term changes the own one.
    HigherTerm { kind: MessageKind, from: ReplicaId, own: Term, term: Term },
    /// A message of a lower term was ignored.
    LowerTerm { kind: MessageKind, from: ReplicaId, own: Term, term: Term },
    /// A leader did not hear from a quorum and steps down.
    QuorumLost,

    /// A proposal was dropped: no leader.
    ProposalWithoutLeader { term: Term },
    /// A proposal was dropped: forwarding is off.
    ProposalNotForwarded { lead: ReplicaId, term: Term },
    /// A proposal was dropped: a transfer runs.
    ProposalDuringTransfer { term: Term, transferee: ReplicaId },
    /// A proposal was dropped: too many uncommitted bytes.
    UncommittedLimit,
    /// A membership change was refused; an empty entry takes its place.
    ConfChangeIgnored { change: ConfChangeV2, conf: ConfState, reason: ConfChangeRefusal },
    /// The leave entry of a joint configuration was appended.
    AutoLeave { conf: ConfState },
    /// It was refused.
    AutoLeaveRefused { conf: ConfState, error: StepError },
    /// A transfer to a learner was ignored.
    TransferToLearner,
    /// A transfer to the current transferee was ignored.
    TransferRunning { term: Term, transferee: ReplicaId },
    /// Another transfer ended the running one.
    TransferAborted { term: Term, transferee: ReplicaId },
    /// A transfer to the leader itself was ignored.
    TransferToSelf,
    /// A transfer starts.
    TransferStarted { term: Term, transferee: ReplicaId },
    /// The transferee was told at once.
    TimeoutNowSentAtOnce { to: ReplicaId },
    /// The transferee is told after its log caught up.
    TimeoutNowSent { to: ReplicaId },
    /// A transfer request was dropped: no leader.
    TransferWithoutLeader { term: Term },
    /// Told to campaign at once.
    TimeoutNowReceived { term: Term, from: ReplicaId },
    /// Told so while campaigning already.
    TimeoutNowIgnored { term: Term, role: StateRole, from: ReplicaId },
    /// Forgets its leader.
    ForgetLeader { lead: ReplicaId, term: Term },
    /// Does not, because leases serve reads.
    ForgetLeaderRefused,
    /// A read was dropped: no leader.
    ReadWithoutLeader { term: Term },
    /// An answer to a read does not hold one entry.
    BadReadIndexResp { from: ReplicaId, entries: usize },

    /// An append was refused; `own_term` is the own term at `prev.index`, 0 if unknown.
    AppendRejected { own_term: Term, prev: LogPos, from: ReplicaId },
    /// A refusal came in.
    RejectionReceived { from: ReplicaId, index: Index, hint: LogPos },
    /// It moved the progress back.
    ProgressDecreased { peer: ReplicaId, progress: ProgressStatus },
    /// A message from somebody who is not tracked was ignored.
    NoProgress { peer: ReplicaId },
    /// A member was reported unreachable.
    Unreachable { peer: ReplicaId, progress: ProgressStatus },
    /// No snapshot for a member that is silent.
    SnapshotToInactive { peer: ReplicaId },
    /// No snapshot is available yet.
    SnapshotUnavailable { peer: ReplicaId },
    /// A snapshot was sent; the progress before.
    SnapshotSent { peer: ReplicaId, first: Index, commit: Index, snapshot: LogPos, progress: ProgressStatus },
    /// The progress after it.
    ReplicationPaused { peer: ReplicaId, progress: ProgressStatus },
    /// An ack reaches the log again.
    SnapshotRecovered { peer: ReplicaId, progress: ProgressStatus },
    /// Sending a snapshot succeeded.
    SnapshotSucceeded { peer: ReplicaId, progress: ProgressStatus },
    /// Sending a snapshot failed.
    SnapshotFailed { peer: ReplicaId, progress: ProgressStatus },

    /// An append contradicts an own entry (`existing` term) at `found`.
    Conflict { found: LogPos, existing: Term },
    /// The unstable entries are replaced from here on.
    UnstableReplaced { from: Index },
    /// The unstable entries are cut before this index.
    UnstableTruncated { before: Index },
    /// Reported stable, but unknown.
    StableMissing { index: Index },
    /// Reported stable; it is the unstable snapshot's index.
    StableIsSnapshot { index: Index },
    /// Reported stable, but another entry is there.
    StableMismatch { reported: LogPos, found: LogPos },
    /// A completion of an earlier term was ignored (ABA, raft-core 14.4).
    StaleCompletion { own: Term, term: Term },
    /// A snapshot's restoring starts; the log before.
    RestoreStarted { log: LogPointers, snapshot: LogPos },
    /// It ended; the log after.
    Restored { commit: Index, last: LogPos, snapshot: LogPos },
    /// Right after `Restored`.
    SnapshotRestored { commit: Index, snapshot: LogPos },
    /// The log has the snapshot's entry; commit and last before.
    FastForwarded { commit: Index, last: LogPos, snapshot: LogPos },
    /// A snapshot was not restored.
    SnapshotIgnored { commit: Index, snapshot: LogPos },
    /// A snapshot came to somebody who does not follow.
    RestoreAsLeader,
    /// A snapshot does not list the receiver.
    RestoreWithoutSelf { conf: ConfState },
}

/// A vote request and what it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteTrace {
    /// `Vote` or `PreVote`.
    pub kind: MessageKind,
    /// The candidate.
    pub from: ReplicaId,
    /// The candidate's last entry.
    pub last: LogPos,
    /// Own last entry.
    pub own_last: LogPos,
    /// Own vote.
    pub vote: ReplicaId,
    /// Own term.
    pub term: Term,
}

/// Why a proposed membership change was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a field is named after what it holds")]
pub enum ConfChangeRefusal {
    /// An earlier one may not be applied yet.
    Unapplied { pending: Index, applied: Index },
    /// In a joint configuration only leaving is possible.
    MustLeaveFirst,
    /// There is nothing to leave.
    NotJoint,
    /// Applying it would fail (`Config::strict`, raft-core S30).
    WouldFail(ConfChangeError),
}

/// The log's pointers, as printed before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPointers {
    /// Highest committed index.
    pub committed: Index,
    /// Highest applied index.
    pub applied: Index,
    /// Highest index handed out for applying.
    pub applying: Index,
    /// First unstable index.
    pub offset: Index,
    /// First index that was not handed out for writing.
    pub offset_in_progress: Index,
    /// Number of unstable entries.
    pub unstable: usize,
}

/// Collects traces, or does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracer {
    /// Collecting at all?
    on: bool,
    /// In order. Invariant: at most `MAX_TRACES`.
    events: Vec<Trace>,
}

/// Traces that are kept for a driver that does not take them.
const MAX_TRACES: usize = 1 << 16;

impl Tracer {
    pub(crate) fn new(on: bool) -> Tracer {
        Tracer { on, events: Vec::new() }
    }

    /// Notes what `event` returns; not even called unless traces are wanted.
    pub(crate) fn note(&mut self, event: impl FnOnce() -> Trace) {
        if self.on && self.events.len() < MAX_TRACES {
            self.events.push(event());
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Trace> {
        std::mem::take(&mut self.events)
    }
}
