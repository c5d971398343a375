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

/// A run of entries, or several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Weight. Bytes.
    pub(super) bytes: u64,
    /// Commands whose callers wait for an answer.
    pub(super) callers: usize,
}

/// See the file's head.
pub(super) struct Backlog {
    /// Last index of each run, ascending, and the run.
    runs: VecDeque<(Index, Load)>,
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
    pub(super) fn push(&mut self, last: Index, run: Load) {
        self.runs.push_back((last, run));
        self.bytes += run.bytes;
        self.budget.begin_applying(run.bytes);
    }

    /// Will what is handed over now wait for long?
    pub(super) fn is_long(&self) -> bool {
        self.runs.len() >= FRESH
    }

    /// Weight of all that waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything up to `index` was applied. Returns what that was.
    pub(super) fn on_applied(&mut self, index: Index) -> Load {
        let mut done = Load::default();
        while let Some((_, run)) = self.runs.front().copied().filter(|run| run.0 <= index) {
            self.runs.pop_front();
            done.bytes += run.bytes;
            done.callers += run.callers;
        }
        self.bytes -= done.bytes;
        self.budget.end_applying(done.bytes);
        done
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
