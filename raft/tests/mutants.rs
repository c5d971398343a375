//! The checkers are proven by breaking the core: every seeded bug of `raft/src/mutant.rs` dies in the transcripts, in
//! the schedules or in the search.
//!
//! `cargo test --release -p pontoon-raft --features mutants --test mutants` prints who kills first;
//! `PONTOON_TABLE=1` lets all three try and prints the table of docs/testing.md; `PONTOON_MUTANT=text` tries only the
//! bugs whose name contains it.
//! Six bugs live in raftstore alone and die in its worlds (`raftstore/tests/mutants.rs`).
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]
#![cfg(feature = "mutants")]

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
#[path = "schedule/mod.rs"]
mod schedule;
#[path = "search/mod.rs"]
mod search;
#[path = "transcripts/window.rs"]
mod window;

use kinds::{KINDS, NewRunner};
use pontoon_raft::mutant::{Mutant, activate};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};

/// Schedules that a bug may survive, and their length.
const SCHEDULES: u64 = 20_000;
const ACTIONS: usize = 300;

/// States of a scope that a bug may survive.
const STATES: usize = 60_000;

/// These live outside of the core; they die in raftstore's worlds.
const ELSEWHERE: [Mutant; 7] = [
    Mutant::TruncateAheadOfDurable,
    Mutant::DropLazyCommit,
    Mutant::NeighboursAnswer,
    Mutant::LateAnswerTaken,
    Mutant::DoorSwallows,
    Mutant::KeptBackDropped,
    Mutant::ReplicaIdUsedAgain,
];

/// They break no promise of safety, and progress not within a test's time: they depart from what the original does to
/// the byte; or (`StaleSnapshotRestored`) schedules meet them too rarely. Without its transcripts nothing here may kill them.
const TRANSCRIPTS_ONLY: [Mutant; 17] = [
    Mutant::CoveredSnapshotRestored,
    Mutant::StaleSnapshotRestored,
    Mutant::CompletionWithoutTerm,
    Mutant::PreVoteRaisesTerm,
    Mutant::IncomingElects,
    Mutant::CampaignsWithChange,
    Mutant::QuorumNotChecked,
    Mutant::MatchKept,
    Mutant::CutKeepsMark,
    Mutant::KnownAckIgnored,
    Mutant::FailedSnapshotCounts,
    Mutant::LeaveForgetsLearners,
    Mutant::NewQuorumNotAsked,
    Mutant::TransferWithoutCatchUp,
    Mutant::ProposalsInTransfer,
    Mutant::TransferWithoutMark,
    Mutant::AppliesInInstall,
];

#[test]
fn every_seeded_bug_dies() {
    let only = std::env::var("PONTOON_MUTANT").unwrap_or_default();
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let files = transcripts();
    for (file, runner) in &files {
        assert!(passes(file, *runner), "{} fails without any bug", file.display());
    }
    let mut living = Vec::new();
    let table = std::env::var_os("PONTOON_TABLE").is_some();
    schedule::say("| bug | transcripts | schedules | search |\n|---|---|---|---|");
    for mutant in Mutant::ALL.iter().filter(|m| !ELSEWHERE.contains(m) && format!("{m:?}").contains(&only)) {
        activate(Some(*mutant));
        let checkers: [&dyn Fn() -> Option<String>; 3] = [&|| by_transcripts(&files), &by_schedules, &by_search];
        let mut kills = [None, None, None];
        for (kill, checker) in kills.iter_mut().zip(checkers) {
            *kill = checker();
            if kill.is_some() && !table {
                break;
            }
        }
        activate(None);
        if kills.iter().all(Option::is_none) {
            living.push(*mutant);
        }
        let cells: Vec<String> = kills.into_iter().map(|k| k.unwrap_or_else(|| "-".to_owned())).collect();
        schedule::say(&format!("| {mutant:?} | {} |", cells.join(" | ")));
    }
    set_hook(hook);
    let shared = files.iter().any(|(file, _)| !file.starts_with(own_folder()));
    living.retain(|m| shared || !TRANSCRIPTS_ONLY.contains(m));
    assert!(living.is_empty(), "these bugs live: {living:?}");
}

/// How many schedules it took.
fn by_schedules() -> Option<String> {
    let dies = |seed: &u64| {
        let bytes = schedule::from_seed(*seed, ACTIONS);
        catch_unwind(|| schedule::run(&bytes, false)).is_err()
    };
    (0..SCHEDULES).find(dies).map(|seed| format!("seed {seed}"))
}

/// In which scope.
fn by_search() -> Option<String> {
    let dies = |scope: &&search::Scope| {
        let report = catch_unwind(|| search::explore(scope, search::Size::Record, STATES));
        report.is_err() || report.is_ok_and(|r| r.violation.is_some())
    };
    search::SCOPES.iter().find(dies).map(|scope| scope.name.to_owned())
}

/// How many differ.
fn by_transcripts(files: &[(PathBuf, NewRunner)]) -> Option<String> {
    let differ = files.iter().filter(|(file, runner)| !passes(file, *runner)).count();
    (differ > 0).then(|| format!("{differ} of {}", files.len()))
}

fn passes(file: &Path, runner: NewRunner) -> bool {
    let text = std::fs::read_to_string(file).unwrap();
    let directives = datadriven::parse(&text).unwrap();
    let mut runner = runner();
    directives.iter().all(|directive| {
        let produced = catch_unwind(AssertUnwindSafe(|| runner.run(directive)));
        produced.is_ok_and(|text| directive.compare(&text).is_ok())
    })
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The same folders as `tests/transcripts.rs` takes; those that are absent count as empty here.
fn transcripts() -> Vec<(PathBuf, NewRunner)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let default = "../shared/conformance/etcd-raft:../shared/conformance/generated".to_owned();
    let named = std::env::var("RAFT_TRANSCRIPTS").unwrap_or(default);
    let folders = named.split(':').map(|folder| workspace.join(folder)).chain([own_folder()]);
    let kinds = folders.flat_map(|folder| KINDS.map(|(kind, runner)| (folder.join(kind), runner)));
    kinds.flat_map(|(folder, runner)| files_in(&folder).into_iter().map(move |file| (file, runner))).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|p| if p.is_dir() { files_in(&p) } else { vec![p] }).collect()
}
