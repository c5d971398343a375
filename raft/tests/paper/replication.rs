//! Log replication: Raft 5.3 and 5.4; what may leave before the disk is done (thesis 10.2.1).

use crate::group::*;
use bytes::Bytes;
use pontoon_raft::*;

/// A follower of term `term` whose disk holds these entries behind (1, 1).
fn follower(log: &[Entry], term: u64) -> RawNode<MemStorage> {
    let mut storage = storage(&voters(&[1, 2, 3]));
    storage.append(&log.to_vec().into());
    storage.set_hard_state(HardState { term: Term(term), vote: ReplicaId::NONE, commit: Index(1) });
    RawNode::new(&config(1), storage, 0).unwrap()
}

fn append(term: u64, prev: LogPos, entries: &[Entry], commit: u64) -> Message {
    message(2, 1, term, Body::Append(Append { prev, entries: entries.to_vec().into(), commit: Index(commit) }))
}

fn persist(raw: &mut RawNode<MemStorage>) -> Vec<AppendResp> {
    let mut out = Vec::new();
    while raw.has_ready() {
        let ready = raw.ready();
        raw.storage_mut().append(&ready.entries);
        raw.on_persisted(0, ready.number, &mut out);
    }
    let ack = |m: Message| match m.body {
        Body::AppendResp(ack) => Some(ack),
        _ => None,
    };
    out.into_iter().filter_map(ack).collect()
}

fn acked(index: u64) -> AppendResp {
    AppendResp { index: Index(index), reject: None }
}

fn terms(raw: &RawNode<MemStorage>) -> Vec<u64> {
    raw.storage().all_entries().iter().map(|e| e.term.0).collect()
}

/// 5.3, figure 7: a new leader makes the followers' logs its own.
#[test]
fn diverged_logs_are_repaired() {
    let cases: [&[u64]; 6] = [
        &[1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 4],
        &[1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 4, 4, 4, 4],
        &[1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let log = |terms: &[u64]| -> Vec<Entry> { terms.iter().zip(2..).map(|(t, i)| entry(*t, i, "x")).collect() };
    let lead = [1u64, 1, 4, 4, 5, 5, 6, 6, 6];
    for other in cases {
        let mut group = Group::of(3);
        for (n, terms) in [(1, &lead[..]), (2, other)] {
            let mut disk = storage(&voters(&[1, 2, 3]));
            disk.append(&log(terms).into());
            disk.set_hard_state(HardState { term: Term(7), vote: ReplicaId::NONE, commit: Index(1) });
            *group.node(n) = Node::new(config(n), disk, 0);
        }
        group.cut = vec![(1, 3), (3, 1)];
        // Replica 3 has an empty log and gives its vote; replica 2 may refuse.
        group.raw(1).campaign(0);
        group.raw(1).step(0, message(3, 1, 8, Body::VoteResp { reject: false })).unwrap();
        group.settle();
        assert_eq!(group.status(1).role, StateRole::Leader);
        let mut want = lead.to_vec();
        want.push(8);
        assert_eq!(terms(group.raw(2)), want, "from {other:?}");
    }
}

/// 5.4.2, figure 8: an entry of an earlier term is not committed by counting; one of the own term takes it along.
#[test]
fn only_own_terms_commit_by_counting() {
    let mut raw = follower(&[entry(2, 2, "old")], 2);
    raw.campaign(0);
    raw.step(0, message(2, 1, 3, Body::VoteResp { reject: false })).unwrap();
    let _ = persist(&mut raw);
    assert_eq!(raw.basic_status().role, StateRole::Leader);
    raw.step(0, message(2, 1, 3, Body::AppendResp(acked(2)))).unwrap();
    assert_eq!(raw.basic_status().commit, Index(1));
    raw.step(0, message(2, 1, 3, Body::AppendResp(acked(3)))).unwrap();
    assert_eq!(raw.basic_status().commit, Index(3));
}

/// 5.3: only a conflict truncates; a late, shorter message does not (S4), and commit is cut to what it proved (S3).
#[test]
fn late_appends_do_not_truncate() {
    let mut raw = follower(&[], 1);
    let three = [entry(1, 2, "a"), entry(1, 3, "b"), entry(1, 4, "c")];
    raw.step(0, append(1, pos(1, 1), &three, 1)).unwrap();
    raw.step(0, append(1, pos(1, 1), &three[..1], 9)).unwrap();
    assert_eq!(raw.basic_status().commit, Index(2));
    assert_eq!(persist(&mut raw), [acked(4), acked(2)]);
    assert_eq!(terms(&raw), [1, 1, 1]);
    raw.step(0, append(2, pos(1, 2), &[entry(2, 3, "d")], 2)).unwrap();
    assert_eq!(persist(&mut raw), [acked(3)]);
    assert_eq!(terms(&raw), [1, 2]);
}

/// S5 and 7.2: below the commit index an append is answered with it; a contradiction there is proof of lost data.
#[test]
fn committed_entries_are_not_touched() {
    let mut raw = follower(&[entry(1, 2, "a"), entry(1, 3, "b")], 1);
    raw.step(0, append(1, pos(1, 3), &[], 3)).unwrap();
    raw.step(0, append(1, pos(1, 1), &[entry(1, 2, "a")], 3)).unwrap();
    assert_eq!(persist(&mut raw), [acked(3), acked(3)]);
    let mut raw = follower(&[entry(1, 2, "a"), entry(1, 3, "b")], 1);
    raw.step(0, append(1, pos(1, 2), &[], 2)).unwrap();
    raw.step(0, append(2, pos(1, 2), &[entry(2, 3, "x")], 3)).unwrap();
    assert_eq!(raw.basic_status().commit, Index(3));
    let forged = append(2, pos(2, 3), &[], 9);
    raw.step(0, forged).unwrap();
    assert_eq!(raw.basic_status().commit, Index(3));
}

/// S41: commit indexes beyond the log prove that it lost something. Nothing changes, nothing is truncated.
#[test]
fn lost_data_is_noticed() {
    let mut raw = follower(&[entry(1, 2, "a")], 1);
    let beat = message(2, 1, 1, Body::Heartbeat { commit: Index(9), context: Bytes::new() });
    let lost = StepError::CommitOutsideLog { commit: Index(9), last: Index(2) };
    assert_eq!(raw.step(0, beat), Err(lost));
    assert!(lost.is_corruption());
    assert_eq!(raw.basic_status().commit, Index(1));

    let mut disk = storage(&voters(&[1]));
    disk.set_hard_state(HardState { term: Term(3), vote: id(1), commit: Index(7) });
    let start = RawNode::new(&config(1), disk, 0).map(|_| ());
    let want = StartError::CommitOutsideLog { commit: Index(7), compacted: Index(1), last: Index(1) };
    assert_eq!(start, Err(want));
}

/// Thesis 10.2.1: the leader sends before its own disk is done, but counts itself only afterwards.
#[test]
fn the_leader_counts_itself_after_its_own_sync() {
    let mut group = Group::of(3);
    group.elect(1);
    let before = group.status(1).commit;
    group.node(1).stalled = true;
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.settle();
    assert_eq!(group.status(2).last_index, before.next(), "it was sent");
    assert_eq!(group.status(1).commit, before, "one durable copy is no quorum");
    group.flush(1);
    group.settle();
    assert_eq!(group.status(1).commit, before.next());
}

/// Thesis 10.2.1: a follower's ack waits for its disk, and for everything that is still under way (S7). Commit may
/// run ahead of the own disk; applying may not (S9).
#[test]
fn acks_wait_for_everything_under_way() {
    let mut group = Group::of(3);
    group.elect(1);
    group.node(2).stalled = true;
    group.propose(1, "a").unwrap();
    group.settle();
    group.propose(1, "b").unwrap();
    group.settle();
    let status = group.status(2);
    assert_eq!(status.commit, status.last_index);
    assert_eq!(group.progress(2, 1).matched, Index(2));
    assert_eq!(group.data(2), Vec::<String>::new());
    group.flush(2);
    group.settle();
    assert_eq!(group.progress(2, 1).matched, Index(4));
    assert_eq!(group.data(2), ["a", "b"]);
}

/// raft-core 14.4 (ABA): a completion counts only in the term in which its write was handed out.
#[test]
pub(crate) fn completions_of_an_earlier_term_do_not_count() {
    let mut raw = follower(&[], 1);
    let (a, b) = (entry(1, 2, "a"), entry(2, 2, "b"));
    raw.step(0, append(1, pos(1, 1), std::slice::from_ref(&a), 1)).unwrap();
    let first = raw.ready();
    raw.step(0, append(2, pos(1, 1), &[b], 1)).unwrap();
    let second = raw.ready();
    // The third leader had voted for nobody and holds the first one's entry.
    raw.step(0, append(3, pos(1, 1), std::slice::from_ref(&a), 1)).unwrap();
    let third = raw.ready();
    let mut out = Vec::new();
    raw.on_persisted(0, first.number, &mut out);
    assert!(raw.take_trace().contains(&Trace::StaleCompletion { own: Term(3), term: Term(1) }));
    raw.step(0, append(3, pos(1, 2), &[], 2)).unwrap();
    assert!(raw.ready().committed_entries.is_empty(), "storage will still pass through term 2's entry");
    raw.storage_mut().append(&second.entries);
    raw.storage_mut().append(&third.entries);
    raw.on_persisted(0, third.number, &mut out);
    assert_eq!(raw.ready().committed_entries, vec![a].into());
}

/// One report covers all earlier ones; each write's acks leave once, in order.
#[test]
fn reports_are_cumulative() {
    let mut raw = follower(&[], 1);
    let mut numbers = Vec::new();
    for i in 2..5 {
        raw.step(0, append(1, pos(1, i - 1), &[entry(1, i, "x")], 1)).unwrap();
        let ready = raw.ready();
        assert!(ready.awaits_persist && ready.messages.is_empty());
        raw.storage_mut().append(&ready.entries);
        numbers.push(ready.number);
    }
    let mut out = Vec::new();
    raw.on_persisted(0, numbers[1], &mut out);
    assert_eq!(out.len(), 2);
    raw.on_persisted(0, numbers[0], &mut out);
    assert_eq!(out.len(), 2);
    raw.on_persisted(0, numbers[2], &mut out);
    assert_eq!(out.len(), 3);
    assert_eq!(raw.basic_status().last_index, Index(4));
}

/// The synchronous mode's `Ready`s must not overlap.
#[test]
#[should_panic(expected = "waits for advance")]
fn two_readies_without_advance() {
    let config = Config { async_storage_writes: false, ..config(1) };
    let mut raw = RawNode::new(&config, storage(&voters(&[1])), 0).unwrap();
    raw.campaign(0);
    let _ = raw.ready();
    let _ = raw.ready();
}

/// A proposal's position is known at once; a batch is consecutive; a follower does not know.
#[test]
fn proposals_learn_their_position() {
    let mut group = Group::of(3);
    assert_eq!(group.propose(1, "a"), Err(StepError::ProposalDropped));
    group.elect(1);
    assert_eq!(group.propose(1, "a"), Ok(Some(pos(1, 3))));
    let batch = vec![Bytes::from_static(b"b"), Bytes::from_static(b"c")];
    assert_eq!(group.raw(1).propose_batch(0, batch), Ok(Some(pos(1, 4))));
    assert_eq!(group.propose(2, "d"), Ok(None));
    group.settle();
    assert_eq!(group.data(3), ["a", "b", "c", "d"]);
}
