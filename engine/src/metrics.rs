//! The process-wide metrics recorder, installed only when asked for: a library leaves that to its host.
//!
//! Leaves to others: what is measured (each layer records through the `metrics` facade).
//! Invariant: every histogram has fixed buckets, so that nodes can be summed, and is drained by `upkeep`.

use crate::core::Core;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use pontoon_raftstore::error::{GroupError, Limit, Lost, ProposeError};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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

/// Proposals whose duration is kept: one in so many, the same share of fast and slow ones.
const SAMPLE: u64 = 64;
/// Why a proposal was refused at the door, and why one that was handed in has no answer.
const REFUSED: [&str; 8] =
    ["not_leader", "overloaded", "disk_full", "transferring", "too_large", "fenced", "no_group", "shutdown"];
const FAILED: [&str; 4] = ["leader_lost", "overwritten", "timeout", "stopped"];

/// What becomes of proposals. Registered at the start, so that the first error shows as a rate.
pub(crate) struct Meters {
    /// Numbers proposals, for sampling.
    applied: AtomicU64,
    seconds: metrics::Histogram,
    refused: [metrics::Counter; REFUSED.len()],
    failed: [metrics::Counter; FAILED.len()],
}

impl Meters {
    pub(crate) fn new() -> Meters {
        Meters {
            applied: AtomicU64::new(0),
            seconds: metrics::histogram!("pontoon_proposal_duration_seconds"),
            refused: REFUSED.map(|r| metrics::counter!("pontoon_proposals_rejected_total", "reason" => r)),
            failed: FAILED.map(|r| metrics::counter!("pontoon_proposals_failed_total", "reason" => r)),
        }
    }

    pub(crate) fn on_applied(&self, began: Instant) {
        self.on_nth_applied(self.applied.fetch_add(1, Ordering::Relaxed), began);
    }

    /// The same for who numbers proposals himself.
    pub(crate) fn on_nth_applied(&self, number: u64, began: Instant) {
        if number.is_multiple_of(SAMPLE) {
            self.seconds.record(began.elapsed());
        }
    }

    pub(crate) fn on_error(&self, error: &ProposeError) {
        let mut one = Errors::default();
        one.add(error);
        self.on_errors(&one);
    }

    pub(crate) fn on_errors(&self, errors: &Errors) {
        let all = self.refused.iter().zip(errors.refused).chain(self.failed.iter().zip(errors.failed));
        all.filter(|(_, n)| *n > 0).for_each(|(counter, n)| counter.increment(n));
    }
}

/// Errors of a batch, to be counted together: at overload there are millions in a second.
#[derive(Default)]
pub(crate) struct Errors {
    refused: [u64; REFUSED.len()],
    failed: [u64; FAILED.len()],
}

impl Errors {
    pub(crate) fn add(&mut self, error: &ProposeError) {
        let refused = match error {
            ProposeError::OutcomeUnknown { why, .. } => {
                let at = match why {
                    Lost::Leadership => 0,
                    Lost::Overwritten => 1,
                    Lost::Timeout => 2,
                    _ => 3,
                };
                self.failed[at] += 1;
                return;
            }
            ProposeError::NotLeader { .. } => 0,
            ProposeError::Overloaded(Limit::DiskFull) => 2,
            ProposeError::Overloaded(_) => 1,
            ProposeError::Transferring { .. } => 3,
            ProposeError::Fenced { .. } | ProposeError::Behind => 5,
            ProposeError::Group(GroupError::ShuttingDown) => 7,
            ProposeError::Group(_) => 6,
            _ => 4,
        };
        self.refused[refused] += 1;
    }
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
        for (part, bytes) in core.node.router().budget().parts() {
            metrics::gauge!("pontoon_budget_bytes", "part" => part).set(bytes as f64);
        }
        let lag = |s: &mut pontoon_raftstore::group_status::GroupStatus| s.commit.0.saturating_sub(s.applied.0);
        let lag = core.node.router().cells().iter().map(|c| c.with_status(lag)).max().unwrap_or(0);
        self.quarantined.set(health.quarantined as f64);
        self.lag.set(lag as f64);
        self.pending.set(core.pending.load(Ordering::Relaxed) as f64);
        self.ready.set(f64::from(u8::from(health.ready)));
    }
}
