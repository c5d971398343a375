//! Configuration of one replica's core, judged as a whole.

use crate::error::ConfigProblem;
use crate::ids::{Index, ReplicaId};

/// How a linearizable read is confirmed (thesis 6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// By a round of heartbeats to a quorum. Needs no clock.
    #[default]
    Safe,
    /// By the leader's lease. Needs `check_quorum` and bounded clock drift.
    Lease,
}

/// Configuration of a `Raft`. Defaults are etcd raft's; the layer above switches on what it relies on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Own id; a valid member id.
    pub id: ReplicaId,
    /// Ticks without a leader before a campaign; drawn from `[n, 2n)` per term. Above `heartbeat_tick`. Default 10.
    pub election_tick: u64,
    /// Ticks between heartbeats. Above 0. Default 1.
    pub heartbeat_tick: u64,
    /// Last applied index; set on restart. Default 0.
    pub applied: Index,
    /// Bytes (encoded) of entries per append; `u64::MAX` none, 0 one entry each. Default 1 MiB.
    pub max_size_per_msg: u64,
    /// Bytes (encoded) of committed entries handed out and not yet reported applied; 0: as `max_size_per_msg`.
    pub max_committed_size_per_ready: u64,
    /// Payload bytes of uncommitted entries on a leader; 0 none.
    pub max_uncommitted_size: u64,
    /// Appends in flight per follower. Above 0. Default 256.
    pub max_inflight_msgs: usize,
    /// Payload bytes in flight per follower; 0 none, else at least `max_size_per_msg`.
    pub max_inflight_bytes: u64,
    /// The leader steps down when no quorum answers for an election tick; votes respect leases.
    pub check_quorum: bool,
    /// Ask before an election (thesis 9.6).
    pub pre_vote: bool,
    /// How reads are confirmed.
    pub read_mode: ReadMode,
    /// Followers drop proposals instead of forwarding them.
    pub disable_proposal_forwarding: bool,
    /// Accept every membership change (tests only).
    pub disable_conf_change_validation: bool,
    /// A leader that is removed or demoted follows.
    pub step_down_on_removal: bool,
    /// With `check_quorum`: no votes within an election tick after the start, as if a leader were known. A voter
    /// that restarts may have supported a lease. For groups that serve reads from leases.
    pub hold_votes_after_start: bool,
    /// Refuse what the original accepts and then dies of (raft-core S23, S30, 18), and let vote requests wait until
    /// the own term is durable. Always on, except in transcripts of the original.
    pub strict: bool,
    /// `Ready` carries persisting and applying as numbered asynchronous work (raft-core 14.3).
    pub async_storage_writes: bool,
    /// Collect `Trace` events for `RawNode::take_trace`.
    pub trace: bool,
    /// Seed of the election jitter: an argument, so that a run can be replayed.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: ReplicaId::NONE,
            election_tick: 10,
            heartbeat_tick: 1,
            applied: Index::NONE,
            max_size_per_msg: 1 << 20,
            max_committed_size_per_ready: 0,
            max_uncommitted_size: 0,
            max_inflight_msgs: 256,
            max_inflight_bytes: 0,
            check_quorum: false,
            pre_vote: false,
            read_mode: ReadMode::Safe,
            disable_proposal_forwarding: false,
            disable_conf_change_validation: false,
            step_down_on_removal: false,
            hold_votes_after_start: false,
            strict: false,
            async_storage_writes: false,
            trace: false,
            seed: 0,
        }
    }
}

impl Config {
    /// Every rule that is not kept.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let rules = [
            (self.id.is_valid_member(), "id", "be a member's id"),
            (self.heartbeat_tick > 0, "heartbeat_tick", "be above 0"),
            (self.election_tick > self.heartbeat_tick, "election_tick", "be above heartbeat_tick"),
            (self.election_tick < 1 << 32, "election_tick", "be below 2^32"),
            (self.max_inflight_msgs > 0, "max_inflight_msgs", "be above 0"),
            (
                self.max_inflight_bytes == 0 || self.max_inflight_bytes >= self.max_size_per_msg,
                "max_inflight_bytes",
                "be 0 or hold one message of max_size_per_msg",
            ),
            (self.read_mode != ReadMode::Lease || self.check_quorum, "read_mode", "be safe without check_quorum"),
        ];
        rules.into_iter().filter(|r| !r.0).map(|(_, field, must)| ConfigProblem { field, must }).collect()
    }

    /// The limit of committed bytes handed out.
    pub(crate) fn page_limit(&self) -> u64 {
        match self.max_committed_size_per_ready {
            0 => self.max_size_per_msg,
            limit => limit,
        }
    }

    /// The limit of uncommitted bytes.
    pub(crate) fn uncommitted_limit(&self) -> u64 {
        match self.max_uncommitted_size {
            0 => u64::MAX,
            limit => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever starts with six mistakes reads of six.
    #[test]
    fn all_problems_are_told_at_once() {
        let config = Config {
            heartbeat_tick: 0,
            election_tick: 0,
            max_inflight_msgs: 0,
            max_inflight_bytes: 1,
            read_mode: ReadMode::Lease,
            ..Config::default()
        };
        let fields: Vec<&str> = config.problems().iter().map(|p| p.field).collect();
        let all = ["id", "heartbeat_tick", "election_tick", "max_inflight_msgs", "max_inflight_bytes", "read_mode"];
        assert_eq!(fields, all);
        let long = Config { id: ReplicaId(1), election_tick: 1 << 32, ..Config::default() };
        assert_eq!(long.problems().len(), 1);
        assert!(Config { id: ReplicaId(1), ..Config::default() }.problems().is_empty());
    }
}
