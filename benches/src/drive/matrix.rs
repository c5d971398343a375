//! The grid of points that another library was measured at, its figures beside ours (they are of another day: only the
//! CPU per write compares, and that roughly).

use super::Failure;
use super::options::{ClusterOptions, LoadOptions, MachineName, MatrixOptions, PointOptions};
use super::{report, run};

/// Groups, in flight, bytes; dragonboat v4's best writes/s and CPU microseconds a write (two cores, three processes).
const GRID: [(u64, u64, u64, f64, f64); 10] = [
    (1, 1, 16, 1_149.0, 1_181.0),
    (1, 64, 128, 51_800.0, 25.8),
    (1, 1_024, 128, 234_000.0, 8.0),
    (1, 8_192, 16, 429_000.0, 3.4),
    (48, 48, 128, 6_800.0, 237.0),
    (48, 1_024, 128, 119_000.0, 14.1),
    (48, 8_192, 16, 354_000.0, 5.2),
    (48, 8_192, 1_024, 35_800.0, 27.0),
    (1_024, 1_024, 128, 9_800.0, 146.0),
    (1_024, 8_192, 128, 48_000.0, 26.3),
];

/// `drive matrix`.
pub(crate) fn run(options: &MatrixOptions) -> Result<(), Failure> {
    let mut points = Vec::new();
    for (groups, inflight, bytes, peer_rate, peer_cpu) in GRID {
        let point = run::measure(&PointOptions {
            cluster: ClusterOptions { groups, pollers: 0, data: options.data.clone() },
            load: LoadOptions { inflight, bytes, reads: 0.0, open_loop: None, zipf: None },
            machine: MachineName::Count,
            seconds: options.seconds,
            json: None,
        })?;
        report::table(std::slice::from_ref(&point));
        report::say(&format!("       dragonboat {peer_rate:>10.0} writes/s, {peer_cpu} us CPU a write"));
        points.push(point);
    }
    options.json.as_ref().map_or(Ok(()), |path| report::json(path, &points))
}
