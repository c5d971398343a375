//! Few commands of a group wait for more while its poller is patient: with a thousand groups at hand, a run of entries costs its
//! group a round on three nodes whatever its length, and that is most of what a command costs.
//!
//! They wait for the run before them to be applied, and then for as many as were answered with it: whoever has commands under
//! way all the time sends others. So all that a group has under way makes one run, round for round.
//! Leaves to others: when to be patient (the poller's `crowd`), and looking again when the time is over (the poller).
//! Invariant: what is kept back was never appended, weighs at the node's door, and is not kept for longer than the poller's patience.

use super::{Replica, Work};
use crate::env::Instant;

/// Commands of which a run is made at once.
const ENOUGH: usize = 16;

/// See the file's head.
#[derive(Default)]
pub(super) struct Gather {
    /// Commands that were answered, and whose callers have sent no other since.
    owed: usize,
    /// Commands are kept back until then.
    until: Option<Instant>,
}

impl Gather {
    pub(super) fn on_answered(&mut self, commands: usize) {
        self.owed += commands;
    }

    pub(super) fn on_staged(&mut self) {
        self.owed = self.owed.saturating_sub(1);
    }

    /// Nothing is kept back any more: it is appended or refused now.
    pub(super) fn end(&mut self) {
        *self = Gather::default();
    }
}

impl Replica {
    /// Until when commands are kept back, if some are.
    #[must_use]
    pub fn keeps_back_until(&self) -> Option<Instant> {
        self.gather.until.filter(|_| self.proposals.staged() > 0)
    }

    /// Are the commands that are staged to wait for others?
    pub(super) fn keeps_back(&mut self, work: &mut Work) -> bool {
        let more_to_come = self.waiting() > 0 || self.gather.owed > 0;
        if work.patience.is_zero() || self.proposals.staged() >= ENOUGH || !more_to_come {
            return false;
        }
        let until = *self.gather.until.get_or_insert_with(|| {
            work.tally.gathering += 1;
            work.clock.after(work.patience)
        });
        work.clock < until
    }
}
