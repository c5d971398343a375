//! The original's log lines (README 5) from the core's traces.
//!
//! Leaves to others: when an event happens; a trace carries the values of that moment.

use super::output::Level::{self, Debug, Error, Info, Warn};
use super::print::{change, configuration, kind, progress, role};
use pontoon_raft::*;

/// Level and text of one event on node `id`.
pub fn line(id: u64, event: &Trace) -> (Level, String) {
    let id = Hex(ReplicaId(id));
    role_line(id, event)
        .or_else(|| vote_line(id, event))
        .or_else(|| proposal_line(id, event))
        .or_else(|| transfer_line(id, event))
        .or_else(|| replication_line(id, event))
        .or_else(|| log_line(event))
        .or_else(|| snapshot_line(id, event))
        .unwrap_or_else(|| panic!("no text for {event:?}"))
}

type Line = Option<(Level, String)>;

/// An id as log lines show it.
#[derive(Clone, Copy)]
struct Hex(ReplicaId);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0.0)
    }
}

fn role_line(id: Hex, event: &Trace) -> Line {
    Some(match event {
        Trace::Started { peers, term, commit, applied, last } => {
            let peers = peers.iter().map(|p| Hex(*p).to_string()).collect::<Vec<_>>().join(",");
            let (index, last) = (last.index, last.term);
            let rest = format!("commit: {commit}, applied: {applied}, lastindex: {index}, lastterm: {last}]");
            (Info, format!("newRaft {id} [peers: [{peers}], term: {term}, {rest}"))
        }
        Trace::SwitchedConf { conf } => (Info, format!("{id} switched to configuration {}", configuration(conf))),
        Trace::BecameFollower { term } => (Info, format!("{id} became follower at term {term}")),
        Trace::BecameCandidate { term } => (Info, format!("{id} became candidate at term {term}")),
        Trace::BecamePreCandidate { term } => (Info, format!("{id} became pre-candidate at term {term}")),
        Trace::BecameLeader { term } => (Info, format!("{id} became leader at term {term}")),
        Trace::HupIgnored => (Debug, format!("{id} ignoring MsgHup because already leader")),
        Trace::Unpromotable => (Warn, format!("{id} is unpromotable and can not campaign")),
        Trace::CampaignBlocked { term } => {
            let why = "since there are still pending configuration changes to apply";
            (Warn, format!("{id} cannot campaign at term {term} {why}"))
        }
        Trace::CampaignStarted { term } => (Info, format!("{id} is starting a new election at term {term}")),
        Trace::HigherTerm { kind: k, from, own, term } => {
            let (k, from) = (kind(*k), Hex(*from));
            (Info, format!("{id} [term: {own}] received a {k} message with higher term from {from} [term: {term}]"))
        }
        Trace::LowerTerm { kind: k, from, own, term } => {
            let (k, from) = (kind(*k), Hex(*from));
            (Info, format!("{id} [term: {own}] ignored a {k} message with lower term from {from} [term: {term}]"))
        }
        Trace::QuorumLost => (Warn, format!("{id} stepped down to follower since quorum is not active")),
        _ => return None,
    })
}

fn vote_line(id: Hex, event: &Trace) -> Line {
    let met = |v: &VoteTrace, verb: &str, to: &str| {
        let own = format!("[logterm: {}, index: {}, vote: {}]", v.own_last.term, v.own_last.index, Hex(v.vote));
        let theirs = format!("[logterm: {}, index: {}] at term {}", v.last.term, v.last.index, v.term);
        format!("{id} {own} {verb} {} {to} {} {theirs}", kind(v.kind), Hex(v.from))
    };
    Some(match event {
        Trace::VoteRequested { kind: k, to, last, term } => {
            let (k, to, index, last) = (kind(*k), Hex(*to), last.index, last.term);
            (Info, format!("{id} [logterm: {last}, index: {index}] sent {k} request to {to} at term {term}"))
        }
        Trace::VoteReceived { kind: k, from, granted, term } => {
            let (k, from) = (kind(*k), Hex(*from));
            let how = if *granted { "" } else { " rejection" };
            (Info, format!("{id} received {k}{how} from {from} at term {term}"))
        }
        Trace::VotesCounted { kind: k, granted, rejected } => {
            (Info, format!("{id} has received {granted} {} votes and {rejected} vote rejections", kind(*k)))
        }
        Trace::VoteCast(v) => (Info, met(v, "cast", "for")),
        Trace::VoteRejected(v) => (Info, met(v, "rejected", "from")),
        Trace::VoteIgnored { request, remaining } => {
            let why = format!("lease is not expired (remaining ticks: {remaining})");
            (Info, format!("{}: {why}", met(request, "ignored", "from")))
        }
        _ => return None,
    })
}

fn proposal_line(id: Hex, event: &Trace) -> Line {
    Some(match event {
        Trace::ProposalWithoutLeader { term } => (Info, format!("{id} no leader at term {term}; dropping proposal")),
        Trace::ProposalNotForwarded { lead, term } => {
            (Info, format!("{id} not forwarding to leader {} at term {term}; dropping proposal", Hex(*lead)))
        }
        Trace::ProposalDuringTransfer { term, transferee } => {
            let to = Hex(*transferee);
            (Debug, format!("{id} [term {term}] transfer leadership to {to} is in progress; dropping proposal"))
        }
        Trace::UncommittedLimit => {
            let what = "appending new entries to log would exceed uncommitted entry size limit";
            (Warn, format!("{id} {what}; dropping proposal"))
        }
        Trace::ConfChangeIgnored { change: cc, conf, reason } => {
            let (cc, conf, reason) = (change(cc), configuration(conf), refusal(reason));
            (Info, format!("{id} ignoring conf change {cc} at config {conf}: {reason}"))
        }
        Trace::AutoLeave { conf } => {
            (Info, format!("initiating automatic transition out of joint configuration {}", configuration(conf)))
        }
        Trace::AutoLeaveRefused { conf, error } => {
            let what = "not initiating automatic transition out of joint configuration";
            (Debug, format!("{what} {}: {error}", configuration(conf)))
        }
        Trace::ReadWithoutLeader { term } => {
            (Info, format!("{id} no leader at term {term}; dropping index reading msg"))
        }
        Trace::BadReadIndexResp { from, entries } => {
            let from = Hex(*from);
            (Error, format!("{id} invalid format of MsgReadIndexResp from {from}, entries count: {entries}"))
        }
        _ => return None,
    })
}

fn refusal(reason: &ConfChangeRefusal) -> String {
    match reason {
        ConfChangeRefusal::Unapplied { pending, applied } => {
            format!("possible unapplied conf change at index {pending} (applied to {applied})")
        }
        ConfChangeRefusal::MustLeaveFirst => "must transition out of joint config first".to_owned(),
        ConfChangeRefusal::NotJoint => "not in joint state; refusing empty conf change".to_owned(),
        ConfChangeRefusal::WouldFail(why) => why.to_string(),
    }
}

fn transfer_line(id: Hex, event: &Trace) -> Line {
    Some(match event {
        Trace::TransferToLearner => (Debug, format!("{id} is learner. Ignored transferring leadership")),
        Trace::TransferRunning { term, transferee } => {
            let (to, what) = (Hex(*transferee), "is in progress, ignores request to same node");
            (Info, format!("{id} [term {term}] transfer leadership to {to} {what} {to}"))
        }
        Trace::TransferAborted { term, transferee } => {
            (Info, format!("{id} [term {term}] abort previous transferring leadership to {}", Hex(*transferee)))
        }
        Trace::TransferToSelf => (Debug, format!("{id} is already leader. Ignored transferring leadership to self")),
        Trace::TransferStarted { term, transferee } => {
            (Info, format!("{id} [term {term}] starts to transfer leadership to {}", Hex(*transferee)))
        }
        Trace::TimeoutNowSentAtOnce { to } => {
            let to = Hex(*to);
            (Info, format!("{id} sends MsgTimeoutNow to {to} immediately as {to} already has up-to-date log"))
        }
        Trace::TimeoutNowSent { to } => {
            (Info, format!("{id} sent MsgTimeoutNow to {} after received MsgAppResp", Hex(*to)))
        }
        Trace::TransferWithoutLeader { term } => {
            (Info, format!("{id} no leader at term {term}; dropping leader transfer msg"))
        }
        Trace::TimeoutNowReceived { term, from } => {
            let (from, what) = (Hex(*from), "and starts an election to get leadership.");
            (Info, format!("{id} [term {term}] received MsgTimeoutNow from {from} {what}"))
        }
        Trace::TimeoutNowIgnored { term, role: r, from } => {
            (Debug, format!("{id} [term {term} state {}] ignored MsgTimeoutNow from {}", role(*r), Hex(*from)))
        }
        Trace::ForgetLeader { lead, term } => (Info, format!("{id} forgetting leader {} at term {term}", Hex(*lead))),
        Trace::ForgetLeaderRefused => (Error, "ignoring MsgForgetLeader due to ReadOnlyLeaseBased".to_owned()),
        _ => return None,
    })
}

fn replication_line(id: Hex, event: &Trace) -> Line {
    let about = |peer: &ReplicaId, p: &ProgressStatus| format!("{} [{}]", Hex(*peer), progress(p));
    Some(match event {
        Trace::AppendRejected { own_term, prev, from } => {
            let (index, term) = (prev.index, prev.term);
            let what = format!("rejected MsgApp [logterm: {term}, index: {index}]");
            (Debug, format!("{id} [logterm: {own_term}, index: {index}] {what} from {}", Hex(*from)))
        }
        Trace::RejectionReceived { from, index, hint } => {
            let hint = format!("hint: (index {}, term {})", hint.index, hint.term);
            (Debug, format!("{id} received MsgAppResp(rejected, {hint}) from {} for index {index}", Hex(*from)))
        }
        Trace::ProgressDecreased { peer, progress: p } => {
            (Debug, format!("{id} decreased progress of {} to [{}]", Hex(*peer), progress(p)))
        }
        Trace::NoProgress { peer } => (Debug, format!("{id} no progress available for {}", Hex(*peer))),
        Trace::Unreachable { peer, progress: p } => {
            let (to, p) = (Hex(*peer), progress(p));
            (Debug, format!("{id} failed to send message to {to} because it is unreachable [{p}]"))
        }
        Trace::ReplicationPaused { peer, progress: p } => {
            (Debug, format!("{id} paused sending replication messages to {}", about(peer, p)))
        }
        Trace::SnapshotRecovered { peer, progress: p } => {
            let what = "recovered from needing snapshot, resumed sending replication messages to";
            (Debug, format!("{id} {what} {}", about(peer, p)))
        }
        Trace::SnapshotSucceeded { peer, progress: p } => {
            (Debug, format!("{id} snapshot succeeded, resumed sending replication messages to {}", about(peer, p)))
        }
        Trace::SnapshotFailed { peer, progress: p } => {
            (Debug, format!("{id} snapshot failed, resumed sending replication messages to {}", about(peer, p)))
        }
        _ => return None,
    })
}

/// Lines without the node's id.
fn log_line(event: &Trace) -> Line {
    Some(match event {
        Trace::SnapshotToInactive { peer } => {
            (Debug, format!("ignore sending snapshot to {} since it is not recently active", Hex(*peer)))
        }
        Trace::Conflict { found, existing } => {
            let terms = format!("[existing term: {existing}, conflicting term: {}]", found.term);
            (Info, format!("found conflict at index {} {terms}", found.index))
        }
        Trace::UnstableReplaced { from } => (Info, format!("replace the unstable entries from index {from}")),
        Trace::UnstableTruncated { before } => (Info, format!("truncate the unstable entries before index {before}")),
        Trace::StableMissing { index } => (Info, format!("entry at index {index} missing from unstable log; ignoring")),
        Trace::StableIsSnapshot { index } => {
            (Info, format!("entry at index {index} matched unstable snapshot; ignoring"))
        }
        Trace::StableMismatch { reported, found } => {
            let pair = |p: &LogPos| format!("({},{})", p.index, p.term);
            let (reported, found) = (pair(reported), pair(found));
            let what = "in unstable log; ignoring";
            (Info, format!("entry at (index,term)={reported} mismatched with entry at {found} {what}"))
        }
        Trace::RestoreStarted { log, snapshot } => {
            let at = format!("[index: {}, term: {}]", snapshot.index, snapshot.term);
            (Info, format!("log [{}] starts to restore snapshot {at}", pointers(log)))
        }
        _ => return None,
    })
}

fn pointers(log: &LogPointers) -> String {
    let LogPointers { committed, applied, applying, offset, offset_in_progress, unstable } = log;
    format!(
        "committed={committed}, applied={applied}, applying={applying}, unstable.offset={offset}, \
         unstable.offsetInProgress={offset_in_progress}, len(unstable.Entries)={unstable}"
    )
}

fn snapshot_line(id: Hex, event: &Trace) -> Line {
    let at = |s: &LogPos| format!("[index: {}, term: {}]", s.index, s.term);
    let own = |commit: &Index, last: &LogPos| {
        format!("[commit: {commit}, lastindex: {}, lastterm: {}]", last.index, last.term)
    };
    Some(match event {
        Trace::SnapshotUnavailable { peer } => {
            let (to, why) = (Hex(*peer), "because snapshot is temporarily unavailable");
            (Debug, format!("{id} failed to send snapshot to {to} {why}"))
        }
        Trace::SnapshotSent { peer, first, commit, snapshot, progress: p } => {
            let (own, to) = (format!("[firstindex: {first}, commit: {commit}]"), Hex(*peer));
            (Debug, format!("{id} {own} sent snapshot{} to {to} [{}]", at(snapshot), progress(p)))
        }
        Trace::StaleCompletion { own, term } => {
            let what = "ignored entry appends from a MsgStorageAppendResp message with lower term";
            (Info, format!("{id} [term: {own}] {what} [term: {term}]"))
        }
        Trace::Restored { commit, last, snapshot } => {
            (Info, format!("{id} {} restored snapshot {}", own(commit, last), at(snapshot)))
        }
        Trace::SnapshotRestored { commit, snapshot } => {
            (Info, format!("{id} [commit: {commit}] restored snapshot {}", at(snapshot)))
        }
        Trace::FastForwarded { commit, last, snapshot } => {
            (Info, format!("{id} {} fast-forwarded commit to snapshot {}", own(commit, last), at(snapshot)))
        }
        Trace::SnapshotIgnored { commit, snapshot } => {
            (Info, format!("{id} [commit: {commit}] ignored snapshot {}", at(snapshot)))
        }
        Trace::RestoreAsLeader => (Warn, format!("{id} attempted to restore snapshot as leader; should never happen")),
        Trace::RestoreWithoutSelf { conf } => {
            let what = "attempted to restore snapshot but it is not in the ConfState";
            (Warn, format!("{id} {what} {}; should never happen", configuration(conf)))
        }
        _ => return None,
    })
}
