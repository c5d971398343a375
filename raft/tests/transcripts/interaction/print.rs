//! The printed forms of the original (README 4): messages, entries, Readys, progresses, configurations.
//!
//! Invariant: numbers are decimal, but ids in log lines, in `from->to` and in sets are hexadecimal.

use pontoon_raft::*;
use std::fmt::Write;

/// 4.1, with the printed messages given.
pub fn ready(ready: &Ready, messages: &[Message]) -> String {
    let mut out = String::new();
    if let Some(s) = &ready.soft_state {
        writeln!(out, "Lead:{} State:{}", s.lead, role(s.role)).unwrap();
    }
    if let Some(hs) = &ready.hard_state {
        writeln!(out, "HardState {}", hard_state(hs)).unwrap();
    }
    if !ready.read_states.is_empty() {
        let bytes = |b: &[u8]| b.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        let states: Vec<_> =
            ready.read_states.iter().map(|r| format!("{{{} [{}]}}", r.index, bytes(&r.context))).collect();
        writeln!(out, "ReadStates [{}]", states.join(" ")).unwrap();
    }
    if !ready.dropped_reads.is_empty() {
        writeln!(out, "DroppedReads {}", ready.dropped_reads.len()).unwrap();
    }
    let list = |out: &mut String, title, entries: &[Entry]| {
        if !entries.is_empty() {
            writeln!(out, "{title}:").unwrap();
            entries.iter().for_each(|e| writeln!(out, "{}", entry(e)).unwrap());
        }
    };
    list(&mut out, "Entries", &ready.entries.to_vec());
    if let Some(s) = ready.snapshot.as_ref().filter(|s| !s.is_empty()) {
        writeln!(out, "Snapshot {}", snapshot(s)).unwrap();
    }
    list(&mut out, "CommittedEntries", &ready.committed_entries.to_vec());
    if !messages.is_empty() {
        writeln!(out, "Messages:").unwrap();
        messages.iter().for_each(|m| writeln!(out, "{}", message(m, "")).unwrap());
    }
    if out.is_empty() { "<empty Ready>".to_owned() } else { format!("Ready MustSync={}:\n{out}", ready.must_sync) }
}

/// 4.2.
pub fn role(role: StateRole) -> &'static str {
    match role {
        StateRole::Follower => "StateFollower",
        StateRole::Candidate => "StateCandidate",
        StateRole::Leader => "StateLeader",
        StateRole::PreCandidate => "StatePreCandidate",
    }
}

/// 4.3.
pub fn hard_state(hs: &HardState) -> String {
    let vote = if hs.vote.is_none() { String::new() } else { format!(" Vote:{}", hs.vote) };
    format!("Term:{}{vote} Commit:{}", hs.term, hs.commit)
}

/// 4.4.
pub fn entry(e: &Entry) -> String {
    let (kind, text) = match e.kind {
        EntryKind::Normal => ("EntryNormal", quoted(&e.data)),
        EntryKind::ConfChange => ("EntryConfChange", change_text(e)),
        EntryKind::ConfChangeV2 => ("EntryConfChangeV2", change_text(e)),
    };
    let text = if text.is_empty() { text } else { format!(" {text}") };
    format!("{}/{} {kind}{text}", e.term, e.index)
}

fn change_text(e: &Entry) -> String {
    match ConfChangeV2::from_entry(e) {
        Err(bad) => bad.to_string(),
        Ok(None) => unreachable!("{e:?} is a membership change"),
        Ok(Some(change)) => change.changes.iter().map(operation).collect::<Vec<_>>().join(" "),
    }
}

fn operation(op: &ConfChangeSingle) -> String {
    match op.kind {
        ConfChangeType::AddNode => format!("v{}", op.id),
        ConfChangeType::AddLearnerNode => format!("l{}", op.id),
        ConfChangeType::RemoveNode => format!("r{}", op.id),
        ConfChangeType::UpdateNode => format!("u{}", op.id),
        ConfChangeType::Unknown(n) => format!("unknown{n}"),
    }
}

/// 4.5: Go's `%q`.
pub fn quoted(data: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in data.utf8_chunks() {
        chunk.valid().chars().for_each(|c| out += &quoted_char(c));
        chunk.invalid().iter().for_each(|b| write!(out, "\\x{b:02x}").unwrap());
    }
    out + "\""
}

fn quoted_char(c: char) -> String {
    let n = u32::from(c);
    match c {
        '"' | '\\' => format!("\\{c}"),
        '\x07' => "\\a".to_owned(),
        '\x08' => "\\b".to_owned(),
        '\x0c' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\x0b' => "\\v".to_owned(),
        ' '..='~' => c.to_string(),
        // Behind another character, a combining one counts as printable, as in Go.
        _ if n >= 0x80 && !format!("a{c}").escape_debug().to_string().contains('\\') => c.to_string(),
        _ if n < 0x80 => format!("\\x{n:02x}"),
        _ if n < 0x1_0000 => format!("\\u{n:04x}"),
        _ => format!("\\U{n:08x}"),
    }
}

/// 4.6, without final newline.
pub fn message(m: &Message, indent: &str) -> String {
    let f = fields(m);
    let mut out = format!(
        "{indent}{}->{} {} Term:{} Log:{}/{}",
        target(m.from),
        target(m.to),
        kind(m.body.kind()),
        f.term,
        f.log.term,
        f.log.index
    );
    if let Some(hint) = f.reject {
        write!(out, " Rejected (Hint: {hint})").unwrap();
    }
    if f.commit != Index::NONE {
        write!(out, " Commit:{}", f.commit).unwrap();
    }
    if !f.vote.is_none() {
        write!(out, " Vote:{}", f.vote).unwrap();
    }
    match m.entries() {
        [] => {}
        [one] => write!(out, " Entries:[{}]", entry(one)).unwrap(),
        many => {
            let lines: String = many.iter().map(|e| format!("\n{indent}  {}", entry(e))).collect();
            write!(out, " Entries:[{lines}\n{indent}]").unwrap();
        }
    }
    if let Some(s) = f.snapshot.filter(|s| !s.is_empty()) {
        write!(out, "\n{indent}  Snapshot: {}", snapshot(s)).unwrap();
    }
    if !f.responses.is_empty() {
        let inner = format!("{indent}  ");
        let lines: String = f.responses.iter().map(|r| format!("\n{}", message(r, &inner))).collect();
        write!(out, " Responses:[{lines}\n{indent}]").unwrap();
    }
    out
}

/// What a body means in terms of the original's one message struct.
#[derive(Default)]
struct Fields<'a> {
    term: Term,
    log: LogPos,
    reject: Option<Index>,
    commit: Index,
    vote: ReplicaId,
    snapshot: Option<&'a Snapshot>,
    responses: &'a [Message],
}

fn fields(m: &Message) -> Fields<'_> {
    let mut f = Fields { term: m.term, ..Fields::default() };
    match &m.body {
        Body::Append(a) => (f.log, f.commit) = (a.prev, a.commit),
        Body::AppendResp(a) => {
            f.log = LogPos::new(a.reject.unwrap_or_default().term, a.index);
            f.reject = a.reject.map(|hint| hint.index);
        }
        Body::Vote(v) | Body::PreVote(v) => f.log = v.last,
        Body::VoteResp { reject } | Body::PreVoteResp { reject } | Body::SnapStatus { reject } => {
            f.reject = reject.then_some(Index::NONE);
        }
        Body::Snap { snapshot } => f.snapshot = Some(snapshot),
        Body::Heartbeat { commit, .. } => f.commit = *commit,
        Body::ReadIndexResp { index, .. } => f.log.index = *index,
        Body::StorageAppend(a) => {
            let hs = a.hard_state.unwrap_or_default();
            (f.term, f.commit, f.vote) = (hs.term, hs.commit, hs.vote);
            (f.snapshot, f.responses) = (a.snapshot.as_ref(), &a.responses);
        }
        Body::StorageAppendResp { last, snapshot } => (f.log, f.snapshot) = (*last, snapshot.as_deref()),
        Body::StorageApply { responses, .. } => f.responses = responses,
        _ => {}
    }
    f
}

fn target(id: ReplicaId) -> String {
    match id {
        ReplicaId::NONE => "None".to_owned(),
        ReplicaId::APPEND_THREAD => "AppendThread".to_owned(),
        ReplicaId::APPLY_THREAD => "ApplyThread".to_owned(),
        id => format!("{:x}", id.0),
    }
}

/// Names of the message types in the original's numbering.
pub const KINDS: [(MessageKind, &str); 24] = [
    (MessageKind::Hup, "MsgHup"),
    (MessageKind::Beat, "MsgBeat"),
    (MessageKind::Propose, "MsgProp"),
    (MessageKind::Append, "MsgApp"),
    (MessageKind::AppendResp, "MsgAppResp"),
    (MessageKind::Vote, "MsgVote"),
    (MessageKind::VoteResp, "MsgVoteResp"),
    (MessageKind::Snap, "MsgSnap"),
    (MessageKind::Heartbeat, "MsgHeartbeat"),
    (MessageKind::HeartbeatResp, "MsgHeartbeatResp"),
    (MessageKind::Unreachable, "MsgUnreachable"),
    (MessageKind::SnapStatus, "MsgSnapStatus"),
    (MessageKind::CheckQuorum, "MsgCheckQuorum"),
    (MessageKind::TransferLeader, "MsgTransferLeader"),
    (MessageKind::TimeoutNow, "MsgTimeoutNow"),
    (MessageKind::ReadIndex, "MsgReadIndex"),
    (MessageKind::ReadIndexResp, "MsgReadIndexResp"),
    (MessageKind::PreVote, "MsgPreVote"),
    (MessageKind::PreVoteResp, "MsgPreVoteResp"),
    (MessageKind::StorageAppend, "MsgStorageAppend"),
    (MessageKind::StorageAppendResp, "MsgStorageAppendResp"),
    (MessageKind::StorageApply, "MsgStorageApply"),
    (MessageKind::StorageApplyResp, "MsgStorageApplyResp"),
    (MessageKind::ForgetLeader, "MsgForgetLeader"),
];

/// The name of a message type.
pub fn kind(kind: MessageKind) -> &'static str {
    KINDS.iter().find(|(k, _)| *k == kind).expect("all are listed").1
}

/// 4.7.
pub fn snapshot(s: &Snapshot) -> String {
    format!("Index:{} Term:{} ConfState:{}", s.meta.index, s.meta.term, conf_state(&s.meta.conf_state))
}

fn conf_state(cs: &ConfState) -> String {
    let ids = |ids: &[ReplicaId]| ids.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(" ");
    format!(
        "Voters:[{}] VotersOutgoing:[{}] Learners:[{}] LearnersNext:[{}] AutoLeave:{}",
        ids(&cs.voters),
        ids(&cs.voters_outgoing),
        ids(&cs.learners),
        ids(&cs.learners_next),
        cs.auto_leave
    )
}

/// 4.8.
pub fn progress(p: &ProgressStatus) -> String {
    let state = match p.state {
        FlowState::Probe => "StateProbe",
        FlowState::Replicate => "StateReplicate",
        FlowState::Snapshot => "StateSnapshot",
    };
    let mut out = format!("{state} match={} next={}", p.matched, p.next);
    for (holds, text) in [(p.learner, " learner"), (p.paused, " paused")] {
        out += if holds { text } else { "" };
    }
    if p.pending_snapshot != Index::NONE {
        write!(out, " pendingSnap={}", p.pending_snapshot).unwrap();
    }
    out += if p.active { "" } else { " inactive" };
    if p.inflight > 0 {
        write!(out, " inflight={}{}", p.inflight, if p.full { "[full]" } else { "" }).unwrap();
    }
    out
}

/// 4.9.
pub fn configuration(cs: &ConfState) -> String {
    let mut out = format!("voters={}", set(&cs.voters));
    if !cs.voters_outgoing.is_empty() {
        write!(out, "&&{}", set(&cs.voters_outgoing)).unwrap();
    }
    for (name, ids) in [("learners", &cs.learners), ("learners_next", &cs.learners_next)] {
        if !ids.is_empty() {
            write!(out, " {name}={}", set(ids)).unwrap();
        }
    }
    out + if cs.auto_leave { " autoleave" } else { "" }
}

fn set(ids: &[ReplicaId]) -> String {
    format!("({})", ids.iter().map(|id| format!("{:x}", id.0)).collect::<Vec<_>>().join(" "))
}

/// 4.10, of a membership change in a log line.
pub fn change(cc: &ConfChangeV2) -> String {
    let transition = match cc.transition {
        ConfChangeTransition::Auto => "ConfChangeTransitionAuto".to_owned(),
        ConfChangeTransition::JointImplicit => "ConfChangeTransitionJointImplicit".to_owned(),
        ConfChangeTransition::JointExplicit => "ConfChangeTransitionJointExplicit".to_owned(),
        ConfChangeTransition::Unknown(n) => n.to_string(),
    };
    let mut out = format!("transition:{transition}");
    for op in &cc.changes {
        let kind = match op.kind {
            ConfChangeType::AddNode => "ConfChangeAddNode".to_owned(),
            ConfChangeType::RemoveNode => "ConfChangeRemoveNode".to_owned(),
            ConfChangeType::UpdateNode => "ConfChangeUpdateNode".to_owned(),
            ConfChangeType::AddLearnerNode => "ConfChangeAddLearnerNode".to_owned(),
            ConfChangeType::Unknown(n) => n.to_string(),
        };
        write!(out, " changes:{{type:{kind} node_id:{}}}", op.id).unwrap();
    }
    if !cc.context.is_empty() {
        write!(out, " context:{}", quoted(&cc.context)).unwrap();
    }
    out
}

#[test]
fn quoting() {
    assert_eq!(quoted("a\"\\\n\x01é\u{a0}\u{1f600}\u{301}".as_bytes()), "\"a\\\"\\\\\\n\\x01é\\u00a0😀\u{301}\"");
    assert_eq!(quoted(b"\xff\x80z\x7f"), "\"\\xff\\x80z\\x7f\"");
    assert_eq!(quoted("\u{e0001}".as_bytes()), "\"\\U000e0001\"");
}
