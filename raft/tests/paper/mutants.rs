//! A seeded bug that random worlds do not reach within 200 seeds dies in the script that was written for it.
//!
//! `cargo test -p pontoon-raft --features mutants --test paper mutants`; the others: raftstore's `tests/mutants.rs`.

use crate::replication::completions_of_an_earlier_term_do_not_count;
use pontoon_raft::mutant::{Mutant, activate};
use std::panic::catch_unwind;

#[test]
fn completion_without_term_dies_in_the_aba_script() {
    completions_of_an_earlier_term_do_not_count();
    activate(Some(Mutant::CompletionWithoutTerm));
    let lived = catch_unwind(completions_of_an_earlier_term_do_not_count).is_ok();
    activate(None);
    assert!(!lived, "the script passes with the bug in it");
}
