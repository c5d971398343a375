//! Open loop at twice the rate that a closed loop reaches: how much of it is still done, how the rest is refused, what memory
//! it takes.
//!
//! Leaves to others: the closed loop and the slices (`series`). Invariant: what the drivers need for themselves is allocated
//! before the memory that others are compared with is read.

use super::cluster::NODES;
use super::control::{Counts, Order, Pace, merged, total};
use super::options::OverloadOptions;
use super::report::{self, Gate, mib, say};
use super::series::{Slice, Watch, closed_loop, raise};
use super::{Failure, check};
use pontoon::Config;
use pontoon_raftstore::proposal::weigh;
use serde::Serialize;
use std::time::Duration;

/// How much is asked for, as a multiple of the closed loop's rate.
const TIMES: f64 = 2.0;
/// Slices that are reported.
const EVERY: u64 = 10;

/// Payload of a group that waits for its machine, in multiples of what may wait for its commit (raftstore refuses beyond).
const BACKLOG: u64 = 4;
/// No queue of the engine for commands in bulk takes more.
const MOST: u64 = 16_000_000;

/// What came of it.
#[derive(Serialize)]
struct Overload {
    capacity_per_s: f64,
    goodput_per_s: f64,
    refused: Counts,
    unknown: Counts,
    /// Bytes, by node: the highest in the closed loop, and the highest at overload. Both hold memtables of the log, whose
    /// number changes every few seconds.
    rss_before: Vec<u64>,
    rss_peak: Vec<u64>,
    budget_bytes: u64,
    gates: Vec<Gate>,
}

/// `drive overload`.
pub(crate) fn run(options: &OverloadOptions) -> Result<(), Failure> {
    let setup = &options.setup;
    let config = Config::default().raft;
    let budget = config.node_memory.get();
    let waiting = options.waiting.unwrap_or_else(|| {
        let group = config.group_inflight.get() * BACKLOG;
        more_than_admitted(setup.cluster.groups, setup.load.bytes, budget, group)
    });
    let (mut cluster, closed) = closed_loop(setup, waiting, options.closed_seconds)?;
    say(&format!("closed loop: {:.0} operations/s; memory {}", closed.rate(), report::memory(&closed.peak_rss)));

    let rate = closed.rate() * TIMES;
    cluster.ask(&Order::Change(Pace { rate: Some(rate), inflight: waiting }))?;
    say(&format!("open loop at {rate:.0} a second:"));
    let (mut watch, mut slices) = (Watch::begin(&mut cluster)?, Vec::new());
    let mut left = options.seconds;
    while left > 0 {
        let length = left.min(EVERY);
        let slice = watch.slice(&mut cluster, Duration::from_secs(length))?;
        let elections = slice.counters.elections - closed.counters.elections;
        say(&line(options.seconds - left + length, &slice, elections));
        slices.push(slice);
        left -= length;
    }
    let outcomes = cluster.results()?;
    let overload = judge(&closed, &slices, budget);
    check::after_restart(&mut cluster, &outcomes)?;
    say(&format!("refused, never appended: {}", report::counts(&overload.refused)));
    say(&format!("of unknown outcome: {}", report::counts(&overload.unknown)));
    report::gates(&overload.gates);
    setup.json.as_ref().map_or(Ok(()), |path| report::json(path, &overload))
}

/// Commands in all after which every node, with its share of the groups, refuses more by its own budgets (bytes of a node at
/// the door, and of each group behind it).
fn more_than_admitted(groups: u64, bytes: u64, node: u64, group: u64) -> u64 {
    let led = groups.div_ceil(NODES).max(1);
    let admitted = (node + led * group) / weigh(bytes, 1);
    (admitted * groups.max(1) / led * 11 / 10).min(MOST)
}

fn line(second: u64, slice: &Slice, elections: f64) -> String {
    format!(
        "{second:>5} s: {:>9.0}/s, p50 {:.1} ms, p99.9 {:.1} ms, peak memory {}, refused {}, unknown {}, leader changes \
         {elections}, led {:?}, of all nodes {} of the budgets and {} of memtables, drivers {:.1} cores, behind {:.1?}, full {}",
        slice.rate(),
        slice.quantile_ms(0.5),
        slice.quantile_ms(0.999),
        report::memory(&slice.peak_rss),
        total(&slice.refused),
        total(&slice.unknown),
        slice.led,
        mib(slice.counters.budget_bytes),
        mib(slice.counters.memtable_bytes),
        slice.driver_cores,
        slice.behind,
        slice.full,
    )
}

fn judge(closed: &Slice, slices: &[Slice], budget: u64) -> Overload {
    let time: f64 = slices.iter().map(|s| s.time.as_secs_f64()).sum();
    let goodput = slices.iter().map(|s| s.operations as f64).sum::<f64>() / time;
    let mut peak = closed.peak_rss.clone();
    for slice in slices {
        raise(&mut peak, &slice.peak_rss);
    }
    let unknown = merged(slices.iter().map(|s| &s.unknown));
    let refused = merged(slices.iter().map(|s| &s.refused));
    let ratio = goodput / closed.rate();
    let allowed = budget as f64 * 1.1;
    let gates = vec![
        Gate::new(
            "goodput / capacity",
            format!("{goodput:.0} / {:.0} = {ratio:.2} (>= 0.9)", closed.rate()),
            ratio >= 0.9,
        ),
        Gate::new("only typed refusals", format!("{} of unknown outcome", total(&unknown)), total(&unknown) == 0),
        Gate::memory(&closed.peak_rss, &peak, allowed, "budget + 10%"),
    ];
    Overload {
        capacity_per_s: closed.rate(),
        goodput_per_s: goodput,
        refused,
        unknown,
        rss_before: closed.peak_rss.clone(),
        rss_peak: peak,
        budget_bytes: budget,
        gates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::control::Counters;

    fn slice(operations: u64, rss: u64, unknown: u64) -> Slice {
        Slice {
            time: Duration::from_secs(10),
            operations,
            latencies: Vec::new(),
            peak_rss: vec![rss, 1],
            rss: vec![rss, 1],
            led: vec![1, 1],
            counters: Counters::default(),
            refused: Counts::new(),
            unknown: Counts::from([("timeout".to_owned(), unknown)]),
            driver_cores: 0.0,
            behind: Duration::ZERO,
            full: 0,
        }
    }

    #[test]
    fn the_engines_bounds_are_met_before_the_drivers() {
        // One group: its leader's door and its backlog. Three: each node leads one.
        assert_eq!(more_than_admitted(1, 872, 10_000, 5_000), 16);
        assert_eq!(more_than_admitted(3, 872, 10_000, 5_000), 49);
        assert_eq!(more_than_admitted(1_000, 16, 256 << 20, 64 << 20), MOST);
    }

    #[test]
    fn each_gate_is_missed_alone() {
        let closed = slice(1_000, 100, 0);
        let kept = |slices: &[Slice]| judge(&closed, slices, 1_000).gates.iter().map(|g| g.kept).collect::<Vec<_>>();
        assert_eq!(kept(&[slice(850, 1_200, 0), slice(950, 100, 0)]), [true; 3]);
        assert_eq!(kept(&[slice(850, 100, 0)]), [false, true, true]);
        assert_eq!(kept(&[slice(1_000, 100, 1)]), [true, false, true]);
        assert_eq!(kept(&[slice(1_000, 1_201, 0)]), [true, true, false]);
    }
}
