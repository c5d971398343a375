//! Bad input of every kind against real processes: each with its error, and nothing acknowledged is lost by it.
//!
//! `founding`: flags and first starts; `disks`: directories that are not what they should be; `failing`: disks that fail;
//! `wire`: what arrives on sockets, and commands that cannot be served. Here: what these share.
//! Invariant: a test waits for what it can see (an exit, a line, an answer), never for time to pass.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "bad_input/disks.rs"]
mod disks;
#[path = "bad_input/failing.rs"]
mod failing;
#[path = "../../wal/tests/faults/mod.rs"]
mod faults;
#[path = "bad_input/founding.rs"]
mod founding;
mod support;
#[path = "bad_input/wire.rs"]
mod wire;

use pontoon_server::client::{Answer, ClusterClient, Value};
use pontoon_server::harness::Nodes;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{PATIENCE, until, until_true};

/// Runs the binary to its end.
async fn run(flags: &[String]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pontoon"));
    let child = command.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    ended.unwrap_or_else(|_| panic!("still running: {flags:?}")).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same flags with another value for one.
fn with(mut flags: Vec<String>, flag: &str, value: impl ToString) -> Vec<String> {
    let at = flags.iter().position(|f| f == flag).unwrap();
    flags[at + 1] = value.to_string();
    flags
}

/// Runs to its end, which must be a refusal with these words.
async fn refused(flags: &[String], code: i32, words: &[&str]) -> String {
    let output = run(flags).await;
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{flags:?}\n{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    text
}

/// Waits until a node's log holds a line with all these words.
async fn says(nodes: &Nodes, id: u64, words: &[&str]) {
    let log = &nodes.node(id).log;
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    let holds = || said().lines().any(|line| words.iter().all(|w| line.contains(w)));
    until_true(&format!("node {id} says {words:?}"), holds).await;
}

/// Waits until a node has ended by itself; code and everything it said since its log was emptied.
async fn ended(nodes: &mut Nodes, id: u64) -> (i32, String) {
    let log = nodes.node(id).log.clone();
    let said = || std::fs::read_to_string(&log).unwrap();
    let code = until("its end", async || nodes.exit_code(id).unwrap().ok_or_else(said)).await;
    (code, said())
}

/// Starts a node that must refuse to run, or be refused; the last words of its process.
async fn starts_in_vain(nodes: &mut Nodes, id: u64, words: &[&str]) -> String {
    std::fs::write(&nodes.node(id).log, "").unwrap();
    nodes.start(id).unwrap();
    let (code, said) = ended(nodes, id).await;
    let last = said.lines().filter(|l| l.starts_with("pontoon: ")).collect::<String>();
    assert!(code != 0 && words.iter().any(|w| last.contains(w)), "exit {code}, none of {words:?} in:\n{said}");
    last
}

/// Writes `n` keys and remembers nothing: the value is made of the key.
async fn write(nodes: &Nodes, round: &str, n: u64) {
    let mut client = ClusterClient::new(nodes.redis(), Duration::from_secs(10));
    for key in (0..n).map(|k| format!("{round}:{k}")) {
        let answer = client.call_retrying(key.as_bytes(), &[b"SET", key.as_bytes(), key.as_bytes()], 500).await;
        assert_eq!(answer, Answer::Done(Value::Simple("OK".into())), "{key}");
    }
}

/// Every key of `write` is there.
async fn read_back(nodes: &Nodes, round: &str, n: u64) {
    let mut client = ClusterClient::new(nodes.redis(), Duration::from_secs(10));
    for key in (0..n).map(|k| format!("{round}:{k}")) {
        let answer = client.call_retrying(key.as_bytes(), &[b"GET", key.as_bytes()], 500).await;
        assert_eq!(answer, Answer::Done(Value::Bulk(key.clone().into())), "{key}");
    }
}

/// Copies a directory with everything in it; files that vanish meanwhile are left out.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).output().unwrap();
    println!("copied {}: {}", from.display(), String::from_utf8_lossy(&done.stderr));
    assert!(to.is_dir());
}
