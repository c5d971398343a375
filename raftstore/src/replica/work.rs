//! What a turn collects from the replicas of a poller: one batch, one outbox, letters, events; and the bounds they obey.
//!
//! Leaves to others: sending any of it (the poller). Replicas only push.
//! Invariant: `seq` is the number that `batch` will have if anything is in it.

use crate::budget::Budget;
use crate::config::Config;
use crate::env::{Fetch, GroupWrite, Instant, LogBatch};
use crate::events::Event;
use crate::ids::{BatchSeq, GroupId, PollerId, Tick};
use crate::outbox::Outbox;
use crate::replica::WriteTime;
use crate::task::{ApplierMsg, ApplyTask, FetchTask, LifecycleMsg, SnapshotTask};
use std::sync::Arc;
use std::time::Duration;

/// Largest catch-up read. Bytes.
const MAX_FETCH: u64 = 4 << 20;

/// Bounds and times of the layer, in the units that replicas use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See `Config`. Ticks.
    pub election_ticks: u64,
    /// See `Config`. Ticks.
    pub heartbeat_ticks: u64,
    /// See `Config`. Bytes.
    pub max_append_bytes: u64,
    /// Committed entries handed to the machine and not yet applied. Bytes.
    pub max_apply_bytes: u64,
    /// See `Config`.
    pub max_inflight: usize,
    /// See `Config`. Bytes.
    pub group_inflight_bytes: u64,
    /// Appended proposals of a group that wait for their answer. Bytes.
    pub group_waiting_bytes: u64,
    /// The time in which the commands that wait at the most should be done while the node is busy. Ticks.
    pub pace_ticks: u64,
    /// See `Config`. Bytes.
    pub log_keep: u64,
}

impl Limits {
    /// Of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Limits {
        Limits {
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
            max_append_bytes: config.max_append_bytes,
            max_apply_bytes: (4 << 20).max(config.max_append_bytes),
            max_inflight: config.max_inflight,
            group_inflight_bytes: config.group_inflight_bytes,
            group_waiting_bytes: config.group_inflight_bytes.saturating_mul(4),
            pace_ticks: (config.election_ticks / 5).max(1),
            log_keep: config.log_keep,
        }
    }
}

/// A letter to another part.
pub enum Letter {
    /// Entries to the applier that has the group's machine.
    Apply(ApplyTask),
    /// Something else to that applier.
    Applier(GroupId, ApplierMsg),
    /// To the snapshotter.
    Snapshotter(SnapshotTask),
    /// To the log reader.
    LogReader(FetchTask),
    /// To lifecycle.
    Lifecycle(LifecycleMsg),
    /// The replica of this group is gone: its tombstone is durable.
    Gone(GroupId),
}

impl Letter {
    /// A catch-up read that a core asked for.
    #[must_use]
    pub fn fetch(poller: PollerId, group: GroupId, wanted: pontoon_raft::Fetch) -> Letter {
        let max_bytes = wanted.max_bytes.min(MAX_FETCH);
        let fetch = Fetch { group, low: wanted.low, high: wanted.high, max_bytes };
        Letter::LogReader(FetchTask { poller, fetch, follower: wanted.to })
    }
}

/// Counters of one turn, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Commands appended.
    pub proposed: u64,
    /// Commands refused after the door.
    pub refused: u64,
    /// Groups that began to keep commands back.
    pub gathering: u64,
    /// Entries put into the batch.
    pub entries: u64,
    /// Entries handed to machines.
    pub applying: u64,
    /// Bytes of them.
    pub applying_bytes: u64,
    /// Reads asked for.
    pub reads: u64,
    /// Changes of leader seen.
    pub leader_changes: u64,
}

/// One turn's work.
pub struct Work {
    /// The turn's time.
    pub now: Tick,
    /// The same, as fine as the clock is.
    pub clock: Instant,
    /// For how long few commands may wait for more.
    pub patience: Duration,
    /// Number of `batch`.
    pub seq: BatchSeq,
    /// The turn's one batch.
    pub batch: LogBatch,
    /// The turn's messages.
    pub outbox: Outbox,
    /// For other parts.
    pub letters: Vec<Letter>,
    /// For listeners.
    pub events: Vec<Event>,
    /// For metrics.
    pub tally: Tally,
    /// The disk hangs: leaders say nothing that would keep them leading.
    pub silent: bool,
    /// More commands are on their way than the node gets done.
    pub busy: bool,
    /// How long the log's writes take.
    pub writes: WriteTime,
    /// The node's.
    pub budget: Arc<Budget>,
}

impl Work {
    /// Nothing collected yet.
    #[must_use]
    pub fn new(now: Tick, writes: WriteTime, budget: Arc<Budget>) -> Work {
        Work {
            now,
            clock: Instant::default(),
            patience: Duration::ZERO,
            seq: BatchSeq(1),
            batch: LogBatch::default(),
            outbox: Outbox::default(),
            letters: Vec::new(),
            events: Vec::new(),
            tally: Tally::default(),
            silent: false,
            busy: false,
            writes,
            budget,
        }
    }

    /// Adds a change to the batch; `sync` if it carries a promise.
    pub fn write(&mut self, write: GroupWrite, sync: bool) {
        self.batch.writes.push(write);
        self.batch.sync |= sync;
    }

    /// A peer's message was refused. Rare, so counted at once.
    pub fn refused(&self, reason: &'static str) {
        metrics::counter!("pontoon_messages_rejected_total", "reason" => reason).increment(1);
    }
}
