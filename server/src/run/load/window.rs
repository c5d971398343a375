//! The measured window: two looks at everything that counts, and the time between them.
//!
//! Leaves to others: latencies (the clients' histograms, begun anew at the first look).

use super::client::Tally;
use crate::harness::{self, metric_sum};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is counted from the start on.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    acked: u64,
    reads: u64,
    /// Of this process, microseconds.
    cpu_us: f64,
    nodes: Option<Nodes>,
}

/// Sums over all nodes.
#[derive(Clone, Copy, Debug)]
struct Nodes {
    entries: f64,
    syncs: f64,
    log_bytes: f64,
    messages: f64,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) time: Duration,
    pub(super) writes: f64,
    pub(super) reads: f64,
    pub(super) cpu_us: f64,
    /// Entries, syncs, bytes of the log, messages; of all nodes.
    pub(super) nodes: Option<[f64; 4]>,
}

/// Waits for `length` between two looks. `admin`: of all nodes, or none.
pub(super) async fn measure(tallies: &[Arc<Tally>], admin: &[String], length: Duration) -> Window {
    let first = look(tallies, admin).await;
    for tally in tallies {
        tally.latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).reset();
    }
    tokio::time::sleep(length).await;
    let last = look(tallies, admin).await;
    let nodes = first
        .nodes
        .zip(last.nodes)
        .map(|(a, b)| [b.entries - a.entries, b.syncs - a.syncs, b.log_bytes - a.log_bytes, b.messages - a.messages]);
    Window {
        time: last.at - first.at,
        writes: (last.acked - first.acked) as f64,
        reads: (last.reads - first.reads) as f64,
        cpu_us: last.cpu_us - first.cpu_us,
        nodes,
    }
}

async fn look(tallies: &[Arc<Tally>], admin: &[String]) -> Look {
    let nodes = nodes(admin).await;
    let sum = |of: fn(&Tally) -> &AtomicU64| tallies.iter().map(|t| of(t).load(Ordering::Relaxed)).sum();
    Look { at: Instant::now(), acked: sum(|t| &t.acked), reads: sum(|t| &t.reads), cpu_us: cpu_us(), nodes }
}

async fn nodes(admin: &[String]) -> Option<Nodes> {
    let mut sum = None;
    for addr in admin {
        let Nodes { entries, syncs, log_bytes, messages } =
            sum.unwrap_or(Nodes { entries: 0.0, syncs: 0.0, log_bytes: 0.0, messages: 0.0 });
        sum = Some(Nodes {
            entries: entries + metric_sum(addr, "pontoon_wal_entries_total").await?,
            syncs: syncs + metric_sum(addr, "pontoon_wal_syncs_total").await?,
            log_bytes: log_bytes + metric_sum(addr, "pontoon_wal_bytes_total").await?,
            messages: messages + metric_sum(addr, "pontoon_raft_messages_sent_total").await?,
        });
    }
    sum
}

/// User and system time of this process; 0 where there is no /proc.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    harness::cpu_us(&stat).unwrap_or_default()
}
