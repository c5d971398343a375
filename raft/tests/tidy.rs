//! The walls of the house as a test: who may depend on whom, what a crate must never contain, strata, headers, sizes.
//!
//! Reads manifests and sources as text; a ban names the replacement. Leaves formatting and lints to rustfmt and clippy.
//! Break it once to see it bite: add `use std::fs;` to a file of `raft/src`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_CAP: usize = 600;
const FUNCTION_CAP: usize = 70;

/// Crate folder, package, which of our crates it may depend on (architecture.md, "The rooms").
const EDGES: &[(&str, &[&str])] = &[
    ("raft", &[]),
    ("raftstore", &["pontoon-raft"]),
    ("wal", &["pontoon-raft", "pontoon-raftstore"]),
    ("transport", &["pontoon-raft", "pontoon-raftstore"]),
    ("engine", &["pontoon-raft", "pontoon-raftstore", "pontoon-wal", "pontoon-transport"]),
    ("server", &["pontoon"]),
];

/// Crate folder, banned text, files (by path suffix) that may contain it, what to do instead.
const BANS: &[(&str, &str, &[&str], &str)] = &[
    ("raft", "std::fs", &[], "hand work out in a Ready"),
    ("raft", "std::net", &[], "hand messages out in a Ready"),
    ("raft", "std::thread", &[], "the driver owns threads"),
    ("raft", "std::time", &[], "time is a Tick argument"),
    ("raft", "std::sync", &["entry_run.rs"], "the core is single-threaded; runs of entries alone are shared, by Arc"),
    ("raft", "HashMap", &[], "use a sorted Vec: hash order must not decide"),
    ("raft", "HashSet", &[], "use a sorted Vec: hash order must not decide"),
    ("raft", "tokio", &[], "the core does no I/O"),
    ("raft", "tracing", &[], "emit a Trace value"),
    ("raft", "println!", &[], "emit a Trace value"),
    ("raft", "GroupId", &[], "nothing in the core knows what a group is"),
    ("raftstore", "tokio", &[], "async lives in transport, engine and server"),
    ("raftstore", "rocksdb", &[], "ask the LogStore or the MachineKind"),
    ("raftstore", "Instant::now", &[], "take `now` as an argument"),
    ("raftstore", "SystemTime", &[], "take `now` as an argument"),
    ("raftstore", "thread::spawn", &["threads.rs"], "threads are spawned in threads.rs alone"),
    ("raftstore", "thread::Builder", &["threads.rs"], "threads are spawned in threads.rs alone"),
    ("raftstore", "std::net", &[], "ask the Transport"),
    ("raftstore", "Durable::attest", &["mem/log_store.rs"], "only a LogStore attests durability"),
    ("wal", "tokio", &[], "the log store is synchronous"),
    ("wal", "pontoon_transport::", &[], "adapters never import each other"),
    ("transport", "rocksdb", &[], "the network stores nothing"),
    ("transport", "pontoon_wal::", &[], "adapters never import each other"),
    ("engine", "pontoon_wal::", &["wiring.rs"], "adapters are named in the wiring alone"),
    ("engine", "pontoon_transport::", &["wiring.rs"], "adapters are named in the wiring alone"),
    ("server", "pontoon_raftstore::", &[], "what the server needs, the engine offers to all"),
    ("server", "pontoon_wal::", &[], "what the server needs, the engine offers to all"),
    ("server", "pontoon_transport::", &[], "what the server needs, the engine offers to all"),
];

/// Strata of raftstore: a file imports only its own or lower ones.
const STRATA: &[(&[&str], u8)] = &[
    (&["ids", "error", "config", "task", "env", "turn", "group_spec", "group_status", "group_map", "reconfigure"], 0),
    (&["arrivals", "slots", "page"], 0),
    (&["codec", "mail", "inbox", "router", "proposal", "identity", "budget", "health", "events"], 1),
    (&["guard", "spool", "ledger"], 1),
    (&["log_cache", "outbox", "replica", "prepared"], 2),
    (&["poller", "log_writer", "log_reader", "applier", "ticker", "lifecycle", "snapshotter", "boot", "durability"], 3),
    (&["node", "door", "bulk", "threads", "solo"], 4),
    (&["mem", "testing", "sim"], 5),
];

/// Value types of S1 that the tasks of S0 carry (architecture.md lists `task` in S0).
const CARRIED: &[&str] = &["codec", "proposal"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(d) = dirs.pop() {
        for entry in fs::read_dir(&d).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources under {}", dir.display());
    found
}

fn all_sources() -> Vec<(String, String)> {
    ["raft", "raftstore", "wal", "transport", "engine", "server", "benches"]
        .iter()
        .flat_map(|c| sources(&root().join(c)))
        .filter(|(name, _)| !name.contains("/target/"))
        .collect()
}

fn dependencies(folder: &str, section: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let inside = manifest.lines().skip_while(|l| *l != section).skip(1).take_while(|l| !l.starts_with('['));
    inside
        .filter_map(|l| l.split(['=', '.', ' ']).next())
        .filter(|n| !n.is_empty() && !n.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Code lines: without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"))
}

fn report(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

#[test]
fn crates_depend_only_downwards() {
    let mut faults = Vec::new();
    for (folder, allowed) in EDGES {
        for dep in dependencies(folder, "[dependencies]") {
            if dep.starts_with("pontoon") && !allowed.contains(&dep.as_str()) {
                faults.push(format!("{folder}/Cargo.toml: must not depend on {dep}"));
            }
        }
    }
    report("walls between crates", &faults);
}

#[test]
fn the_core_has_exactly_its_dependencies() {
    assert_eq!(dependencies("raft", "[dependencies]"), ["bytes", "thiserror"], "raft/Cargo.toml");
}

#[test]
fn no_crate_contains_what_it_must_not() {
    let mut faults = Vec::new();
    for (folder, banned, except, instead) in BANS {
        for (name, text) in sources(&root().join(folder).join("src")) {
            if except.iter().any(|e| name.ends_with(e)) {
                continue;
            }
            for (n, _) in code(&text).filter(|(_, l)| l.contains(banned)) {
                faults.push(format!("{name}:{}: `{banned}`: {instead}", n + 1));
            }
        }
    }
    report("banned text", &faults);
}

fn stratum(module: &str) -> Option<u8> {
    STRATA.iter().find(|(modules, _)| modules.contains(&module)).map(|s| s.1)
}

#[test]
fn raftstore_imports_only_lower_strata() {
    let mut faults = Vec::new();
    for (name, text) in sources(&root().join("raftstore/src")) {
        let module = name.trim_start_matches("raftstore/src/").split(['/', '.']).next().unwrap();
        // Tests of a module may stand on the twins.
        if module == "lib" || name.ends_with("/tests.rs") {
            continue;
        }
        let Some(own) = stratum(module) else {
            faults.push(format!("{name}: module `{module}` has no stratum: add it to STRATA"));
            continue;
        };
        for (n, line) in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let carried = own == 0 && CARRIED.contains(&used);
                if stratum(used).is_some_and(|s| s > own) && !carried {
                    faults.push(format!("{name}:{}: S{own} imports `{used}` of a higher stratum", n + 1));
                }
            }
        }
    }
    report("strata of raftstore", &faults);
}

#[test]
fn every_file_opens_with_a_header() {
    let files = all_sources();
    let faults: Vec<_> = files.iter().filter(|(_, t)| !t.starts_with("//! ")).map(|(n, _)| n.clone()).collect();
    report("files without a `//!` header", &faults);
}

#[test]
fn files_and_functions_stay_small() {
    let mut faults = Vec::new();
    for (name, text) in all_sources() {
        if text.lines().count() > FILE_CAP {
            faults.push(format!("{name}: {} lines, the cap is {FILE_CAP}", text.lines().count()));
        }
        let mut open: Option<(usize, usize)> = None;
        for (n, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_fn = head.starts_with("fn ")
                || head.contains(" fn ") && head.starts_with("pub")
                || head.starts_with("async fn ");
            match open {
                None if is_fn && !head.ends_with(';') && !head.ends_with('}') => open = Some((n, indent)),
                Some((start, at)) if indent == at && head.starts_with('}') => {
                    if n - start + 1 > FUNCTION_CAP {
                        faults.push(format!(
                            "{name}:{}: function of {} lines, the wall is {FUNCTION_CAP}",
                            start + 1,
                            n - start + 1
                        ));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    report("sizes", &faults);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let banned = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let mut faults = Vec::new();
    for (name, text) in all_sources() {
        for (n, line) in text.lines().enumerate() {
            for b in banned.iter().filter(|b| line.contains(**b)) {
                faults.push(format!("{name}:{}: `{b}`: finish it, or write an issue", n + 1));
            }
        }
    }
    report("left undone", &faults);
}
