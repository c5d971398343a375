//! `step`: a message that no node sent, or sent to somebody else, or long ago.
//!
//! `step <to> <MsgType> from=<id> [term=<n>] [log=<term>/<index>] [commit=<n>] [hint=<term>/<index>] [reject=<bool>]
//! [entries=(<term>/<index>,...)] [data=(<text>,...)]`: what is not given is 0, false or none. `hint` makes a rejection of a
//! MsgAppResp, `data` are the contents of a proposal or the contexts of a read. Nothing is printed but log lines and the error.
//! Invariant: the message goes the way of every other one, `RawNode::step`.

use super::deliver::kind_named;
use super::{Env, Outcome};
use crate::datadriven::{Arg, Directive};
use bytes::Bytes;
use pontoon_raft::*;

impl Env {
    pub(super) fn step(&mut self, d: &Directive) -> Outcome {
        let to = d.key(0);
        let (from, term) = (ReplicaId(number(d, "from")), Term(number(d, "term")));
        let m = Message { from, to: ReplicaId(to), term, body: body(d, kind_named(&d.key::<String>(1))) };
        self.call(to, |node, now| node.step(now, m)).map_err(|e| e.to_string())
    }
}

fn body(d: &Directive, kind: MessageKind) -> Body {
    let (last, commit) = (pos(d, "log").unwrap_or_default(), Index(number(d, "commit")));
    let reject = d.arg("reject").is_some_and(Arg::scan_bool);
    let request = VoteRequest { last, transfer: false };
    match kind {
        MessageKind::Propose => Body::Propose { entries: data(d) },
        MessageKind::Append => Body::Append(Append { prev: last, entries: entries(d).into(), commit }),
        MessageKind::AppendResp => Body::AppendResp(AppendResp { index: last.index, reject: pos(d, "hint") }),
        MessageKind::Heartbeat => Body::Heartbeat { commit, context: Bytes::new() },
        MessageKind::Vote => Body::Vote(request),
        MessageKind::PreVote => Body::PreVote(request),
        MessageKind::VoteResp => Body::VoteResp { reject },
        MessageKind::PreVoteResp => Body::PreVoteResp { reject },
        MessageKind::ReadIndex => Body::ReadIndex { entries: data(d) },
        MessageKind::ReadIndexResp => Body::ReadIndexResp { index: last.index, entries: data(d) },
        MessageKind::Hup => Body::Hup,
        other => panic!("step takes no {other:?}"),
    }
}

fn number(d: &Directive, key: &str) -> u64 {
    d.arg(key).map_or(0, Arg::scan)
}

fn pos(d: &Directive, key: &str) -> Option<LogPos> {
    d.arg(key).map(|arg| parse_pos(&arg.scan::<String>()))
}

fn parse_pos(text: &str) -> LogPos {
    let (term, index) = text.split_once('/').unwrap_or_else(|| panic!("not term/index: {text:?}"));
    LogPos::new(Term(term.parse().unwrap()), Index(index.parse().unwrap()))
}

fn entries(d: &Directive) -> Vec<Entry> {
    let at = |text: &String| {
        let LogPos { term, index } = parse_pos(text);
        Entry { term, index, ..Entry::default() }
    };
    d.arg("entries").map(|arg| arg.values.iter().map(at).collect()).unwrap_or_default()
}

fn data(d: &Directive) -> Vec<Entry> {
    let entry = |text: &String| Entry::normal(Bytes::from(text.clone()));
    d.arg("data").map(|arg| arg.values.iter().map(entry).collect()).unwrap_or_default()
}
