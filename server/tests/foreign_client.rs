//! Clients that know nothing of Pontoon: redis-cli and redis-benchmark from Debian's redis-tools.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::{Command, Output};
use support::running;

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} (apt-get install redis-tools): {e}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_and_redis_benchmark_work_unmodified() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = running(dir.path(), 12, &[]).await;
    let (_, port) = nodes.node(1).redis.rsplit_once(':').unwrap();
    let cli = |args: &[&str]| text(&run("redis-cli", &[&["-c", "-p", port], args].concat())).trim_end().to_owned();

    let session: [(&[&str], &str); 14] = [
        (&["SET", "greeting", "hello"], "OK"),
        (&["GET", "greeting"], "hello"),
        (&["SET", "greeting", "again", "NX"], ""),
        (&["SET", "greeting", "there", "XX", "GET"], "hello"),
        (&["APPEND", "greeting", "!"], "6"),
        (&["STRLEN", "greeting"], "6"),
        (&["INCR", "n"], "1"),
        (&["INCRBY", "n", "41"], "42"),
        (&["DECR", "n"], "41"),
        (&["MSET", "{t}a", "1", "{t}b", "2"], "OK"),
        (&["MGET", "{t}a", "{t}b", "{t}c"], "1\n2\n"),
        (&["EXISTS", "{t}a", "{t}c"], "1"),
        (&["DEL", "{t}a", "{t}b"], "2"),
        (&["CLUSTER", "KEYSLOT", "foo"], "12182"),
    ];
    for (args, want) in session {
        assert_eq!(cli(args), want.trim_end(), "{args:?}");
    }
    assert!(cli(&["INCR", "greeting"]).contains("not an integer"));
    assert!(cli(&["MGET", "a", "b"]).contains("CROSSSLOT"));
    assert!(cli(&["FLUSHALL"]).contains("unknown command"));
    assert!(cli(&["-3", "HELLO"]).contains("pontoon"));
    assert_eq!(cli(&["CLUSTER", "NODES"]).lines().count(), 3);
    assert!(cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));

    let flags =
        ["--cluster", "-p", port, "-t", "set,get,incr,mset", "-n", "5000", "-c", "20", "-P", "16", "-r", "10000", "-q"];
    let bench = run("redis-benchmark", &flags);
    let shown = text(&bench);
    assert!(bench.status.success(), "{shown}");
    assert!(!shown.to_lowercase().contains("error"), "{shown}");
    println!(
        "{}",
        shown.replace('\r', "\n").lines().filter(|l| l.contains("requests per second")).collect::<Vec<_>>().join("\n")
    );
}
