//! One point: floors, start, load, a measured window, then SIGKILL of all, restart, and the check.
//!
//! Invariant: the numbers are printed only if the check holds.

use super::Failure;
use super::cluster::{Cluster, NODES, unexpected};
use super::control::{Acked, Counters, Digest, Order, Outcome, Reply};
use super::measure::{Floors, Usage};
use super::options::{LoadOptions, MachineName, PointOptions};
use super::report::{self, Point};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Before the window.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long replicas may take to reach one applied index.
const PATIENCE: Duration = Duration::from_secs(60);

/// `drive`.
pub(crate) fn point(options: &PointOptions) -> Result<(), Failure> {
    let point = measure(options)?;
    report::table(std::slice::from_ref(&point));
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
    let empty = rss(&cluster.usage()?);
    cluster.ask(&Order::Create)?;
    cluster.wait_led()?;
    let per_replica = (rss(&cluster.usage()?) - empty) / (NODES * options.cluster.groups) as f64;

    cluster.ask(&Order::Load { options: options.load.clone(), nodes: NODES })?;
    thread::sleep(WARM_UP);
    let window = Window::measure(&mut cluster, Duration::from_secs(options.seconds))?;
    let outcomes = results(&mut cluster)?;
    cluster.kill_all();
    let after = Floors::measure(cluster.dir())?;
    check(&mut cluster, options.machine, &outcomes)?;

    let mut point = window.point(&options.load, &outcomes)?;
    point.groups = options.cluster.groups;
    point.machine = options.machine;
    point.rss_per_replica_bytes = per_replica;
    let floors = before.mean(after);
    (point.floor_rtt_us, point.floor_sync_us) = (floors.rtt_us, floors.sync_us);
    Ok(point)
}

fn rss(usage: &[Usage]) -> f64 {
    usage.iter().map(|u| u.rss as f64).sum()
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
}

impl Window {
    fn measure(cluster: &mut Cluster, length: Duration) -> Result<Window, Failure> {
        let (first, began, used) = (cluster.counters(true)?, Instant::now(), cluster.usage()?);
        thread::sleep(length);
        let (usage, time) = (cluster.usage()?, began.elapsed());
        Ok(Window { time, counters: (first, cluster.counters(false)?), usage: (used, usage) })
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
            device_bytes_per_payload_byte: grown(|u| u.device_bytes as f64) / replicated,
            messages_per_write: (b.messages - a.messages) / operations,
            allocations_per_write: a.allocations.zip(b.allocations).map(|(a, b)| (b - a) as f64 / operations),
            refused: outcomes.iter().map(|o| o.refused).sum(),
            unknown: outcomes.iter().map(|o| o.unknown).sum(),
            ..Point::default()
        })
    }
}

/// All nodes again: replicas are equal, hold at least what was acknowledged, and every key reads back.
fn check(cluster: &mut Cluster, machine: MachineName, outcomes: &[Outcome]) -> Result<(), Failure> {
    cluster.start()?;
    cluster.wait_led()?;
    // A leader commits what its predecessors left with its own first entry; one write makes sure that it did.
    checked(cluster, &Order::Touch)?;
    let digests = settled(cluster)?;
    if machine == MachineName::Count {
        let mut acked: BTreeMap<u64, u64> = BTreeMap::new();
        outcomes.iter().flat_map(|o| &o.per_group).for_each(|(group, n)| *acked.entry(*group).or_default() += n);
        for (group, n) in acked {
            let held = digests.get(&group).map_or(0, |d| d.number);
            if held < n {
                return Err(format!("group {group} acknowledged {n} commands and holds {held}").into());
            }
        }
    }
    let mut wanted = Acked::new();
    for outcome in outcomes {
        for (group, keys) in &outcome.last {
            wanted.entry(*group).or_default().extend(keys);
        }
    }
    checked(cluster, &Order::ReadBack { wanted })
}

fn checked(cluster: &mut Cluster, order: &Order) -> Result<(), Failure> {
    for (node, reply) in cluster.ask(order)? {
        match reply {
            Reply::Checked { bad, .. } if bad.is_empty() => {}
            Reply::Checked { bad, .. } => return Err(format!("node {node}: {}: {}", bad.len(), bad[0]).into()),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(())
}

/// Waits until all replicas of each group hold the same.
fn settled(cluster: &mut Cluster) -> Result<BTreeMap<u64, Digest>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut views = Vec::new();
        for reply in cluster.ask(&Order::Digests)?.into_values() {
            let Reply::Digests(view) = reply else { return Err(unexpected(&reply)) };
            views.push(view);
        }
        let first = views.pop().ok_or("no node runs")?;
        if views.iter().all(|v| *v == first) {
            return Ok(first);
        }
        if Instant::now() > deadline {
            let differs = first.iter().find(|(group, d)| views.iter().any(|v| v.get(group) != Some(d)));
            return Err(format!("replicas stay different: {differs:?} and others").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}
