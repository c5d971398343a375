//! The grid of points that another library was measured at, its figures beside ours (they are of another day and
//! another machine: only the CPU per write compares, and that roughly).

use super::Failure;
use super::options::{ClusterOptions, LoadOptions, MachineName, MatrixOptions, PointOptions, Setup};
use super::{floor, report, run};

/// A point, and what dragonboat v4 did at it: log store, writes/s, CPU microseconds a write (three processes, two cores).
struct Peer {
    groups: u64,
    inflight: u64,
    bytes: u64,
    figures: &'static [(&'static str, &'static str, &'static str)],
}

const fn peer(point: (u64, u64, u64), figures: &'static [(&'static str, &'static str, &'static str)]) -> Peer {
    Peer { groups: point.0, inflight: point.1, bytes: point.2, figures }
}

const GRID: [Peer; 13] = [
    peer((1, 1, 16), &[("pebble", "1,149", "1,181")]),
    peer((1, 64, 128), &[("pebble", "51.8k", "25.8")]),
    peer((1, 1_024, 128), &[("pebble", "234k", "8.0")]),
    peer((1, 8_192, 16), &[("pebble", "429k", "4.36"), ("tan", "316k-373k", "3.4")]),
    peer((48, 48, 128), &[("pebble", "6.8k", "237")]),
    peer((48, 1_024, 128), &[("pebble", "119k", "14.1"), ("tan", "60k", "28")]),
    peer((48, 8_192, 16), &[("pebble", "354k", "5.2")]),
    peer((48, 8_192, 128), &[("pebble", "300k", "6.2"), ("tan", "286k", "6.2")]),
    peer((48, 8_192, 1_024), &[("pebble", "35.8k", "49.9 (27 on a fresh disk)")]),
    peer((256, 8_192, 128), &[("pebble", "165k", "9.9")]),
    peer((1_024, 1_024, 128), &[("pebble", "9.8k", "198 (146 tuned)")]),
    peer((1_024, 8_192, 16), &[("pebble", "38k-56k", "31")]),
    peer((1_024, 8_192, 128), &[("pebble", "32k-48k", "37"), ("pebble, tuned", "42k", "26.3-27.0")]),
];

/// `drive matrix`.
pub(crate) fn run(options: &MatrixOptions) -> Result<(), Failure> {
    let mut points = Vec::new();
    report::header();
    for peer in &GRID {
        let Peer { groups, inflight, bytes, figures } = *peer;
        let point = run::measure(&PointOptions {
            setup: Setup {
                cluster: ClusterOptions { groups, pollers: options.pollers, data: options.data.clone() },
                load: LoadOptions { inflight, bytes, reads: 0.0, zipf: None },
                machine: MachineName::Count,
                json: None,
            },
            open_loop: None,
            seconds: options.seconds,
            after_truncation: false,
            floor: options.floor.clone(),
        })?;
        report::row(&point);
        floor::beside(&point);
        for (store, rate, cpu) in figures {
            report::say(&format!("  dragonboat ({store}): {rate} writes/s, {cpu} us CPU a write"));
        }
        points.push(point);
    }
    options.json.as_ref().map_or(Ok(()), |path| report::json(path, &points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_point_is_measured_twice() {
        let mut points: Vec<_> = GRID.iter().map(|p| (p.groups, p.inflight, p.bytes)).collect();
        points.dedup();
        assert_eq!(points.len(), GRID.len());
        assert!(points.is_sorted());
    }
}
