//! A disk that fails in chosen calls on chosen files, or is slow: builds `shim.c`, arms it, and says what it saw.
//!
//! A process runs under it by LD_PRELOAD, so a test starts itself again as a child (`Faults::child`), or another binary
//! with `Faults::env`. Invariant: without a plan nothing fails.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Errors of the system.
pub const EIO: i32 = 5;
/// No space left.
pub const ENOSPC: i32 = 28;
/// Names the folder to a child.
const CHILD: &str = "PONTOON_FAULTS_CHILD";

/// The library, and the files through which it is told and tells.
pub struct Faults {
    /// Holds the library, the plan and the trace; the rest is the test's.
    pub dir: PathBuf,
}

impl Faults {
    /// Builds the library in `dir`.
    pub fn build(dir: &Path) -> Faults {
        let source = dir.join("shim.c");
        fs::write(&source, include_str!("shim.c")).unwrap();
        let built = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-pthread", "-Wall", "-Wno-nonnull-compare", "-o"])
            .args([&dir.join("shim.so"), &source])
            .output();
        let built = built.unwrap_or_else(|e| panic!("no C compiler (apt-get install gcc): {e}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Faults { dir: dir.to_path_buf() }
    }

    /// In a child: the folder of its parent. `None`: this is no child.
    pub fn of_parent() -> Option<Faults> {
        std::env::var_os(CHILD).map(|dir| Faults { dir: dir.into() })
    }

    /// What a process is started with.
    pub fn env(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.dir.join("shim.so")),
            ("FAULT_PLAN", self.dir.join("plan")),
            ("FAULT_TRACE", self.dir.join("trace")),
        ]
    }

    /// Runs one test of this binary again, under the shim; it finds this with `of_parent`.
    pub fn child(&self, test: &str) -> Output {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(CHILD, &self.dir).envs(self.env());
        child.output().unwrap()
    }

    /// From now on calls of `kind` on paths like `files` fail with `error`: the first `skip` pass, then `count` fail
    /// (0: all).
    pub fn arm(&self, kind: &str, error: i32, skip: u64, count: u64, files: &str) {
        static TIMES: AtomicU64 = AtomicU64::new(0);
        let _ = fs::remove_file(self.dir.join("trace"));
        let (next, time) = (self.dir.join("plan.next"), TIMES.fetch_add(1, Ordering::Relaxed));
        fs::write(&next, format!("{kind} {error} {skip} {count} {files} {time}")).unwrap();
        fs::rename(next, self.dir.join("plan")).unwrap();
    }

    /// From now on each sync of files like `files` takes that long, or until this changes.
    pub fn slow(&self, sync: Duration, files: &str) {
        self.arm("slow", i32::try_from(sync.as_millis()).unwrap(), 0, 0, files);
    }

    /// The disk is sound again.
    pub fn disarm(&self) {
        fs::remove_file(self.dir.join("plan")).unwrap();
    }

    /// What it saw since it was armed: lines of "fail sync PATH", "half write PATH", "pass write PATH".
    pub fn trace(&self) -> Vec<String> {
        let trace = fs::read_to_string(self.dir.join("trace")).unwrap_or_default();
        trace.lines().map(str::to_owned).collect()
    }

    /// Did a call fail since it was armed?
    pub fn struck(&self) -> bool {
        self.trace().iter().any(|line| line.starts_with("fail"))
    }
}
