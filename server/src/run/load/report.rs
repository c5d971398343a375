//! What a load is told as: a table for people, and the JSON of the load driver `drive` (docs/load-driver.md), with `null`
//! where a client cannot know. Invariant: the keys and their order are `drive`'s.

use super::{failed, say};
use crate::cli::Failure;
use serde::Serialize;
use std::path::Path;

/// One measured load; "write" means operation where reads are mixed in.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) groups: u16,
    pub(super) inflight: u64,
    pub(super) bytes: u64,
    pub(super) machine: &'static str,
    pub(super) writes_per_s: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    /// The nodes' processes are not the client's to look at.
    pub(super) cpu_us_per_write: Option<f64>,
    /// Of this process.
    pub(super) driver_cpu_us_per_write: f64,
    pub(super) entries_per_sync: Option<f64>,
    pub(super) syncs_per_s: Option<f64>,
    pub(super) log_bytes_per_payload_byte: Option<f64>,
    pub(super) device_bytes_per_payload_byte: Option<f64>,
    pub(super) messages_per_write: Option<f64>,
    pub(super) rss_per_replica_bytes: Option<f64>,
    pub(super) floor_rtt_us: Option<f64>,
    pub(super) floor_sync_us: Option<f64>,
    pub(super) allocations_per_write: Option<f64>,
}

/// What is not in the JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) overdue: u64,
}

impl Report {
    pub(super) fn print(&self, trouble: Trouble) {
        let ms = |us: u64| format!("{:.3}", us as f64 / 1e3);
        let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
        let cells = [
            ("groups", self.groups.to_string()),
            ("inflight", self.inflight.to_string()),
            ("bytes", self.bytes.to_string()),
            ("writes/s", format!("{:.0}", self.writes_per_s)),
            ("p50 ms", ms(self.p50_us)),
            ("p99 ms", ms(self.p99_us)),
            ("p99.9 ms", ms(self.p999_us)),
            ("client cpu us", format!("{:.2}", self.driver_cpu_us_per_write)),
            ("entries/sync", known(self.entries_per_sync)),
            ("syncs/s", known(self.syncs_per_s)),
            ("log B/B", known(self.log_bytes_per_payload_byte)),
            ("msgs/w", known(self.messages_per_write)),
            ("refused", trouble.refused.to_string()),
            ("unknown", trouble.unknown.to_string()),
            ("overdue", trouble.overdue.to_string()),
        ];
        let line = |cell: fn(&(&str, String)) -> String| {
            let width = |(name, value): &(&str, String)| name.len().max(value.len());
            let padded = cells.iter().map(|c| format!("{:>width$}", cell(c), width = width(c)));
            padded.collect::<Vec<_>>().join("  ")
        };
        say(&line(|(name, _)| (*name).to_owned()));
        say(&line(|(_, value)| value.clone()));
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(failed)?;
        std::fs::write(path, text + "\n").map_err(|e| failed(format!("{}: {e}", path.display())))
    }
}
