//! Short random schedules over whole nodes: crashes, partitions, hung disks; then healing, and what was acknowledged is
//! there on every replica.
//!
//! Leaves to others: linearizability, invariants at every step, fault coverage (the simulator).

use crate::cluster::{Cluster, GROUP};
use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::ids::NodeId;
use pontoon_raftstore::testing::{KvOp, KvSlot, Replay, Rng, seeds};
use std::sync::Arc;
use std::time::Duration;

fn config(rng: &mut Rng) -> Config {
    let small = rng.chance(500);
    Config {
        max_append_bytes: if small { 0 } else { 4 << 10 },
        max_inflight: if small { 1 } else { 8 },
        log_keep: 4 << 10,
        durable_every: Duration::from_millis(300),
        disk_stall: Duration::from_secs(2),
        inline_sync: rng.chance(125),
        ..Config::default()
    }
}

fn disturb(c: &mut Cluster, rng: &mut Rng) {
    let node = NodeId(1 + rng.below(3));
    match rng.below(12) {
        0 => c.crash_and_restart(node),
        1 | 2 => {
            c.cut_off.clear();
            c.cut_off.insert(node);
        }
        3..=5 => c.cut_off.clear(),
        6 => {
            let part = ["log_writer", "applier", "snapshotter", "poller"][rng.below(4) as usize];
            c.nodes.get_mut(&node).unwrap().hung.insert(part);
        }
        _ => c.nodes.values_mut().for_each(|n| n.hung.clear()),
    }
}

#[test]
fn what_was_acknowledged_survives_everything() {
    let mut installs = 0;
    for seed in seeds(150) {
        let _replay = Replay { test: "nodes", case: "what_was_acknowledged_survives_everything", seed };
        let mut rng = Rng::new(seed);
        let mut c = Cluster::new(3, config(&mut rng));
        c.create(GROUP);
        let mut waiting: Vec<(u64, Arc<KvSlot>)> = Vec::new();
        let mut acked = Vec::new();
        for n in 0..300_u64 {
            if rng.chance(200) {
                disturb(&mut c, &mut rng);
            }
            let pair = (Bytes::from(n.to_string()), Bytes::from(vec![b'x'; rng.below(300) as usize]));
            for node in c.nodes.keys().copied().collect::<Vec<_>>() {
                if let Ok(slot) = c.propose(node, GROUP, &KvOp::Put(vec![pair.clone()])) {
                    waiting.push((n, slot));
                }
            }
            c.ticks(1 + rng.below(2));
            waiting.retain(|(n, slot)| match slot.take() {
                Some(Ok(_)) => {
                    acked.push(*n);
                    false
                }
                Some(Err(_)) => false,
                None => true,
            });
        }
        c.cut_off.clear();
        c.nodes.values_mut().for_each(|n| n.hung.clear());
        c.ticks(60);
        c.put("end", "end").unwrap();
        c.ticks(20);
        installs += c.nodes.values().map(|n| n.handle.status(GROUP).unwrap().generation.0).sum::<u64>();
        let contents = c.contents(GROUP);
        for (node, map) in contents.iter().enumerate() {
            for n in &acked {
                assert!(map.contains_key(n.to_string().as_bytes()), "write {n} is lost on node {}", node + 1);
            }
        }
        assert!(contents.windows(2).all(|w| w[0] == w[1]), "contents differ");
        assert!(acked.len() > 20, "only {} writes were acknowledged", acked.len());
        for node in c.nodes.values() {
            let used = node.handle.health(Duration::ZERO).budget_used;
            assert!(used < 64 << 10, "{used} bytes of the budget are in use at rest");
        }
    }
    assert!(installs > 0, "no schedule installed a snapshot");
}
