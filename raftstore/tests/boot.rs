//! The tables of boot.md 4 and 5: every row as a value, and carried out on the twins with crashes at each step.
#![allow(clippy::unwrap_used)]

mod parts;

use bytes::Bytes;
use parts::{Disks, G, Node, add, conf, counter, pos, record, spec, stored};
use pontoon_raft::{Body, Message, Snapshot, SnapshotMeta};
use pontoon_raftstore::boot::{Verdict, decide};
use pontoon_raftstore::codec::ReplicaRecord;
use pontoon_raftstore::env::{GroupOp, GroupWrite, Install, StoredGroup, Truncation};
use pontoon_raftstore::error::BootError;
use pontoon_raftstore::ids::{Generation, GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use pontoon_raftstore::mem::{CrashPoint, MemNet};
use pontoon_raftstore::task::{
    Applied, ApplierMsg, Aside, Control, GroupMessage, PollerMsg, RestoreTask, SendEnd, SnapshotEvent, SnapshotPurpose,
    SnapshotTask, Spooled,
};
use std::sync::Arc;

const ME: ReplicaId = ReplicaId(1);

/// A log of entries (10, 20], commit 15, all of term 1 up to 12 and of term 2 behind.
fn log() -> StoredGroup {
    let mut s = stored(spec("kv").creation(), ME);
    s.truncated = Truncation { pos: pos(10), conf_state: conf() };
    s.last = LogPos::new(Term(2), Index(20));
    s.terms = vec![(Index(11), Term(1)), (Index(13), Term(2))];
    s.hard_state.commit = Index(15);
    s
}

fn at(term: u64, index: u64) -> ReplicaRecord {
    record(G, ME, 0, LogPos::new(Term(term), Index(index)))
}

fn with_intent(mut s: StoredGroup, index: u64) -> StoredGroup {
    s.intent = Some(Install { pos: pos(index), conf_state: conf(), record: Bytes::new(), generation: Generation(1) });
    s
}

/// Name, log, machine, what the verdict must be.
type Row = (&'static str, StoredGroup, Option<ReplicaRecord>, fn(&Verdict) -> bool);

#[test]
fn every_row_of_the_table() {
    let birth = stored(spec("kv").creation(), ME);
    let lost_commit =
        StoredGroup { hard_state: pontoon_raft::HardState { commit: Index(21), ..log().hard_state }, ..log() };
    let of_new = |index| record(G, ME, 1, pos(index));
    let other_replica = record(G, ReplicaId(2), 0, pos(12));
    let other_group = record(GroupId(8), ME, 0, pos(12));
    let stop = |v: &Verdict| matches!(v, Verdict::Quarantine(_));
    let rows: Vec<Row> = vec![
        ("no record, log begins at birth", birth.clone(), None, |v| *v == Verdict::Fresh),
        ("no record, log truncated", log(), None, stop),
        ("record of another replica", log(), Some(other_replica), |v| *v == Verdict::Garbage),
        ("record of another generation", log(), Some(of_new(12)), |v| *v == Verdict::Garbage),
        ("record of another group", log(), Some(other_group), stop),
        ("a = f-1", log(), Some(at(1, 10)), |v| *v == Verdict::Go),
        ("a inside, below c", log(), Some(at(1, 12)), |v| *v == Verdict::Go),
        ("a inside, above c", log(), Some(at(2, 17)), |v| *v == Verdict::Go),
        ("a = l", log(), Some(at(2, 20)), |v| *v == Verdict::Go),
        ("a inside, of another term", log(), Some(at(1, 17)), stop),
        ("a = f-1, of another term", log(), Some(at(2, 10)), stop),
        ("a < f-1", log(), Some(at(1, 9)), stop),
        ("a > l, no intent", log(), Some(at(2, 21)), |v| *v == Verdict::Refuse),
        ("a > l, intent for exactly a", with_intent(log(), 30), Some(of_new(30)), |v| *v == Verdict::FinishInstall),
        ("a <= l, intent for exactly a", with_intent(log(), 18), Some(of_new(18)), |v| *v == Verdict::FinishInstall),
        ("intent for another position", with_intent(log(), 30), Some(of_new(29)), |v| *v == Verdict::Garbage),
        ("intent, old contents", with_intent(log(), 30), Some(at(1, 12)), |v| *v == Verdict::Go),
        ("a > l, old contents, intent for exactly a", with_intent(log(), 30), Some(at(1, 30)), |v| {
            *v == Verdict::Refuse
        }),
        ("c > l", lost_commit.clone(), Some(at(2, 20)), |v| *v == Verdict::Refuse),
        ("c > l, no record", lost_commit, None, |v| *v == Verdict::Refuse),
    ];
    for (name, stored, record, expected) in rows {
        let verdict = decide(&stored, record.as_ref());
        assert!(expected(&verdict), "{name}: {verdict:?}");
    }
}

/// Small numbers, all of them: what runs is proven by its log.
#[test]
fn whatever_runs_is_proven_by_its_log() {
    let births = [1, 2];
    let mut seen = 0;
    for (first, last, commit, applied, term) in
        (0..5u64.pow(5)).map(|n| (1 + n % 5, 1 + n / 5 % 5, 1 + n / 25 % 5, 1 + n / 125 % 5, 1 + n / 625 % 2))
    {
        if last < first {
            continue;
        }
        for birth in births {
            let mut s = stored(spec("kv").creation(), ME);
            s.creation.birth = pos(birth);
            s.truncated.pos = pos(first);
            s.last = pos(last);
            s.terms = if last > first { vec![(Index(first + 1), Term(1))] } else { Vec::new() };
            s.hard_state.commit = Index(commit);
            let r = at(term, applied);
            match decide(&s, Some(&r)) {
                Verdict::Go => assert!(first <= applied && applied <= last && commit <= last && term == 1),
                Verdict::Refuse => assert!(commit > last || applied > last),
                Verdict::Quarantine(_) => assert!(applied < first || term != 1),
                other => panic!("{other:?}"),
            }
            seen += 1;
        }
    }
    assert!(seen > 3000);
}

fn disks() -> Disks {
    Disks::new(1, &Arc::new(MemNet::default()))
}

#[test]
fn a_crash_without_a_flush_replays_from_the_log() {
    let mut disks = disks();
    disks.found_group("kv", 6, 4);
    let mut node = disks.start();
    let _slots = node.apply(G, vec![add(2, 1), add(3, 1)]);
    node.run();
    disks.crash(1);
    let prepared = disks.prepare().unwrap();
    let newborn = &prepared.replicas[0].newborn;
    assert_eq!(newborn.record.applied, pos(1), "nothing was flushed");
    assert_eq!(newborn.stored.hard_state.commit, Index(4));
    assert_eq!(newborn.tail.iter().map(|e| e.index.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
}

#[test]
fn the_commit_is_raised_to_what_is_applied() {
    let mut disks = disks();
    disks.found_group("kv", 6, 3);
    let mut node = disks.start();
    let _slots = node.apply(G, vec![add(2, 1), add(3, 1), add(4, 1), add(5, 1)]);
    node.run();
    disks.durable.flush();
    disks.crash(1);
    let prepared = disks.prepare().unwrap();
    let newborn = &prepared.replicas[0].newborn;
    assert_eq!((newborn.record.applied, newborn.stored.hard_state.commit), (pos(5), Index(5)));
    assert_eq!(newborn.tail.len(), 1);
}

#[test]
fn a_log_behind_its_machine_refuses_the_node() {
    let mut disks = disks();
    disks.found_group("kv", 6, 6);
    let mut node = disks.start();
    let _slots = node.apply(G, vec![add(2, 1), add(3, 1), add(4, 1)]);
    node.run();
    disks.durable.flush();
    let mut other = Disks::new(1, &disks.net);
    other.found_group("kv", 3, 2);
    disks.log = other.log;
    let refused = disks.prepare().err().unwrap();
    assert!(matches!(refused, BootError::LogBehindMachine { applied: Index(4), last: Index(3), .. }), "{refused}");
}

#[test]
fn a_log_truncated_ahead_of_its_machine_stops_one_replica() {
    let mut disks = disks();
    disks.found_group("kv", 6, 6);
    let upto = Truncation { pos: pos(4), conf_state: conf() };
    disks.write(vec![GroupWrite { group: G, replica: ME, op: GroupOp::Truncate(upto) }]);
    let mut node = disks.start();
    assert!(node.router.cell(G).unwrap().status().quarantined.is_some());
    assert!(node.letters().iter().all(|l| !matches!(l, PollerMsg::Control(Control::Adopt(_)))));
}

#[test]
fn an_unknown_kind_refuses_the_node() {
    let mut disks = disks();
    disks.found_group("kv", 3, 3);
    let (mut env, _, identity) = disks.env();
    env.kinds.remove("kv");
    let refused =
        pontoon_raftstore::boot::prepare(&env, env.log.load().unwrap(), identity.epoch, 1 << 30).err().unwrap();
    assert!(matches!(refused, BootError::UnknownKind { .. }));
}

/// A replica of node 2 with 1..=40 applied: where snapshots come from.
fn donor(kind: &str, net: &Arc<MemNet>) -> Node {
    let mut disks = Disks::new(2, net);
    disks.found_group(kind, 40, 40);
    let mut node = disks.start();
    let _slots = node.apply(G, (2..=40).map(|i| add(i, 1)).collect());
    node.run();
    node.letters();
    node
}

/// Streams the donor's snapshot over and returns what arrived.
fn transfer(net: &MemNet, donor: &mut Node, to: &mut Node) -> Box<Spooled> {
    donor.mail().applier(G, ApplierMsg::Snapshot { group: G, purpose: SnapshotPurpose::Send });
    donor.run();
    let spooled = donor.letters().into_iter().find_map(built).unwrap();
    let snapshot = Snapshot { meta: spooled.meta.clone(), data: Bytes::new() };
    let body = Body::Snap { snapshot: Box::new(snapshot) };
    let message = Message { from: ReplicaId(2), to: ME, term: Term(1), body };
    let message = Box::new(GroupMessage { group: G, epoch: 0, birth: 0, aside: Aside::Nothing, message });
    donor.mail().snapshotter(SnapshotTask::Send { poller: parts::home(), to: NodeId(1).into(), message, spooled });
    for _ in 0..100 {
        donor.run();
        to.run();
        assert!(net.deliver_all().is_empty());
    }
    assert!(
        donor
            .letters()
            .iter()
            .any(|l| matches!(l, PollerMsg::Snapshot(SnapshotEvent::Sent { end: SendEnd::Done, .. })))
    );
    to.letters()
        .into_iter()
        .find_map(|l| {
            if let PollerMsg::Snapshot(SnapshotEvent::Received { spooled, .. }) = l { Some(spooled) } else { None }
        })
        .unwrap()
}

fn built(letter: PollerMsg) -> Option<Box<Spooled>> {
    match letter {
        PollerMsg::Snapshot(SnapshotEvent::Built { result, .. }) => Some(result.unwrap()),
        _ => None,
    }
}

fn write_of(op: GroupOp) -> Vec<GroupWrite> {
    vec![GroupWrite { group: G, replica: ME, op }]
}

/// Steps 2 to 4 of an install as the replica's owner takes them. False: the node died on the way.
fn install(node: &mut Node, spooled: &Spooled) -> bool {
    let meta: &SnapshotMeta = &spooled.meta;
    let received = ReplicaRecord::decode(spooled.record.clone()).unwrap();
    let own = ReplicaRecord { replica: ME, generation: Generation(1), ..received };
    let install = Install {
        pos: meta.pos(),
        conf_state: meta.conf_state.clone(),
        record: own.encode(),
        generation: Generation(1),
    };
    let batch = |op| pontoon_raftstore::env::LogBatch { writes: write_of(op), meta: Vec::new(), sync: true };
    if node.env.log.write(&batch(GroupOp::Intent(Box::new(install.clone())))).is_err() {
        return false;
    }
    let restore = ApplierMsg::Restore(RestoreTask {
        group: G,
        replica: ME,
        install: Box::new(install.clone()),
        spool: spooled.spool,
        size: spooled.size,
    });
    node.mail().applier(G, restore);
    node.run();
    if !node.applied().iter().any(|a| matches!(a, Applied::Restored { .. })) {
        assert!(!node.power.is_on(), "the restore failed on a living node");
        return false;
    }
    let hard_state = pontoon_raft::HardState { term: Term(1), vote: ReplicaId::NONE, commit: install.pos.index };
    if node.env.log.write(&batch(GroupOp::Install { install: Box::new(install), hard_state })).is_err() {
        return false;
    }
    node.mail().snapshotter(SnapshotTask::Drop(spooled.spool));
    node.run();
    true
}

/// The receiver: a replica of node 1 that has applied up to 3, made durable in its kind's way.
fn receiver(kind: &str, net: &Arc<MemNet>) -> (Disks, Node) {
    let mut disks = Disks::new(1, net);
    disks.found_group(kind, 3, 3);
    let mut node = disks.start();
    let _slots = node.apply(G, vec![add(2, 1), add(3, 1)]);
    node.run();
    node.mail().applier(G, ApplierMsg::Snapshot { group: G, purpose: SnapshotPurpose::Keep });
    node.run();
    disks.durable.flush();
    node.letters();
    net.listen(node.identity, node.power.clone(), node.router.clone());
    (disks, node)
}

fn crashes_inside_an_install(kind: &str) {
    let mut finished = 0;
    let mut dropped = 0;
    for (at, skip) in CrashPoint::ALL.iter().flat_map(|p| (0..3).map(move |skip| (*p, skip))) {
        let net = Arc::new(MemNet::default());
        let (mut disks, mut node) = receiver(kind, &net);
        let mut source = donor(kind, &net);
        net.listen(source.identity, source.power.clone(), source.router.clone());
        let spooled = transfer(&net, &mut source, &mut node);
        node.power.arm(at, skip);
        let done = install(&mut node, &spooled);
        if done && node.power.is_on() {
            node.power.cut();
        }
        disks.crash(u64::from(skip));
        let prepared = disks.prepare().unwrap();
        let context = format!("{kind}: crash at {at:?} after {skip}");
        assert!(prepared.stopped.is_empty(), "{context}");
        let newborn = &prepared.replicas[0].newborn;
        let applied = newborn.record.applied.index.0;
        let is_new = newborn.stored.generation == Generation(1);
        assert_eq!(applied, if is_new { 40 } else { 3 }, "{context}");
        assert!(!done || is_new, "{context}: an install that was recorded is gone");
        assert!(newborn.stored.hard_state.commit.0 >= applied && newborn.stored.last.index.0 >= applied, "{context}");
        assert_eq!((newborn.record.replica, newborn.record.generation), (ME, newborn.stored.generation), "{context}");
        assert!(newborn.stored.intent.is_none(), "{context}");
        let media = if kind == "kv" { &disks.durable } else { &disks.volatile };
        let contents = media.contents(G, ME, newborn.stored.generation);
        assert_eq!(counter(contents), Some(if is_new { 39 } else { 2 }), "{context}");
        finished += u32::from(is_new && !done);
        dropped += u32::from(!is_new);
        // And once more: what boot wrote is durable.
        let image = disks.log.durable(|image| image.groups[&G].clone());
        assert!(image.intent.is_none() && image.generation == newborn.stored.generation, "{context}");
        assert_eq!(image.truncated.pos.index.0, if is_new { 40 } else { 1 }, "{context}");
        disks.crash(9);
        assert_eq!(disks.prepare().unwrap().replicas[0].newborn.record.applied.index.0, applied, "{context}");
    }
    assert!(finished >= 2 && dropped >= 2, "{kind}: {finished} finished, {dropped} dropped");
}

#[test]
fn a_durable_machine_survives_a_crash_at_each_step_of_an_install() {
    crashes_inside_an_install("kv");
}

#[test]
fn a_volatile_machine_survives_a_crash_at_each_step_of_an_install() {
    crashes_inside_an_install("cache");
}

#[test]
fn a_volatile_machine_begins_at_its_newest_snapshot() {
    let net = Arc::new(MemNet::default());
    let (mut disks, mut node) = receiver("cache", &net);
    let _slots = node.apply(G, vec![add(4, 1)]);
    node.run();
    disks.crash(3);
    let prepared = disks.prepare().unwrap();
    assert_eq!(prepared.replicas[0].newborn.record, record(G, ME, 0, pos(3)));
    assert_eq!(prepared.kept.newest.len(), 1);
    assert!(prepared.kept.next_spool > prepared.kept.newest[0].spool);
}
