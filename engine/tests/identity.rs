//! Wiped, copied and misfounded directories are refused before they can do harm (boot.md 1 and 2).
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PATIENCE, get, hard, kv, put, quick};
use pontoon::config::Span;
use pontoon::kv::KvMachine;
use pontoon::{BootError, Event, GroupError, NodeId, OpenError, ProposeError};
use std::fs;
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &name);
        } else {
            fs::copy(&path, name).unwrap();
        }
    }
}

async fn written() -> Cluster {
    let cluster = Cluster::start(3, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_is_refused_twice_and_the_others_go_on() {
    let mut cluster = written().await;
    cluster.stop(NodeId(3), hard()).await;
    fs::remove_dir_all(cluster.dir(NodeId(3))).unwrap();
    for start in 0..2 {
        match cluster.builder(NodeId(3)).open().await.err() {
            Some(OpenError::Boot(BootError::Refused { why, .. })) => {
                assert!(why.to_string().contains("new node id"), "start {start}: {why}");
            }
            other => panic!("start {start}: {other:?}"),
        }
    }
    put(&cluster, 1, "b", "2").await;
    for node in [1, 2] {
        cluster.stop(NodeId(node), hard()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_directory_stops_itself_and_loses_nothing() {
    let mut cluster = written().await;
    cluster.stop(NodeId(3), hard()).await;
    let kept = cluster.dir(NodeId(3)).with_extension("copy");
    copy(&cluster.dir(NodeId(3)), &kept);
    let back = cluster.builder(NodeId(3)).open().await.unwrap();
    cluster.engines.insert(NodeId(3), back);
    put(&cluster, 1, "b", "2").await;
    assert_eq!(get(&cluster, NodeId(3), 1, "b").await.as_deref(), Some("2"));
    cluster.stop(NodeId(3), hard()).await;

    fs::remove_dir_all(cluster.dir(NodeId(3))).unwrap();
    fs::rename(kept, cluster.dir(NodeId(3))).unwrap();
    match cluster.builder(NodeId(3)).open().await {
        // Refused on the way up, or a moment later.
        Err(OpenError::Boot(BootError::Refused { .. })) => {}
        Err(other) => panic!("{other}"),
        Ok(old) => {
            let mut events = old.events();
            while old.poisoned().is_none() {
                if let Some(Event::Poisoned(_)) = events.next(PATIENCE).await {
                    break;
                }
            }
            let why = old.poisoned().unwrap();
            assert!(why.contains("older copy"), "{why}");
            assert!(!old.health().alive);
            let group = old.group::<KvMachine>(pontoon::GroupId(1)).unwrap();
            let refused = group.propose(common::set("a", "x")).await.err();
            assert_eq!(refused, Some(ProposeError::Group(GroupError::ShuttingDown)));
            old.shutdown(hard()).await;
        }
    }
    put(&cluster, 1, "c", "3").await;
    for node in [1, 2] {
        cluster.stop(NodeId(node), hard()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_with_different_charters_stay_apart_and_say_so() {
    let cluster = Cluster::prepare(2, |b| {
        let mut config = quick();
        config.found_timeout = Span::millis(3_000);
        kv(b.config(config))
    });
    let one = tokio::spawn(cluster.builder(NodeId(1)).charter("48 groups").open());
    let two = tokio::spawn(cluster.builder(NodeId(2)).charter("64 groups").open());
    for open in [one, two] {
        match open.await.unwrap().err() {
            Some(OpenError::NotAdmitted(why)) => assert!(why.contains("founded with digest"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
