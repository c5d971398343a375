//! Each error of the face with the call that causes it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, kv, put, quick, set};
use pontoon::config::{Size, Span};
use pontoon::kv::{KvMachine, KvStore};
use pontoon::{
    Engine, GroupError, GroupId, LifecycleError, Lost, NodeId, OpenError, ProposeError, Read, ReadError, Shutdown,
};
use std::collections::BTreeSet;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_of_a_builder_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick();
    config.raft.election_ticks = 1;
    config.raft.pollers = 0;
    let builder = Engine::builder(dir.path().join("data"), NodeId(0))
        .config(config)
        .found(BTreeSet::from([NodeId(2), NodeId(3)]))
        .listen("10.0.0.1:7400")
        .admin("nonsense")
        .kind("a b", KvStore::default());
    let Err(OpenError::Config(problems)) = builder.open().await else { panic!("opened") };
    for part in
        ["pollers", "election_ticks", "node id", "include this node", "resolver", "loopback", "host:port", "a b"]
    {
        assert!(problems.iter().any(|p| p.contains(part)), "{part} is not in {problems:#?}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_are_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let builder = |node: u64| {
        Engine::builder(dir.path(), NodeId(node)).config(quick()).listen("127.0.0.1:0").kind("kv", KvStore::default())
    };
    assert!(matches!(builder(1).open().await, Err(OpenError::NotFounded(_))));
    let alone = builder(1).found(BTreeSet::from([NodeId(1)])).charter("x").open().await.unwrap();
    assert!(matches!(builder(1).open().await, Err(OpenError::InUse(_))));
    let addr = alone.peer_addr().unwrap().to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    let port = Engine::builder(elsewhere.path(), NodeId(1))
        .found(BTreeSet::from([NodeId(1)]))
        .listen(&addr)
        .kind("kv", KvStore::default());
    assert!(matches!(port.open().await, Err(OpenError::Listen { .. })));
    alone.shutdown(Shutdown::default()).await;
    drop(alone);

    let founded_otherwise = builder(1).found(BTreeSet::from([NodeId(1)])).charter("y");
    for wrong in [builder(2), founded_otherwise, builder(1).cluster([7; 16])] {
        match wrong.open().await.err() {
            Some(OpenError::WrongIdentity { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let again = builder(1).open().await.unwrap();
    again.shutdown(Shutdown::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_stays_alone_gives_up_and_says_who_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = quick();
    config.found_timeout = Span::millis(400);
    let builder = Engine::builder(dir.path(), NodeId(1))
        .config(config)
        .found(BTreeSet::from([NodeId(1), NodeId(2)]))
        .listen("127.0.0.1:0")
        .resolver(std::collections::BTreeMap::from([(NodeId(2), "127.0.0.1:1".to_owned())]))
        .kind("kv", KvStore::default());
    match builder.open().await {
        Err(OpenError::NotAdmitted(who)) => assert!(who.contains("node 2 (127.0.0.1:1)"), "{who}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_are_not_there_and_machines_that_are_not_theirs() {
    let mut cluster = Cluster::start(1, kv).await;
    let engine = cluster.engines[&NodeId(1)].clone();
    let missing = LifecycleError::Group(GroupError::NotFound(GroupId(9)));
    assert_eq!(engine.group::<KvMachine>(GroupId(9)).err(), Some(missing));
    assert!(matches!(engine.create::<KvMachine>(cluster.spec(0, "kv")).await, Err(LifecycleError::BadSpec(_))));
    assert!(matches!(engine.create::<KvMachine>(cluster.spec(1, "no")).await, Err(LifecycleError::StateMachine(_))));
    cluster.create::<KvMachine>(1, "kv").await;
    engine.create::<KvMachine>(cluster.spec(1, "kv")).await.unwrap();
    let mut other = cluster.spec(1, "kv");
    other.learners.insert(NodeId(7));
    assert!(matches!(engine.create::<KvMachine>(other).await, Err(LifecycleError::OtherSpec { .. })));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_at_the_door_and_after_the_end() {
    let mut cluster = Cluster::start(1, |b| {
        let mut config = quick();
        config.raft.max_command = Size::bytes(1 << 10);
        kv(b.config(config))
    })
    .await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let group = cluster.group::<KvMachine>(NodeId(1), 1);
    assert_eq!(group.propose(vec![0; 1025]).await.err(), Some(ProposeError::TooLarge(1025, 1 << 10)));
    assert_eq!(group.propose(Vec::new()).await.err(), Some(ProposeError::Empty));
    cluster.stop_all().await;
    let down = GroupError::ShuttingDown;
    assert_eq!(group.propose(set("a", "2")).await.err(), Some(ProposeError::Group(down.clone())));
    assert_eq!(group.read(Read::Linearizable).await.err(), Some(ReadError::Group(down.clone())));
    assert_eq!(group.read(Read::Local { max_staleness: None }).await.err(), Some(ReadError::Group(down)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_write_ends_with_outcome_unknown_and_nothing_hangs() {
    let mut cluster = Cluster::start(3, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let leader = cluster.leader(1).await;
    for node in cluster.ids().into_iter().filter(|n| *n != leader) {
        cluster.stop(node, common::hard()).await;
    }
    let group = cluster.group::<KvMachine>(leader, 1);
    match group.propose(set("a", "2")).timeout(Duration::from_secs(2)).await {
        Err(ProposeError::OutcomeUnknown { why: Lost::Timeout | Lost::Leadership, .. }) => {}
        Err(e @ ProposeError::NotLeader { .. }) => assert!(e.never_appended()),
        other => panic!("{other:?}"),
    }
    let read = group.read_within(Read::Linearizable, Duration::from_secs(2)).await.err().unwrap();
    assert!(matches!(read, ReadError::Unconfirmed | ReadError::NoLeader), "{read}");
    cluster.stop(leader, common::hard()).await;
}
