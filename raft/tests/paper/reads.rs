//! Linearizable reads: thesis 6.4.

use crate::group::*;
use bytes::Bytes;
use pontoon_raft::*;

fn read(group: &mut Group, n: u64, context: &'static str) -> Result<(), StepError> {
    let now = group.now;
    group.raw(n).read_index(now, Bytes::from_static(context.as_bytes()))
}

fn served(group: &mut Group, n: u64) -> Vec<(u64, String)> {
    let states = std::mem::take(&mut group.node(n).reads);
    states.into_iter().map(|r| (r.index.0, String::from_utf8_lossy(&r.context).into_owned())).collect()
}

/// 6.4, steps 2 to 4: the commit index is remembered, a round of heartbeats confirms the leadership.
#[test]
fn a_round_of_heartbeats_confirms() {
    let mut group = Group::of(3);
    group.elect(1);
    read(&mut group, 1, "r").unwrap();
    group.work(1);
    assert_eq!(served(&mut group, 1), []);
    group.settle();
    assert_eq!(served(&mut group, 1), [(2, "r".to_owned())]);
    read(&mut group, 2, "s").unwrap();
    group.settle();
    assert_eq!(served(&mut group, 2), [(2, "s".to_owned())], "a follower asks its leader");
}

/// Without a leader the caller hears so at once; what somebody forwarded here is dropped, as if it were lost.
#[test]
fn nobody_to_ask() {
    let mut group = Group::of(3);
    for role in [StateRole::Follower, StateRole::Candidate] {
        assert_eq!(group.status(1).role, role);
        assert_eq!(read(&mut group, 1, "r"), Err(StepError::ReadDropped));
        let forwarded = Body::ReadIndex { entries: vec![entry(0, 0, "f")] };
        assert_eq!(group.raw(1).step(0, message(2, 1, 0, forwarded)), Ok(()));
        group.raw(1).campaign(0);
    }
}

/// An answer names one read; any other is told and serves nobody.
#[test]
fn an_answer_holds_one_read() {
    let mut group = Group::of(3);
    group.elect(1);
    group.raw(2).take_trace();
    for count in 0..4 {
        let entries = vec![entry(0, 0, "r"); count];
        group.raw(2).step(0, message(1, 2, 1, Body::ReadIndexResp { index: Index(2), entries })).unwrap();
    }
    let bad = |entries| Trace::BadReadIndexResp { from: id(1), entries };
    assert_eq!(group.raw(2).take_trace(), [0, 2, 3].map(bad));
    group.settle();
    assert_eq!(served(&mut group, 2), [(2, "r".to_owned())]);
}

/// 6.4: a leader that was deposed without knowing serves nothing.
#[test]
fn a_deposed_leader_serves_nothing() {
    let mut group = Group::of(3);
    group.elect(1);
    group.isolate(1);
    group.elect(2);
    read(&mut group, 1, "stale").unwrap();
    group.tick_all(5);
    assert_eq!(served(&mut group, 1), []);
    group.heal();
    group.tick_all(2);
    assert_eq!(served(&mut group, 1), []);
    assert_eq!(group.node(1).dropped_reads, ["stale"], "the caller is told");
}

/// 6.4, step 1: before an entry of the own term is committed, the commit index may lag what was acknowledged (S23).
#[test]
fn a_new_leader_waits_for_its_first_commit() {
    for n in [1, 3] {
        let mut group = Group::of(n);
        group.elect(1);
        group.restart(1);
        group.node(1).stalled = true;
        group.raw(1).campaign(0);
        group.work(1);
        group.flush(1);
        group.node(1).stalled = true;
        if n > 1 {
            group.raw(1).step(0, message(2, 1, 2, Body::VoteResp { reject: false })).unwrap();
        }
        assert_eq!(group.status(1).role, StateRole::Leader);
        group.cut = vec![(2, 1), (3, 1)];
        read(&mut group, 1, "early").unwrap();
        group.settle();
        assert_eq!(served(&mut group, 1), [], "{n} replicas");
        group.heal();
        group.flush(1);
        group.tick_all(2);
        assert_eq!(served(&mut group, 1), [(3, "early".to_owned())], "{n} replicas");
    }
}

/// S23: "one voter" is not "me": a leader without a vote asks the one voter.
#[test]
fn a_leader_without_vote_asks_the_voter() {
    let mut group = Group::of(2);
    group.elect(1);
    group.raw(1).propose_conf_change(0, changes(vec![change(ConfChangeType::RemoveNode, 1)])).unwrap();
    group.settle();
    assert_eq!(group.node(1).conf.voters, ids(&[2]));
    assert_eq!(group.status(1).role, StateRole::Leader, "step-down is off");
    group.isolate(1);
    let _ = read(&mut group, 1, "r");
    group.settle();
    assert_eq!(served(&mut group, 1), []);
}

/// S24: the caller's context is no key: an old answer does not confirm a new read that repeats it.
#[test]
fn repeated_contexts_do_not_confirm_each_other() {
    let mut group = Group::of(3);
    group.elect(1);
    read(&mut group, 1, "same").unwrap();
    group.work(1);
    let answers: Vec<Message> = group
        .soup
        .drain(..)
        .filter_map(|m| match m.body {
            Body::Heartbeat { context, .. } => Some(message(m.to.0, 1, 1, Body::HeartbeatResp { context })),
            _ => None,
        })
        .collect();
    read(&mut group, 1, "same").unwrap();
    for m in &answers {
        group.raw(1).step(0, m.clone()).unwrap();
    }
    group.work(1);
    assert_eq!(served(&mut group, 1).len(), 1);
    let ahead = Body::HeartbeatResp { context: Bytes::copy_from_slice(&99u64.to_le_bytes()) };
    let short = Body::HeartbeatResp { context: Bytes::from_static(b"x") };
    for forged in [ahead, short] {
        group.raw(1).step(0, message(2, 1, 1, forged)).unwrap();
    }
    group.work(1);
    assert_eq!(served(&mut group, 1).len(), 0);
    group.settle();
    group.tick_all(1);
    assert_eq!(served(&mut group, 1).len(), 1, "periodic heartbeats repeat the position");
}

/// Raft 6: both halves of a joint configuration confirm (S33); leaving it may release what waited.
#[test]
fn both_halves_confirm() {
    let conf = ConfState { voters_outgoing: ids(&[1, 4, 5]), ..voters(&[1, 2, 3]) };
    let mut group = Group::new(&conf, &[1, 2, 3, 4, 5], |_| {});
    group.elect(1);
    group.isolate(4);
    group.isolate(5);
    read(&mut group, 1, "r").unwrap();
    group.settle();
    assert_eq!(served(&mut group, 1), []);
    group.heal();
    group.tick_all(1);
    assert_eq!(served(&mut group, 1).len(), 1);
}

fn leases() -> Group {
    let set = |c: &mut Config| (c.check_quorum, c.read_mode) = (true, ReadMode::Lease);
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], set);
    group.elect(1);
    group.tick_all(1);
    group
}

/// 6.4.1: a lease runs from when a round was sent that a quorum answered; it ends before anybody else can be elected.
#[test]
fn a_lease_ends_before_the_next_leader() {
    let mut group = leases();
    group.isolate(1);
    for tick in 2..40 {
        group.tick_all(1);
        let elected = [2, 3].into_iter().any(|n| group.status(n).role == StateRole::Leader);
        let _ = read(&mut group, 1, "r");
        group.work(1);
        let at_once = served(&mut group, 1).len() == 1;
        assert_eq!(at_once, tick < 9, "tick {tick}");
        assert!(!(at_once && elected));
    }
    assert!([2, 3].into_iter().any(|n| group.status(n).role == StateRole::Leader));
}

/// 6.4.1 and thesis 3.10: a transferee's election passes leases, so none holds from the start of a transfer, even if
/// that was given up: the message may still be under way.
#[test]
fn leases_end_with_a_transfer() {
    let mut group = leases();
    group.isolate(3);
    group.raw(1).transfer_leader(1, id(3));
    group.tick_all(12);
    assert_eq!((group.status(1).role, group.status(1).transferee), (StateRole::Leader, ReplicaId::NONE));
    read(&mut group, 1, "later").unwrap();
    group.work(1);
    assert_eq!(served(&mut group, 1), []);
    group.settle();
    assert_eq!(served(&mut group, 1).len(), 1, "by a round of heartbeats");
}

/// A replica that supports a lease does not campaign when told to by its own driver.
#[test]
fn nobody_breaks_his_own_promise() {
    let mut group = leases();
    let now = group.now;
    group.raw(2).campaign(now);
    assert_eq!(group.status(2).role, StateRole::Follower);
    group.raw(2).campaign(now + 10);
    assert_eq!(group.status(2).role, StateRole::Candidate);

    let mut without_leases = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| c.check_quorum = true);
    without_leases.elect(1);
    without_leases.raw(2).campaign(0);
    assert_eq!(without_leases.status(2).role, StateRole::Candidate, "it promised nothing");
}

/// Reads that wait are bounded; without a leader a read is refused at once.
#[test]
fn reads_are_bounded() {
    let mut group = Group::of(3);
    assert_eq!(read(&mut group, 1, "r"), Err(StepError::ReadDropped));
    group.elect(1);
    group.isolate(1);
    let mut accepted = 0;
    while read(&mut group, 1, "r").is_ok() {
        accepted += 1;
        group.work(1);
        group.soup.clear();
        assert!(accepted <= 4096);
    }
    assert_eq!(accepted, 4096);
}
