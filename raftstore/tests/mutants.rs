//! The checkers are proven by breaking the code: seeded bugs of the core and the store die within 200 worlds.
//!
//! `CompletionWithoutTerm` (the ABA guard) is not among them, for no world of whole nodes reaches it: before a leader can
//! send an entry again over another one, it needs the follower's refusal, and a refusal waits for every write under way
//! (`tests/worlds/aba.txt` plays it: the entry is written three times, but never while its first write hangs). It dies in
//! the core's script (`raft/tests/paper/mutants.rs`), where messages come as they like.
//!
//! `cargo test --release -p pontoon-raftstore --features mutants --test mutants -- --nocapture` prints which seed killed
//! which; `PONTOON_SEEDS=0..50` narrows the search.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#![cfg(feature = "mutants")]

use pontoon_raft::mutant::{Mutant, activate};
use pontoon_raftstore::sim::{Swarm, Verdict, run};
use pontoon_raftstore::testing::seeds;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds that a bug may survive.
const SEEDS: u64 = 200;

/// How a world with this bug ended, if it died: the checker's words, or an assertion of the code itself.
fn death(seed: u64) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, Swarm::draw(seed)))) {
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
    let killed = seeds(SEEDS).find_map(|seed| Some((seed, death(seed)?)));
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
}
