//! Seeded bugs for proving the checkers: compiled in only with the feature `mutants`, which nothing but tests enables.
//!
//! A mutant is switched on for the current thread; without the feature `is` is a constant and the branch is gone.
//! Which checker kills which: docs/testing.md, `raft/tests/mutants.rs` and `raftstore/tests/mutants.rs`.
//! Invariant: production never calls `activate`.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*; harmless alone: $($(#[$other_doc:meta])* $other:ident,)*) => {
        /// A bug that a checker must find. Each breaks one rule of raft-core 17 or one law of the house.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
            $($(#[$other_doc])* $other,)*
        }

        impl Mutant {
            /// All that a checker must find alone.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)*];
        }
    };
}

mutants! {
    /// Acks and votes leave before the write that they rest on is durable (S6). Lives in the driver.
    AckBeforeSync,
    /// A leader commits entries of earlier terms by counting (S2, Raft 5.4.2).
    CommitOldTerm,
    /// The vote is left out of the stored hard state (S6). Lives in the driver.
    VoteNotPersisted,
    /// A completed write counts by (index, entry term) alone (S8, raft-core 14.4).
    CompletionWithoutTerm,
    /// The log is truncated behind what is applied, not behind what the machine has made durable (law 5). In raftstore.
    TruncateAheadOfDurable,
    /// A hard state that changes only the commit is dropped instead of written with the next batch (law 1). In raftstore.
    DropLazyCommit,
    /// Answers that are put into a queue together go to the tag beside their own. In raftstore.
    NeighboursAnswer,
    /// An answer to a command that was given up goes to whoever has its place in the queue now. In raftstore.
    LateAnswerTaken,
    /// A command that the door refuses in a batch hears nothing (law 6). In raftstore.
    DoorSwallows,
    /// Commands that were kept back for others hear nothing (law 6). In raftstore.
    KeptBackDropped,

    // Terms and elections.
    /// Messages of earlier terms are handled as if they were of the own.
    OldTermHandled,
    /// A message of a higher term is handled, but the own term stays.
    HigherTermIgnored,
    /// A leader that is stuck behind is not told the term (S26).
    StuckLeaderNotTold,
    /// A reset in the same term forgets the vote (S1).
    ResetForgetsVote,
    /// Whoever asks gets the vote of the term, given away or not.
    VotesTwice,
    /// A vote is granted to a log that is behind (Raft 5.4.1).
    VoteForOlderLog,
    /// Vote requests leave before the own term is durable.
    AsksBeforeSync,
    /// Votes of the last election count in the next one.
    VotesKept,
    /// Answers to the prevote count in the election (S35).
    PreVotesCount,
    /// A prevote request raises the term of whoever is asked (S25).
    PreVoteRaisesTerm,
    /// Half of the voters elect.
    HalfElects,
    /// In a joint state the incoming half elects alone (S33).
    IncomingElects,
    /// A learner campaigns.
    LearnerCampaigns,
    /// An election starts although a membership change is not applied (S29).
    CampaignsWithChange,
    /// An election starts while a snapshot is being installed (S38).
    CampaignsInInstall,
    /// A leader without a quorum goes on leading.
    QuorumNotChecked,

    // Leases.
    /// Votes are granted while a leader is heard of (S27).
    LeaseNotHeld,
    /// A voter forgets in a restart that it supports a lease.
    LeaseForgottenInRestart,
    /// A lease runs from when its round was answered, not from when it was sent.
    LeaseFromAnswer,
    /// A lease outlives the start of a transfer.
    LeaseKeptInTransfer,

    // Commit.
    /// Half of the voters commit.
    HalfCommits,
    /// In a joint state one half commits (S33).
    OneHalfCommits,
    /// Learners count in quorums.
    LearnersCount,
    /// The leader counts its own entries before they are durable.
    CountsItselfEarly,
    /// What members had in an earlier leadership counts in this one.
    MatchKept,
    /// A heartbeat's commit is not cut to what the follower is known to have (S3).
    HeartbeatCommitUncut,
    /// An append's commit is not cut to what that message proved (S3).
    AppendCommitUncut,

    // Conflicts.
    /// Any append cuts what follows its entries (S4).
    AppendTruncates,
    /// An append is taken without the entry before it.
    PrevNotChecked,
    /// An own entry of another term is left where the leader has a different one.
    ConflictKept,

    // Unstable log and completions.
    /// Cutting the unstable log leaves the mark of what is being written where it was.
    CutKeepsMark,
    /// An answer that has nothing to write itself does not wait for earlier writes (S7).
    AnswerOvertakesWrites,
    /// A restored snapshot leaves the unstable entries in place.
    RestoreKeepsTail,

    // Flow control and progress.
    /// A full window does not hold appends back.
    WindowUnlimited,
    /// Acknowledged bytes stay in the window's sum (S12).
    WindowBytesLeak,
    /// A heartbeat's answer does not wake a paused follower (S13).
    HeartbeatWakesNobody,
    /// An ack of what is known does not end probing (S16).
    KnownAckIgnored,
    /// After a failed snapshot the leader probes behind it (S18).
    FailedSnapshotCounts,

    // Membership.
    /// A second change is accepted while one is not applied.
    PendingIgnored,
    /// A new leader does not reckon with a change that it has not applied (S29).
    PendingForgotten,
    /// A refused change is proposed nevertheless.
    RefusedProposed,
    /// A joint state is entered without an outgoing half.
    NoOutgoingHalf,
    /// A voter that is demoted loses its vote before the joint state is left (S32).
    DemotedAtOnce,
    /// Who was to become a learner is a stranger after the joint state.
    LeaveForgetsLearners,
    /// An automatic joint state is never left.
    NeverLeaves,
    /// A smaller quorum does not commit what it has.
    NewQuorumNotAsked,
    /// A new member gets the lowest id above the members', be it that of one who was removed (law 8). In raftstore.
    ReplicaIdUsedAgain,

    // Snapshots.
    /// A snapshot behind the commit index replaces the log (S37).
    StaleSnapshotRestored,
    /// A snapshot that the log covers replaces it (S37).
    CoveredSnapshotRestored,
    /// A snapshot that does not list this replica is restored (S36).
    ForeignSnapshotRestored,
    /// A snapshot's completion is ignored after a change of term (S39).
    InstallForgotten,

    // Reads.
    /// Reads are served before the first commit of the term (S23).
    ReadBeforeOwnCommit,
    /// Reads are served without asking a quorum.
    ReadUnconfirmed,
    /// Any heartbeat's answer confirms the newest read.
    ReadAckAnyPosition,
    /// Confirmations of an earlier leadership count (S24).
    ReadAcksKept,

    // Transfer.
    /// The transferee is told to campaign before it has everything.
    TransferWithoutCatchUp,
    /// Proposals are taken while a transfer runs.
    ProposalsInTransfer,
    /// A transfer does not end by time.
    TransferForever,
    /// The transferee's requests respect leases.
    TransferWithoutMark,

    // Applying and limits.
    /// Entries are handed out for applying before they are durable here (S9).
    AppliesUnstable,
    /// A page that the limit cut counts as everything committed (S10).
    PageSkipsRest,
    /// The limit of committed bytes counts per Ready (S9).
    PageLimitPerReady,
    /// Entries are handed out while a snapshot is being installed (S38).
    AppliesInInstall,
    /// Uncommitted bytes are never given back (S11).
    UncommittedKept,

    ; harmless alone:
    /// A refused append is answered before the write that it came with is durable (S6, S7). It promises nothing but the
    /// term; it takes away what covers for `CompletionWithoutTerm`.
    EarlyRefusals,
}

#[cfg(feature = "mutants")]
mod active {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        /// A bit for each.
        static ACTIVE: Cell<u128> = const { Cell::new(0) };
    }

    /// Switches these bugs on for this thread, and all others off.
    pub fn activate(mutants: impl IntoIterator<Item = Mutant>) {
        ACTIVE.set(mutants.into_iter().fold(0, |bits, m| bits | 1 << m as u32));
    }

    /// Is this bug on?
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.get() >> mutant as u32 & 1 == 1
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, is};

/// Without the feature: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}
