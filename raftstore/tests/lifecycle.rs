//! Creation and destruction on the twins: one batch for many, idempotence, tombstones, and crashes in between.
#![allow(clippy::unwrap_used)]

mod parts;

use parts::{Disks, G, Half, Node, spec, spec_of};
use pontoon_raft::{Append, Body, Message, VoteRequest};
use pontoon_raftstore::env::{GroupOp, GroupWrite, PeerIdentity, Truncation};
use pontoon_raftstore::error::{AdminError, GroupError, LifecycleError};
use pontoon_raftstore::ids::{GroupId, Incarnation, Index, NodeId, ReplicaId, Term};
use pontoon_raftstore::lifecycle::{Birth, judge_stranger};
use pontoon_raftstore::mem::{CrashPoint, MemNet, WriteFault};
use pontoon_raftstore::proposal::AdminDone;
use pontoon_raftstore::router::Route;
use pontoon_raftstore::task::{
    ApplierMsg, Aside, Control, GroupMessage, Invitation, LifecycleMsg, PollerMsg, SnapshotPurpose,
};
use pontoon_raftstore::testing::LifecycleCell;
use pontoon_raftstore::turn::Active;
use std::sync::Arc;

type Answer = Option<Result<(), LifecycleError>>;

fn disks() -> Disks {
    Disks::new(1, &Arc::new(MemNet::default()))
}

fn ask(node: &Node, letter: impl FnOnce(Arc<LifecycleCell>) -> LifecycleMsg) -> Arc<LifecycleCell> {
    let done = LifecycleCell::new(node.power.clone());
    node.mail().lifecycle(letter(done.clone()));
    done
}

fn create(node: &mut Node, spec: pontoon_raftstore::group_spec::GroupSpec) -> Answer {
    let done = ask(node, |done| LifecycleMsg::Create { spec, done });
    node.run();
    done.take()
}

/// Destroys as the poller would: the tombstone behind its last batch, then the answer.
fn destroy(node: &mut Node) -> Answer {
    let done = ask(node, |done| LifecycleMsg::Destroy { group: G, done });
    node.run();
    bury(node);
    node.run();
    done.take()
}

fn bury(node: &mut Node) {
    for letter in node.letters() {
        if let PollerMsg::Control(Control::Destroy { group, done }) = letter {
            let next_replica = ReplicaId(4);
            let op = GroupOp::Destroy { next_replica };
            let write = GroupWrite { group, replica: ReplicaId(1), op };
            let batch = pontoon_raftstore::env::LogBatch { writes: vec![write], meta: Vec::new(), sync: true };
            match node.env.log.write(&batch) {
                Ok(_) => done.done(Ok(AdminDone::Buried(next_replica))),
                Err(e) => done.done(Err(AdminError::Refused(e.to_string()))),
            }
        }
    }
}

#[test]
fn many_creations_are_one_synced_batch() {
    let mut disks = disks();
    let mut node = disks.start();
    let before = disks.log.syncs();
    let asked: Vec<_> =
        (1..=1000).map(|g| ask(&node, |done| LifecycleMsg::Create { spec: spec_of(GroupId(g), "kv"), done })).collect();
    node.run();
    assert!(asked.iter().all(|done| done.take() == Some(Ok(()))));
    assert_eq!(disks.log.syncs() - before, 1);
    let adopted: Vec<_> = node
        .letters()
        .into_iter()
        .filter_map(|l| if let PollerMsg::Control(Control::Adopt(n)) = l { Some(n) } else { None })
        .collect();
    assert_eq!(adopted.len(), 1000);
    let first = adopted.iter().filter(|n| n.campaign).count();
    assert!((250..=420).contains(&first), "{first} of 1000 groups begin with this node of three");
    let born = &adopted[0].stored;
    assert_eq!((born.hard_state.term, born.hard_state.commit, born.last.index), (Term(1), Index(1), Index(1)));
    assert!(node.router.cell(GroupId(1)).unwrap().reader().is_some());
    assert_eq!(disks.start().letters().len(), 1000, "and all are there after a restart");
}

#[test]
fn the_same_spec_again_is_fine_another_is_not() {
    let mut disks = disks();
    let mut node = disks.start();
    let first = ask(&node, |done| LifecycleMsg::Create { spec: spec("kv"), done });
    let second = ask(&node, |done| LifecycleMsg::Create { spec: spec("kv"), done });
    node.run();
    assert_eq!((first.take(), second.take()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(node.letters().len(), 1, "born once");
    assert_eq!(create(&mut node, spec("kv")), Some(Ok(())));
    let other = create(&mut node, spec("cache"));
    assert!(matches!(other, Some(Err(LifecycleError::OtherSpec { group: G, .. }))), "{other:?}");
    let mut node = disks.start();
    assert_eq!(create(&mut node, spec("kv")), Some(Ok(())));
    assert!(matches!(create(&mut node, spec("cache")), Some(Err(LifecycleError::OtherSpec { .. }))));
}

#[test]
fn bad_specs_change_nothing() {
    let mut disks = disks();
    let mut node = disks.start();
    let stranger = pontoon_raftstore::group_spec::GroupSpec { voters: [2, 3].map(NodeId).into(), ..spec("kv") };
    for bad in [stranger, spec("unheard-of"), spec_of(GroupId(0), "kv")] {
        assert!(matches!(create(&mut node, bad), Some(Err(LifecycleError::BadSpec(_)))));
    }
    assert!(disks.log.live(|image| image.groups.is_empty()));
}

#[test]
fn a_destroyed_group_leaves_a_tombstone_and_nothing_else() {
    let mut disks = disks();
    let mut node = disks.start();
    create(&mut node, spec("kv")).unwrap().unwrap();
    node.letters();
    let _slots = node.apply(G, vec![parts::add(2, 1)]);
    node.run();
    node.letters();
    assert_eq!(destroy(&mut node), Some(Ok(())));
    assert!(matches!(node.router.route(G), Some(Route::Destroyed)));
    assert!(disks.durable.contents(G, ReplicaId(1), Default::default()).is_none());
    let again = create(&mut node, spec("kv"));
    assert_eq!(again, Some(Err(GroupError::Destroyed(G).into())));
    let mut node = disks.start();
    assert_eq!(create(&mut node, spec("kv")), Some(Err(GroupError::Destroyed(G).into())));
    let done = ask(&node, |done| LifecycleMsg::Destroy { group: G, done });
    let unknown = ask(&node, |done| LifecycleMsg::Destroy { group: GroupId(99), done });
    node.run();
    assert_eq!(done.take(), Some(Ok(())), "destroyed is destroyed");
    assert_eq!(unknown.take(), Some(Err(GroupError::NotFound(GroupId(99)).into())));
}

#[test]
fn a_replica_that_was_stopped_at_open_can_be_destroyed() {
    let mut disks = disks();
    disks.found_group("kv", 6, 6);
    let upto = Truncation { pos: parts::pos(4), conf_state: parts::conf() };
    let op = GroupOp::Truncate(upto);
    disks.write(vec![GroupWrite { group: G, replica: ReplicaId(1), op }]);
    let (env, ..) = disks.env();
    env.kinds["kv"].open(G, ReplicaId(1), Default::default()).unwrap().restore(&mut Half).unwrap();
    let mut node = disks.start();
    assert!(disks.durable.contents(G, ReplicaId(1), Default::default()).is_some(), "evidence");
    assert_eq!(destroy(&mut node), Some(Ok(())));
    assert_eq!(disks.log.live(|image| image.tombstones.get(&G).copied()), Some(ReplicaId(2)));
    assert!(disks.durable.contents(G, ReplicaId(1), Default::default()).is_none());
}

/// The bug: the snapshotter heard of the burial before the applier did, which still made a snapshot of the dead.
#[test]
fn what_is_spooled_of_a_replica_goes_behind_its_last_snapshot() {
    let mut disks = disks();
    let mut node = disks.start();
    create(&mut node, spec("cache")).unwrap().unwrap();
    let _slots = node.apply(G, vec![parts::add(2, 1)]);
    node.run();
    node.letters();
    node.mail().applier(G, ApplierMsg::Snapshot { group: G, purpose: SnapshotPurpose::Keep });
    let done = ask(&node, |done| LifecycleMsg::Destroy { group: G, done });
    node.lifecycle.turn(node.now);
    bury(&mut node);
    node.lifecycle.turn(node.now);
    assert_eq!(done.take(), Some(Ok(())));
    node.snapshotter.turn(node.now); // before the applier
    node.run();
    assert_eq!(disks.files.count(), 0);
}

/// Whatever survives, the group is there whole or not at all, and creating it again ends well.
#[test]
fn a_crash_at_each_step_of_a_creation() {
    for (at, skip) in CrashPoint::ALL.iter().flat_map(|p| (0..2).map(move |skip| (*p, skip))) {
        for seed in 0..4 {
            let mut disks = disks();
            let mut node = disks.start();
            node.power.arm(at, skip);
            let answer = create(&mut node, spec("kv"));
            disks.crash(seed);
            let mut node = disks.start();
            let stands = node.router.cell(G).is_some();
            assert!(stands || answer != Some(Ok(())), "an answered creation is gone: {at:?} {skip} {seed}");
            assert_eq!(create(&mut node, spec("kv")), Some(Ok(())), "{at:?} {skip} {seed}");
        }
    }
}

#[test]
fn a_crash_at_each_step_of_a_destruction() {
    for at in CrashPoint::ALL {
        for seed in 0..4 {
            let mut disks = disks();
            disks.found_group("kv", 2, 2);
            let mut node = disks.start();
            node.letters();
            let _slots = node.apply(G, vec![parts::add(2, 1)]);
            node.run();
            disks.durable.flush();
            node.power.arm(*at, 0);
            let answer = destroy(&mut node);
            disks.crash(seed);
            let mut node = disks.start();
            let dead = node.router.cell(G).is_none();
            assert!(dead || answer != Some(Ok(())), "an answered destruction is undone: {at:?} {seed}");
            if dead {
                let contents = disks.durable.contents(G, ReplicaId(1), Default::default());
                assert!(contents.is_none(), "contents of a dead replica after the next start: {at:?} {seed}");
                assert_eq!(create(&mut node, spec("kv")), Some(Err(GroupError::Destroyed(G).into())));
            }
        }
    }
}

#[test]
fn a_poisoned_log_store_answers_everybody() {
    let mut disks = disks();
    let mut node = disks.start();
    disks.log.fail_next_write(WriteFault::Failed);
    let failed = create(&mut node, spec("kv"));
    assert!(matches!(failed, Some(Err(LifecycleError::Group(GroupError::Quarantined(_))))), "{failed:?}");
    assert!(matches!(create(&mut node, spec_of(GroupId(8), "kv")), Some(Err(LifecycleError::Group(_)))));
    assert!(node.letters().is_empty(), "nobody was born");
}

fn identity(node: u64) -> PeerIdentity {
    PeerIdentity { node: NodeId(node), incarnation: Incarnation(node), epoch: Default::default() }
}

/// From replica 1 on node 1, which is a voter of the group at birth.
fn word(to: u64, body: Body, aside: Aside) -> GroupMessage {
    let message = Message { from: ReplicaId(1), to: ReplicaId(to), term: Term(1), body };
    GroupMessage { group: G, epoch: 0, birth: 0, aside, message }
}

fn append() -> Body {
    Body::Append(Append::default())
}

/// An invitation for the disk of this node; 0: for none yet.
fn invitation(kind: &str, disk: u64) -> Aside {
    let creation = Arc::new(spec(kind).creation());
    Aside::Invitation(Box::new(Invitation { creation, disk: Incarnation(disk) }))
}

#[test]
fn nobody_is_born_by_a_vote_nor_below_a_tombstone() {
    let vote = || Body::Vote(VoteRequest::default());
    let invited = || invitation("kv", 4);
    let snap = || Body::Snap { snapshot: Box::default() };
    let beat = || Body::Heartbeat { commit: Index(0), context: Default::default() };
    let rows = [
        (4, append(), invited(), None, Birth::Invited),
        (4, append(), invited(), Some(4), Birth::Invited),
        (4, beat(), invited(), None, Birth::Invited),
        (4, snap(), invited(), None, Birth::Invited),
        (4, append(), Aside::Nothing, None, Birth::Uninvited),
        (4, append(), invitation("kv", 5), None, Birth::Contradicted),
        (4, append(), invitation("kv", 0), None, Birth::Contradicted),
        (3, append(), invited(), None, Birth::Contradicted),
        (4, append(), invitation("cache", 4), None, Birth::UnknownKind),
        (3, append(), invited(), Some(4), Birth::Buried),
        (3, vote(), invited(), Some(4), Birth::Buried),
        (4, vote(), invited(), None, Birth::NotByThis),
        (4, Body::PreVote(VoteRequest::default()), invited(), Some(4), Birth::NotByThis),
        (4, Body::TimeoutNow, invited(), None, Birth::NotByThis),
        (0, append(), invited(), None, Birth::NotByThis),
    ];
    for (to, body, aside, tombstone, expected) in rows {
        let message = word(to, body.clone(), aside);
        let judged = judge_stranger(identity(4), identity(1), &message, tombstone.map(ReplicaId), |kind| kind == "kv");
        assert_eq!(judged, expected, "{body:?} to {to}, tombstone {tombstone:?}");
    }
}

#[test]
fn an_invitation_must_agree_with_its_sender_and_with_itself() {
    let judge =
        |me, from, message: &GroupMessage| judge_stranger(identity(me), identity(from), message, None, |_| true);
    let fine = word(4, append(), invitation("kv", 4));
    assert_eq!(judge(4, 1, &fine), Birth::Invited);
    assert_eq!(judge(4, 2, &fine), Birth::Contradicted, "replica 1 is on node 1");
    let voter = word(2, append(), invitation("kv", 0));
    assert_eq!(judge(2, 1, &voter), Birth::Invited, "a voter at birth, its disk not named yet");
    assert_eq!(judge(3, 1, &voter), Birth::Contradicted, "replica 2 is on node 2");
    let mut creation = spec("kv").creation();
    creation.digest ^= 1;
    let forged = Aside::Invitation(Box::new(Invitation { creation: Arc::new(creation), disk: Incarnation(4) }));
    assert_eq!(judge(4, 1, &word(4, append(), forged)), Birth::Contradicted);
}

/// The word of a leader that finds no replica here.
fn hear(node: &mut Node, message: GroupMessage) {
    let letter = LifecycleMsg::Unknown { from: identity(2), message: Box::new(message) };
    node.mail().lifecycle(letter);
    node.run();
}

fn from_two(to: u64, aside: Aside) -> GroupMessage {
    let mut message = word(to, append(), aside);
    message.message.from = ReplicaId(2);
    message
}

#[test]
fn an_invitation_gives_birth_and_create_finds_the_replica() {
    let mut disks = disks();
    let mut node = disks.start();
    hear(&mut node, from_two(1, invitation("kv", 1)));
    assert_eq!(node.router.cell(G).unwrap().replica, ReplicaId(1));
    assert_eq!(create(&mut node, spec("kv")), Some(Ok(())));
    let again = disks.start();
    assert_eq!(again.router.cell(G).unwrap().replica, ReplicaId(1), "it was durable");
}

#[test]
fn births_by_message_are_bounded() {
    let mut disks = disks();
    let mut node = disks.start();
    let invite = |group: u64| {
        let creation = Arc::new(spec_of(GroupId(group), "kv").creation());
        let aside = Aside::Invitation(Box::new(Invitation { creation, disk: Incarnation(1) }));
        GroupMessage { group: GroupId(group), ..from_two(9, aside) }
    };
    for group in 1..=3000 {
        node.mail().lifecycle(LifecycleMsg::Unknown { from: identity(2), message: Box::new(invite(group)) });
    }
    node.run();
    assert_eq!(node.router.cells().len(), 256, "those whose records were under way together");
    (1..=1500).for_each(|group| hear(&mut node, invite(group)));
    assert_eq!(node.router.cells().len(), 1024, "those of one second");
}

#[test]
fn a_replica_that_stands_still_ends_when_another_is_invited_in_its_place() {
    let mut disks = disks();
    disks.found_group("kv", 9, 5);
    let of = |op| GroupWrite { group: G, replica: ReplicaId(1), op };
    let conf_state = spec("kv").creation().conf_state;
    disks.write(vec![of(GroupOp::Truncate(Truncation { pos: parts::pos(5), conf_state }))]);
    let mut node = disks.start();
    assert!(node.router.cell(G).unwrap().status().quarantined.is_some(), "its log was truncated ahead of its machine");
    hear(&mut node, from_two(1, invitation("kv", 1)));
    hear(&mut node, from_two(7, invitation("kv", 2)));
    assert!(node.router.cell(G).is_some(), "not by an invitation for itself, nor for another disk");
    hear(&mut node, from_two(7, invitation("kv", 1)));
    assert!(matches!(node.router.route(G), Some(Route::Destroyed)));
    hear(&mut node, from_two(7, invitation("kv", 1)));
    assert_eq!(node.router.cell(G).unwrap().replica, ReplicaId(7));
}
