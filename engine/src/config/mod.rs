//! Configuration of the engine and, below it, of the layers it assembles: a serde struct for TOML, judged as a whole.
//!
//! Leaves to others: reading a file, layering of sources (the host). Units: `units`.
//! Invariant: `Config::default()` runs; `violations` names everything that is wrong at once, with the field's path.

mod units;

use pontoon_raftstore::config::Config as Groups;
use pontoon_raftstore::ids::NodeId;
use serde::{Deserialize, Serialize};
pub use units::{Size, Span};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a proposal or read waits where the caller names no limit. Default `10s`.
    pub request_timeout: Span,
    /// How long a transfer or snapshot on request waits. Default `10s`.
    pub admin_timeout: Span,
    /// How long a founding waits for all its peers. Default `10m`: founders may start one by one.
    pub found_timeout: Span,
    /// Even leaders out between nodes? Default true.
    pub balance: bool,
    /// Free disk below which proposals are refused. Default `256MiB`. `0B`: never. Looked at once a second: raise it where
    /// more than that is written in a second.
    pub disk_reserve: Size,
    /// Groups and their threads.
    pub raft: RaftConfig,
    /// The log store.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            request_timeout: Span::millis(10_000),
            admin_timeout: Span::millis(10_000),
            found_timeout: Span::millis(600_000),
            balance: true,
            disk_reserve: Size::mib(256),
            raft: RaftConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// `[raft]`: groups and their threads. Defaults and advice: `pontoon_raftstore::config::Config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Threads that own groups. Default: one per two cores. Raise when they are busy all the time.
    pub pollers: usize,
    /// Threads that run state machines. Default 1. Raise when applies queue.
    pub appliers: usize,
    /// Length of a tick. Default `100ms`. Equal on all nodes.
    pub tick: Span,
    /// Ticks without a leader before a campaign. Default 10. Equal on all nodes.
    pub election_ticks: u64,
    /// Ticks between heartbeats. Default 1. Equal on all nodes.
    pub heartbeat_ticks: u64,
    /// Largest command. Default `8MiB`. Equal on all nodes.
    pub max_command: Size,
    /// Payload per group that waits for its commit; over it `Overloaded(GroupInflight)`. Default `16MiB`.
    pub group_inflight: Size,
    /// Proposals, inbound appends and caches together. Default `256MiB`.
    pub node_memory: Size,
    /// Log kept per group for laggards before they get a snapshot; behind that what comes until they have caught up, while the
    /// node's live log is below half of `log.live_limit`. Default `64MiB`.
    pub log_keep: Size,
    /// Snapshots sent by this node, per second. Default `64MiB`.
    pub snapshot_rate: Size,
    /// How often machines are asked what is durable. Default `10s`.
    pub durable_every: Span,
    /// How long a write may hang before leaders are handed over. Default `5s`.
    pub disk_stall: Span,
    /// Pollers sync their own batches: for measurements. Default false.
    pub inline_sync: bool,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        let d = Groups::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        RaftConfig {
            pollers: (cores / 2).max(1),
            appliers: d.appliers,
            tick: Span::new(d.tick),
            election_ticks: d.election_ticks,
            heartbeat_ticks: d.heartbeat_ticks,
            max_command: Size::bytes(d.max_command as u64),
            group_inflight: Size::bytes(d.group_inflight_bytes),
            node_memory: Size::bytes(d.node_bytes),
            log_keep: Size::bytes(d.log_keep),
            snapshot_rate: Size::bytes(d.snapshot_rate),
            durable_every: Span::new(d.durable_every),
            disk_stall: Span::new(d.disk_stall),
            inline_sync: d.inline_sync,
        }
    }
}

/// `[log]`: the log store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Live bytes of log over which proposals are refused with `Overloaded(Wal)`. Default `8GiB`.
    pub live_limit: Size,
    /// Size at which a file of the log is full and the next, a recycled one, is begun. Default `64MiB`. Larger: more of
    /// the log dies before it is flushed, longer restarts. Touch only where memory is scarce: up to 16 wait for a flush.
    /// Each node takes up to a quarter less, by its number, so that nodes do not flush at the same moments.
    pub file: Size,
}

/// The smallest file of the log.
const LEAST_FILE: u64 = 64 << 10;

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { live_limit: Size::mib(8 << 10), file: Size::mib(64) }
    }
}

impl LogConfig {
    /// The size of a file on this node: what it flushes at once.
    pub(crate) fn file_of(&self, me: NodeId) -> u64 {
        me.staggered(self.file.get()).max(LEAST_FILE)
    }
}

impl Config {
    /// Everything that is wrong with it, each with the path of the field and what it must be.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.unit_problems();
        if !found.is_empty() {
            // Ranges of values that could not be read would only repeat it.
            return found;
        }
        found.extend(self.raft().violations().into_iter().map(|v| format!("raft.{v}")));
        let rules = [
            (!self.request_timeout.get().is_zero(), "request_timeout must be above 0"),
            (!self.admin_timeout.get().is_zero(), "admin_timeout must be above 0"),
            (self.log.live_limit.get() >= 64 << 20, "log.live_limit must be at least 64MiB"),
            ((LEAST_FILE..=4 << 30).contains(&self.log.file.get()), "log.file must be 64KiB to 4GiB"),
            (self.raft.node_memory.get() >= 8 << 20, "raft.node_memory must be at least 8MiB, or appends do not fit"),
            (self.log.live_limit.get() > self.raft.log_keep.get(), "log.live_limit must be above raft.log_keep"),
        ];
        found.extend(rules.into_iter().filter(|r| !r.0).map(|r| r.1.to_owned()));
        found
    }

    fn unit_problems(&self) -> Vec<String> {
        let r = &self.raft;
        let spans = [
            ("request_timeout", &self.request_timeout),
            ("admin_timeout", &self.admin_timeout),
            ("found_timeout", &self.found_timeout),
            ("raft.tick", &r.tick),
            ("raft.durable_every", &r.durable_every),
            ("raft.disk_stall", &r.disk_stall),
        ];
        let sizes = [
            ("disk_reserve", &self.disk_reserve),
            ("raft.max_command", &r.max_command),
            ("raft.group_inflight", &r.group_inflight),
            ("raft.node_memory", &r.node_memory),
            ("raft.log_keep", &r.log_keep),
            ("raft.snapshot_rate", &r.snapshot_rate),
            ("log.live_limit", &self.log.live_limit),
            ("log.file", &self.log.file),
        ];
        let spans = spans.iter().map(|(n, s)| (n, s.problem()));
        let sizes = sizes.iter().map(|(n, s)| (n, s.problem()));
        spans.chain(sizes).filter_map(|(name, p)| p.map(|p| format!("{name}: {p}"))).collect()
    }

    /// As raftstore takes it.
    pub(crate) fn raft(&self) -> Groups {
        let r = &self.raft;
        Groups {
            pollers: r.pollers,
            appliers: r.appliers,
            tick: r.tick.get(),
            election_ticks: r.election_ticks,
            heartbeat_ticks: r.heartbeat_ticks,
            max_command: usize::try_from(r.max_command.get()).unwrap_or(usize::MAX),
            group_inflight_bytes: r.group_inflight.get(),
            node_bytes: r.node_memory.get(),
            log_keep: r.log_keep.get(),
            snapshot_rate: r.snapshot_rate.get(),
            durable_every: r.durable_every.get(),
            disk_stall: r.disk_stall.get(),
            inline_sync: r.inline_sync,
            ..Groups::default()
        }
    }
}
