//! The orderly end, the disorderly one, and events and health on the way.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, PATIENCE, kv, put, set};
use pontoon::kv::KvMachine;
use pontoon::{AdminApi, Event, NodeId, Shutdown};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_shutdown_does_nothing_and_waiters_are_answered() {
    let mut cluster = Cluster::start(1, kv).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let engine = cluster.engines.remove(&NodeId(1)).unwrap();
    let group = engine.group::<KvMachine>(pontoon::GroupId(1)).unwrap();
    let many: Vec<_> = (0..500).map(|i| group.propose(set(&format!("k{i}"), "v"))).collect();
    let report = engine.shutdown(Shutdown::default()).await;
    assert!(report.problems.is_empty() && report.still_led == 0, "alone, nobody to hand over to: {report:?}");
    let mut applied = 0;
    for proposal in many {
        match tokio::time::timeout(PATIENCE, proposal).await.expect("answered") {
            Ok(_) => applied += 1,
            Err(e) => drop(e),
        }
    }
    assert!(applied > 0);
    assert_eq!(engine.shutdown(Shutdown::default()).await, Default::default());
    assert!(engine.peer_addr().is_none() && engine.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_dropped_lets_go_of_its_directory() {
    let mut cluster = Cluster::start(1, |b| kv(b).admin("127.0.0.1:0")).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    cluster.engines.clear();
    cluster.open_all().await;
    assert_eq!(common::get(&cluster, NodeId(1), 1, "a").await.as_deref(), Some("1"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_health_tell_what_happens() {
    let mut cluster = Cluster::start(3, kv).await;
    let engine = cluster.engines[&NodeId(1)].clone();
    let mut events = engine.events();
    cluster.create::<KvMachine>(5, "kv").await;
    let mut seen = Vec::new();
    while !seen.iter().any(|e| matches!(e, Event::Leader { node: Some(_), .. })) {
        seen.push(events.next(PATIENCE).await.expect("an event"));
    }
    assert!(seen.contains(&Event::Opened(pontoon::GroupId(5))), "{seen:?}");
    put(&cluster, 5, "a", "1").await;
    let health = engine.health();
    assert!(health.alive && health.ready && health.groups == 1, "{health:?}");
    drop(engine);
    cluster.stop_all().await;
}

fn http(addr: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_endpoints_answer_over_http_and_mounted() {
    let mut cluster = Cluster::start(1, |b| kv(b).admin("127.0.0.1:0").metrics(true)).await;
    for group in 1..=3 {
        cluster.create::<KvMachine>(group, "kv").await;
        put(&cluster, group, "a", "1").await;
    }
    let engine = cluster.engines[&NodeId(1)].clone();
    let addr = engine.admin_addr().unwrap().to_string();
    for path in ["/healthz", "/readyz", "/readyz?verbose", "/readyz?exclude=disk", "/groups", "/groups/2", "/peers"] {
        let (status, body) = http(&addr, path, &addr);
        assert_eq!((status, body.is_empty()), (200, false), "{path}: {body}");
    }
    assert_eq!(http(&addr, "/groups", "evil.example").0, 403, "a lured browser");
    assert_eq!(http(&addr, "/groups/77", &addr).0, 404);
    assert_eq!(http(&addr, "/groups/x", &addr).0, 400);
    assert_eq!(http(&addr, "/", &addr).0, 404);

    let (status, metrics) = http(&addr, "/metrics", "localhost");
    assert_eq!(status, 200);
    assert!(metrics.contains("pontoon_groups{role=\"leader\"}"), "{metrics}");
    assert!(!metrics.contains("group=\""), "no label per group");

    let api = AdminApi::new(&engine);
    assert_eq!(api.handle("POST", "/groups", "").status, 405);
    let page: serde_json::Value = serde_json::from_str(&api.handle("GET", "/groups", "limit=2").body).unwrap();
    assert_eq!(
        (page["groups"].as_array().unwrap().len(), page["total"].as_u64(), page["next"].as_u64()),
        (2, Some(3), Some(2))
    );
    let rest: serde_json::Value = serde_json::from_str(&api.handle("GET", "/groups", "after=2").body).unwrap();
    assert_eq!((rest["groups"][0]["group"].as_u64(), rest["next"].is_null()), (Some(3), true));
    drop(engine);
    cluster.stop_all().await;
    assert!(TcpStream::connect(&addr).is_err(), "the endpoint has ended");
    assert_eq!(api.handle("GET", "/readyz", "").status, 503);
}
