//! One point: floors, start, load, a measured window, then SIGKILL of all, restart, and the check.
//!
//! Invariant: the numbers are printed only if the check (`check`) holds.

use super::cluster::{Cluster, NODES, unexpected};
use super::control::{Counters, Order, Outcome, Reply};
use super::measure::{Floors, Usage};
use super::options::{LoadOptions, PointOptions};
use super::report::{self, Point};
use super::{Failure, check, floor};
use std::thread;
use std::time::{Duration, Instant};

/// Before the window.
const WARM_UP: Duration = Duration::from_secs(2);

/// `drive`.
pub(crate) fn point(options: &PointOptions) -> Result<(), Failure> {
    let point = measure(options)?;
    report::header();
    report::row(&point);
    floor::beside(&point);
    match &options.json {
        Some(path) => report::json(path, &point),
        None => Ok(()),
    }
}

/// Measures one point on a cluster of its own.
pub(crate) fn measure(options: &PointOptions) -> Result<Point, Failure> {
    let mut cluster = Cluster::new(&options.cluster, options.machine)?;
    let before = Floors::measure(cluster.dir())?;
    cluster.start()?;
    let empty = total(&cluster.usage()?, |u| u.rss);
    cluster.ask(&Order::Create)?;
    cluster.wait_led()?;
    let grown = total(&cluster.usage()?, |u| u.rss) - empty;

    cluster.ask(&Order::Load { options: options.load.clone() })?;
    thread::sleep(WARM_UP);
    let mut window = Window::measure(&mut cluster, Duration::from_secs(options.seconds))?;
    let outcomes = results(&mut cluster)?;
    cluster.kill_all();
    let floors = before.mean(Floors::measure(cluster.dir())?);
    cluster.start()?;
    // What recovery of the log replayed it has flushed: the memtables' share of what goes to the device.
    window.flushed = total(&cluster.usage()?, |u| u.device_bytes);
    check::after_restart(&mut cluster, &outcomes)?;
    drop(cluster);

    let mut point = window.point(&options.load, &outcomes)?;
    point.groups = options.cluster.groups;
    point.machine = options.machine;
    point.rss_per_replica_bytes = grown / (NODES * options.cluster.groups) as f64;
    (point.floor_rtt_us, point.floor_sync_us) = (floors.rtt_us, floors.sync_us);
    if let Some(tool) = &options.floor.floor {
        // The point stands without it.
        point.floor = floor::measure(tool, &point, options).map_err(|e| report::complain(&*e)).ok();
    }
    Ok(point)
}

fn total(usage: &[Usage], of: fn(&Usage) -> u64) -> f64 {
    usage.iter().map(|u| of(u) as f64).sum()
}

fn results(cluster: &mut Cluster) -> Result<Vec<Outcome>, Failure> {
    let take = |reply| if let Reply::Result(outcome) = reply { Ok(outcome) } else { Err(unexpected(&reply)) };
    cluster.ask(&Order::Result)?.into_values().map(take).collect()
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
        let (first, began, used) = (cluster.counters(true)?, Instant::now(), cluster.usage()?);
        thread::sleep(length);
        let (usage, time) = (cluster.usage()?, began.elapsed());
        Ok(Window { time, counters: (first, cluster.counters(false)?), usage: (used, usage), flushed: 0.0 })
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
            refused: outcomes.iter().map(|o| o.refused).sum(),
            unknown: outcomes.iter().map(|o| o.unknown).sum(),
            overdue: outcomes.iter().map(|o| o.overdue).sum(),
            ..Point::default()
        })
    }
}
