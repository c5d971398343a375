//! The machine of `examples/in_memory_kv.rs`: run as it stands, and through restarts by the engine's own snapshots.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../examples/in_memory_kv.rs"]
#[allow(dead_code, unreachable_pub)]
mod in_memory_kv;

use common::{Cluster, PATIENCE, quick, until};
use in_memory_kv::{Kv, Kvs};
use pontoon::config::Size;
use pontoon::{GroupId, NodeId, Read};

#[test]
fn the_example_runs() {
    in_memory_kv::main().unwrap();
}

async fn get(cluster: &Cluster, node: NodeId, key: u8) -> Option<Vec<u8>> {
    let group = cluster.group::<Kv>(node, 1);
    let view = until("a read", async || group.read(Read::Linearizable).await).await;
    view.get(&[key]).map(|v| v.to_vec())
}

async fn check(cluster: &Cluster, keys: u8, round: u8) {
    for node in cluster.ids() {
        for key in 0..keys {
            assert_eq!(get(cluster, node, key).await, Some(vec![key, round]), "node {node}");
        }
    }
}

/// Snapshots are taken, the log is cut behind them, all nodes restart: what was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_map_survives_restarts_of_all_nodes() {
    let mut cluster = Cluster::start(3, |b| {
        let mut config = quick();
        config.raft.log_keep = Size::bytes(1 << 10);
        b.config(config).kind("memory", Kvs)
    })
    .await;
    cluster.create::<Kv>(1, "memory").await;
    for round in 0..3 {
        for key in 0..40 {
            cluster.write::<Kv>(1, vec![key, key, round]).await;
        }
        for engine in cluster.engines.values() {
            let group = engine.group::<Kv>(GroupId(1)).unwrap();
            let at = group.snapshot_now().await.unwrap();
            assert!(at.index.0 > 0);
        }
        // Behind the snapshots: replayed from the log.
        for key in 40..60 {
            cluster.write::<Kv>(1, vec![key, key, round]).await;
        }
        check(&cluster, 60, round).await;
        cluster.stop_all().await;
        cluster.open_all().await;
        check(&cluster, 60, round).await;
    }
    cluster.stop_all().await;
}

/// A node whose log was cut off by the others' truncation gets the leader's snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, |b| {
        let mut config = quick();
        config.raft.log_keep = Size::bytes(1 << 10);
        b.config(config).kind("memory", Kvs)
    })
    .await;
    cluster.create::<Kv>(1, "memory").await;
    cluster.write::<Kv>(1, vec![0, 0, 0]).await;
    cluster.stop(NodeId(3), common::hard()).await;
    for key in 0..200 {
        let mut command = vec![key, key, 9];
        command.resize(600, 0);
        cluster.write::<Kv>(1, command).await;
    }
    for node in [1, 2] {
        cluster.group::<Kv>(NodeId(node), 1).snapshot_now().await.unwrap();
    }
    for node in [1, 2] {
        let group = cluster.group::<Kv>(NodeId(node), 1);
        group.wait(|s| s.first.0 > 50, PATIENCE).await.unwrap();
    }
    let back = cluster.builder(NodeId(3)).open().await.unwrap();
    cluster.engines.insert(NodeId(3), back);
    for key in 0..200 {
        let found = get(&cluster, NodeId(3), key).await.unwrap();
        assert_eq!((found[0], found[1]), (key, 9));
    }
    // An install; the status copy follows at the end of the turn that answered the read.
    cluster.group::<Kv>(NodeId(3), 1).wait(|s| s.generation.0 > 0, PATIENCE).await.unwrap();
    cluster.stop_all().await;
}
