//! One group whose queue never ends, and another on the same poller, applier and log: a turn takes a bounded bite, so the
//! other's command is met, committed and applied within turns that are counted.
//!
//! Leaves to others: what is refused (`overload`), time. Invariant: the queue is full before each turn.

use crate::cluster::{Cluster, GROUP};
use crate::put;
use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::ids::{GroupId, NodeId};
use pontoon_raftstore::proposal::weigh;
use pontoon_raftstore::testing::KvOp;

const COLD: GroupId = GroupId(8);

/// What a poller's turn takes at most: letters, and bytes after which it takes no further letter.
const LETTERS: u64 = 4096;
const BYTES: u64 = 4 << 20;
/// Turns that a lone command takes beside nobody, and some.
const ALONE: u64 = 6;

/// A part of a node's budget.
fn part(c: &Cluster, at: NodeId, name: &str) -> u64 {
    let parts = c.nodes[&at].handle.router().budget().parts();
    parts.into_iter().find(|p| p.0 == name).unwrap().1
}

/// Three nodes with one poller and one applier each; one leads both groups.
fn both_led(config: Config) -> (Cluster, NodeId) {
    let mut c = Cluster::new(3, config);
    c.create(GROUP);
    c.create(COLD);
    let (hot, leader) = (c.await_leader(GROUP), c.await_leader(COLD));
    c.ticks(3);
    if hot != leader {
        let _moved = c.transfer(hot, leader);
    }
    c.ticks(3);
    assert_eq!((c.leader(GROUP), c.leader(COLD)), (Some(leader), Some(leader)));
    (c, leader)
}

fn command(bytes: usize) -> KvOp {
    KvOp::Put(vec![(Bytes::from_static(b"k"), Bytes::from(vec![b'x'; bytes]))])
}

/// Hands commands in until the door refuses one.
fn fill(c: &Cluster, leader: NodeId, op: &KvOp) {
    while c.propose(leader, GROUP, op).is_ok() {}
}

/// What the cold group's command met.
#[derive(Debug, Default)]
struct Met {
    /// Until its answer came.
    turns: u64,
    /// The longest line at the door. Bytes.
    line: u64,
    /// The most that one turn took from it. Bytes.
    bite: u64,
    /// The most that waited for the machines. Bytes.
    backlog: u64,
}

/// One command of the cold group while the hot one's queue is filled before each turn.
fn beside_a_full_queue(c: &mut Cluster, leader: NodeId, op: &KvOp) -> Met {
    fill(c, leader, op);
    // What waits at the door shuts it for everybody; whoever comes while there is room stands last in line.
    while c.propose(leader, COLD, op).is_err() {
        c.step();
    }
    fill(c, leader, op);
    let slot = loop {
        match c.propose(leader, COLD, &put("k", "v")) {
            Ok(slot) => break slot,
            Err(_) => c.step(),
        };
    };
    let mut met = Met::default();
    while met.turns < 1000 {
        fill(c, leader, op);
        let line = part(c, leader, "at_door");
        c.step();
        met.turns += 1;
        met.line = met.line.max(line);
        met.backlog = met.backlog.max(part(c, leader, "applying"));
        met.bite = met.bite.max(line - part(c, leader, "at_door"));
        if let Some(end) = slot.take() {
            assert!(end.is_ok(), "{end:?}");
            return met;
        }
    }
    panic!("starved: {met:?}");
}

#[test]
fn a_queue_that_never_ends_holds_nobody_up() {
    for (node_bytes, bytes) in [(256 << 20, 1024), (64 << 20, 8)] {
        let (mut c, leader) = both_led(Config { node_bytes, ..Config::default() });
        let op = command(bytes);
        let cost = weigh(op.encode().len() as u64, 1);
        // In the midst of it: writes, messages and answers are all under way.
        for _ in 0..10 {
            fill(&c, leader, &op);
            assert!(c.step());
        }
        let met = beside_a_full_queue(&mut c, leader, &op);
        let most = (BYTES + cost).min(LETTERS * cost);
        assert!(met.line > 2 * most, "that line is no test: {met:?}");
        assert!(met.bite <= most, "a turn took {} commands: {met:?}", met.bite / cost);
        assert!(met.turns <= met.line / most + 1 + ALONE, "{met:?}");
        assert!(met.backlog <= met.line.max(2 * most), "the machine is behind without bound: {met:?}");
    }
}
