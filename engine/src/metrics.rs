//! The process-wide metrics recorder, installed only when asked for: a library leaves that to its host.
//!
//! Leaves to others: what is measured (each layer records through the `metrics` facade).
//! Invariant: every histogram has fixed buckets, so that nodes can be summed, and is drained by `upkeep`.

use crate::core::Core;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once per process. `None`: the host has one of its own.
pub(crate) fn install() -> Option<PrometheusHandle> {
    RECORDER.get_or_init(|| builder().and_then(|b| b.install_recorder().ok())).clone()
}

/// The recorder, if `install` put it there.
pub(crate) fn installed() -> Option<PrometheusHandle> {
    RECORDER.get().cloned().flatten()
}

/// Drains histograms: without it they grow for ever. Every 5 s.
pub(crate) fn upkeep() {
    if let Some(recorder) = installed() {
        recorder.run_upkeep();
    }
}

/// Seconds: 16 us * 2^k. Counts and bytes: 2^k.
fn builder() -> Option<PrometheusBuilder> {
    let seconds: Vec<f64> = (0..20).map(|k| 16e-6 * f64::from(1 << k)).collect();
    let counts: Vec<f64> = (0..16).map(|k| f64::from(1 << k)).collect();
    let bytes: Vec<f64> = (0..16).map(|k| 64.0 * f64::from(1 << k)).collect();
    PrometheusBuilder::new()
        .set_buckets(&counts)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds))
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &bytes))
        .ok()
}

/// Gauges that are sums over groups: set once a second, so that a scrape costs nothing per group. Groups by role and
/// without a leader are the pollers' own gauges.
pub(crate) struct Sums {
    quarantined: metrics::Gauge,
    lag: metrics::Gauge,
    ready: metrics::Gauge,
    pending: metrics::Gauge,
}

impl Sums {
    pub(crate) fn new() -> Sums {
        metrics::gauge!("pontoon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Sums {
            quarantined: metrics::gauge!("pontoon_groups_quarantined"),
            lag: metrics::gauge!("pontoon_apply_lag_entries_max"),
            ready: metrics::gauge!("pontoon_ready"),
            pending: metrics::gauge!("pontoon_proposals_pending"),
        }
    }

    pub(crate) fn refresh(&self, core: &Core) {
        let health = crate::health::Health::of(core);
        let lag = |s: &mut pontoon_raftstore::group_status::GroupStatus| s.commit.0.saturating_sub(s.applied.0);
        let lag = core.node.router().cells().iter().map(|c| c.with_status(lag)).max().unwrap_or(0);
        self.quarantined.set(health.quarantined as f64);
        self.lag.set(lag as f64);
        self.pending.set(core.pending.load(Ordering::Relaxed) as f64);
        self.ready.set(f64::from(u8::from(health.ready)));
    }
}
