//! A poller's metrics: counters per turn, gauges over its groups once a second. Never a label per group (law 12).
//!
//! Leaves to others: describing and exporting them (the engine). Gauges are moved by differences, because pollers
//! share them.
//! Invariant: nothing here is read by anything that decides.

use crate::ids::Tick;
use crate::replica::{Replica, Work};
use pontoon_raft::{ReplicaId, StateRole};

/// Ticks between looks at all groups.
const LOOK_EVERY: Tick = 10;

/// Groups by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Census {
    leaders: i64,
    followers: i64,
    candidates: i64,
    without_leader: i64,
}

/// What a poller reports.
#[derive(Default)]
pub(super) struct Report {
    /// As reported last.
    census: Census,
    /// When to look again.
    look_at: Tick,
    /// Messages that left in this turn.
    messages: u64,
}

impl Report {
    pub(super) fn sent(&mut self, messages: u64) {
        self.messages += messages;
    }

    /// The turn's end.
    pub(super) fn turn<'a>(&mut self, work: &mut Work, replicas: impl Iterator<Item = &'a Replica>) {
        let tally = std::mem::take(&mut work.tally);
        count("pontoon_committed_entries_total", tally.applying);
        count("pontoon_leader_changes_total", tally.leader_changes);
        count("pontoon_gatherings_total", tally.gathering);
        count("pontoon_raft_messages_sent_total", std::mem::take(&mut self.messages));
        if tally.proposed > 0 {
            metrics::counter!("pontoon_proposals_total", "kind" => "write").increment(tally.proposed);
        }
        if tally.reads > 0 {
            metrics::counter!("pontoon_proposals_total", "kind" => "read_index").increment(tally.reads);
        }
        if tally.refused > 0 {
            metrics::counter!("pontoon_proposals_rejected_total", "reason" => "poller").increment(tally.refused);
        }
        if work.now >= self.look_at {
            self.look_at = work.now + LOOK_EVERY;
            self.look(replicas);
        }
    }

    fn look<'a>(&mut self, replicas: impl Iterator<Item = &'a Replica>) {
        let mut now = Census::default();
        for soft in replicas.map(Replica::soft_state) {
            match soft.role {
                StateRole::Leader => now.leaders += 1,
                StateRole::Follower => now.followers += 1,
                StateRole::Candidate | StateRole::PreCandidate => now.candidates += 1,
            }
            now.without_leader += i64::from(soft.lead == ReplicaId::NONE);
        }
        let before = std::mem::replace(&mut self.census, now);
        let by_role = [
            ("leader", now.leaders - before.leaders),
            ("follower", now.followers - before.followers),
            ("candidate", now.candidates - before.candidates),
        ];
        for (role, moved) in by_role {
            metrics::gauge!("pontoon_groups", "role" => role).increment(moved as f64);
        }
        let moved = now.without_leader - before.without_leader;
        metrics::gauge!("pontoon_groups_without_leader").increment(moved as f64);
    }
}

fn count(name: &'static str, n: u64) {
    if n > 0 {
        metrics::counter!(name).increment(n);
    }
}
