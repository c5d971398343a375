//! Laggards get snapshots of the key-value store, and leaders even out, on three real nodes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PATIENCE, get, kv, put, quick, until};
use pontoon::NodeId;
use pontoon::config::{Size, Span};
use pontoon::kv::{KvDigest, KvMachine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_gets_a_snapshot_and_has_the_same_contents() {
    let mut cluster = Cluster::start(3, |b| {
        let mut config = quick();
        config.raft.log_keep = Size::bytes(1 << 10);
        config.raft.durable_every = Span::millis(100);
        kv(b.config(config))
    })
    .await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    cluster.stop(NodeId(3), common::hard()).await;
    let value = "v".repeat(1000);
    for i in 0..300 {
        put(&cluster, 1, &format!("k{}", i % 100), &format!("{i}{value}")).await;
    }
    for node in [1, 2] {
        let group = cluster.group::<KvMachine>(NodeId(node), 1);
        group.wait(|s| s.first.0 > 100, PATIENCE).await.unwrap();
    }
    let back = cluster.builder(NodeId(3)).open().await.unwrap();
    cluster.engines.insert(NodeId(3), back);
    assert_eq!(get(&cluster, NodeId(3), 1, "k99").await, Some(format!("299{value}")));
    // An install; the status copy follows at the end of the turn that answered the read.
    let group = cluster.group::<KvMachine>(NodeId(3), 1);
    group.wait(|s| s.generation.0 > 0, PATIENCE).await.unwrap();

    put(&cluster, 1, "last", "1").await;
    let digests = same_digests(&cluster).await;
    assert_eq!(digests.pairs, 102);

    // What was installed survives a restart of all, and so does what came after it.
    cluster.stop_all().await;
    cluster.open_all().await;
    for node in cluster.ids() {
        assert_eq!(get(&cluster, node, 1, "k0").await, Some(format!("200{value}")));
        assert_eq!(get(&cluster, node, 1, "last").await.as_deref(), Some("1"));
    }
    assert_eq!(same_digests(&cluster).await.hash, digests.hash);
    cluster.stop_all().await;
}

/// The digest that all replicas agree on at one applied index.
async fn same_digests(cluster: &Cluster) -> KvDigest {
    let found = until("one applied index", async || {
        let mut found = Vec::new();
        for node in cluster.ids() {
            let view = cluster.group::<KvMachine>(node, 1).read(pontoon::Read::Local { max_staleness: None }).await;
            found.push(view.unwrap().digest().unwrap());
        }
        if found.iter().all(|d| d.applied == found[0].applied) { Ok(found) } else { Err(found) }
    })
    .await;
    assert!(found.iter().all(|d| *d == found[0]), "{found:?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_even_out_after_a_node_was_away() {
    let mut cluster = Cluster::start(3, kv).await;
    for group in 1..=9 {
        cluster.create::<KvMachine>(group, "kv").await;
    }
    for group in 1..=9 {
        put(&cluster, group, "a", "1").await;
    }
    cluster.stop(NodeId(1), common::hard()).await;
    for group in 1..=9 {
        put(&cluster, group, "a", "2").await;
    }
    let back = cluster.builder(NodeId(1)).open().await.unwrap();
    cluster.engines.insert(NodeId(1), back);
    until("even leaders", async || {
        let led: Vec<usize> = cluster.engines.values().map(|e| e.health().led).collect();
        let even = led.iter().all(|n| (2..=4).contains(n)) && led.iter().sum::<usize>() == 9;
        if even { Ok(()) } else { Err(led) }
    })
    .await;
    cluster.stop_all().await;
}
