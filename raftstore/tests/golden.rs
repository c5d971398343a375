//! Byte forms that are on disk or on the wire, as hex files: a change of one is a new version, never another file.
//!
//! Leaves to others: records of the log store (`wal`), frames (`transport`), snapshot files (`snapshots.rs`).
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use pontoon_raft::{Append, Body, ConfState, Entry, Message};
use pontoon_raftstore::codec::{ConfContext, Order, ReplicaRecord, decode_messages, encode_messages};
use pontoon_raftstore::group_spec::GroupSpec;
use pontoon_raftstore::ids::{Generation, GroupId, Incarnation, Index, LogPos, NodeId, ReplicaId, Term};
use pontoon_raftstore::reconfigure::{Goal, WhyAborted};
use pontoon_raftstore::task::{Aside, GroupMessage, Invitation};
use std::sync::Arc;

fn hex(bytes: &[u8]) -> String {
    let line = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ") + "\n";
    bytes.chunks(16).map(line).collect()
}

fn pinned(name: &str, bytes: &[u8], golden: &str) {
    assert_eq!(hex(bytes), golden, "{name} is now:\n{}", hex(bytes));
}

fn goal(aborted: Option<WhyAborted>) -> Goal {
    let (voters, learners) = ([1, 4, 5].map(NodeId).into(), [6].map(NodeId).into());
    Goal { voters, learners, promote_lag: 300, first: ReplicaId(4), aborted }
}

#[test]
fn messages_with_asides() {
    let spec = GroupSpec {
        id: GroupId(7),
        kind: "kv".into(),
        voters: [1, 2, 3].map(NodeId).into(),
        learners: [9].map(NodeId).into(),
    };
    let invitation = Invitation { creation: Arc::new(spec.creation()), disk: Incarnation(0x1122_3344_5566_7788) };
    let entry = Entry { term: Term(5), index: Index(8), ..Entry::normal(Bytes::from_static(b"set x")) };
    let append = Append { prev: LogPos::new(Term(4), Index(7)), entries: vec![entry].into(), commit: Index(6) };
    let of = |birth, aside, to, body| {
        let message = Message { from: ReplicaId(2), to: ReplicaId(to), term: Term(5), body };
        GroupMessage { group: GroupId(7), epoch: 0, birth, aside, message }
    };
    let answer = Body::HeartbeatResp { context: Bytes::new() };
    let messages = [
        of(0, Aside::Invitation(Box::new(invitation)), 5, Body::Append(append)),
        of(spec.digest(), Aside::Removed { conf: Index(77) }, 3, answer),
    ];
    let bytes = encode_messages(&messages);
    assert_eq!(decode_messages(bytes.clone()).unwrap(), messages);
    pinned("messages with asides", &bytes, include_str!("golden/v1/messages_with_asides.hex"));
}

#[test]
fn message_that_tells_a_commit() {
    let body = Body::HeartbeatResp { context: Bytes::new() };
    let message = Message { from: ReplicaId(2), to: ReplicaId(3), term: Term(5), body };
    let aside = Aside::Committed(LogPos::new(Term(5), Index(300)));
    let messages = [GroupMessage { group: GroupId(7), epoch: 0, birth: 0x77, aside, message }];
    let bytes = encode_messages(&messages);
    assert_eq!(decode_messages(bytes.clone()).unwrap(), messages);
    pinned("message that tells a commit", &bytes, include_str!("golden/v1/message_committed.hex"));
}

#[test]
fn record_of_version_2() {
    let record = ReplicaRecord {
        group: GroupId(7),
        replica: ReplicaId(4),
        generation: Generation(2),
        applied: LogPos::new(Term(5), Index(99)),
        conf_state: ConfState {
            voters: [1, 4].map(ReplicaId).into(),
            voters_outgoing: [1, 2].map(ReplicaId).into(),
            ..ConfState::default()
        },
        members: vec![
            (ReplicaId(1), NodeId(1), Incarnation(10)),
            (ReplicaId(2), NodeId(2), Incarnation(20)),
            (ReplicaId(4), NodeId(5), Incarnation(50)),
        ],
        next_replica: ReplicaId(5),
        conf_index: Index(98),
        leaving: vec![(ReplicaId(3), NodeId(3), Incarnation(30))],
        goal: Some(Box::new(goal(Some(WhyAborted::NoProgress(NodeId(6)))))),
    };
    let bytes = record.encode();
    assert_eq!(ReplicaRecord::decode(bytes.clone()).unwrap(), record);
    pinned("record", &bytes, include_str!("golden/v1/record_2.hex"));
}

#[test]
fn contexts_of_membership_entries() {
    let named = vec![(ReplicaId(4), NodeId(5), Incarnation(0x1122_3344_5566_7788))];
    let contexts = [
        ConfContext { named: named.clone(), order: None },
        ConfContext { named, order: Some(Order::Begin(goal(None))) },
        ConfContext { named: Vec::new(), order: Some(Order::Abort(WhyAborted::Asked)) },
        ConfContext { named: Vec::new(), order: Some(Order::Seal) },
    ];
    let mut all = Vec::new();
    for context in &contexts {
        let bytes = context.encode();
        assert_eq!(&ConfContext::decode(bytes.clone()).unwrap(), context);
        all.extend(bytes);
    }
    assert_eq!(ConfContext::decode(Bytes::new()).unwrap(), ConfContext::default());
    pinned("contexts, one behind the other", &all, include_str!("golden/v1/conf_context.hex"));
}
