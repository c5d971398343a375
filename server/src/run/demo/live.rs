//! One line a second: what the load gets, and what the log stores do for it.

use super::load::Load;
use super::say;
use crate::harness::{leaders, metric_sum};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Runs until aborted. `nodes`: Redis and admin addresses.
pub(super) async fn line_a_second(load: Arc<Load>, nodes: Vec<(String, String)>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut before = (0, 0.0, 0.0);
    let mut n = 0;
    second.tick().await;
    loop {
        second.tick().await;
        n += 1;
        let done = load.acknowledged.load(Ordering::Relaxed);
        let (entries, syncs) =
            (sum(&nodes, "pontoon_wal_entries_total").await, sum(&nodes, "pontoon_wal_syncs_total").await);
        let (p50, p99) = load.take_latencies();
        // A restarted node counts from zero again: no figure for that second.
        let per_sync =
            if syncs > before.2 && entries >= before.1 { (entries - before.1) / (syncs - before.2) } else { 0.0 };
        say(&format!(
            "{n:>4} s  {:>7} writes/s  p50 {:>6.2} ms  p99 {:>7.2} ms  {per_sync:>6.1} entries/sync  leaders {}",
            done - before.0,
            p50 as f64 / 1000.0,
            p99 as f64 / 1000.0,
            leader_share(&nodes).await
        ));
        before = (done, entries, syncs);
    }
}

async fn sum(nodes: &[(String, String)], name: &str) -> f64 {
    let mut total = 0.0;
    for (_, admin) in nodes {
        total += metric_sum(admin, name).await.unwrap_or(0.0);
    }
    total
}

/// Slots led per node in per cent, as the first node that answers sees it.
async fn leader_share(nodes: &[(String, String)]) -> String {
    for (redis, _) in nodes {
        if let Some((led, _)) = leaders(redis).await {
            let share = |addr: &String| led.get(addr).copied().unwrap_or(0) * 100 / 16_384;
            return nodes.iter().map(|(addr, _)| format!("{}%", share(addr))).collect::<Vec<_>>().join("/");
        }
    }
    "none".to_owned()
}
