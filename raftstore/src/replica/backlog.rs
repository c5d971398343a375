//! What one replica has handed to the applier and did not hear of yet.
//!
//! Leaves to others: refusing commands for it (the door; a group's own bound is the core's). Invariant: `bytes` is the weight of `runs`, and charged to the
//! node as long as they wait.

use crate::budget::Budget;
use crate::ids::Index;
use std::collections::VecDeque;
use std::sync::Arc;

/// Runs of one group that may wait in the buffers that they came in. More wait only if the machine does not follow.
const FRESH: usize = 4;

/// See the file's head.
pub(super) struct Backlog {
    /// Last index and weight of each run, ascending.
    runs: VecDeque<(Index, u64)>,
    /// Weight of all.
    bytes: u64,
    /// The node's.
    budget: Arc<Budget>,
}

impl Backlog {
    pub(super) fn new(budget: Arc<Budget>) -> Backlog {
        Backlog { runs: VecDeque::new(), bytes: 0, budget }
    }

    /// A run up to `last` was handed over.
    pub(super) fn push(&mut self, last: Index, bytes: u64) {
        self.runs.push_back((last, bytes));
        self.bytes += bytes;
        self.budget.begin_applying(bytes);
    }

    /// Will what is handed over now wait for long?
    pub(super) fn is_long(&self) -> bool {
        self.runs.len() >= FRESH
    }

    /// Weight of all that waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything up to `index` was applied. Returns what it weighs.
    pub(super) fn on_applied(&mut self, index: Index) -> u64 {
        let before = self.bytes;
        while let Some((_, bytes)) = self.runs.front().copied().filter(|run| run.0 <= index) {
            self.runs.pop_front();
            self.bytes -= bytes;
            self.budget.end_applying(bytes);
        }
        before - self.bytes
    }

    /// Nothing of it will be applied any more.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.budget.end_applying(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.clear();
    }
}
