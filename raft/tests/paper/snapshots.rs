//! Snapshots: Raft 7.

use crate::group::*;
use pontoon_raft::*;

/// A group of three whose replica 3 missed what 1 has compacted.
fn lagging() -> Group {
    let mut group = Group::of(3);
    group.elect(1);
    group.isolate(3);
    for data in ["a", "b", "c"] {
        group.propose(1, data).unwrap();
    }
    group.settle();
    group.compact(1);
    group.heal();
    let now = group.now;
    group.raw(1).report_unreachable(now, id(3));
    group
}

/// 7: a follower that needs discarded entries gets the snapshot, then the log behind it.
#[test]
fn a_lagging_follower_is_restored() {
    let mut group = lagging();
    group.tick_all(2);
    assert_eq!(group.raw(3).storage().first_index(), Index(6));
    group.propose(1, "d").unwrap();
    group.settle();
    assert_eq!(group.data(3), ["d"]);
    assert_eq!(group.progress(3, 1).state, FlowState::Replicate);
    let status = group.status(3);
    assert_eq!((status.applied, status.commit), (Index(6), Index(6)));
}

/// S38 and 11.2: until the snapshot is installed nothing is acked, applied or campaigned for.
#[test]
fn an_installing_replica_waits() {
    let mut group = lagging();
    group.node(3).stalled = true;
    group.tick_all(2);
    assert_eq!(group.progress(3, 1).state, FlowState::Snapshot);
    let now = group.now;
    assert_eq!(group.raw(3).next_deadline(), Tick::MAX);
    group.raw(3).campaign(now);
    assert_eq!(group.status(3).role, StateRole::Follower);
    group.flush(3);
    group.settle();
    assert_eq!(group.progress(3, 1).state, FlowState::Replicate);
    assert!(group.raw(3).next_deadline() < Tick::MAX);
}

/// S18: a snapshot that did not arrive is probed behind what is known; one that did, behind it. Both wait.
#[test]
fn reports_end_the_snapshot_state() {
    for (ok, next) in [(false, 3), (true, 6)] {
        let mut group = lagging();
        group.node(3).stalled = true;
        group.tick_all(2);
        let now = group.now;
        group.raw(1).report_snapshot(now, id(3), ok);
        let progress = group.progress(3, 1);
        assert_eq!((progress.state, progress.next.0, progress.paused), (FlowState::Probe, next, true));
    }
}

/// S37: a snapshot that the log covers only moves the commit index.
#[test]
fn a_covered_snapshot_keeps_the_log() {
    let mut disk = storage(&voters(&[1, 2, 3]));
    disk.append(&vec![entry(1, 2, "a"), entry(1, 3, "b")].into());
    disk.set_hard_state(HardState { term: Term(1), vote: ReplicaId::NONE, commit: Index(1) });
    let mut raw = RawNode::new(&config(1), disk, 0).unwrap();
    let meta = SnapshotMeta { index: Index(2), term: Term(1), conf_state: voters(&[1, 2, 3]) };
    let snapshot = Box::new(Snapshot { meta, ..Snapshot::default() });
    raw.step(0, message(2, 1, 1, Body::Snap { snapshot })).unwrap();
    let status = raw.basic_status();
    assert_eq!((status.commit, status.last_index), (Index(2), Index(3)));
    assert!(raw.ready().snapshot.is_none());
}

/// S36: a snapshot without this replica, or with a configuration that contradicts itself, changes nothing.
#[test]
fn a_foreign_snapshot_is_refused() {
    let cases = [
        (voters(&[2, 3]), Ok(())),
        (ConfState::new(ids(&[1, 2]), ids(&[2])), Err(StepError::BadSnapshot)),
        (ConfState { auto_leave: true, ..voters(&[1, 2]) }, Err(StepError::BadSnapshot)),
    ];
    for (conf_state, want) in cases {
        let mut raw = RawNode::new(&config(1), storage(&voters(&[1, 2, 3])), 0).unwrap();
        let meta = SnapshotMeta { index: Index(9), term: Term(1), conf_state };
        let snapshot = Box::new(Snapshot { meta, ..Snapshot::default() });
        assert_eq!(raw.step(0, message(2, 1, 1, Body::Snap { snapshot })), want);
        assert_eq!(raw.basic_status().last_index, Index(1));
        assert!(raw.ready().snapshot.is_none());
    }
}

/// A member that is silent for a whole check gets no snapshot; it is sent once it answers.
#[test]
fn silent_members_get_no_snapshot() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| (c.check_quorum, c.pre_vote) = (true, true));
    group.elect(1);
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.tick_all(20);
    group.compact(1);
    let now = group.now;
    group.raw(1).report_unreachable(now, id(3));
    group.propose(1, "b").unwrap();
    let to_silent = |t: &Trace| *t == Trace::SnapshotToInactive { peer: id(3) };
    assert!(group.raw(1).take_trace().iter().any(to_silent));
    group.settle();
    group.heal();
    group.compact(1);
    group.tick_all(3);
    assert_eq!(group.status(3).commit, group.status(1).commit);
}
