//! Commands in bulk: each comes back once, under its tag, with law 6's answer, whoever waits and however.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{hard, impatient, kv, led, set};
use pontoon::kv::KvMachine;
use pontoon::{Completion, Completions, Fence, GroupError, GroupId, Lost, NodeId, ProposeError, Read};
use std::collections::BTreeMap;
use std::time::Duration;

type Done = Completion<pontoon::kv::KvResponse>;

/// Everything that is under way, in the order in which it comes back.
async fn all(queue: &mut Completions<KvMachine>) -> Vec<Done> {
    let mut done = Vec::new();
    queue.collect(&mut done);
    while queue.under_way() > 0 {
        queue.ready().await;
        queue.collect(&mut done);
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_comes_back_once_under_its_tag_in_the_order_of_its_group() {
    let mut cluster = led(kv, 4).await;
    for group in 1..=4 {
        let leader = cluster.leader(group).await;
        let handle = cluster.group::<KvMachine>(leader, group);
        let mut queue = cluster.engines[&leader].completions::<KvMachine>();
        // More than a batch, and than a letter to a poller holds.
        let n: u64 = 6_000;
        (0..n).for_each(|tag| queue.submit(&handle, tag, set(&format!("k{}", tag % 7), &tag.to_string())));
        let done = all(&mut queue).await;
        let places: BTreeMap<u64, _> = done.iter().map(|c| (c.tag, c.result.as_ref().unwrap().at)).collect();
        assert_eq!((done.len() as u64, places.len() as u64), (n, n));
        assert!(places.values().zip(places.values().skip(1)).all(|(a, b)| a < b), "not in the order submitted");
        let view = handle.read(Read::Linearizable).await.unwrap();
        let last = (n - 7..n).find(|tag| tag % 7 == 0).unwrap();
        assert_eq!(view.get(b"k0").unwrap().unwrap(), last.to_string());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_comes_back_too_and_was_never_appended() {
    let mut cluster = led(kv, 1).await;
    let leader = cluster.leader(1).await;
    let follower = cluster.ids().into_iter().find(|n| *n != leader).unwrap();
    let mut queue = cluster.engines[&follower].completions::<KvMachine>();
    let (here, elsewhere) = (cluster.group::<KvMachine>(follower, 1), cluster.group::<KvMachine>(leader, 1));
    let looks = [&here, &elsewhere].map(|group| queue.look(group).unwrap_err());
    let mut at_leader = cluster.engines[&leader].completions::<KvMachine>();
    assert_eq!(at_leader.look(&elsewhere), Ok(()));
    assert_eq!((queue.under_way(), at_leader.under_way()), (0, 0), "a look submits nothing");
    queue.submit(&here, 1, set("a", "1"));
    queue.submit(&here, 2, bytes::Bytes::new());
    queue.submit(&elsewhere, 3, set("a", "1"));
    let done: BTreeMap<u64, _> = all(&mut queue).await.into_iter().map(|c| (c.tag, c.result.unwrap_err())).collect();
    assert!(done.values().all(ProposeError::never_appended), "{done:?}");
    assert!(matches!(done[&1], ProposeError::NotLeader { .. }), "{done:?}");
    assert_eq!(done[&3], ProposeError::Group(GroupError::NotFound(GroupId(1))), "a handle of another engine");
    assert_eq!(looks, [&done[&1], &done[&3]].map(Clone::clone), "what a command would have met");
    assert_eq!(done.len(), 3);

    // Fenced: the term is over.
    let term = elsewhere.status().term;
    let mut queue = cluster.engines[&leader].completions::<KvMachine>();
    let (later, now) = (Fence::new(term.next()), Fence::new(term));
    queue.submit_in(&elsewhere, 4, set("a", "2"), &later);
    queue.submit_in(&elsewhere, 5, set("a", "3"), &now);
    // Behind one that the door refused.
    queue.submit_in(&elsewhere, 6, bytes::Bytes::new(), &now);
    queue.submit_in(&elsewhere, 7, set("a", "4"), &now);
    queue.submit(&elsewhere, 8, set("a", "5"));
    let done = all(&mut queue).await;
    let of = |tag| done.iter().find(|c| c.tag == tag).unwrap().result.clone();
    assert!(matches!(of(4), Err(ProposeError::Fenced { now }) if now == term), "{done:?}");
    assert!(of(5).is_ok() && of(8).is_ok(), "{done:?}");
    assert_eq!((of(6), of(7)), (Err(ProposeError::Empty), Err(ProposeError::Behind)));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_each_comes_back_unknown_once_and_a_late_answer_is_dropped() {
    let mut cluster = led(impatient, 1).await;
    let leader = cluster.leader(1).await;
    let group = cluster.group::<KvMachine>(leader, 1);
    let mut queue = cluster.engines[&leader].completions::<KvMachine>();
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|n| *n != leader).collect();
    for node in others {
        cluster.stop(node, hard()).await;
    }
    (0..50).for_each(|tag| queue.submit(&group, tag, set("a", "2")));
    let done = all(&mut queue).await;
    let tags: Vec<u64> = done.iter().map(|c| c.tag).collect();
    assert_eq!(tags.len(), 50, "{done:?}");
    for one in &done {
        let error = one.result.as_ref().unwrap_err();
        let unknown = matches!(error, ProposeError::OutcomeUnknown { why: Lost::Timeout | Lost::Leadership, .. });
        assert!(unknown || error.never_appended(), "{error:?}");
    }
    // The node's end answers whatever it still held: nobody waits for that any more.
    cluster.stop(leader, hard()).await;
    let mut late = Vec::new();
    assert_eq!(queue.collect(&mut late), 0, "{late:?}");
    queue.submit(&group, 99, set("a", "3"));
    let done = all(&mut queue).await;
    assert_eq!(done[0].result, Err(ProposeError::Group(GroupError::ShuttingDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_may_wait() {
    let mut cluster = led(kv, 1).await;
    let leader = cluster.leader(1).await;
    let (group, engine) = (cluster.group::<KvMachine>(leader, 1), cluster.engines[&leader].clone());
    let done = tokio::task::spawn_blocking(move || {
        let (mut queue, mut done) = (engine.completions::<KvMachine>(), Vec::new());
        queue.wait(Duration::from_secs(3600)); // nothing is under way: at once
        (0..10).for_each(|tag| queue.submit(&group, tag, set("b", "1")));
        while queue.under_way() > 0 {
            queue.wait(Duration::from_secs(60));
            queue.collect(&mut done);
        }
        done
    });
    assert!(done.await.unwrap().iter().all(|c| c.result.is_ok()));
    cluster.stop_all().await;
}
