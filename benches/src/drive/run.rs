//! One point: floors, start, load, a measured window, then SIGKILL of all, restart, and the check.
//!
//! Invariant: the numbers are printed only if the check (`check`) holds.

use super::cluster::{Cluster, NODES};
use super::control::{Counters, Load, Outcome, Pace, total};
use super::measure::Usage;
use super::options::{LoadOptions, PointOptions};
use super::probes::Floors;
use super::report::{self, Point};
use super::{Failure, check, floor};
use std::thread;
use std::time::{Duration, Instant};

/// Before the window.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// Between two looks at the logs.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the logs may take to be truncated.
const PATIENCE: Duration = Duration::from_secs(3600);

/// `drive`.
pub(crate) fn point(options: &PointOptions) -> Result<(), Failure> {
    let point = measure(options)?;
    report::header();
    report::row(&point);
    floor::beside(&point);
    match &options.setup.json {
        Some(path) => report::json(path, &point),
        None => Ok(()),
    }
}

/// Measures one point on a cluster of its own.
pub(crate) fn measure(options: &PointOptions) -> Result<Point, Failure> {
    let setup = &options.setup;
    let mut cluster = Cluster::new(&setup.cluster, setup.machine)?;
    let before = Floors::measure(cluster.dir())?;
    cluster.start()?;
    let empty = sum(&cluster.usage()?, |u| u.rss);
    cluster.found()?;
    let grown = sum(&cluster.usage()?, |u| u.rss) - empty;

    let pace = Pace { rate: options.open_loop, inflight: setup.load.inflight };
    cluster.load(&Load { options: setup.load.clone(), pace, slots: pace.inflight })?;
    thread::sleep(WARM_UP);
    if options.after_truncation {
        wait_truncated(&mut cluster)?;
    }
    let mut window = Window::measure(&mut cluster, Duration::from_secs(options.seconds))?;
    let outcomes = cluster.results()?;
    // What recovery of the log replayed it has flushed: the memtables' share of what goes to the device.
    window.flushed = sum(&check::after_restart(&mut cluster, &outcomes)?, |u| u.device_bytes);
    cluster.kill_all();
    let floors = before.mean(Floors::measure(cluster.dir())?);
    drop(cluster);

    let mut point = window.point(&setup.load, &outcomes)?;
    point.groups = setup.cluster.groups;
    point.machine = setup.machine;
    point.rss_per_replica_bytes = grown / (NODES * setup.cluster.groups) as f64;
    (point.floor_rtt_us, point.floor_sync_us) = (floors.rtt_us, floors.sync_us);
    if let Some(tool) = &options.floor.floor {
        // The point stands without it.
        point.floor = floor::measure(tool, &point, options).map_err(|e| report::complain(&*e)).ok();
    }
    Ok(point)
}

/// Until the log of each group was truncated on each node.
fn wait_truncated(cluster: &mut Cluster) -> Result<(), Failure> {
    let (began, mut before) = (Instant::now(), u64::MAX);
    loop {
        let left = cluster.untruncated()?;
        if left == 0 {
            report::say(&format!("all logs were truncated after {:.0?} of load", began.elapsed()));
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{left} replicas never truncated their logs").into());
        }
        if left != before {
            report::say(&format!("{left} replicas have not truncated their logs after {:.0?}", began.elapsed()));
        }
        before = left;
        thread::sleep(LOOK_EVERY);
    }
}

fn sum(usage: &[Usage], of: fn(&Usage) -> u64) -> f64 {
    usage.iter().map(|u| of(u) as f64).sum()
}

/// Two looks at everything that counts, and the time between them.
struct Window {
    time: Duration,
    counters: (Counters, Counters),
    usage: (Vec<Usage>, Vec<Usage>),
    /// Bytes that went to the device when the log's memtables were flushed at the end.
    flushed: f64,
}

impl Window {
    fn measure(cluster: &mut Cluster, length: Duration) -> Result<Window, Failure> {
        cluster.cut()?;
        let (first, began, used) = (cluster.counters()?, Instant::now(), cluster.usage()?);
        thread::sleep(length);
        let (usage, time) = (cluster.usage()?, began.elapsed());
        Ok(Window { time, counters: (first, cluster.counters()?), usage: (used, usage), flushed: 0.0 })
    }

    fn point(&self, load: &LoadOptions, outcomes: &[Outcome]) -> Result<Point, Failure> {
        let (a, b) = &self.counters;
        let grown = |f: fn(&Usage) -> f64| -> f64 {
            let sum = |all: &[Usage]| all.iter().map(f).sum::<f64>();
            sum(&self.usage.1) - sum(&self.usage.0)
        };
        let (writes, reads) = ((b.acked - a.acked) as f64, (b.reads - a.reads) as f64);
        let operations = writes + reads;
        if operations == 0.0 {
            return Err("nothing was acknowledged in the window".into());
        }
        let replicated = writes * load.bytes as f64 * NODES as f64;
        let quantile = |q| report::quantile(outcomes.iter().flat_map(|o| &o.latencies), q);
        Ok(Point {
            inflight: load.inflight,
            bytes: load.bytes,
            writes_per_s: operations / self.time.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            cpu_us_per_write: grown(|u| u.cpu_us) / operations,
            driver_cpu_us_per_write: (b.driver_cpu_us - a.driver_cpu_us) / operations,
            entries_per_sync: (b.entries - a.entries) / (b.syncs - a.syncs),
            syncs_per_s: (b.syncs - a.syncs) / self.time.as_secs_f64(),
            log_bytes_per_payload_byte: (b.log_bytes - a.log_bytes) / replicated,
            device_bytes_per_payload_byte: (grown(|u| u.device_bytes as f64) + self.flushed) / replicated,
            messages_per_write: (b.messages - a.messages) / operations,
            allocations_per_write: a.allocations.zip(b.allocations).map(|(a, b)| (b - a) as f64 / operations),
            refused: outcomes.iter().map(|o| total(&o.refused)).sum(),
            unknown: outcomes.iter().map(|o| total(&o.unknown)).sum(),
            overdue: outcomes.iter().map(|o| o.overdue).sum(),
            ..Point::default()
        })
    }
}
