//! A load watched in slices: what was done in each, how long it took, what the nodes held.
//!
//! Leaves to others: judging (the runs). Invariant: slices follow one another without a gap, and their latencies can be put
//! together.

use super::Failure;
use super::cluster::Cluster;
use super::control::{Counters, Counts, Load, Pace, Seen, merged};
use super::options::Setup;
use super::report;
use super::run::WARM_UP;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Part of a load.
pub(crate) struct Slice {
    /// How long it was.
    pub(crate) time: Duration,
    /// Acknowledged in it.
    pub(crate) operations: u64,
    /// Microseconds, and how often, of all nodes.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// Highest of each node, and at the end. Bytes.
    pub(crate) peak_rss: Vec<u64>,
    pub(crate) rss: Vec<u64>,
    /// At the end of it.
    pub(crate) counters: Counters,
    /// Groups led by each node at the end of it; empty while the nodes disagree.
    pub(crate) led: Vec<u64>,
    pub(crate) refused: Counts,
    pub(crate) unknown: Counts,
    /// CPU of the driver threads, in cores.
    pub(crate) driver_cores: f64,
    /// For how long something was due at the end that the drivers did not begin.
    pub(crate) behind: Duration,
    /// How often the drivers had no slot for what was due.
    pub(crate) full: u64,
}

impl Slice {
    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    /// Memory of all nodes at the end.
    pub(crate) fn memory(&self) -> f64 {
        self.rss.iter().map(|b| *b as f64).sum()
    }

    /// Milliseconds.
    pub(crate) fn quantile_ms(&self, q: f64) -> f64 {
        report::quantile(self.latencies.iter(), q) as f64 / 1e3
    }
}

/// Watches.
pub(crate) struct Watch {
    began: Instant,
    counters: Counters,
    /// Refused and of unknown outcome until then.
    errors: [Counts; 2],
}

impl Watch {
    /// The first slice begins.
    pub(crate) fn begin(cluster: &mut Cluster) -> Result<Watch, Failure> {
        let errors = errors(&cluster.cut()?);
        Ok(Watch { counters: cluster.counters()?, errors, began: Instant::now() })
    }

    /// The slice that begins where the one before ended.
    pub(crate) fn slice(&mut self, cluster: &mut Cluster, length: Duration) -> Result<Slice, Failure> {
        let until = self.began + length;
        let mut peak_rss = Vec::new();
        let rss = loop {
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(LOOK_EVERY));
            let rss: Vec<u64> = cluster.usage()?.iter().map(|u| u.rss).collect();
            peak_rss.resize(rss.len(), 0);
            raise(&mut peak_rss, &rss);
            if left <= LOOK_EVERY {
                break rss;
            }
        };
        let seen = cluster.cut()?;
        let (counters, now) = (cluster.counters()?, Instant::now());
        let before = std::mem::replace(&mut self.counters, counters);
        let time = now.duration_since(std::mem::replace(&mut self.began, now));
        let errors = errors(&seen);
        let led = cluster.led()?.unwrap_or_default().into_values().collect();
        let [refused, unknown] = std::mem::replace(&mut self.errors, errors);
        Ok(Slice {
            time,
            operations: counters.acked + counters.reads - before.acked - before.reads,
            refused: grown(&self.errors[0], &refused),
            unknown: grown(&self.errors[1], &unknown),
            driver_cores: (counters.driver_cpu_us - before.driver_cpu_us) / 1e6 / time.as_secs_f64(),
            behind: Duration::from_micros(seen.iter().map(|s| s.behind_us).max().unwrap_or(0)),
            full: seen.iter().map(|s| s.full).sum(),
            latencies: seen.into_iter().flat_map(|s| s.latencies).collect(),
            peak_rss,
            rss,
            counters,
            led,
        })
    }
}

/// Raises each node's peak to what it has now.
pub(crate) fn raise(peaks: &mut [u64], now: &[u64]) {
    peaks.iter_mut().zip(now).for_each(|(peak, now)| *peak = (*peak).max(*now));
}

fn errors(seen: &[Seen]) -> [Counts; 2] {
    [merged(seen.iter().map(|s| &s.refused)), merged(seen.iter().map(|s| &s.unknown))]
}

/// What came to `before`.
fn grown(now: &Counts, before: &Counts) -> Counts {
    let more = |(name, n): (&String, &u64)| (name.clone(), n - before.get(name).copied().unwrap_or(0));
    now.iter().map(more).filter(|(_, n)| *n > 0).collect()
}

/// A cluster under the closed loop of `setup`, whose drivers could keep `slots` waiting, and a slice of it.
pub(crate) fn closed_loop(setup: &Setup, slots: u64, seconds: u64) -> Result<(Cluster, Slice), Failure> {
    let mut cluster = Cluster::new(&setup.cluster, setup.machine)?;
    cluster.found()?;
    cluster.wait_even()?;
    let pace = Pace { rate: None, inflight: setup.load.inflight };
    cluster.load(&Load { options: setup.load.clone(), pace, slots: slots.max(pace.inflight) })?;
    thread::sleep(WARM_UP);
    let slice = Watch::begin(&mut cluster)?.slice(&mut cluster, Duration::from_secs(seconds))?;
    if slice.operations == 0 {
        return Err("nothing was acknowledged in the closed loop".into());
    }
    Ok((cluster, slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_slice_are_those_since_the_one_before() {
        let counts = |all: &[(&str, u64)]| all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Counts>();
        let before = counts(&[("a", 3), ("b", 1)]);
        assert_eq!(grown(&counts(&[("a", 3), ("b", 5), ("c", 2)]), &before), counts(&[("b", 4), ("c", 2)]));
    }
}
