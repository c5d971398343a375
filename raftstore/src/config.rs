//! Configuration of the layer: every field with unit, default and when to touch it; judged as a whole.

use std::time::Duration;

/// What `Node` needs to know besides its seams. `Config::default()` runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads that own groups. Default: 1 per 2 cores, at least 1 (set by the engine). Raise when they are busy all the time.
    pub pollers: usize,
    /// Threads that run state machines. Default 1. Raise when `pontoon_apply_lag_entries_max` stays high.
    pub appliers: usize,
    /// Length of a tick. Default 100 ms. Same on all nodes.
    pub tick: Duration,
    /// Ticks without word from a leader before a campaign; drawn from `[n, 2n)`. Default 10. At least 5.
    pub election_ticks: u64,
    /// Ticks between heartbeats. Default 1.
    pub heartbeat_ticks: u64,
    /// Largest command, bytes. Default 8 MiB.
    pub max_command: usize,
    /// Bytes of entries per append message. Default 256 KiB; 0: one entry each.
    pub max_append_bytes: u64,
    /// Appends in flight per follower. Default 64.
    pub max_inflight: usize,
    /// Groups in a write of the log from which on a poller may let few commands of a group wait for more, if processors are short.
    /// Default 64; 1 in tests.
    pub gather_from: usize,
    /// Payload bytes that wait for commit, per group. Default 16 MiB: over it `Overloaded(GroupInflight)`.
    pub group_inflight_bytes: u64,
    /// Bytes of proposals, inbound appends and caches together, node-wide. Default 256 MiB.
    pub node_bytes: u64,
    /// Bytes of log kept per group for laggards before they get a snapshot, and behind that as much as comes until they have
    /// caught up, while the node has room. Default 64 MiB.
    pub log_keep: u64,
    /// How long a write may hang before leaders are handed over. Default 5 s.
    pub disk_stall: Duration,
    /// Bytes per second of snapshots sent by this node. Default 64 MiB/s.
    pub snapshot_rate: u64,
    /// The poller syncs its own batch inline (for measurements). Default false.
    pub inline_sync: bool,
    /// How often machines are asked what is durable. Default 10 s; also by bytes of live log.
    pub durable_every: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pollers: 1,
            appliers: 1,
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 1,
            max_command: 8 << 20,
            max_append_bytes: 256 << 10,
            max_inflight: 64,
            gather_from: 64,
            group_inflight_bytes: 16 << 20,
            node_bytes: 256 << 20,
            log_keep: 64 << 20,
            disk_stall: Duration::from_secs(5),
            snapshot_rate: 64 << 20,
            inline_sync: false,
            durable_every: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Everything that is wrong with it, each with the field and what it must be.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        // No `..`: a new field must be judged here.
        let Config {
            pollers,
            appliers,
            tick,
            election_ticks,
            heartbeat_ticks,
            max_command,
            max_append_bytes: _,
            max_inflight,
            gather_from,
            group_inflight_bytes,
            node_bytes,
            log_keep,
            disk_stall,
            snapshot_rate,
            inline_sync: _,
            durable_every,
        } = self;
        let rules = [
            ((1..=256).contains(pollers), "pollers must be 1 to 256"),
            ((1..=256).contains(appliers), "appliers must be 1 to 256"),
            (*tick >= Duration::from_millis(1), "tick must be at least 1ms"),
            (*election_ticks >= 5, "election_ticks must be at least 5, or one lost heartbeat elects"),
            (*heartbeat_ticks >= 1, "heartbeat_ticks must be at least 1"),
            (election_ticks > heartbeat_ticks, "election_ticks must be above heartbeat_ticks"),
            ((1..=64 << 20).contains(max_command), "max_command must be 1 byte to 64MiB"),
            ((1..=4096).contains(max_inflight), "max_inflight must be 1 to 4096"),
            (*gather_from >= 1, "gather_from must be at least 1"),
            (*group_inflight_bytes >= *max_command as u64, "group_inflight_bytes must hold one command"),
            (*node_bytes >= *group_inflight_bytes, "node_bytes must be at least group_inflight_bytes"),
            (*log_keep >= 1 << 10, "log_keep must be at least 1KiB"),
            (*disk_stall >= *tick, "disk_stall must be at least one tick"),
            (*snapshot_rate >= 64 << 10, "snapshot_rate must be at least 64KiB/s"),
            (*durable_every >= *tick, "durable_every must be at least one tick"),
        ];
        rules.into_iter().filter(|r| !r.0).map(|r| r.1.to_owned()).collect()
    }
}
