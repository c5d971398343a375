//! A session of an operator: status, groups, group, with tables, JSON and exit codes; and a file beside the flags.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use pontoon_server::harness::Nodes;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use support::{TOKEN, all_led, three_nodes, token_file};

fn pontoon(args: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(args).env_remove("PONTOON_ADMIN_TOKEN");
    token.map(|t| command.env("PONTOON_ADMIN_TOKEN", t));
    let output = command.output().unwrap();
    println!("$ pontoon {}\n{}", args.join(" "), text(&output));
    output
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

/// Group by group, of an operation over several.
fn results_of(output: &Output) -> Vec<Value> {
    json_of(output)["results"].as_array().cloned().unwrap_or_default()
}

fn with_token(dir: &Path) -> Nodes {
    three_nodes(dir, 3, &["--admin-token-file", &token_file(dir)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = with_token(dir.path());
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    let admin = nodes.node(2).admin.clone();
    let run = |args: &[&str]| pontoon(&[args, &["--admin", &admin]].concat(), Some(TOKEN));

    let status = run(&["status"]);
    assert_eq!(code(&status), 0);
    let table = text(&status);
    assert!(table.contains("as node 2 sees it") && table.contains("QUARANTINED"), "{table}");
    assert_eq!(table.lines().filter(|l| l.contains("true")).count(), 3, "{table}");
    let status = json_of(&run(&["status", "-o", "json"]));
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["nodes"][0]["redis"], json!(nodes.node(1).redis));

    let groups = json_of(&run(&["groups", "-o", "json"]));
    assert_eq!(
        groups["groups"].as_array().unwrap().iter().map(|g| g["group"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(groups["groups"].as_array().unwrap().iter().all(|g| g["voters"] == json!([1, 2, 3])), "{groups}");
    let shown = run(&["group", "show", "2"]);
    assert!(
        code(&shown) == 0 && text(&shown).contains("leader") && text(&shown).contains("REPLICA"),
        "{}",
        text(&shown)
    );
    assert_eq!(code(&run(&["group", "show", "99"])), 1);
    assert_eq!(code(&run(&["group", "show", "none"])), 2);

    // Whoever leads, wherever it is asked.
    for to in [1, 3] {
        // A follower that is behind may not take over in time: then it is asked again.
        let ask = || run(&["group", "transfer", "1-3", "--to", &to.to_string(), "-o", "json"]);
        let moved = (0..5).map(|_| ask()).find(|m| code(m) == 0).unwrap();
        assert!(results_of(&moved).iter().all(|r| r["detail"]["leader"] == to), "{}", text(&moved));
    }
    let kept = run(&["group", "snapshot", "all", "-o", "json"]);
    assert_eq!(code(&kept), 0, "{}", text(&kept));
    assert!(results_of(&kept).iter().all(|r| r["detail"]["index"].as_u64() > Some(0)), "{}", text(&kept));
    let removed = run(&["group", "remove", "2", "--node", "1"]);
    assert_eq!(code(&removed), 0, "{}", text(&removed));
    let shown = json_of(&run(&["group", "show", "2", "-o", "json"]));
    assert_eq!(shown["voters"], json!([2, 3]), "{shown}");
    let added = run(&["group", "add", "2", "--node", "1", "--learner"]);
    assert_eq!(code(&added), 0, "{}", text(&added));
    let promoted = run(&["group", "promote", "2", "--node", "1"]);
    assert_eq!(code(&promoted), 0, "{}", text(&promoted));
    let shown = json_of(&run(&["group", "show", "2", "-o", "json"]));
    assert_eq!((&shown["voters"], &shown["learners"]), (&json!([1, 2, 3]), &json!([])), "{shown}");
    let back = shown["members"].as_array().unwrap().iter().find(|m| m["node"] == 1).unwrap();
    assert!(back["replica"].as_u64() > Some(3), "a node that comes back gets a new replica id: {shown}");

    // Refusals, with their exit codes.
    assert_eq!(code(&run(&["group", "remove", "2", "--node", "7"])), 1);
    assert_eq!(code(&run(&["group", "abort", "2"])), 1);
    let denied = pontoon(&["group", "snapshot", "1", "--admin", &admin], None);
    assert!(code(&denied) == 1 && text(&denied).contains("bearer token"), "{}", text(&denied));
    assert_eq!(code(&pontoon(&["status", "--admin", "127.0.0.1:1"], None)), 3);
    assert_eq!(code(&run(&["groups", "--timeout", "soon"])), 2);
    assert_eq!(code(&run(&["group", "frobnicate", "1"])), 2);

    // A node that is gone shows, and makes the status fail.
    nodes.kill(1).unwrap();
    let status = run(&["status"]);
    assert!(code(&status) == 1 && text(&status).contains("node 1"), "{}", text(&status));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_beside_the_flags() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_token(dir.path());
    let file = dir.path().join("pontoon.toml");
    let given = |text: String| {
        std::fs::write(&file, text).unwrap();
        pontoon(&["serve", "--config", file.to_str().unwrap(), "--node", "0"], None)
    };
    // All mistakes of both at once; flags win; nothing is touched.
    let data = nodes.node(1).data.display().to_string();
    let wrong = given(format!(
        "node = 1\ncluster = \"1=127.0.0.1:1\"\njoin = \"x\"\ndata = {data:?}\nredis = \"nowhere\"\nlog_keeep = \"1MiB\"\n\
         [engine]\nadmin_timeout = \"soon\"\n[engine.raft]\npolers = 1\n"
    ));
    assert_eq!(code(&wrong), 2);
    for part in [
        "log_keeep: is not known",
        "engine.raft.polers: unknown field",
        "admin_timeout: ",
        "--node 0: must be a number from 1",
        "--cluster founds a cluster, --join enters one",
        "--redis nowhere: must be HOST:PORT",
        "--admin is needed",
    ] {
        assert!(text(&wrong).contains(part), "{part:?} is not in:\n{}", text(&wrong));
    }
    assert!(!nodes.node(1).data.exists());
    let broken = given("node = \n".into());
    assert!(code(&broken) == 2 && text(&broken).contains("--config"), "{}", text(&broken));
}
