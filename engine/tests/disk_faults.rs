//! A log store whose disk fails under a whole engine (law 7): all waiters get `OutcomeUnknown`, an event, health goes
//! red, nothing is promised any more although the disk is sound again at the next call; after a restart everything
//! acknowledged is there.
//!
//! The test runs itself again in a child process under `wal/tests/faults/shim.c`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "../../wal/tests/faults/mod.rs"]
mod faults;

use common::{Cluster, PATIENCE, get, hard, kv, put, set};
use faults::{EIO, ENOSPC, Faults};
use pontoon::kv::KvMachine;
use pontoon::{Engine, Event, NodeId, ProposeError, Read};

const GROUPS: u64 = 4;
const ME: NodeId = NodeId(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_ends_all_promises() {
    let Some(faults) = Faults::of_parent() else {
        let dir = tempfile::tempdir().unwrap();
        let output = Faults::build(dir.path()).child("a_failed_disk_ends_all_promises");
        println!("{}", String::from_utf8_lossy(&output.stdout));
        return assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let mut cluster = Cluster::start(1, kv).await;
    for group in 1..=GROUPS {
        cluster.create::<KvMachine>(group, "kv").await;
        put(&cluster, group, "kept", "yes").await;
    }
    for (kind, error) in [("sync", EIO), ("write", EIO), ("torn", ENOSPC)] {
        let acknowledged = fails(&cluster, &faults, kind, error).await;
        println!("{kind} {error}: {acknowledged} acknowledged before");
        let report = cluster.engines.remove(&ME).unwrap().shutdown(hard()).await;
        println!("{report:?}");
        faults.disarm();
        cluster.open_all().await;
        for group in 1..=GROUPS {
            assert_eq!(get(&cluster, ME, group, "kept").await.as_deref(), Some("yes"));
            for n in 0..acknowledged {
                let key = format!("{kind}:{n}");
                assert!(get(&cluster, ME, group, &key).await.is_some(), "{key} of group {group} was acknowledged");
            }
        }
    }
    cluster.stop_all().await;
}

/// Writes until the disk fails; every write that waits is answered, and none is promised any more. How many were
/// acknowledged in each group.
async fn fails(cluster: &Cluster, faults: &Faults, kind: &str, error: i32) -> u64 {
    let engine = &cluster.engines[&ME];
    let mut events = engine.events();
    let groups: Vec<_> = (1..=GROUPS).map(|g| cluster.group::<KvMachine>(ME, g)).collect();
    let mut acknowledged = 0;
    faults.arm(kind, error, 40, 1, "*/log/store/db/*.log"); // once, after some have passed
    loop {
        let key = format!("{kind}:{acknowledged}");
        let waiting: Vec<_> = groups.iter().map(|group| group.propose(set(&key, "v"))).collect();
        let mut answers = Vec::new();
        for proposal in waiting {
            answers.push(tokio::time::timeout(PATIENCE, proposal).await.expect("a waiter was forgotten"));
        }
        if let Some(failed) = answers.iter().find_map(|a| a.as_ref().err()) {
            assert!(answers.iter().any(|a| matches!(a, Err(ProposeError::OutcomeUnknown { .. }))), "{failed}");
            break;
        }
        acknowledged += 1;
    }
    assert!(faults.struck(), "the disk never failed");
    promises_nothing(engine, &groups).await;
    let told = std::iter::from_fn(|| events.next_blocking(PATIENCE / 10)).find(|e| matches!(e, Event::Poisoned(_)));
    assert!(told.is_some(), "no event");
    acknowledged
}

async fn promises_nothing(engine: &Engine, groups: &[pontoon::Group<KvMachine>]) {
    let why = engine.poisoned().expect("poisoned");
    let health = engine.health();
    assert!(!health.alive && !health.ready && health.checks.iter().any(|c| c.detail == why), "{health:?}");
    for group in groups {
        let again = tokio::time::timeout(PATIENCE, group.propose(set("later", "v"))).await.unwrap();
        assert!(again.is_err(), "promised after {why}");
        assert!(tokio::time::timeout(PATIENCE, group.read(Read::Linearizable)).await.unwrap().is_err());
    }
}
