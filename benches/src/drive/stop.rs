//! SIGSTOP of one node of three under load, then SIGCONT: what the others keep for it, what callers are told, and how soon it
//! is level again.
//!
//! Leaves to others: the load (`load`), the check (`check`). Invariant: level means that it has applied in each group what the
//! others had when it was set going: what comes meanwhile never ends.

use super::cluster::{Cluster, NODES};
use super::control::total;
use super::options::{MachineName, StopOptions};
use super::report::{self, Gate, say};
use super::series::{closed_loop, raise};
use super::{Failure, check};
use pontoon::Config;
use pontoon::kv::KvOptions;
use serde::Serialize;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Which one.
const VICTIM: u64 = NODES;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Serialize)]
struct Stopped {
    /// Of all three before, and of the two others.
    closed_per_s: f64,
    stopped_per_s: f64,
    /// From SIGCONT on.
    level_after_s: f64,
    /// Bytes, by node: highest in the closed loop before, and after that.
    rss_before: Vec<u64>,
    rss_peak: Vec<u64>,
    gates: Vec<Gate>,
}

/// `drive stop`.
pub(crate) fn run(options: &StopOptions) -> Result<(), Failure> {
    let setup = &options.setup;
    let (mut cluster, closed) = closed_loop(setup, setup.load.inflight, options.closed_seconds)?;
    say(&format!("closed loop: {:.0} writes/s; memory {}", closed.rate(), report::memory(&closed.peak_rss)));
    let mut peaks = vec![0; NODES as usize];

    cluster.stop(VICTIM)?;
    // While it stands still only the others are asked.
    let (before, began) = (cluster.counters()?.acked, Instant::now());
    for second in 1..=options.stopped_seconds {
        thread::sleep(EVERY);
        look(&mut cluster, &format!("stopped {second} s"), &mut peaks)?;
    }
    let stopped_per_s = (cluster.counters()?.acked - before) as f64 / began.elapsed().as_secs_f64();
    let goal = furthest(cluster.applied()?.into_values());
    cluster.go_on(VICTIM)?;
    let went_on = Instant::now();
    let mut missing = goal.len();
    while missing > 0 {
        if went_on.elapsed() > Duration::from_secs(options.patience_seconds) {
            return Err(format!("{missing} groups are not level again").into());
        }
        thread::sleep(EVERY);
        missing = behind(&goal, &cluster.applied()?.remove(&VICTIM).unwrap_or_default());
        look(&mut cluster, &format!("{missing} groups behind"), &mut peaks)?;
    }
    let level_after_s = went_on.elapsed().as_secs_f64();

    let outcomes = cluster.results()?;
    check::after_restart(&mut cluster, &outcomes)?;
    for (node, o) in (1..).zip(&outcomes) {
        let (refused, unknown) = (report::counts(&o.refused), report::counts(&o.unknown));
        say(&format!("node {node}: refused {refused}; of unknown outcome {unknown}"));
    }
    let unknown: Vec<u64> = outcomes.iter().map(|o| total(&o.unknown)).collect();
    say(&format!("the two others {stopped_per_s:.0} writes/s; level {level_after_s:.0} s after SIGCONT"));
    let allowed = Config::default().raft.node_memory.get() as f64 * 1.1 + memtables(setup.machine) as f64;
    let gates = judge(&closed.peak_rss, &peaks, &unknown, allowed);
    report::gates(&gates);
    let closed_per_s = closed.rate();
    let stopped =
        Stopped { closed_per_s, stopped_per_s, level_after_s, rss_before: closed.peak_rss, rss_peak: peaks, gates };
    setup.json.as_ref().map_or(Ok(()), |path| report::json(path, &stopped))
}

/// What the machine's own may grow to. Bytes.
fn memtables(machine: MachineName) -> usize {
    let kv = KvOptions::default();
    if machine == MachineName::Kv { kv.memtable * kv.memtables } else { 0 }
}

fn look(cluster: &mut Cluster, at: &str, peaks: &mut [u64]) -> Result<(), Failure> {
    let rss: Vec<u64> = cluster.usage()?.iter().map(|u| u.rss).collect();
    raise(peaks, &rss);
    say(&format!("{at:>20}: memory {}", report::memory(&rss)));
    Ok(())
}

/// By group, of several nodes.
fn furthest(nodes: impl Iterator<Item = BTreeMap<u64, u64>>) -> BTreeMap<u64, u64> {
    let mut most = BTreeMap::new();
    for (group, at) in nodes.flatten() {
        let most: &mut u64 = most.entry(group).or_default();
        *most = at.max(*most);
    }
    most
}

/// Groups that are not there yet.
fn behind(goal: &BTreeMap<u64, u64>, at: &BTreeMap<u64, u64>) -> usize {
    goal.iter().filter(|(group, goal)| at.get(group).is_none_or(|at| at < goal)).count()
}

fn judge(before: &[u64], peaks: &[u64], unknown: &[u64], allowed: f64) -> Vec<Gate> {
    let here = unknown.iter().take(VICTIM as usize - 1).sum::<u64>();
    vec![
        Gate::new("no unknown outcome at the nodes that ran", here.to_string(), here == 0),
        Gate::memory(before, peaks, allowed, "budget + 10%, and the machine's memtables"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_is_where_the_furthest_was_in_each_group() {
        let goal = furthest([BTreeMap::from([(1, 5), (2, 9)]), BTreeMap::from([(1, 7)])].into_iter());
        assert_eq!(goal, BTreeMap::from([(1, 7), (2, 9)]));
        assert_eq!(behind(&goal, &BTreeMap::from([(1, 6)])), 2);
        assert_eq!(behind(&goal, &BTreeMap::from([(1, 7), (2, 10)])), 0);
    }

    #[test]
    fn each_gate_is_missed_alone() {
        let kept = |peak, unknown: &[u64]| {
            judge(&[100; 3], &[90, peak, 100], unknown, 1_100.0).iter().map(|g| g.kept).collect::<Vec<_>>()
        };
        assert_eq!(kept(1_200, &[0, 0, 77]), [true; 2]);
        assert_eq!(kept(1_201, &[0, 0, 0]), [true, false]);
        assert_eq!(kept(1_200, &[0, 1, 0]), [false, true]);
    }
}
