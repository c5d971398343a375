//! What bounds memory and messages (raft-core 13), and entries that are not in memory.

use crate::group::*;
use bytes::Bytes;
use pontoon_raft::*;
use std::cell::Cell;

fn appends(group: &mut Group, n: u64) -> Vec<Append> {
    group.work(n);
    let take = |m: Message| match m.body {
        Body::Append(a) if m.to == id(2) => Some(a),
        _ => None,
    };
    group.soup.drain(..).filter_map(take).collect()
}

fn ack(group: &mut Group, index: u64) {
    let answer = AppendResp { index: Index(index), reject: None };
    group.raw(1).step(0, message(2, 1, 1, Body::AppendResp(answer))).unwrap();
}

/// The window counts payload bytes, may be crossed by one message, and opens with acks.
#[test]
fn bytes_in_flight_are_bounded() {
    let set = |c: &mut Config| (c.max_size_per_msg, c.max_inflight_bytes) = (8, 8);
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], set);
    group.elect(1);
    group.isolate(2);
    for data in ["12345", "67890", "abcde"] {
        group.propose(1, data).unwrap();
    }
    let sent = appends(&mut group, 1);
    let counts: Vec<usize> = sent.iter().map(|a| a.entries.len()).collect();
    assert_eq!(counts, [1, 1], "the second crosses 8 bytes, then the window is full");
    assert!(group.progress(2, 1).full);
    ack(&mut group, 3);
    let counts: Vec<usize> = appends(&mut group, 1).iter().map(|a| a.entries.len()).collect();
    assert!(counts.contains(&1), "{counts:?}");
}

/// S13: when everything in flight was lost, a heartbeat's answer brings an empty append, whose refusal heals.
/// S12: going back to probing forgets the bytes that were in flight.
#[test]
fn a_full_window_recovers_from_loss() {
    let set = |c: &mut Config| (c.max_size_per_msg, c.max_inflight_bytes) = (8, 8);
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], set);
    group.elect(1);
    group.isolate(2);
    for data in ["12345", "67890", "abcde", "fghij"] {
        group.propose(1, data).unwrap();
    }
    group.settle();
    assert!(group.progress(2, 1).full);
    group.heal();
    group.tick_all(3);
    assert_eq!(group.data(2), ["12345", "67890", "abcde", "fghij"]);
    assert_eq!(group.progress(2, 1).inflight, 0);
}

/// raft-core 8.1: an append without entries does not pause a probe; one with entries does.
#[test]
fn an_empty_probe_does_not_pause() {
    let mut group = Group::of(3);
    group.elect(1);
    group.raw(1).report_unreachable(0, id(2));
    assert!(!group.progress(2, 1).paused);
    group.raw(1).step(0, message(2, 1, 1, Body::HeartbeatResp { context: Bytes::new() })).unwrap();
    assert_eq!(appends(&mut group, 1).len(), 1);
    assert!(!group.progress(2, 1).paused);
    group.propose(1, "a").unwrap();
    assert_eq!(appends(&mut group, 1).len(), 1);
    assert!(group.progress(2, 1).paused);
    ack(&mut group, 2);
    assert_eq!(group.progress(2, 1).state, FlowState::Replicate, "an ack equal to match frees a probe (S16)");
}

/// S11: payload that nobody confirmed is bounded; the first and the empty always fit; applying gives it back.
#[test]
fn uncommitted_bytes_are_bounded() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| c.max_uncommitted_size = 4);
    group.elect(1);
    group.isolate(1);
    assert!(group.propose(1, "larger than four").is_ok());
    assert_eq!(group.propose(1, "x"), Err(StepError::ProposalDropped));
    assert!(group.propose(1, "").is_ok());
    // A membership change that passes its own checks and then does not fit leaves nothing behind.
    let add = changes(vec![change(ConfChangeType::AddLearnerNode, 4)]);
    assert_eq!(group.raw(1).propose_conf_change(0, add.clone()), Err(StepError::ProposalDropped));
    group.heal();
    group.tick_all(2);
    assert!(group.propose(1, "x").is_ok());
    group.settle();
    group.raw(1).propose_conf_change(0, add).unwrap();
    group.settle();
    assert_eq!(group.node(1).conf.learners, ids(&[4]));
}

/// raft-core 13.2: what was handed out for applying and not reported counts over all `Ready`s.
#[test]
fn committed_entries_come_in_pages() {
    let config = Config { max_committed_size_per_ready: 20, ..config(1) };
    let mut raw = RawNode::new(&config, storage(&voters(&[1])), 0).unwrap();
    raw.campaign(0);
    let mut handed = Vec::new();
    let turn = |raw: &mut RawNode<MemStorage>, out: &mut Vec<u64>| {
        while raw.has_ready() {
            let ready = raw.ready();
            raw.storage_mut().append(&ready.entries);
            raw.on_persisted(0, ready.number, &mut Vec::new());
            out.extend(ready.committed_entries.iter().map(|e| e.index.0));
        }
    };
    turn(&mut raw, &mut handed);
    assert_eq!(handed, [2]);
    raw.on_applied(0, Index(2));
    raw.propose_batch(0, vec![Bytes::from_static(b"123"); 4]).unwrap();
    turn(&mut raw, &mut handed);
    assert_eq!(handed, [2, 3, 4], "9 bytes each");
    raw.on_applied(0, Index(3));
    assert!(!raw.has_ready(), "a page is given back as a whole");
    raw.on_applied(0, Index(4));
    turn(&mut raw, &mut handed);
    assert_eq!(handed, [2, 3, 4, 5, 6]);
}

/// A limit of 0 means one entry at a time; the original dies of it.
#[test]
fn a_limit_of_zero_is_one_entry() {
    let set = |c: &mut Config| (c.max_size_per_msg, c.max_committed_size_per_ready) = (0, 0);
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], set);
    group.elect(1);
    for data in ["a", "b", "c"] {
        group.propose(1, data).unwrap();
    }
    group.settle();
    assert_eq!(group.data(2), ["a", "b", "c"]);
}

/// A log whose entries may be on disk only.
struct Cold {
    inner: MemStorage,
    cold: Cell<bool>,
}

impl Storage for Cold {
    fn initial_state(&self) -> InitialState {
        self.inner.initial_state()
    }
    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        if self.cold.get() { Err(StorageError::Uncached) } else { self.inner.entries(low, high, max_bytes, page) }
    }
    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.inner.term(index)
    }
    fn first_index(&self) -> Index {
        self.inner.first_index()
    }
    fn last_index(&self) -> Index {
        self.inner.last_index()
    }
    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError> {
        self.inner.snapshot(to)
    }
}

/// `Uncached` sends nothing, never a snapshot, fails nothing, and blocks an election only until applied.
#[test]
fn cold_entries_are_fetched() {
    let mut disk = storage(&voters(&[1, 2, 3]));
    disk.append(&vec![entry(1, 2, "a"), entry(1, 3, "b")].into());
    disk.set_hard_state(HardState { term: Term(1), vote: ReplicaId::NONE, commit: Index(3) });
    let mut raw = RawNode::new(&config(1), Cold { inner: disk, cold: Cell::new(true) }, 0).unwrap();
    assert!(raw.has_ready());
    assert!(raw.ready().committed_entries.is_empty());
    assert_eq!(raw.take_fetches(), [Fetch { to: id(1), low: Index(2), high: Index(4), max_bytes: 1 << 20 }]);
    assert!(!raw.has_ready(), "no busy waiting");
    raw.campaign(0);
    assert_eq!(raw.basic_status().role, StateRole::Follower, "what cannot be read may be a membership change");

    raw.storage_mut().cold.set(false);
    raw.resume_append(0, id(1));
    assert_eq!(raw.ready().committed_entries.len(), 2);
    raw.on_applied(0, Index(3));
    raw.campaign(0);
    raw.storage_mut().cold.set(true);
    let vote = raw.ready();
    raw.on_persisted(0, vote.number, &mut Vec::new());
    raw.step(0, message(2, 1, 2, Body::VoteResp { reject: false })).unwrap();
    assert_eq!(raw.basic_status().role, StateRole::Leader);
    let _ = raw.ready();
    let refused = AppendResp { index: Index(3), reject: Some(pos(1, 1)) };
    raw.step(0, message(2, 1, 2, Body::AppendResp(refused))).unwrap();
    assert!(!raw.has_ready(), "nothing to send");
    assert_eq!(raw.take_fetches()[0].to, id(2));
    raw.storage_mut().cold.set(false);
    raw.resume_append(0, id(2));
    let ready = raw.ready();
    assert!(matches!(&ready.messages[..], [Message { body: Body::Append(a), .. }] if a.entries.len() == 3));
}

/// Nonsense from outside is refused before it reaches anything (S40 and architecture's "no panic on input").
#[test]
fn malformed_messages_are_refused() {
    let mut group = Group::of(3);
    let append = |prev, entries: Vec<Entry>| Body::Append(Append { prev, entries: entries.into(), commit: Index(1) });
    let cases = [
        message(2, 9, 1, append(pos(1, 1), vec![])),
        message(0, 1, 1, append(pos(1, 1), vec![])),
        message(2, 1, 0, append(pos(1, 1), vec![])),
        message(2, 1, u64::MAX, append(pos(1, 1), vec![])),
        message(2, 1, 1, append(pos(1, 1), vec![entry(1, 3, "gap")])),
        message(2, 1, 1, append(pos(1, 1), vec![entry(2, 2, "future")])),
        message(2, 1, 1, append(pos(1, u64::MAX), vec![])),
        message(2, 1, 0, Body::Vote(VoteRequest { last: pos(1, 1), transfer: false })),
        message(2, 1, 0, Body::Propose { entries: vec![] }),
        message(2, 1, 0, Body::ReadIndex { entries: vec![] }),
    ];
    for m in cases {
        let refused = group.raw(1).step(0, m.clone());
        assert!(matches!(refused, Err(StepError::Malformed(_))), "{m:?}: {refused:?}");
    }
    assert_eq!(group.raw(1).step(0, message(2, 1, 0, Body::Hup)), Err(StepError::LocalMessage));
    assert!(!group.raw(1).has_ready());
}
