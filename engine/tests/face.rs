//! The face on three real nodes: log stores, TCP, key-value machines; writes, reads everywhere, restarts.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PATIENCE, get, hard, kv, put, set, until};
use pontoon::kv::KvMachine;
use pontoon::{GroupId, LinkState, NodeId, ProposeError, Read, Shutdown};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_everywhere_and_after_a_restart_of_all() {
    let mut cluster = Cluster::start(3, kv).await;
    for group in [1, 2, 3] {
        cluster.create::<KvMachine>(group, "kv").await;
    }
    for i in 0..50 {
        put(&cluster, 1 + i % 3, &format!("k{i}"), &i.to_string()).await;
    }
    for node in cluster.ids() {
        for i in 0..50 {
            let found = get(&cluster, node, 1 + i % 3, &format!("k{i}")).await;
            assert_eq!(found, Some(i.to_string()), "node {node}");
        }
        assert_eq!(get(&cluster, node, 1, "k1").await, None, "groups do not share keys");
    }

    // No hand-off, no drain: what was acknowledged is in the logs.
    cluster.stop_all().await;
    cluster.open_all().await;
    for node in cluster.ids() {
        for i in 0..50 {
            assert_eq!(get(&cluster, node, 1 + i % 3, &format!("k{i}")).await, Some(i.to_string()), "node {node}");
        }
    }
    put(&cluster, 2, "again", "1").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up() {
    let mut cluster = Cluster::start(3, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "before", "1").await;
    cluster.stop(NodeId(3), Shutdown::default()).await;
    for i in 0..20 {
        put(&cluster, 1, &format!("k{i}"), "x").await;
    }
    let open = cluster.builder(NodeId(3)).open().await.unwrap();
    cluster.engines.insert(NodeId(3), open);
    assert_eq!(get(&cluster, NodeId(3), 1, "k19").await.as_deref(), Some("x"));
    assert_eq!(get(&cluster, NodeId(3), 1, "before").await.as_deref(), Some("1"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_handed_over_and_followers_say_who_leads() {
    let mut cluster = Cluster::start(3, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let leader = cluster.leader(1).await;
    let heir = cluster.ids().into_iter().find(|n| *n != leader).unwrap();
    let old = cluster.group::<KvMachine>(leader, 1);
    // A transfer is given up after an election timeout, which is short here; on a busy machine it may take another try.
    until("the leadership is handed over", async || match old.transfer_leader(Some(heir)).await {
        Ok(now) => {
            assert_eq!(now, heir);
            Ok(())
        }
        Err(_) if old.status().leader.is_some_and(|l| l.node == heir) => Ok(()),
        Err(e) => Err(e),
    })
    .await;

    old.wait(|s| s.leader.is_some_and(|l| l.node == heir), PATIENCE).await.unwrap();
    match old.propose(set("a", "2")).await {
        Err(ProposeError::NotLeader { leader: Some(hint) }) => assert_eq!(hint.node, heir),
        other => panic!("{other:?}"),
    }
    assert!(old.try_propose(set("a", "2")).is_err_and(|e| e.never_appended()));

    // A shutdown with hand-off leaves no group without a leader for an election timeout.
    let engine = cluster.engines.remove(&heir).unwrap();
    let report = engine.shutdown(Shutdown { hand_off: PATIENCE, drain: Duration::from_secs(5) }).await;
    assert_eq!((report.still_led, report.drained), (0, true), "{report:?}");
    put(&cluster, 1, "a", "3").await;
    for node in cluster.engines.keys().copied().collect::<Vec<_>>() {
        cluster.stop(node, hard()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_reads_status_and_destroy() {
    let mut cluster = Cluster::start(3, |b| kv(b).advert("client=1")).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let engine = cluster.engines[&NodeId(1)].clone();
    let peers = engine.peers();
    assert_eq!(peers.iter().map(|p| p.node.0).collect::<Vec<_>>(), [2, 3]);
    assert!(peers.iter().all(|p| &p.advert[..] == b"client=1" && p.link == LinkState::Up), "{peers:?}");
    assert!(cluster.engines.values().all(|e| e.cluster().is_some() && e.cluster() == engine.cluster()));

    let group = engine.group::<KvMachine>(GroupId(1)).unwrap();
    let status = group.wait(|s| s.applied == s.commit && s.commit.0 > 0, PATIENCE).await.unwrap();
    assert_eq!((status.group, status.kind.as_str()), (GroupId(1), "kv"));
    for mode in [Read::Local { max_staleness: None }, Read::Local { max_staleness: Some(Duration::from_secs(1)) }] {
        let view = group.read(mode).await.unwrap();
        // The status is a copy, and may come a turn later.
        group.wait(|s| view.at <= s.applied, PATIENCE).await.unwrap();
    }
    let linear = group.read(Read::Linearizable).await.unwrap();
    assert_eq!(linear.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    drop(linear);

    engine.destroy(GroupId(1)).await.unwrap();
    assert!(engine.group::<KvMachine>(GroupId(1)).is_err());
    assert!(engine.create::<KvMachine>(cluster.spec(1, "kv")).await.is_err(), "a tombstone stays");
    drop(engine);
    cluster.stop_all().await;
}
