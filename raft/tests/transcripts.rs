//! Runs recorded conversations with etcd's raft against this core and compares byte for byte.
//!
//! `RAFT_TRANSCRIPTS` names folders (colon-separated, relative to the workspace) that hold `interaction/`,
//! `quorum/` or `confchange/` (`window/` is our own kind); default: `../shared/conformance/{etcd-raft,generated}`. Our own ones in
//! `raft/tests/data` always run. `RAFT_TRANSCRIPTS_ONLY=text` runs the files whose path contains it.
//! `REWRITE=1` rewrites the expectations of our own ones: review the diff against `raft-core.md`.
//! The grammar and the environment are specified in `shared/conformance/README.md`.
//! Invariant: no file is skipped, no output is filtered; a named folder that is absent or empty fails.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "transcripts/confchange.rs"]
mod confchange;
#[path = "transcripts/datadriven.rs"]
mod datadriven;
#[path = "transcripts/interaction/mod.rs"]
mod interaction;
#[path = "transcripts/kinds.rs"]
mod kinds;
#[path = "transcripts/quorum.rs"]
mod quorum;
#[path = "transcripts/window.rs"]
mod window;

use kinds::{KINDS, NewRunner};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[test]
fn transcripts() {
    let only = std::env::var("RAFT_TRANSCRIPTS_ONLY").unwrap_or_default();
    let (mut passed, mut failures) = (0, Vec::new());
    for folder in folders() {
        let mut found = 0;
        for (kind, runner) in KINDS {
            let files = files_in(&folder.join(kind));
            found += files.len();
            for file in files.iter().filter(|f| f.to_string_lossy().contains(&only)) {
                match run(file, runner) {
                    Ok(()) => passed += 1,
                    Err(why) => failures.push(format!("{}\n{why}", file.display())),
                }
            }
        }
        assert!(found > 0, "no transcript in {}", folder.display());
    }
    for failure in &failures {
        say(failure);
    }
    say(&format!("{passed} passed, {} failed", failures.len()));
    assert!(failures.is_empty(), "{} transcripts differ", failures.len());
    assert!(passed > 0, "RAFT_TRANSCRIPTS_ONLY={only} matches no file");
}

/// Not through `print!`: the count shall be seen although the test passes.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn folders() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders: Vec<PathBuf> = match std::env::var("RAFT_TRANSCRIPTS") {
        Ok(named) => named.split(':').map(|folder| workspace.join(folder)).collect(),
        Err(_) => {
            let default = workspace.join("../shared/conformance");
            if default.is_dir() {
                ["etcd-raft", "generated"].map(|f| default.join(f)).to_vec()
            } else {
                say("../shared/conformance is absent and RAFT_TRANSCRIPTS not set: own transcripts only");
                Vec::new()
            }
        }
    };
    folders.push(own_folder());
    folders
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// All files below `folder`, sorted; none if it does not exist.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|p| if p.is_dir() { files_in(&p) } else { vec![p] }).collect()
}

fn run(file: &Path, runner: NewRunner) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let directives = datadriven::parse(&text)?;
    if directives.is_empty() {
        return Err("no directive in it".to_owned());
    }
    let mut runner = runner();
    if std::env::var_os("REWRITE").is_some() && file.starts_with(own_folder()) {
        let outputs: Vec<String> = directives.iter().map(|d| runner.run(d)).collect();
        return std::fs::write(file, datadriven::rewrite(&text, &directives, &outputs)).map_err(|e| e.to_string());
    }
    for directive in &directives {
        let produced = catch_unwind(AssertUnwindSafe(|| runner.run(directive)))
            .map_err(|panic| format!("line {}: panic: {}", directive.line, panic_text(panic.as_ref())))?;
        directive.compare(&produced)?;
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "?".to_owned())
}
