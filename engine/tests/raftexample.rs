//! The session of the README, run as it stands there: three processes, curl, a kill, a restart, a node that joins, one
//! that leaves, and two of the three that are left.
//!
//! Only the ports are others. Patience is curl's: it asks again while nobody listens or no leader is known.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::process::Command;

/// Of the session, above 9000.
const PORTS: [u16; 8] = [1, 2, 3, 4, 101, 102, 103, 104];

/// The README's session at ports of our own, and what it prints.
fn session(base: u16) -> (String, Vec<String>) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, from) = readme.split_once("```sh\nraftexample").expect("the README has a session");
    let mut script = format!("raftexample{}", from.split("```").next().unwrap());
    let reads = script.lines().filter(|l| l.starts_with("curl") && !l.contains(" -X "));
    let printed = reads.filter_map(|l| l.split_once(" # ")).map(|l| l.1.to_owned()).collect();
    for port in PORTS {
        script = script.replace(&(9000 + port).to_string(), &(base + port).to_string());
    }
    (script, printed)
}

/// Ports behind it are free, and below the ephemeral ones, so that a killed node finds its own again.
fn base() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let own = (std::process::id() % 40) as u16;
    let mut bases = (0..40).map(|n| 20_000 + (own + n) % 40 * 200);
    bases.find(|base| PORTS.iter().all(|port| free(base + port))).expect("free ports")
}

#[test]
fn the_session_of_the_readme() {
    let (script, printed) = session(base());
    assert_eq!(printed, ["hello", "goodbye", "goodbye", "goodbye", "welcome"]);
    let dir = tempfile::tempdir().unwrap();
    // Where nobody listens or no leader is known, curl asks again.
    std::fs::write(
        dir.path().join(".curlrc"),
        "silent\nfail\nretry = 60\nretry-delay = 1\nretry-connrefused\nwrite-out = \"\\n\"\n",
    )
    .unwrap();
    let examples = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    let path = format!("{}:{}", examples.display(), std::env::var("PATH").unwrap());
    let ended = Command::new("bash")
        .args(["-m", "-c", &format!("trap 'kill -9 $(jobs -p)' EXIT\n{script}")])
        .current_dir(dir.path())
        .envs([("PATH", path.as_str()), ("HOME", dir.path().to_str().unwrap())])
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let said: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
    assert_eq!(said, printed, "{}", String::from_utf8_lossy(&ended.stderr));
}
