//! SIGKILL under full load in the fast configuration: pollers and log writer on threads, commands in bulk, many in flight. What
//! was acknowledged is there again, whether one node died or all. One test, so that no other load runs beside it.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    for machine in ["memory", "count"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_drive"));
        command.args(["kills", "--groups", "6", "--inflight", "1024", "--rounds", "2", "--machine", machine]);
        let output = command.arg("--data").arg(dir.path()).output().unwrap();
        // The seed of the times is in it.
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{output:?}");
    }
}
