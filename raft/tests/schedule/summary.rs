//! How much happened in a schedule, and over many.
//!
//! Invariant: a sweep that did little of something fails (`is_lively`): a check that never looks proves nothing.

/// Counts over schedules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub schedules: usize,
    pub actions: usize,
    pub committed: u64,
    pub leaders: usize,
    pub crashes: usize,
    pub reads: usize,
    pub changes: usize,
    pub installs: usize,
    pub transfers: usize,
    /// Rounds of healing.
    pub rounds: usize,
    /// See `Group::waits_for_removed`.
    pub stuck: usize,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.schedules += other.schedules;
        self.actions += other.actions;
        self.committed += other.committed;
        self.leaders += other.leaders;
        self.crashes += other.crashes;
        self.reads += other.reads;
        self.changes += other.changes;
        self.installs += other.installs;
        self.transfers += other.transfers;
        self.rounds += other.rounds;
        self.stuck += other.stuck;
    }

    /// Of each kind at least some per hundred schedules.
    pub fn is_lively(&self) -> bool {
        let per_hundred = |n: usize, at_least: usize| n * 100 >= at_least * self.schedules;
        per_hundred(self.committed as usize, 500)
            && per_hundred(self.leaders, 200)
            && per_hundred(self.crashes, 50)
            && per_hundred(self.reads, 50)
            && per_hundred(self.changes, 20)
            && per_hundred(self.installs, 5)
            && per_hundred(self.transfers, 20)
            && self.stuck * 50 < self.schedules
    }
}
