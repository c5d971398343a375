//! What the parent says to a node on its standard input, and what the node answers on its standard output: a JSON
//! object a line, one answer to each order, in order.

use super::options::LoadOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Create this node's replica of every group.
    Create,
    /// Which groups are led, and by whom.
    Leaders,
    /// How far each group's replica here has applied.
    Applied,
    /// Start the driver thread.
    Load(Load),
    /// Go on at another pace.
    Change(Pace),
    /// The window of latencies ends here, and the next begins.
    Cut,
    /// Counters as they stand.
    Counters,
    /// How many groups have a log that was not truncated here since the load began.
    Untruncated,
    /// Stop the driver thread and tell what it saw.
    Result,
    /// What every group's replica here holds.
    Digests,
    /// Read back the last acknowledged write of each key: (group, key) to its stamp, of groups that this node leads.
    ReadBack { wanted: Acked },
    /// One write to each of these groups that this node leads.
    Touch { groups: Vec<u64> },
}

/// What a driver thread does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) options: LoadOptions,
    /// To begin with.
    pub(crate) pace: Pace,
    /// Most that may ever be in flight, at any pace: allocated at the start.
    pub(crate) slots: u64,
}

/// When operations begin, on all nodes together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Open loop: operations a second. `None`: whenever there is room.
    pub(crate) rate: Option<f64>,
    /// How many may be under way.
    pub(crate) inflight: u64,
}

/// What was counted, by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// All of them.
pub(crate) fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// Those of several, by name.
pub(crate) fn merged<'a>(all: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut sum = Counts::new();
    all.flatten().for_each(|(name, n)| *sum.entry(name.clone()).or_default() += n);
    sum
}

/// The last acknowledged write: group, then key, then stamp.
pub(crate) type Acked = BTreeMap<u64, BTreeMap<u64, u64>>;

/// From a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Open, or whatever was asked is done.
    Done,
    /// To `Leaders`: leader by group, 0 for none.
    Leaders(BTreeMap<u64, u64>),
    /// To `Applied`: index by group.
    Applied(BTreeMap<u64, u64>),
    /// To `Counters`.
    Counters(Counters),
    /// To `Cut`.
    Seen(Seen),
    /// To `Untruncated`.
    Number(u64),
    /// To `Result`.
    Result(Outcome),
    /// To `Digests`, by group.
    Digests(BTreeMap<u64, Digest>),
    /// To `Touch`: groups that acknowledged; what was wrong.
    Touched { groups: Vec<u64>, bad: Vec<String> },
    /// To `ReadBack`: how many; what was wrong.
    Checked { good: u64, bad: Vec<String> },
    /// It could not be done.
    Failed(String),
}

/// Monotonic counters of one node.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Writes acknowledged to the driver, and reads answered.
    pub(crate) acked: u64,
    pub(crate) reads: u64,
    /// CPU of the driver thread, microseconds.
    pub(crate) driver_cpu_us: f64,
    /// From the engine's metrics.
    pub(crate) entries: f64,
    pub(crate) syncs: f64,
    pub(crate) log_bytes: f64,
    pub(crate) messages: f64,
    pub(crate) elections: f64,
    pub(crate) late_turns: f64,
    /// As it stands.
    pub(crate) live_log_bytes: f64,
    pub(crate) budget_bytes: f64,
    pub(crate) memtable_bytes: f64,
    /// Calls of the allocator.
    pub(crate) allocations: Option<u64>,
}

/// What a driver thread saw in a window.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Latency in microseconds and how often.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// Since the load began: refused, never appended; and of unknown outcome.
    pub(crate) refused: Counts,
    pub(crate) unknown: Counts,
    /// Open loop: for how long something has been due that did not begin: too many are under way, or the driver had no processor.
    pub(crate) behind_us: u64,
    /// Open loop: how often too many were under way.
    pub(crate) full: u64,
}

/// What a driver thread saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Writes acknowledged per group, the warm-up included.
    pub(crate) per_group: BTreeMap<u64, u64>,
    /// Stamps.
    pub(crate) last: Acked,
    /// Refused, never appended; and of unknown outcome.
    pub(crate) refused: Counts,
    pub(crate) unknown: Counts,
    /// Open loop: due before the end and never begun.
    pub(crate) overdue: u64,
    /// Latency in microseconds and how often, since the last cut.
    pub(crate) latencies: Vec<(u64, u64)>,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Applied index.
    pub(crate) applied: u64,
    /// Commands (count) or pairs (memory, kv).
    pub(crate) number: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// Over all of them, in order.
    pub(crate) hash: u64,
}
