//! The applier on the machine twins: order, answers after the commit, and who falls when a machine does.
#![allow(clippy::unwrap_used)]

mod parts;

use parking_lot::Mutex;
use parts::{Disks, G, Half, Node, add, conf, counter, number, pos, record, spec_of};
use pontoon_raft::{Entry, EntryKind};
use pontoon_raftstore::arrivals::Wakeups;
use pontoon_raftstore::codec::ReplicaRecord;
use pontoon_raftstore::env::{
    Answers, ApplyRun, DurablePositions, Install, Machine, MachineKind, Meta, Reader, SmError, SnapshotInput,
    SnapshotSource, Stage,
};
use pontoon_raftstore::error::{Lost, ProposeError};
use pontoon_raftstore::ids::{Generation, GroupId, LogPos, ReplicaId, SpoolId};
use pontoon_raftstore::mem::{MachineFault, MemNet};
use pontoon_raftstore::proposal::ReplyTo;
use pontoon_raftstore::task::{
    Applied, ApplierMsg, LifecycleMsg, PollerMsg, RestoreTask, SnapshotEvent, SnapshotPurpose,
};
use pontoon_raftstore::testing::{KvRet, KvSlot, LifecycleCell};
use pontoon_raftstore::turn::Active;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const H: GroupId = GroupId(8);
const ME: ReplicaId = ReplicaId(1);

/// A node with the groups `G` and `H`.
fn node(kind: &str) -> (Disks, Node) {
    let mut disks = Disks::new(1, &Arc::new(MemNet::default()));
    let mut node = disks.start();
    for group in [G, H] {
        create(&mut node, group, kind);
    }
    node.letters();
    (disks, node)
}

fn create(node: &mut Node, group: GroupId, kind: &str) {
    let done = LifecycleCell::new(node.power.clone());
    node.mail().lifecycle(LifecycleMsg::Create { spec: spec_of(group, kind), done: done.clone() });
    node.run();
    done.take().unwrap().unwrap();
}

fn value(disks: &Disks, group: GroupId) -> Option<i64> {
    counter(disks.durable.contents(group, ME, Generation(0)))
}

fn is_lost(slot: &KvSlot) -> bool {
    matches!(slot.take(), Some(Err(ProposeError::OutcomeUnknown { why: Lost::ReplicaStopped, at: Some(_) })))
}

#[test]
fn entries_are_applied_in_order_and_answered() {
    let (disks, mut node) = node("kv");
    let mut slots = node.apply(G, vec![add(2, 1), add(3, 10)]);
    slots.extend(node.apply(G, vec![add(4, 100)]));
    let other = node.apply(H, vec![add(2, 5)]);
    node.run();
    assert_eq!(slots.iter().map(|s| number(s)).collect::<Vec<_>>(), [1, 11, 111]);
    assert_eq!(number(&other[0]), 5);
    assert_eq!((value(&disks, G), value(&disks, H)), (Some(111), Some(5)));
    // One event per group: the tasks of a turn are one run.
    let upto: Vec<_> = node
        .applied()
        .into_iter()
        .map(|a| if let Applied::Upto { group, index, .. } = a { (group.0, index.0) } else { panic!() })
        .collect();
    assert_eq!(upto, [(7, 4), (8, 2)]);
}

#[test]
fn empty_entries_and_membership_changes_move_the_record_only() {
    let (disks, mut node) = node("kv");
    let empty = Entry { data: bytes::Bytes::new(), ..add(2, 1) };
    let change = Entry { kind: EntryKind::ConfChangeV2, ..add(3, 1) };
    let slots = node.apply(G, vec![empty, change]);
    node.run();
    let (data, meta) = disks.durable.contents(G, ME, Generation(0)).unwrap();
    assert!(data.is_empty());
    let stored = ReplicaRecord::decode(meta[ReplicaRecord::META_KEY].clone()).unwrap();
    assert_eq!(stored, record(G, ME, 0, pos(3)));
    for slot in slots {
        let answer = slot.take();
        assert!(matches!(answer, Some(Err(ProposeError::OutcomeUnknown { why: Lost::Overwritten, .. }))), "{answer:?}");
    }
}

/// A failing machine falls alone; what shared its stage is applied again, once.
fn one_falls(fault: MachineFault) {
    let (disks, mut node) = node("kv");
    disks.durable.fail_next(fault);
    let lost = node.apply(H, vec![add(2, 1)]);
    let kept = node.apply(G, vec![add(2, 3)]);
    node.run();
    assert!(is_lost(&lost[0]));
    assert_eq!(number(&kept[0]), 3);
    assert_eq!((value(&disks, G), value(&disks, H)), (Some(3), None));
    let events = node.applied();
    assert!(events.iter().any(|e| matches!(e, Applied::Failed { group: H, .. })));
    assert!(events.iter().any(|e| matches!(e, Applied::Upto { group: G, .. })));
    let late = node.apply(H, vec![add(3, 1)]);
    node.run();
    assert!(is_lost(&late[0]), "a stopped replica gets nothing more");
    assert!(node.applied().is_empty());
}

#[test]
fn a_failing_machine_falls_alone() {
    one_falls(MachineFault::Apply(H));
}

#[test]
fn a_panicking_machine_falls_alone() {
    one_falls(MachineFault::ApplyPanics(H));
}

#[test]
fn the_first_of_a_stage_may_fall_too() {
    let (disks, mut node) = node("kv");
    disks.durable.fail_next(MachineFault::Apply(G));
    let lost = node.apply(G, vec![add(2, 3)]);
    let kept = node.apply(H, vec![add(2, 1)]);
    node.run();
    assert!(is_lost(&lost[0]));
    assert_eq!(number(&kept[0]), 1);
    assert_eq!((value(&disks, G), value(&disks, H)), (None, Some(1)));
}

#[test]
fn a_failed_commit_stops_the_kind_and_no_other() {
    let (disks, mut node) = node("kv");
    let cache = GroupId(9);
    create(&mut node, cache, "cache");
    node.letters();
    disks.durable.fail_next(MachineFault::Commit);
    let lost: Vec<_> = node.apply(G, vec![add(2, 1)]).into_iter().collect();
    node.run();
    let spared = node.apply(cache, vec![add(2, 9)]);
    node.run();
    assert!(is_lost(&lost[0]));
    assert_eq!(number(&spared[0]), 9);
    let events = node.applied();
    let failed: Vec<u64> = events
        .iter()
        .filter_map(|e| if let Applied::Failed { group, .. } = e { Some(group.0) } else { None })
        .collect();
    assert_eq!(failed, [7, 8], "all of the kind, also those without work");
    assert_eq!(value(&disks, G), None);
}

/// The bug: a machine that had failed deleted nothing, so its contents lay there until the next start.
#[test]
fn contents_of_a_failed_machine_stay_until_the_replica_is_destroyed() {
    for fault in [MachineFault::Apply(H), MachineFault::ApplyPanics(H), MachineFault::Commit] {
        let (disks, mut node) = node("kv");
        node.apply(H, vec![add(2, 1)]);
        node.run();
        disks.durable.fail_next(fault);
        node.apply(H, vec![add(3, 1)]);
        node.run();
        assert_eq!(value(&disks, H), Some(1), "evidence: {fault:?}");
        node.mail().applier(H, ApplierMsg::Destroy { group: H, next_replica: ReplicaId(4) });
        node.run();
        assert_eq!(value(&disks, H), None, "{fault:?}");
    }
}

/// A restore that fails has written half of the new contents, perhaps; they go with the old ones.
#[test]
fn both_contents_of_a_failed_install_go_with_the_replica() {
    let (disks, mut node) = node("kv");
    node.apply(H, vec![add(2, 1)]);
    node.run();
    let half = Generation(1);
    let mut machine = node.env.kinds["kv"].open(H, ME, half).unwrap();
    machine.restore(&mut Half).unwrap();
    let install = Install { pos: pos(9), conf_state: conf(), record: Default::default(), generation: half };
    let letter = ApplierMsg::Restore(RestoreTask {
        group: H,
        replica: ME,
        install: Box::new(install),
        spool: SpoolId(99),
        size: 9,
    });
    node.mail().applier(H, letter);
    node.run();
    assert!(node.applied().iter().any(|e| matches!(e, Applied::Failed { group: H, .. })), "there is no such file");
    assert!(disks.durable.contents(H, ME, half).is_some());
    node.mail().applier(H, ApplierMsg::Destroy { group: H, next_replica: ReplicaId(4) });
    node.run();
    assert_eq!(disks.durable.names(), []);
}

/// Both groups are to install a snapshot of their own contents under a new generation.
fn two_installs(node: &mut Node) {
    for group in [G, H] {
        node.apply(group, vec![add(2, 1)]);
        node.mail().applier(group, ApplierMsg::Snapshot { group, purpose: SnapshotPurpose::Send });
    }
    node.run();
    for letter in node.letters() {
        let PollerMsg::Snapshot(SnapshotEvent::Built { group, result, .. }) = letter else { continue };
        let spooled = result.unwrap();
        let (conf_state, record) = (spooled.meta.conf_state.clone(), spooled.record.clone());
        let install = Box::new(Install { pos: spooled.meta.pos(), conf_state, record, generation: Generation(1) });
        node.mail().applier(
            group,
            ApplierMsg::Restore(RestoreTask { group, replica: ME, install, spool: spooled.spool, size: spooled.size }),
        );
    }
}

/// The bug: each install of a durable kind flushed it: 25 ms and more for each group of a node that came back, in which the applier did
/// nothing else.
#[test]
fn installs_that_wait_together_become_durable_together() {
    let (disks, mut node) = node("kv");
    two_installs(&mut node);
    let behind = node.apply(G, vec![add(3, 1)]);
    node.run();
    assert_eq!(disks.durable.persisted(), 1);
    assert_eq!(counter(disks.durable.contents(H, ME, Generation(1))), Some(1));
    assert!(is_lost(&behind[0]), "it came before its poller knew, and is of the older contents");
    let restored = |e: &Applied| matches!(e, Applied::Restored { .. });
    assert_eq!(node.applied().iter().filter(|e| restored(e)).count(), 2);
    disks.crash(1);
    assert_eq!(counter(disks.durable.contents(G, ME, Generation(1))), Some(1));
}

#[test]
fn a_failed_persist_stops_the_kind() {
    let (disks, mut node) = node("kv");
    disks.durable.fail_next(MachineFault::Persist);
    two_installs(&mut node);
    node.run();
    assert_eq!(node.applied().iter().filter(|e| matches!(e, Applied::Failed { .. })).count(), 2);
    assert_eq!(disks.files.count(), 0);
    for group in [G, H] {
        node.mail().applier(group, ApplierMsg::Destroy { group, next_replica: ReplicaId(4) });
    }
    node.run();
    assert_eq!(disks.durable.names(), []);
}

/// The bug: each install of a volatile machine synced its file, and the directory for it. A node that came back to 2,048 groups under
/// load took 20 of them a second.
#[test]
fn spools_of_volatile_machines_that_wait_together_are_published_together() {
    let (disks, mut node) = node("cache");
    two_installs(&mut node);
    node.run();
    let restored = |e: &Applied| matches!(e, Applied::Restored { .. });
    assert_eq!(node.applied().iter().filter(|e| restored(e)).count(), 2);
    assert_eq!(disks.files.publications(), 1);
    let published = node.env.files.published().unwrap();
    disks.crash(1);
    assert_eq!((published.len(), disks.files.count()), (2, 2));
}

#[test]
fn a_failed_publication_stops_those_who_waited_for_it() {
    let (disks, mut node) = node("cache");
    disks.files.fail_next_publication();
    two_installs(&mut node);
    node.run();
    assert_eq!(node.applied().iter().filter(|e| matches!(e, Applied::Failed { .. })).count(), 2);
    assert_eq!(disks.files.count(), 0);
    create(&mut node, GroupId(9), "cache");
    let slots = node.apply(GroupId(9), vec![add(2, 1)]);
    node.run();
    assert!(matches!(slots[0].take(), Some(Ok(_))), "the kind goes on");
}

#[test]
fn a_failed_durable_stops_the_kind() {
    let (disks, mut node) = node("kv");
    let _slots = node.apply(G, vec![add(2, 1)]);
    node.run();
    node.letters();
    disks.durable.fail_next(MachineFault::Durable);
    node.now = pontoon_raftstore::env::Instant(20_000_000_000);
    node.run();
    let failed = node.applied().iter().filter(|e| matches!(e, Applied::Failed { .. })).count();
    assert_eq!(failed, 2);
}

#[test]
fn durable_positions_reach_the_owners() {
    let (disks, mut node) = node("kv");
    let _slots = node.apply(G, vec![add(2, 1), add(3, 1)]);
    node.run();
    node.letters();
    node.now = pontoon_raftstore::env::Instant(20_000_000_000);
    node.run();
    let durable = node.letters().into_iter().find_map(|l| if let PollerMsg::Durable(d) = l { Some(d) } else { None });
    assert_eq!(durable.unwrap(), [(G, ME, Generation(0), pos(3))]);
    disks.crash(1);
    assert_eq!(value(&disks, G), Some(2), "what was reported survives");
}

/// The bug: with many groups under load the next call for snapshots came before all of the last one's were taken, and began
/// anew at the lowest group: the highest waited for as long as the load lasted.
#[test]
fn who_waits_for_a_snapshot_keeps_his_place() {
    let mut disks = Disks::new(1, &Arc::new(MemNet::default()));
    let mut node = disks.start();
    let groups: BTreeSet<GroupId> = (1..=300).map(GroupId).collect();
    groups.iter().for_each(|group| create(&mut node, *group, "cache"));
    node.letters();
    for index in 2..=3 {
        for group in &groups {
            node.apply(*group, vec![add(index, 1)]);
        }
        node.mail().appliers(|| ApplierMsg::KeepDirty);
        while node.applier.turn(node.now).worked {}
        // It does not keep up.
        node.snapshotter.turn(node.now);
    }
    let durable = |letter| if let PollerMsg::Durable(positions) = letter { positions } else { Vec::new() };
    let told: BTreeSet<GroupId> = node.letters().into_iter().flat_map(durable).map(|position| position.0).collect();
    assert_eq!(told, groups);
}

#[test]
#[should_panic(expected = "entries must follow what is applied")]
fn a_gap_is_a_bug() {
    let (_disks, mut node) = node("kv");
    let _slots = node.apply(G, vec![add(3, 1)]);
    node.run();
}

/// A kind that stages nothing: what was applied is visible at once and must never be applied again.
#[derive(Default)]
struct Unstaged {
    applied: Mutex<Vec<(GroupId, usize)>>,
    commits: AtomicUsize,
}

struct CountingKind(Arc<Unstaged>);

struct Counting(Arc<Unstaged>, GroupId);

impl MachineKind for CountingKind {
    fn is_durable(&self) -> bool {
        false
    }
    fn open(&self, group: GroupId, _: ReplicaId, _: Generation) -> Result<Box<dyn Machine>, SmError> {
        Ok(Box::new(Counting(self.0.clone(), group)))
    }
    fn stage(&self) -> Stage {
        Box::new(())
    }
    fn commit(&self, _: Stage) -> Result<(), SmError> {
        self.0.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn persist(&self) -> Result<(), SmError> {
        Ok(())
    }
    fn durable(&self, _: &mut DurablePositions) -> Result<(), SmError> {
        Ok(())
    }
    fn retain(&self, _: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        Ok(())
    }
}

impl Machine for Counting {
    fn recover(&mut self) -> Result<Meta, SmError> {
        Ok(Meta::new())
    }
    fn apply(&mut self, _: &mut Stage, run: &ApplyRun<'_>) -> Result<Answers, SmError> {
        self.0.applied.lock().push((self.1, run.entries.len()));
        assert!(self.1 != H, "this one panics");
        Ok(Box::new(()))
    }
    fn reply(&self, _: Answers, waiting: Vec<(usize, LogPos, ReplyTo)>, _: &mut Wakeups) {
        for (_, at, reply) in waiting {
            reply.slot.as_any().downcast_ref::<KvSlot>().unwrap().answer(at, KvRet::Done);
        }
    }
    fn reader(&self) -> Reader {
        Arc::new(())
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, SmError> {
        Err(SmError::Cancelled)
    }
    fn restore(&mut self, _: &mut dyn SnapshotInput) -> Result<(), SmError> {
        Ok(())
    }
    fn destroy(self: Box<Self>) -> Result<(), SmError> {
        Ok(())
    }
}

#[test]
fn what_is_not_staged_is_never_applied_again() {
    let kind = Arc::new(Unstaged::default());
    let mut disks = Disks::new(1, &Arc::new(MemNet::default()));
    let (mut env, power, identity) = disks.env();
    env.kinds.insert("counting".into(), Arc::new(CountingKind(kind.clone())));
    let mut node = Node::start(env, power, identity).unwrap();
    for group in [G, H, GroupId(9)] {
        create(&mut node, group, "counting");
    }
    let before = kind.commits.load(Ordering::Relaxed);
    let slots: Vec<_> =
        [G, H, GroupId(9)].into_iter().flat_map(|g| node.apply(g, vec![add(2, 1), add(3, 1)])).collect();
    node.run();
    assert_eq!(*kind.applied.lock(), [(G, 2), (H, 2), (GroupId(9), 2)], "each once");
    assert_eq!(kind.commits.load(Ordering::Relaxed) - before, 1, "one commit per turn and kind");
    let answers: Vec<bool> = slots.iter().map(|s| matches!(s.take(), Some(Ok(_)))).collect();
    assert_eq!(answers, [true, true, false, false, true, true]);
}
