//! Tables and JSON.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a load driver")]

use super::Failure;
use super::control::Counts;
use super::floor::Floor;
use super::options::MachineName;
use serde::Serialize;
use std::error::Error;
use std::path::Path;

/// One measured point. The JSON has these keys; "write" means operation where reads are mixed in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) groups: u64,
    pub(crate) inflight: u64,
    pub(crate) bytes: u64,
    pub(crate) machine: MachineName,
    pub(crate) writes_per_s: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) cpu_us_per_write: f64,
    pub(crate) driver_cpu_us_per_write: f64,
    pub(crate) entries_per_sync: f64,
    pub(crate) syncs_per_s: f64,
    pub(crate) log_bytes_per_payload_byte: f64,
    pub(crate) device_bytes_per_payload_byte: f64,
    pub(crate) messages_per_write: f64,
    pub(crate) rss_per_replica_bytes: f64,
    pub(crate) floor_rtt_us: f64,
    pub(crate) floor_sync_us: f64,
    pub(crate) allocations_per_write: Option<f64>,
    #[serde(skip)]
    pub(crate) refused: u64,
    #[serde(skip)]
    pub(crate) unknown: u64,
    /// Open loop: due in time and never begun.
    #[serde(skip)]
    pub(crate) overdue: u64,
    /// Only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<Floor>,
}

impl Default for Point {
    fn default() -> Point {
        Point {
            groups: 0,
            inflight: 0,
            bytes: 0,
            machine: MachineName::Count,
            writes_per_s: 0.0,
            p50_us: 0,
            p99_us: 0,
            p999_us: 0,
            cpu_us_per_write: 0.0,
            driver_cpu_us_per_write: 0.0,
            entries_per_sync: 0.0,
            syncs_per_s: 0.0,
            log_bytes_per_payload_byte: 0.0,
            device_bytes_per_payload_byte: 0.0,
            messages_per_write: 0.0,
            rss_per_replica_bytes: 0.0,
            floor_rtt_us: 0.0,
            floor_sync_us: 0.0,
            allocations_per_write: None,
            refused: 0,
            unknown: 0,
            overdue: 0,
            floor: None,
        }
    }
}

/// The value below which a share `q` of what was counted lies.
pub(crate) fn quantile<'a>(counted: impl Iterator<Item = &'a (u64, u64)>, q: f64) -> u64 {
    let mut all: Vec<(u64, u64)> = counted.copied().collect();
    all.sort_unstable();
    let total: u64 = all.iter().map(|c| c.1).sum();
    let mut wanted = (total as f64 * q).ceil() as u64;
    for (value, count) in all {
        if wanted <= count {
            return value;
        }
        wanted -= count;
    }
    0
}

/// The names of what `row` prints.
pub(crate) fn header() {
    println!(
        "groups inflight bytes machine   writes/s     p50 ms     p99 ms   p99.9 ms  cpu us  driver  entries/sync  \
         syncs/s  log B/B  dev B/B  msgs/w  allocs/w  KiB/replica  refused unknown overdue  floor rtt+sync us"
    );
}

/// A point.
pub(crate) fn row(p: &Point) {
    let ms = |us: u64| us as f64 / 1e3;
    println!(
        "{:>6} {:>8} {:>5} {:<7} {:>10.0} {:>10.3} {:>10.3} {:>10.3} {:>7.2} {:>7.2} {:>13.1} {:>8.0} {:>8.2} \
         {:>8.2} {:>7.3} {:>9.2} {:>12.1} {:>8} {:>7} {:>7}  {:.0}+{:.0}",
        p.groups,
        p.inflight,
        p.bytes,
        p.machine.as_str(),
        p.writes_per_s,
        ms(p.p50_us),
        ms(p.p99_us),
        ms(p.p999_us),
        p.cpu_us_per_write,
        p.driver_cpu_us_per_write,
        p.entries_per_sync,
        p.syncs_per_s,
        p.log_bytes_per_payload_byte,
        p.device_bytes_per_payload_byte,
        p.messages_per_write,
        p.allocations_per_write.unwrap_or(f64::NAN),
        p.rss_per_replica_bytes / 1024.0,
        p.refused,
        p.unknown,
        p.overdue,
        p.floor_rtt_us,
        p.floor_sync_us,
    );
}

/// A bound of the issue and what was measured against it. A missed one is a finding, not an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Gate {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

impl Gate {
    pub(crate) fn new(what: &str, measured: impl Into<String>, kept: bool) -> Gate {
        Gate { what: what.to_owned(), measured: measured.into(), kept }
    }

    /// Memory of the worst node over its highest in the closed loop, both by node and in bytes; `allowed` is the sum of `parts`.
    pub(crate) fn memory(before: &[u64], peaks: &[u64], allowed: f64, parts: &str) -> Gate {
        let grown =
            peaks.iter().zip(before).map(|(peak, before)| peak.saturating_sub(*before)).max().unwrap_or(0) as f64;
        let measured = format!("{} (<= {}: {parts})", mib(grown), mib(allowed));
        Gate::new("memory over that of the closed loop, worst node", measured, grown <= allowed)
    }

    fn line(&self) -> String {
        let Gate { what, measured, kept } = self;
        format!("  {:<6} {what}: {measured}", if *kept { "kept" } else { "MISSED" })
    }
}

/// One line each.
pub(crate) fn gates(gates: &[Gate]) {
    gates.iter().for_each(|gate| say(&gate.line()));
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / f64::from(1 << 20))
}

/// Bytes of each node.
pub(crate) fn memory(nodes: &[u64]) -> String {
    nodes.iter().map(|bytes| mib(*bytes as f64)).collect::<Vec<_>>().join(" ")
}

/// Numbers by name.
pub(crate) fn counts(counts: &Counts) -> String {
    let each: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

/// A line for people.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// What went wrong.
pub(crate) fn complain(failure: &dyn Error) {
    eprintln!("drive: {failure}");
}

/// Writes a result.
pub(crate) fn json(path: &Path, result: &impl Serialize) -> Result<(), Failure> {
    std::fs::write(path, serde_json::to_string_pretty(result)? + "\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_gate_says_so() {
        assert_eq!(Gate::new("syncs", "7", true).line(), "  kept   syncs: 7");
        assert_eq!(Gate::new("syncs", "9 (<= 8)", false).line(), "  MISSED syncs: 9 (<= 8)");
    }

    #[test]
    fn quantiles_count_across_nodes() {
        let (a, b) = ([(10, 2), (30, 1)], [(20, 1)]);
        let all = || a.iter().chain(&b);
        assert_eq!([0.25, 0.5, 0.75, 1.0].map(|q| quantile(all(), q)), [10, 10, 20, 30]);
        assert_eq!(quantile([].iter(), 0.5), 0);
    }
}
