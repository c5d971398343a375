//! Open loop below capacity for minutes: nothing may be elected, stall or grow, and the tail stays near the machine's own.
//!
//! Leaves to others: the slices (`series`), the floor's tail (`probes`), stalls (`stalls`). Invariant: gates are judged over
//! the whole soak, not over its best part.

use super::control::{Counts, Order, Pace, merged, total};
use super::options::SoakOptions;
use super::probes::{Background, Tails};
use super::report::{self, Gate, mib, say};
use super::series::{Slice, Watch, closed_loop};
use super::{Failure, check, stalls};
use serde::Serialize;
use std::thread;
use std::time::Duration;

/// How long the soak's pace runs before it is watched: the closed loop's queues drain.
const SETTLE: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Serialize)]
struct Soak {
    rate_per_s: f64,
    done_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    floor_sync_p999_us: u64,
    floor_rtt_p999_us: u64,
    /// The longest that the parent's sleeps were late.
    parent_late_us: u64,
    elections: f64,
    late_turns: f64,
    write_stalls: u64,
    refused: Counts,
    unknown: Counts,
    /// Of all nodes, at the end of each slice.
    rss_bytes: Vec<f64>,
    gates: Vec<Gate>,
}

/// `drive soak`.
pub(crate) fn run(options: &SoakOptions) -> Result<(), Failure> {
    let setup = &options.setup;
    let (mut cluster, closed) = closed_loop(setup, options.waiting, options.closed_seconds)?;
    let rate = closed.rate() * options.share;
    say(&format!("closed loop: {:.0} operations/s; open loop at {rate:.0}:", closed.rate()));
    cluster.ask(&Order::Change(Pace { rate: Some(rate), inflight: options.waiting }))?;
    thread::sleep(SETTLE);

    let background = Background::start(cluster.dir())?;
    let (first, told) = (cluster.counters()?, stalls::told(cluster.dir())?);
    let (mut watch, mut slices, mut stalled) = (Watch::begin(&mut cluster)?, Vec::new(), 0);
    for end in (options.every..=options.seconds).step_by(options.every.max(1) as usize) {
        let slice = watch.slice(&mut cluster, Duration::from_secs(options.every))?;
        stalled = stalled.max(stalls::told(cluster.dir())?.saturating_sub(told));
        say(&line(end, &slice, slice.counters.elections - first.elections, stalled));
        slices.push(slice);
    }
    let tails = background.finish()?;
    let outcomes = cluster.results()?;
    let Some(last) = slices.last() else { return Err("a soak is one window at least".into()) };
    let mut soak = summary(rate, &slices, &tails);
    soak.elections = last.counters.elections - first.elections;
    soak.late_turns = last.counters.late_turns - first.late_turns;
    soak.write_stalls = stalled;
    soak.gates = judge(&soak);
    check::after_restart(&mut cluster, &outcomes)?;
    tell(&soak);
    setup.json.as_ref().map_or(Ok(()), |path| report::json(path, &soak))
}

fn line(second: u64, slice: &Slice, elections: f64, stalled: u64) -> String {
    format!(
        "{second:>5} s: {:>9.0}/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, memory {}, leader changes {elections}, led {:?}, stalls {stalled}, \
         live log {}",
        slice.rate(),
        slice.quantile_ms(0.5),
        slice.quantile_ms(0.99),
        slice.quantile_ms(0.999),
        report::memory(&slice.rss),
        slice.led,
        mib(slice.counters.live_log_bytes),
    )
}

fn summary(rate: f64, slices: &[Slice], tails: &Tails) -> Soak {
    let quantile = |q| report::quantile(slices.iter().flat_map(|s| &s.latencies), q);
    let time: f64 = slices.iter().map(|s| s.time.as_secs_f64()).sum();
    Soak {
        rate_per_s: rate,
        done_per_s: slices.iter().map(|s| s.operations as f64).sum::<f64>() / time,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        floor_sync_p999_us: tails.sync.value_at_quantile(0.999),
        floor_rtt_p999_us: tails.rtt.value_at_quantile(0.999),
        parent_late_us: tails.late.as_micros() as u64,
        elections: 0.0,
        late_turns: 0.0,
        write_stalls: 0,
        refused: merged(slices.iter().map(|s| &s.refused)),
        unknown: merged(slices.iter().map(|s| &s.unknown)),
        rss_bytes: slices.iter().map(Slice::memory).collect(),
        gates: Vec::new(),
    }
}

fn judge(soak: &Soak) -> Vec<Gate> {
    let (second, last) = (quarter(&soak.rss_bytes, 1), quarter(&soak.rss_bytes, 3));
    let (p50, p999) = (soak.p50_us as f64, soak.p999_us as f64);
    let floor = soak.floor_sync_p999_us as f64;
    let ms = |us: f64| format!("{:.2} ms", us / 1e3);
    vec![
        Gate::new("no election", format!("{} leader changes", soak.elections), soak.elections == 0.0),
        Gate::new("no write stall", format!("{} told by RocksDB", soak.write_stalls), soak.write_stalls == 0),
        Gate::new(
            "memory flat",
            format!("second quarter {}, last {} (<= 1.1 times)", mib(second), mib(last)),
            last <= second * 1.1,
        ),
        Gate::new(
            "p99.9 <= 10 x p50, or 2 x the floor's",
            format!(
                "{} = {:.1} x p50 ({}) = {:.1} x floor ({})",
                ms(p999),
                p999 / p50,
                ms(p50),
                p999 / floor,
                ms(floor)
            ),
            p999 <= 10.0 * p50 || p999 <= 2.0 * floor,
        ),
        Gate::new("all answered", format!("{} of unknown outcome", total(&soak.unknown)), total(&soak.unknown) == 0),
    ]
}

/// The median of the `n`-th quarter (from 0) of what was seen in turn.
fn quarter(seen: &[f64], n: usize) -> f64 {
    let (from, to) = (seen.len() * n / 4, seen.len() * (n + 1) / 4);
    let mut part = seen[from.min(seen.len() - 1)..to.max(from + 1).min(seen.len())].to_vec();
    part.sort_unstable_by(f64::total_cmp);
    part[part.len() / 2]
}

fn tell(soak: &Soak) {
    say(&format!(
        "done: {:.0} a second of {:.0} asked for; late turns {}",
        soak.done_per_s, soak.rate_per_s, soak.late_turns
    ));
    say(&format!("refused, never appended: {}", report::counts(&soak.refused)));
    say(&format!(
        "the floor through the soak: sync p99.9 {} us, ping-pong p99.9 {} us; a sleep was late by {} us at the most",
        soak.floor_sync_p999_us, soak.floor_rtt_p999_us, soak.parent_late_us
    ));
    report::gates(&soak.gates);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    fn soak() -> Soak {
        let histogram = || Histogram::new(3).expect("a histogram");
        let mut soak = summary(1.0, &[], &Tails { rtt: histogram(), sync: histogram(), late: Duration::ZERO });
        (soak.p50_us, soak.p999_us, soak.floor_sync_p999_us) = (100, 1_000, 10);
        soak.rss_bytes = vec![90.0, 100.0, 105.0, 109.0];
        soak
    }

    fn missed(soak: &Soak) -> Vec<String> {
        judge(soak).into_iter().filter(|g| !g.kept).map(|g| g.what).collect()
    }

    #[test]
    fn a_slow_disk_excuses_a_long_tail() {
        assert!(missed(&soak()).is_empty());
        assert_eq!(missed(&Soak { p999_us: 1_001, ..soak() }).len(), 1);
        assert!(missed(&Soak { p999_us: 1_001, floor_sync_p999_us: 501, ..soak() }).is_empty());
    }

    #[test]
    fn memory_is_flat_if_its_last_quarter_is_like_its_second() {
        assert_eq!(missed(&Soak { rss_bytes: vec![50.0, 100.0, 105.0, 111.0], ..soak() }), ["memory flat"]);
        let rising: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!((quarter(&rising, 1), quarter(&rising, 3)), (4.0, 8.0));
        assert_eq!(quarter(&[7.0], 3), 7.0, "a soak of one slice");
    }

    #[test]
    fn an_election_or_a_stall_is_missed() {
        assert_eq!(missed(&Soak { elections: 1.0, ..soak() }), ["no election"]);
        assert_eq!(missed(&Soak { write_stalls: 1, ..soak() }), ["no write stall"]);
    }
}
