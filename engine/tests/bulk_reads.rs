//! Linearizable reads in bulk: each comes back once, under its tag, and sees what was acknowledged before it was submitted.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{hard, impatient, kv, led, put, set};
use pontoon::kv::KvMachine;
use pontoon::{Confirmation, Confirmations, GroupError, NodeId, ReadError};
use std::collections::BTreeSet;
use std::time::Duration;

const GROUPS: u64 = 4;

/// Everything that is under way, in the order in which it comes back.
async fn all(queue: &mut Confirmations) -> Vec<Confirmation> {
    let mut done = Vec::new();
    queue.collect(&mut done);
    while queue.under_way() > 0 {
        queue.ready().await;
        queue.collect(&mut done);
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sees_what_was_acknowledged_before_on_leaders_and_followers() {
    let mut cluster = led(kv, GROUPS).await;
    for round in 1..=5 {
        for group in 1..=GROUPS {
            put(&cluster, group, "k", &round.to_string()).await;
        }
        for node in cluster.ids() {
            let mut queue = cluster.engines[&node].confirmations();
            let groups: Vec<_> = (1..=GROUPS).map(|g| cluster.group::<KvMachine>(node, g)).collect();
            // More than a batch; several of each group share a confirmation.
            let n: u64 = 5_000;
            (0..n).for_each(|tag| queue.submit(&groups[(tag % GROUPS) as usize], tag));
            let done = all(&mut queue).await;
            assert!(done.iter().all(|c| c.result.is_ok()), "{:?}", done.iter().find(|c| c.result.is_err()));
            let tags: BTreeSet<u64> = done.iter().map(|c| c.tag).collect();
            assert_eq!((done.len() as u64, tags.len() as u64), (n, n));
            for group in &groups {
                let seen = group.local_reader().unwrap().get(b"k").unwrap().unwrap();
                assert_eq!(seen, round.to_string(), "node {node}, group {}", group.id());
            }
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_none_is_confirmed_and_each_comes_back_once() {
    let mut cluster = led(impatient, GROUPS).await;
    let leader = cluster.leader(1).await;
    let group = cluster.group::<KvMachine>(leader, 1);
    let mut queue = cluster.engines[&leader].confirmations();
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|n| *n != leader).collect();
    for node in others {
        cluster.stop(node, hard()).await;
    }
    (0..50).for_each(|tag| queue.submit(&group, tag));
    let done = all(&mut queue).await;
    assert_eq!(done.len(), 50);
    assert!(done.iter().all(|c| matches!(c.result, Err(ReadError::Unconfirmed | ReadError::NoLeader))), "{done:?}");
    // The node's end answers whatever it still held: nobody waits for that any more.
    cluster.stop(leader, hard()).await;
    let mut late = Vec::new();
    assert_eq!(queue.collect(&mut late), 0, "{late:?}");
    queue.submit(&group, 99);
    let done = all(&mut queue).await;
    assert!(matches!(done[0].result, Err(ReadError::Group(GroupError::ShuttingDown))), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_may_wait_beside_writes() {
    let mut cluster = led(kv, GROUPS).await;
    let leader = cluster.leader(1).await;
    let (group, engine) = (cluster.group::<KvMachine>(leader, 1), cluster.engines[&leader].clone());
    let missed = tokio::task::spawn_blocking(move || {
        let (mut writes, mut reads) = (engine.completions::<KvMachine>(), engine.confirmations());
        reads.wait(Duration::from_secs(3600)); // nothing is under way: at once
        let mut missed = 0;
        for n in 0..200_u64 {
            let (mut written, mut read) = (Vec::new(), Vec::new());
            writes.submit(&group, n, set("n", &n.to_string()));
            while writes.collect(&mut written) == 0 {
                writes.wait(Duration::from_secs(60));
            }
            reads.submit(&group, n);
            while reads.collect(&mut read) == 0 {
                reads.wait(Duration::from_secs(60));
            }
            let acknowledged = written[0].result.as_ref().unwrap().at.index;
            missed += u64::from(*read[0].result.as_ref().unwrap() < acknowledged);
        }
        missed
    });
    assert_eq!(missed.await.unwrap(), 0);
    cluster.stop_all().await;
}
