//! The admin endpoint over a real socket: who may do what, and what every mistake is told.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, kv, put, until};
use pontoon::kv::KvMachine;
use pontoon::{Engine, NodeId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOKEN: &str = "a-token-for-tests-only";

async fn ask(engine: &Engine, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let addr = engine.admin_addr().unwrap();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let token = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\n{token}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may be refused before all of it was read.
    let _refused_early = stream.write_all(body.as_bytes()).await;
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_only_reads_are_served() {
    let mut cluster = Cluster::start(1, |b| kv(b).admin("127.0.0.1:0")).await;
    cluster.create::<KvMachine>(1, "kv").await;
    let engine = cluster.engines[&NodeId(1)].clone();
    assert_eq!(ask(&engine, "GET", "/groups/1", None, "").await.0, 200);
    let (status, body) = ask(&engine, "GET", "/node", None, "").await;
    assert_eq!((status, &body["node"]), (200, &json!(1)));
    for token in [None, Some(TOKEN)] {
        let (status, body) = ask(&engine, "POST", "/groups/1/snapshot", token, "").await;
        assert_eq!((status, &body["kind"]), (403, &json!("no_token")));
    }
    drop(engine);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_token_groups_are_changed_and_mistakes_are_told() {
    let mut cluster = Cluster::start(3, |b| kv(b).admin("127.0.0.1:0").admin_token(TOKEN)).await;
    cluster.create::<KvMachine>(1, "kv").await;
    put(&cluster, 1, "a", "1").await;
    let leader = cluster.leader(1).await;
    let engine = cluster.engines[&leader].clone();
    for token in [None, Some(""), Some("a-token-for-tests-onlY")] {
        let (status, body) = ask(&engine, "POST", "/groups/1/snapshot", token, "").await;
        assert_eq!((status, &body["kind"]), (401, &json!("unauthorized")), "{token:?}");
    }
    let large = format!("{{\"x\": \"{}\"}}", "x".repeat(70_000));
    let mistakes = [
        ("/groups/1/frobnicate", "", 404, "unknown_path"),
        ("/groups", "", 404, "unknown_path"),
        ("/groups/one/snapshot", "", 400, "bad_request"),
        ("/groups/1/add", "", 400, "bad_request"),
        ("/groups/1/add", "{\"node\": 4, \"vote\": 1}", 400, "bad_request"),
        ("/groups/1/snapshot", "[1]", 400, "bad_request"),
        ("/groups/1/snapshot", &large, 413, "bad_request"),
        ("/groups/1/remove", "{\"node\": 9}", 422, "refused"),
        ("/groups/1/promote", "{\"node\": 9}", 422, "refused"),
        ("/groups/1/reconfigure", "{\"voters\": []}", 422, "refused"),
        ("/groups/1/reconfigure", "{\"voters\": [1], \"if_conf\": 999999}", 409, "conf_changed"),
        ("/groups/1/abort", "", 409, "no_reconfigure"),
        ("/groups/8/snapshot", "", 404, "not_found"),
    ];
    for (path, body, status, kind) in mistakes {
        let answer = ask(&engine, "POST", path, Some(TOKEN), body).await;
        assert_eq!((answer.0, &answer.1["kind"]), (status, &json!(kind)), "{path}: {}", answer.1);
        assert_eq!(answer.1["happened"], json!("no"), "{path}");
    }
    assert_eq!(ask(&engine, "DELETE", "/groups/1", Some(TOKEN), "").await.0, 405);

    let (status, body) = ask(&engine, "POST", "/groups/1/snapshot", Some(TOKEN), "{}").await;
    assert_eq!(status, 200, "its machine keeps the contents itself, and has made them durable: {body}");
    assert!(body["index"].as_u64() > Some(0), "{body}");
    // Elsewhere the answer names the leader.
    let heir = cluster.ids().into_iter().find(|n| *n != leader).unwrap();
    let elsewhere = cluster.engines[&heir].clone();
    let (status, body) = ask(&elsewhere, "POST", "/groups/1/remove", Some(TOKEN), "{\"node\": 1}").await;
    assert_eq!((status, &body["kind"], &body["leader"]), (421, &json!("not_leader"), &json!(leader.0)));

    let to = format!("{{\"to\": {heir}}}");
    let (status, body) = ask(&engine, "POST", "/groups/1/transfer", Some(TOKEN), &to).await;
    assert_eq!((status, &body["leader"]), (200, &json!(heir.0)), "{body}");
    let goes = cluster.ids().into_iter().find(|n| *n != leader && *n != heir).unwrap();
    let (status, body) = until_led(&elsewhere, "/groups/1/remove", &format!("{{\"node\": {goes}}}")).await;
    assert_eq!((status, &body["state"]), (200, &json!("done")), "{body}");
    let shown = ask(&elsewhere, "GET", "/groups/1", None, "").await.1;
    let mut two = [leader.0, heir.0];
    two.sort_unstable();
    assert_eq!(shown["voters"], json!(two), "{shown}");
    drop((engine, elsewhere));
    cluster.stop_all().await;
}

/// A leader of a new term may still be finding out that it leads.
async fn until_led(engine: &Engine, path: &str, body: &str) -> (u16, Value) {
    until("it leads", async || match ask(engine, "POST", path, Some(TOKEN), body).await {
        answer if answer.0 == 421 => Err(answer),
        answer => Ok(answer),
    })
    .await
}
