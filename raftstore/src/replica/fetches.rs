//! Catch-up reads under way, at most one for each member.
//!
//! The core names a read each time it has something for a member whose entries are not in memory: at each proposal and
//! heartbeat. Handed on as named, they would pile up before the log reader faster than it can answer.
//! Leaves to others: what is read (the core), reading (the log reader).
//! Invariant: each read begun ends: the log reader answers every task, or the node is over.

use crate::ids::ReplicaId;

/// For whom.
#[derive(Debug, Default)]
pub(super) struct Fetches(Vec<ReplicaId>);

impl Fetches {
    /// Begins a read; false if one is under way for this member.
    pub(super) fn begin(&mut self, to: ReplicaId) -> bool {
        let is_new = !self.0.contains(&to);
        if is_new {
            self.0.push(to);
        }
        is_new
    }

    /// The answer is here.
    pub(super) fn ended(&mut self, to: ReplicaId) {
        self.0.retain(|member| *member != to);
    }
}
