//! What the leader knows of one member, and how it feeds it (raft-core 8.1).
//!
//! Leaves to others: building messages (`replication`), who is a member (`tracker`).
//! Invariant: `matched < next`; a window exists only while replicating, a pending snapshot only while
//! one is on its way.

use super::inflights::{Inflights, WindowLimits};
use crate::ids::Index;
use crate::mutant::{self, Mutant};
use crate::status::{FlowState, ProgressStatus};

/// How the leader feeds one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flow {
    /// One append at a time, until an answer shows where the logs match.
    Probe {
        /// Sent; wait for an answer or a heartbeat's.
        paused: bool,
    },
    /// A stream of appends, ahead of the answers.
    Replicate {
        /// What is on its way.
        window: Inflights,
        /// The window was full at the last attempt; wait for an answer or a heartbeat's.
        paused: bool,
    },
    /// A snapshot is on its way; no appends.
    Snapshot {
        /// Its index; 0 once it is known to have failed.
        pending: Index,
    },
}

/// What the leader knows of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Highest index known to be durable there. Invariant: `< next`.
    matched: Index,
    /// First index of the next append.
    next: Index,
    /// Highest commit that the member was told (a heartbeat may lower it).
    sent_commit: Index,
    /// How it is fed.
    flow: Flow,
    /// Heard of since the last quorum check.
    recently_active: bool,
}

impl Progress {
    /// A member that was just added: its log is unknown behind `next`. It counts as active, or the next
    /// quorum check could depose a healthy leader (raft-core S28).
    #[must_use]
    pub fn new(next: Index) -> Progress {
        let progress = Progress {
            matched: Index::NONE,
            next,
            sent_commit: Index::NONE,
            flow: Flow::Probe { paused: false },
            recently_active: true,
        };
        progress.check();
        progress
    }

    /// Back to the beginning of a leadership, with `last` the own last index.
    pub fn reset(&mut self, last: Index) {
        let matched = if mutant::is(Mutant::MatchKept) { self.matched.min(last) } else { Index::NONE };
        *self = Progress { matched, ..Progress::new(last.next()) };
        self.recently_active = false;
    }

    /// At most one append until an answer comes.
    pub fn become_probe(&mut self) {
        self.next = match self.flow {
            Flow::Snapshot { pending } => self.matched.next().max(pending.next()),
            _ => self.matched.next(),
        };
        self.lower_sent_commit();
        self.flow = Flow::Probe { paused: false };
        self.check();
    }

    /// The logs match at `matched`: stream from there.
    pub fn become_replicate(&mut self, limits: WindowLimits) {
        self.next = self.matched.next();
        self.flow = Flow::Replicate { window: Inflights::new(limits), paused: false };
        self.check();
    }

    /// A snapshot up to `pending` leaves for the member.
    /// Without `Config::strict`, `pending` may lie below what is known: `next` is then wrong until an answer or a report.
    pub fn become_snapshot(&mut self, pending: Index) {
        self.next = pending.next();
        self.sent_commit = pending;
        self.flow = Flow::Snapshot { pending };
    }

    /// The snapshot never arrived: probe behind what is known, not behind it (raft-core S18).
    pub fn abort_snapshot(&mut self) {
        if let Flow::Snapshot { pending } = &mut self.flow {
            if !mutant::is(Mutant::FailedSnapshotCounts) {
                *pending = Index::NONE;
            }
            self.become_probe();
        }
    }

    /// An append with `entries` entries and `bytes` of payload has left.
    #[inline]
    pub fn sent(&mut self, entries: usize, bytes: u64) {
        match &mut self.flow {
            Flow::Replicate { window, paused } => {
                if entries > 0 {
                    self.next = self.next.plus(entries as u64);
                    window.add(self.next.prev(), bytes);
                }
                *paused = window.is_full();
            }
            Flow::Probe { paused } => *paused |= entries > 0,
            Flow::Snapshot { .. } => unreachable!("no append leaves while a snapshot is on its way"),
        }
        self.check();
    }

    /// The member holds everything up to `index` durably. False if that is not news.
    #[must_use]
    #[inline]
    pub fn acked(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.resume();
        self.check();
        true
    }

    /// The member refused the append behind `rejected`; its log may match at `hint`.
    /// False if the answer is stale, then nothing changed (raft-core S14).
    #[must_use]
    pub fn rejected(&mut self, rejected: Index, hint: Index) -> bool {
        if matches!(self.flow, Flow::Replicate { .. }) {
            if rejected <= self.matched {
                return false;
            }
            self.next = self.matched.next();
        } else {
            if rejected != self.next.prev() {
                return false;
            }
            let proposed = rejected.min(Index(hint.0.saturating_add(1)));
            self.next = proposed.max(self.matched.next());
            self.resume();
        }
        self.lower_sent_commit();
        self.check();
        true
    }

    /// Everything up to `index` has left the window.
    #[inline]
    pub fn free_window_to(&mut self, index: Index) {
        if let Flow::Replicate { window, .. } = &mut self.flow {
            window.free_to(index);
        }
    }

    /// Try again: an answer came.
    #[inline]
    pub fn resume(&mut self) {
        self.set_paused(false);
    }

    /// Wait for the next answer.
    pub fn pause(&mut self) {
        self.set_paused(true);
    }

    /// Is the member fed by nothing now?
    #[must_use]
    #[inline]
    pub fn is_paused(&self) -> bool {
        match self.flow {
            Flow::Probe { paused } | Flow::Replicate { paused, .. } => paused,
            Flow::Snapshot { .. } => true,
        }
    }

    /// Is the window full? Never, unless replicating.
    #[must_use]
    #[inline]
    pub fn is_window_full(&self) -> bool {
        matches!(&self.flow, Flow::Replicate { window, .. } if window.is_full())
    }

    /// Would telling `commit` be news, and does the member hold entries that it could commit?
    #[must_use]
    #[inline]
    pub fn may_raise_commit(&self, commit: Index) -> bool {
        commit > self.sent_commit && self.sent_commit < self.next.prev()
    }

    /// The member was told this commit.
    #[inline]
    pub fn set_sent_commit(&mut self, commit: Index) {
        self.sent_commit = commit;
    }

    /// Heard of it, or the quorum check starts anew.
    #[inline]
    pub fn set_active(&mut self, active: bool) {
        self.recently_active = active;
    }

    /// Heard of since the last quorum check?
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.recently_active
    }

    /// Highest index known to be durable there.
    #[must_use]
    #[inline]
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// First index of the next append.
    #[must_use]
    #[inline]
    pub fn next(&self) -> Index {
        self.next
    }

    /// How the member is fed.
    #[must_use]
    #[inline]
    pub fn state(&self) -> FlowState {
        match self.flow {
            Flow::Probe { .. } => FlowState::Probe,
            Flow::Replicate { .. } => FlowState::Replicate,
            Flow::Snapshot { .. } => FlowState::Snapshot,
        }
    }

    /// A copy for traces and status.
    #[must_use]
    pub fn status(&self, learner: bool) -> ProgressStatus {
        let (pending_snapshot, inflight) = match &self.flow {
            Flow::Probe { .. } => (Index::NONE, 0),
            Flow::Replicate { window, .. } => (Index::NONE, window.count()),
            Flow::Snapshot { pending } => (*pending, 0),
        };
        ProgressStatus {
            state: self.state(),
            matched: self.matched,
            next: self.next,
            learner,
            paused: self.is_paused(),
            pending_snapshot,
            active: self.recently_active,
            inflight,
            full: self.is_window_full(),
        }
    }

    #[inline]
    fn set_paused(&mut self, to: bool) {
        match &mut self.flow {
            Flow::Probe { paused } | Flow::Replicate { paused, .. } => *paused = to,
            Flow::Snapshot { .. } => {}
        }
    }

    fn lower_sent_commit(&mut self) {
        self.sent_commit = self.sent_commit.min(self.next.prev());
    }

    #[inline]
    fn check(&self) {
        assert!(self.matched < self.next, "{self:?}");
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
