//! Nodes join, groups change their members, and nodes leave: on the face alone, with real log stores and links.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PATIENCE, get, hard, kv, put, quick, until, until_true};
use pontoon::config::Span;
use pontoon::kv::{KvMachine, KvStore};
use pontoon::{
    AdminError, BootError, Builder, Engine, Event, Group, GroupError, GroupId, Index, LinkState, NodeId, OpenError,
    Phase, Read, Target, members_of,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn target(voters: &[u64], learners: &[u64]) -> Target {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    Target { voters: nodes(voters), learners: nodes(learners), if_conf: None, promote_lag: 0 }
}

fn joiner(dir: &Path, node: u64, via: &[&str]) -> Builder {
    let dir = dir.join(format!("joiner-{node}"));
    Engine::builder(dir, NodeId(node)).config(quick()).join(via).listen("127.0.0.1:0").kind("kv", KvStore::default())
}

async fn join(cluster: &mut Cluster, dir: &Path, node: u64) {
    let via = cluster.addrs[&NodeId(1)].clone();
    let engine = joiner(dir, node, &[&via]).open().await.unwrap();
    cluster.addrs.insert(NodeId(node), engine.peer_addr().unwrap().to_string());
    cluster.engines.insert(NodeId(node), engine);
}

/// Asks whoever leads until the members are as wanted.
async fn change(cluster: &Cluster, to: &Target) -> Index {
    until("the change ends", async || {
        let leader = cluster.leader(1).await;
        cluster.group::<KvMachine>(leader, 1).reconfigure(to.clone()).await
    })
    .await
}

fn handle(cluster: &Cluster, node: u64) -> Group<KvMachine> {
    cluster.group(NodeId(node), 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_moves_from_one_node_to_others_that_joined() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(1, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    for node in [2, 3] {
        join(&mut cluster, dir.path(), node).await;
    }
    let ids: BTreeSet<_> = cluster.engines.values().map(Engine::cluster).collect();
    assert_eq!((ids.len(), ids.contains(&None)), (1, false), "they took over the cluster's id");
    // 2 and 3 were told of node 1 only; they find each other through its table.
    for (node, other) in [(1, 2), (1, 3), (2, 3), (3, 2)] {
        let up = |p: &pontoon::Peer| p.node == NodeId(other) && p.link == LinkState::Up && p.disk.is_some();
        until_true("links between all", || cluster.engines[&NodeId(node)].peers().iter().any(up)).await;
    }
    let second = cluster.engines[&NodeId(2)].clone();
    let mut events = second.events();
    assert!(second.group::<KvMachine>(GroupId(1)).is_err(), "nobody gave it a replica yet");

    let at = change(&cluster, &target(&[1, 2, 3], &[])).await;
    let leader = cluster.leader(1).await;
    let status = cluster.group::<KvMachine>(leader, 1).status();
    assert!(status.conf_index >= at && status.reconfigure.is_none_or(|r| r.phase == Phase::Done));
    until_true("born by message", || second.group::<KvMachine>(GroupId(1)).is_ok()).await;
    let opened = Event::Opened(GroupId(1));
    let mut told = false;
    while !told {
        told = events.next(PATIENCE).await.unwrap() == opened;
    }
    put(&cluster, 1, "b", "2").await;
    for node in [1, 2, 3] {
        assert_eq!(get(&cluster, NodeId(node), 1, "a").await.as_deref(), Some("1"), "node {node}");
        assert_eq!(get(&cluster, NodeId(node), 1, "b").await.as_deref(), Some("2"), "node {node}");
    }
    let leading = cluster.group::<KvMachine>(cluster.leader(1).await, 1);
    let all_shown = leading.wait(|s| s.is_leader() && s.followers.len() == 2, PATIENCE).await.unwrap();
    assert!(all_shown.followers.iter().all(|f| f.node.is_some()), "{:?}", all_shown.followers);

    // The founder leaves, whether it leads or not; its replica is destroyed, its node lives on and disturbs nobody.
    change(&cluster, &target(&[2, 3], &[])).await;
    let first = cluster.engines[&NodeId(1)].clone();
    let gone = || matches!(first.status(GroupId(1)), Err(GroupError::Destroyed(_)));
    until_true("the removed replica is destroyed", gone).await;
    let stale = handle_of(&first);
    assert!(stale.is_err(), "no handle on what has left");
    put(&cluster, 1, "c", "3").await;
    assert_eq!(get(&cluster, NodeId(3), 1, "c").await.as_deref(), Some("3"));
    assert!(first.health().alive && first.peers().iter().all(|p| p.link == LinkState::Up));

    // And back again, as a learner, with a new replica id and all that was written meanwhile.
    change(&cluster, &target(&[2, 3], &[1])).await;
    until_true("back again", || first.status(GroupId(1)).is_ok()).await;
    let back = handle(&cluster, 1);
    let status = back.wait(|s| s.applied == s.commit && s.commit.0 > 0, PATIENCE).await.unwrap();
    assert!(status.replica.0 > 3, "{:?}", status.replica);
    until_true("a learner", || members_of(&back.status()) == ([2, 3].map(NodeId).into(), [1].map(NodeId).into())).await;
    assert_eq!(get(&cluster, NodeId(1), 1, "c").await.as_deref(), Some("3"));
    let view = back.read(Read::Local { max_staleness: Some(Duration::from_secs(30)) }).await.unwrap();
    assert_eq!(view.get(b"c").unwrap().as_deref(), Some(&b"3"[..]));
    drop((view, first, second));
    cluster.stop_all().await;
}

fn handle_of(engine: &Engine) -> Result<Group<KvMachine>, pontoon::LifecycleError> {
    engine.group(GroupId(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_lose_two_and_serve_on() {
    let mut cluster = Cluster::start(5, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let leader = cluster.leader(1).await;
    let other = cluster.ids().into_iter().find(|n| *n != leader).unwrap();
    for node in [leader, other] {
        cluster.stop(node, hard()).await;
    }
    put(&cluster, 1, "a", "2").await;
    for node in cluster.engines.keys().copied().collect::<Vec<_>>() {
        assert_eq!(get(&cluster, node, 1, "a").await.as_deref(), Some("2"));
    }
    // The two that are gone are replaced by nobody: three stay, and two of them are enough again.
    let three: Vec<u64> = cluster.engines.keys().map(|n| n.0).collect();
    change(&cluster, &target(&three, &[])).await;
    cluster.stop(NodeId(three[0]), hard()).await;
    put(&cluster, 1, "a", "3").await;
    for node in cluster.engines.keys().copied().collect::<Vec<_>>() {
        cluster.stop(node, hard()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_are_refused_and_change_nothing() {
    let mut cluster = Cluster::start(3, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let leader = cluster.leader(1).await;
    let led = cluster.group::<KvMachine>(leader, 1);
    let before = led.status();
    let no_voter = led.reconfigure(target(&[], &[1, 2, 3])).await;
    assert!(matches!(no_voter, Err(AdminError::Refused(_))), "{no_voter:?}");
    let both = led.reconfigure(target(&[1, 2, 3], &[3])).await;
    assert!(matches!(both, Err(AdminError::Refused(_))), "{both:?}");
    let fenced = Target { if_conf: Some(Index(before.conf_index.0 + 1)), ..target(&[1, 2], &[]) };
    let fenced = led.reconfigure(fenced).await;
    assert!(matches!(fenced, Err(AdminError::ConfChanged { .. })), "{fenced:?}");
    let follower = cluster.ids().into_iter().find(|n| *n != leader).unwrap();
    match cluster.group::<KvMachine>(follower, 1).reconfigure(target(&[1, 2], &[])).await {
        Err(AdminError::NotLeader { leader: Some(hint) }) => assert_eq!(hint.node, leader),
        other => panic!("{other:?}"),
    }
    // A node that nobody ever met.
    let unknown = led.reconfigure(target(&[1, 2, 3, 9], &[])).await;
    assert!(matches!(unknown, Err(AdminError::UnknownNode(NodeId(9)) | AdminError::NotLeader { .. })), "{unknown:?}");
    assert_eq!(members_of(&led.status()), members_of(&before));
    put(&cluster, 1, "a", "2").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_refuses_what_founding_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(1, kv).await;
    let via = cluster.addrs[&NodeId(1)].clone();
    let Err(OpenError::Config(problems)) = joiner(dir.path(), 2, &[])
        .found(BTreeSet::from([NodeId(2)]))
        .admin("127.0.0.1:0")
        .admin_token("short")
        .open()
        .await
    else {
        panic!("opened")
    };
    for part in ["founds or joins", "no member's address", "admin token"] {
        assert!(problems.iter().any(|p| p.contains(part)), "{part} is not in {problems:#?}");
    }
    // Nobody there: told at which address, and why.
    let mut config = quick();
    config.found_timeout = Span::millis(500);
    match joiner(dir.path(), 2, &["127.0.0.1:1"]).config(config.clone()).open().await.err() {
        Some(OpenError::NotAdmitted(why)) => assert!(why.contains("no way in at 127.0.0.1:1"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Another cluster than the one wanted.
    match joiner(dir.path(), 2, &[&via]).config(config).cluster([9; 16]).open().await.err() {
        Some(OpenError::NotAdmitted(why)) => assert!(why.contains("is not"), "{why}"),
        other => panic!("{other:?}"),
    }
    // The same directory joins, once it may; a later start needs nobody and no flag.
    let second = joiner(dir.path(), 2, &[&via]).open().await.unwrap();
    second.shutdown(hard()).await;
    drop(second);
    let again = Engine::builder(dir.path().join("joiner-2"), NodeId(2)).config(quick()).listen("127.0.0.1:0");
    let again = again.kind("kv", KvStore::default()).open().await.unwrap();
    assert_eq!(again.cluster(), cluster.engines[&NodeId(1)].cluster());
    again.shutdown(hard()).await;
    drop(again);
    // Wiped, it is refused for good, twice.
    std::fs::remove_dir_all(dir.path().join("joiner-2")).unwrap();
    for _ in 0..2 {
        match joiner(dir.path(), 2, &[&via]).open().await.err() {
            Some(OpenError::Boot(BootError::Refused { why, .. })) => {
                assert!(why.to_string().contains("new node id"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    cluster.stop_all().await;
}
