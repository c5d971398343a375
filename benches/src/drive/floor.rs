//! The bare pipeline beside a point: `floor`, a program that does the same work without consensus and without a database
//! (docs/load-driver.md), run with the point's groups, operations in flight and bytes on the same disk.
//!
//! Invariant: it runs while nothing of ours does.

use super::Failure;
use super::options::PointOptions;
use super::report::{Point, say};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// How often it is tried.
const ATTEMPTS: u32 = 3;

/// What it printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Floor {
    /// In all.
    pub(crate) writes_per_s: f64,
    /// Of its three processes.
    pub(crate) cpu_us_per_write: f64,
    /// Entries written per completed sync.
    pub(crate) entries_per_sync: f64,
    /// In all.
    pub(crate) syncs_per_s: f64,
}

/// Runs the program `tool` at the point; again if it fails, as it may on a busy machine.
pub(crate) fn measure(tool: &Path, point: &Point, options: &PointOptions) -> Result<Floor, Failure> {
    let mut result = once(tool, point, options);
    for _ in 1..ATTEMPTS {
        result = result.or_else(|_| once(tool, point, options));
    }
    result
}

fn once(tool: &Path, point: &Point, options: &PointOptions) -> Result<Floor, Failure> {
    let base = options.setup.cluster.data.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("pontoon-floor-").tempdir_in(base)?;
    let output = Command::new(tool).args(arguments(point)).arg(options.seconds.to_string()).arg(dir.path()).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", tool.display(), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn arguments(point: &Point) -> [String; 3] {
    [point.groups, point.inflight, point.bytes].map(|n| n.to_string())
}

/// The point as multiples of its floor, or how to measure that.
pub(crate) fn beside(point: &Point) {
    say(&line(point));
}

fn line(point: &Point) -> String {
    let Some(floor) = &point.floor else {
        return format!("  floor: run `floor {} SECONDS DIR` beside it, or --floor FILE", arguments(point).join(" "));
    };
    format!(
        "  floor: {:.0} writes/s ({:.2} of them reached), {:.3} us CPU a write ({:.1} times that), {:.1} entries/sync",
        floor.writes_per_s,
        point.writes_per_s / floor.writes_per_s,
        floor.cpu_us_per_write,
        point.cpu_us_per_write / floor.cpu_us_per_write,
        floor.entries_per_sync,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_told_as_multiples_of_its_floor() {
        let mut point = Point { groups: 48, inflight: 1024, bytes: 128, ..Point::default() };
        assert!(line(&point).contains("floor 48 1024 128"), "{}", line(&point));
        let printed = r#"{"groups":48,"inflight":1024,"bytes":128,"writes_per_s":1000000,"cpu_us_per_write":0.5,
            "entries_per_sync":580.1,"syncs_per_s":5000}"#;
        point.floor = serde_json::from_str(printed).ok();
        (point.writes_per_s, point.cpu_us_per_write) = (250_000.0, 4.0);
        assert!(line(&point).contains("(0.25 of them reached)"), "{}", line(&point));
        assert!(line(&point).contains("(8.0 times that)"), "{}", line(&point));
    }
}
