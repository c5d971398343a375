//! Late turns of whole pollers are noticed, and told by their cause, on the twin clock.

use crate::cluster::{Cluster, GROUP};
use pontoon_raftstore::config::Config;
use pontoon_raftstore::events::{Event, EventStream, LateCause};
use pontoon_raftstore::ids::NodeId;
use pontoon_raftstore::testing::KvOp;
use pontoon_raftstore::turn::Active;
use std::time::Duration;

/// Three nodes with a leader, and what happens on it from now on.
fn led() -> (Cluster, NodeId, EventStream) {
    let mut cluster = Cluster::new(3, Config::default());
    cluster.create(GROUP);
    let leader = cluster.await_leader(GROUP);
    cluster.put("a", "1").unwrap();
    let events = cluster.nodes[&leader].handle.events();
    (cluster, leader, events)
}

fn late(events: &EventStream) -> Vec<(LateCause, Duration)> {
    let late = |e| if let Event::LateTurn { cause, by } = e { Some((cause, by)) } else { None };
    std::iter::from_fn(|| events.try_next()).filter_map(late).collect()
}

/// Nobody turns this part for so many ticks.
fn away(cluster: &mut Cluster, node: NodeId, part: &'static str, ticks: u64) {
    cluster.nodes.get_mut(&node).unwrap().hung.insert(part);
    cluster.ticks(ticks);
    cluster.nodes.get_mut(&node).unwrap().hung.clear();
    cluster.settle();
}

#[test]
fn punctual_turns_are_not_late() {
    let (mut cluster, leader, events) = led();
    cluster.ticks(50);
    // One heartbeat interval late is not more than one.
    away(&mut cluster, leader, "poller", 2);
    cluster.ticks(5);
    assert_eq!(late(&events), []);
}

#[test]
fn a_poller_that_nobody_turned_was_paused() {
    let (mut cluster, leader, events) = led();
    away(&mut cluster, leader, "poller", 4);
    assert_eq!(late(&events), [(LateCause::MachinePaused, Duration::from_millis(300))]);
    cluster.ticks(10);
    assert_eq!(late(&events), []);
}

#[test]
fn a_poller_whose_turn_took_long_was_busy() {
    let (mut cluster, leader, events) = led();
    let ended = cluster.now.after(Duration::from_millis(350));
    cluster.nodes.get_mut(&leader).unwrap().parts.pollers[0].on_end(ended);
    away(&mut cluster, leader, "poller", 4);
    assert_eq!(late(&events), [(LateCause::PollerBusy, Duration::from_millis(300))]);
}

#[test]
fn acks_that_waited_for_the_disk_were_late() {
    let (mut cluster, leader, events) = led();
    let pair = (bytes::Bytes::from_static(b"b"), bytes::Bytes::from_static(b"2"));
    let _slot = cluster.propose(leader, GROUP, &KvOp::Put(vec![pair])).unwrap();
    away(&mut cluster, leader, "log_writer", 3);
    assert_eq!(late(&events), [(LateCause::SyncSlow, Duration::from_millis(200))]);
}
