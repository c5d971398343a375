//! Few commands of a group wait for more while there are many groups and processors are short: for which, how long, and what
//! ends it.
//!
//! Leaves to others: when a poller is patient (`poller::crowd`). Invariant: one group is a crowd here, and its machine is slow.

use crate::cluster::{Cluster, GROUP};
use crate::{others, put};
use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::error::ProposeError;
use pontoon_raftstore::ids::{Index, NodeId};
use pontoon_raftstore::testing::{KvOp, KvSlot};
use std::sync::Arc;

/// Three nodes whose pollers have become patient, and the leader.
fn patient() -> (Cluster, NodeId) {
    let mut c = Cluster::new(3, Config { gather_from: 1, ..Config::default() });
    c.create(GROUP);
    let leader = c.await_leader(GROUP);
    for _ in 0..40 {
        hang(&mut c, leader, true);
        let slot = propose(&c, leader);
        c.settle();
        c.pass_tick();
        hang(&mut c, leader, false);
        c.settle();
        assert!(slot.take().unwrap().is_ok());
        c.ticks(1);
    }
    (c, leader)
}

/// The leader's machine stands still, or goes on.
fn hang(c: &mut Cluster, leader: NodeId, hangs: bool) {
    let hung = &mut c.nodes.get_mut(&leader).unwrap().hung;
    if hangs {
        hung.insert("applier")
    } else {
        hung.remove("applier")
    };
}

fn propose(c: &Cluster, at: NodeId) -> Arc<KvSlot> {
    c.propose(at, GROUP, &put("k", "v")).unwrap()
}

fn last(c: &Cluster, at: NodeId) -> Index {
    c.nodes[&at].handle.status(GROUP).unwrap().last
}

/// Two commands on their way to the machine, and one that waits for them.
fn two_and_one() -> (Cluster, NodeId, Vec<Arc<KvSlot>>, Arc<KvSlot>) {
    let (mut c, leader) = patient();
    let before = last(&c, leader);
    hang(&mut c, leader, true);
    let first = vec![propose(&c, leader), propose(&c, leader)];
    c.settle();
    assert_eq!(last(&c, leader), before.plus(2), "nothing was under way: nothing to wait for");
    let waits = propose(&c, leader);
    c.settle();
    assert_eq!(last(&c, leader), before.plus(2));
    (c, leader, first, waits)
}

#[test]
fn few_commands_wait_for_as_many_as_were_answered_before_them() {
    let (mut c, leader, first, waits) = two_and_one();
    let before = last(&c, leader);
    hang(&mut c, leader, false);
    c.settle();
    assert!(first.iter().all(|s| s.take().unwrap().is_ok()));
    assert_eq!(last(&c, leader), before, "the two may send others");
    let next = propose(&c, leader);
    c.settle();
    assert_eq!((last(&c, leader), waits.take()), (before, None));
    let third = propose(&c, leader);
    c.settle();
    assert_eq!(last(&c, leader), before.plus(3), "one run");
    assert!([waits, next, third].iter().all(|s| s.take().unwrap().is_ok()));
}

#[test]
fn nobody_waits_for_longer_than_a_tick() {
    let (mut c, leader, _, waits) = two_and_one();
    hang(&mut c, leader, false);
    c.settle();
    assert_eq!(waits.take(), None, "those who were answered send nothing");
    c.pass_tick();
    c.settle();
    assert!(waits.take().unwrap().is_ok());
}

#[test]
fn many_commands_do_not_wait() {
    let (mut c, leader, _, _) = two_and_one();
    let before = last(&c, leader);
    let more: Vec<_> = (0..15).map(|_| propose(&c, leader)).collect();
    c.settle();
    assert_eq!((last(&c, leader), more[14].take()), (before.plus(16), None));
}

/// What is kept back stands at the door, and would shut it for other groups.
#[test]
fn large_commands_do_not_wait() {
    let (mut c, leader, _, waits) = two_and_one();
    let before = last(&c, leader);
    // Of a line of 16 MiB; all of a group's limit is 16 MiB, too.
    let large = KvOp::Put(vec![(Bytes::from_static(b"k"), Bytes::from(vec![b'x'; 3 << 20]))]);
    let propose = |c: &Cluster| c.propose(leader, GROUP, &large).unwrap();
    let two = [propose(&c), propose(&c)];
    c.settle();
    assert_eq!(last(&c, leader), before, "6 MiB");
    let third = propose(&c);
    c.settle();
    assert_eq!(last(&c, leader), before.plus(4));
    hang(&mut c, leader, false);
    c.settle();
    assert!([waits, third].iter().chain(&two).all(|s| s.take().unwrap().is_ok()));
}

#[test]
fn whoever_waits_where_the_leader_leaves_hears_that_it_was_not_appended() {
    let (mut c, leader, _, waits) = two_and_one();
    let to = others(&c, leader)[0];
    let _moved = c.transfer(leader, to);
    c.settle();
    let error = waits.take().unwrap().unwrap_err();
    assert!(error.never_appended(), "{error:?}");
    assert!(matches!(error, ProposeError::Transferring { .. } | ProposeError::NotLeader { .. }), "{error:?}");
}
