//! The checkers are proven by breaking the code: seeded bugs of the core and the store die within 200 worlds or in a
//! scripted one.
//!
//! `CompletionWithoutTerm` (the ABA guard) is the scripted one: two guards hold independently there. Before a leader can
//! send an entry again over another one, it needs the follower's refusal, and a refusal waits for every write under way;
//! and a completion counts only in the term of its write. `tests/worlds/aba.txt` is Ok without either, not without both.
//!
//! `cargo test --release -p pontoon-raftstore --features mutants --test mutants -- --nocapture` prints which seed killed
//! which; `PONTOON_SEEDS=0..50` narrows the search.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#![cfg(feature = "mutants")]

use pontoon_raft::mutant::{Mutant, activate};
use pontoon_raftstore::sim::{Report, Script, Swarm, Verdict, run};
use pontoon_raftstore::testing::seeds;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds that a bug may survive.
const SEEDS: u64 = 200;

/// How a world with a bug ended, if it died: the checker's words, or an assertion of the code itself.
fn death(world: impl FnOnce() -> Report) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(world)) {
        Ok(report) => match report.verdict {
            Verdict::Violation(what) => Some(what.to_string()),
            _ => None,
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(format!("assertion: {}", text.or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))?))
        }
    }
}

fn dies(mutant: Mutant) {
    activate(Some(mutant));
    let killed = seeds(SEEDS).find_map(|seed| Some((seed, death(|| run(seed, Swarm::draw(seed)))?)));
    activate(None);
    let (seed, how) = killed.unwrap_or_else(|| panic!("{mutant:?} lives"));
    println!("{mutant:?} died at seed {seed}: {}", how.lines().next().unwrap_or_default());
}

macro_rules! each_dies {
    ($($name:ident: $mutant:ident),* $(,)?) => { $(
        #[test]
        fn $name() {
            dies(Mutant::$mutant);
        }
    )* };
}

each_dies! {
    ack_before_sync: AckBeforeSync,
    commit_of_an_old_term: CommitOldTerm,
    vote_not_persisted: VoteNotPersisted,
    truncation_ahead_of_durable: TruncateAheadOfDurable,
    lazy_commit_dropped: DropLazyCommit,
    one_half_commits: OneHalfCommits,
    changes_in_flight: PendingIgnored,
    replica_id_used_again: ReplicaIdUsedAgain,
    answer_to_the_neighbour: NeighboursAnswer,
    late_answer_taken: LateAnswerTaken,
    door_swallows: DoorSwallows,
    kept_back_dropped: KeptBackDropped,
}

#[test]
fn completion_without_term_dies_in_a_script() {
    let world = || Script::read(include_str!("worlds/aba.txt")).unwrap().run();
    let with = |bugs: &[Mutant]| {
        activate(bugs.iter().copied());
        let death = death(world);
        activate(None);
        death
    };
    let (guard, other) = (Mutant::CompletionWithoutTerm, Mutant::EarlyRefusals);
    assert_eq!(with(&[guard]), None, "refusals hold alone");
    assert_eq!(with(&[other]), None, "the term of a completion holds alone");
    let how = with(&[guard, other]).expect("the world is Ok without either guard");
    println!("{guard:?} died in aba.txt, with {other:?}: {}", how.lines().next().unwrap_or_default());
}
