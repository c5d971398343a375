//! The table of boot.md 4: one replica's machine against its log, as a function without effects.
//!
//! Leaves to others: reading both (`machines`), carrying the verdict out (`boot`).
//! Invariant: no verdict lets a replica run whose machine has applied what its log cannot prove.

use crate::codec::ReplicaRecord;
use crate::env::StoredGroup;
use crate::ids::{Index, Term};

/// What to do with a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was applied yet: begins at its birth, with the configuration of the creation record.
    Fresh,
    /// Goes on from the record; the commit is raised to what is applied.
    Go,
    /// A crash came between restoring a snapshot and recording it: record it now (boot.md 5).
    FinishInstall,
    /// The contents belong to another replica or generation: delete them, then decide again without a record.
    Garbage,
    /// This replica stands still, for this reason; others run.
    Quarantine(String),
    /// The log lost what was acknowledged: the node does not start.
    Refuse,
}

/// Decides, from what the log store holds and the record found in the machine. With an install begun, the record of
/// the new generation is passed if it is there, else the one of the old.
#[must_use]
pub fn decide(stored: &StoredGroup, record: Option<&ReplicaRecord>) -> Verdict {
    let (before_first, last) = (stored.truncated.pos.index, stored.last.index);
    if stored.hard_state.commit > last {
        return Verdict::Refuse;
    }
    let Some(record) = record else {
        return if stored.truncated.pos == stored.creation.birth {
            Verdict::Fresh
        } else {
            Verdict::Quarantine(format!("the log begins after {before_first}, but the state machine is empty"))
        };
    };
    if record.group != stored.group {
        return Verdict::Quarantine(format!("the state machine holds group {}", record.group));
    }
    if is_finished_install(stored, record) {
        return Verdict::FinishInstall;
    }
    if record.replica != stored.replica || record.generation != stored.generation {
        return Verdict::Garbage;
    }
    let applied = record.applied;
    if applied.index < before_first {
        let why =
            format!("the log begins after {before_first}, but the state machine has applied {} only", applied.index);
        return Verdict::Quarantine(why);
    }
    if applied.index > last {
        return Verdict::Refuse;
    }
    match term_at(stored, applied.index) {
        Some(term) if term == applied.term => Verdict::Go,
        other => Verdict::Quarantine(format!(
            "the state machine has applied {} of term {}, the log has term {other:?} there",
            applied.index, applied.term
        )),
    }
}

fn is_finished_install(stored: &StoredGroup, record: &ReplicaRecord) -> bool {
    stored.intent.as_ref().is_some_and(|intent| {
        record.replica == stored.replica && record.generation == intent.generation && record.applied == intent.pos
    })
}

/// Term of the entry at `index`, of the truncation point too.
fn term_at(stored: &StoredGroup, index: Index) -> Option<Term> {
    if index == stored.truncated.pos.index {
        return Some(stored.truncated.pos.term);
    }
    if index > stored.last.index {
        return None;
    }
    stored.terms.iter().rev().find(|(from, _)| *from <= index).map(|(_, term)| *term)
}
