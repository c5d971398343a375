//! Messages between replicas of one group: a header and one struct per kind.
//!
//! Leaves to others: the byte form (`raftstore/src/codec`), which group they belong to, transport.
//! Invariant: a message and its entries are immutable once stepped or sent (raft-core S40).

use crate::entry::Entry;
use crate::entry_run::EntryRun;
use crate::ids::{Index, LogPos, ReplicaId, Term};
use crate::mutant::{self, Mutant};
use crate::state::{HardState, Snapshot};
use bytes::Bytes;

/// One message. `term` 0 marks a local message (it survives forwarding).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Sender; `NONE` for a local call.
    pub from: ReplicaId,
    /// Receiver.
    pub to: ReplicaId,
    /// The sender's term (for prevotes the term asked for).
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// What a message says. The order is etcd raft's numbering. The tag is a whole word, as its place is: a message is moved
/// word by word then, not as a byte and what is left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Body {
    /// Local: start an election.
    Hup,
    /// Local: send heartbeats.
    Beat,
    /// Please append these entries (forwarded by a follower, or local).
    Propose {
        /// Entries without position.
        entries: Vec<Entry>,
    },
    /// AppendEntries (Raft 5.3).
    Append(Append),
    /// Answer to an append, to a snapshot, or to a stale leader.
    AppendResp(AppendResp),
    /// RequestVote (Raft 5.2).
    Vote(VoteRequest),
    /// Answer to a vote request.
    VoteResp {
        /// Refused?
        reject: bool,
    },
    /// InstallSnapshot (Raft 7). The contents travel elsewhere.
    Snap {
        /// The snapshot, boxed: rare and large.
        snapshot: Box<Snapshot>,
    },
    /// Leader to follower: I am here; `commit` is cut to what the follower has.
    Heartbeat {
        /// min(match, committed).
        commit: Index,
        /// Read position, 8 bytes little-endian, or empty.
        context: Bytes,
    },
    /// Answer to a heartbeat.
    HeartbeatResp {
        /// The heartbeat's context.
        context: Bytes,
    },
    /// Local: the transport could not deliver to `from`.
    Unreachable,
    /// Local: how sending a snapshot to `from` ended.
    SnapStatus {
        /// Failed?
        reject: bool,
    },
    /// Local: does a quorum still answer?
    CheckQuorum,
    /// Hand the leadership to `from` (thesis 3.10).
    TransferLeader,
    /// Leader to transferee: campaign now (thesis 3.10).
    TimeoutNow,
    /// Read request (thesis 6.4); exactly one entry carries the caller's context.
    ReadIndex {
        /// The request.
        entries: Vec<Entry>,
    },
    /// Answer to a read request.
    ReadIndexResp {
        /// Reads are linearizable once this index is applied.
        index: Index,
        /// The request.
        entries: Vec<Entry>,
    },
    /// Would you vote for me? (thesis 9.6)
    PreVote(VoteRequest),
    /// Answer to a prevote.
    PreVoteResp {
        /// Refused?
        reject: bool,
    },
    /// Work for the append thread (printed form of a Ready in asynchronous mode).
    StorageAppend(Box<StorageAppend>),
    /// Local: the append thread is done.
    StorageAppendResp {
        /// Last position of the log when the write was handed out; `NONE` if nothing was unstable.
        last: LogPos,
        /// The snapshot that the write installed.
        snapshot: Option<Box<Snapshot>>,
    },
    /// Work for the apply thread (printed form of a Ready in asynchronous mode).
    StorageApply {
        /// Committed entries.
        entries: Vec<Entry>,
        /// What the apply thread answers.
        responses: Vec<Message>,
    },
    /// Local: the apply thread is done.
    StorageApplyResp {
        /// The entries that were applied.
        entries: Vec<Entry>,
    },
    /// Local: forget the leader, keep term and vote.
    ForgetLeader,
}

/// The kinds of messages, for traces and metrics; the order is etcd raft's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the `Body` variant of that name")]
pub enum MessageKind {
    Hup,
    Beat,
    Propose,
    Append,
    AppendResp,
    Vote,
    VoteResp,
    Snap,
    Heartbeat,
    HeartbeatResp,
    Unreachable,
    SnapStatus,
    CheckQuorum,
    TransferLeader,
    TimeoutNow,
    ReadIndex,
    ReadIndexResp,
    PreVote,
    PreVoteResp,
    StorageAppend,
    StorageAppendResp,
    StorageApply,
    StorageApplyResp,
    ForgetLeader,
}

/// AppendEntries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Append {
    /// Position of the entry before the first.
    pub prev: LogPos,
    /// Consecutive entries behind `prev`. Shared: appends to several followers hold one run.
    pub entries: EntryRun,
    /// The leader's commit, not cut to the receiver.
    pub commit: Index,
}

/// Answer to an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AppendResp {
    /// Accepted: last index known to match. Rejected: the `prev` index that did not match.
    pub index: Index,
    /// Set iff rejected: where the receiver's log may match (raft-core 7.4).
    pub reject: Option<LogPos>,
}

/// RequestVote and PreVote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    /// The candidate's last entry.
    pub last: LogPos,
    /// A transfer's election: passes leases (raft-core 12).
    pub transfer: bool,
}

/// What the append thread is asked to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StorageAppend {
    /// Entries to append.
    pub entries: Vec<Entry>,
    /// Hard state to store, if it changed.
    pub hard_state: Option<HardState>,
    /// Snapshot to install.
    pub snapshot: Option<Snapshot>,
    /// What leaves once this is durable.
    pub responses: Vec<Message>,
}

impl Message {
    /// A message without sender and term: `Raft::send` fills both.
    #[must_use]
    pub fn to(to: ReplicaId, body: Body) -> Message {
        Message { from: ReplicaId::NONE, to, term: Term::NONE, body }
    }

    /// Number of entries carried.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.body {
            Body::Append(a) => &a.entries,
            Body::Propose { entries }
            | Body::ReadIndex { entries }
            | Body::ReadIndexResp { entries, .. }
            | Body::StorageApply { entries, .. }
            | Body::StorageApplyResp { entries } => entries,
            Body::StorageAppend(a) => &a.entries,
            _ => &[],
        }
    }
}

impl Body {
    /// Which kind this is.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Body::Hup => MessageKind::Hup,
            Body::Beat => MessageKind::Beat,
            Body::Propose { .. } => MessageKind::Propose,
            Body::Append(_) => MessageKind::Append,
            Body::AppendResp(_) => MessageKind::AppendResp,
            Body::Vote(_) => MessageKind::Vote,
            Body::VoteResp { .. } => MessageKind::VoteResp,
            Body::Snap { .. } => MessageKind::Snap,
            Body::Heartbeat { .. } => MessageKind::Heartbeat,
            Body::HeartbeatResp { .. } => MessageKind::HeartbeatResp,
            Body::Unreachable => MessageKind::Unreachable,
            Body::SnapStatus { .. } => MessageKind::SnapStatus,
            Body::CheckQuorum => MessageKind::CheckQuorum,
            Body::TransferLeader => MessageKind::TransferLeader,
            Body::TimeoutNow => MessageKind::TimeoutNow,
            Body::ReadIndex { .. } => MessageKind::ReadIndex,
            Body::ReadIndexResp { .. } => MessageKind::ReadIndexResp,
            Body::PreVote(_) => MessageKind::PreVote,
            Body::PreVoteResp { .. } => MessageKind::PreVoteResp,
            Body::StorageAppend(_) => MessageKind::StorageAppend,
            Body::StorageAppendResp { .. } => MessageKind::StorageAppendResp,
            Body::StorageApply { .. } => MessageKind::StorageApply,
            Body::StorageApplyResp { .. } => MessageKind::StorageApplyResp,
            Body::ForgetLeader => MessageKind::ForgetLeader,
        }
    }

    /// Only a node's own calls and storage threads may say this (raft-core 4.1).
    #[must_use]
    #[inline]
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Body::Hup
                | Body::Beat
                | Body::Unreachable
                | Body::SnapStatus { .. }
                | Body::CheckQuorum
                | Body::StorageAppend(_)
                | Body::StorageAppendResp { .. }
                | Body::StorageApply { .. }
                | Body::StorageApplyResp { .. }
        )
    }

    /// An answer, which only a tracked peer may give (raft-core 4.1).
    #[must_use]
    #[inline]
    pub fn is_response(&self) -> bool {
        matches!(
            self,
            Body::AppendResp(_)
                | Body::VoteResp { .. }
                | Body::HeartbeatResp { .. }
                | Body::ReadIndexResp { .. }
                | Body::PreVoteResp { .. }
                | Body::Unreachable
                | Body::StorageAppendResp { .. }
                | Body::StorageApplyResp { .. }
        )
    }

    /// Does none but a leader send this to a member?
    #[must_use]
    #[inline]
    pub fn is_from_leader(&self) -> bool {
        matches!(self, Body::Append(_) | Body::Heartbeat { .. } | Body::Snap { .. })
    }

    /// Leaves only when everything unstable at the moment of sending is durable (raft-core S6, S7).
    #[must_use]
    #[inline]
    pub fn is_after_append(&self) -> bool {
        match self {
            Body::AppendResp(resp) => resp.reject.is_none() || !mutant::is(Mutant::EarlyRefusals),
            Body::VoteResp { .. } | Body::PreVoteResp { .. } => true,
            _ => false,
        }
    }
}
