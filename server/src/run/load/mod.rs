//! `pontoon load`: closed or open loop over the Redis protocol against a cluster that runs, and a check of what it wrote.
//!
//! `client` threads do it, each with `keys` of its own and a `link` to each node; `window` measures, `report` prints.
//! Leaves to others: starting, killing and restarting nodes. Invariant: exit code 0 only if every acknowledged write was
//! read back.

mod client;
mod keys;
mod link;
mod report;
mod window;

use crate::cli::Failure;
use crate::client::{Answer, ClusterClient};
use crate::harness::{applied, led_ranges};
use crate::shards::{SLOTS, Shards};
use clap::Args;
use client::{Client, Share, Tally};
use hdrhistogram::Histogram;
use keys::{Key, Keys};
use report::{Report, Trouble};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use window::Window;

/// Keys of all clients together; more if that many operations are in flight.
const KEYS: u64 = 16_384;
/// Before the window.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a reply to the check may take, and how often it is asked for.
const DEADLINE: Duration = Duration::from_secs(8);
const TRIES: u32 = 200;

/// Flags of `pontoon load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadOptions {
    /// Redis addresses of some or all nodes
    #[arg(long, value_delimiter = ',', required = true)]
    redis: Vec<String>,
    /// Admin addresses of all nodes: what their logs and messages did goes into the result
    #[arg(long, value_delimiter = ',')]
    admin: Vec<String>,
    /// Operations in flight in all; with --open-loop: the most that may wait
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    inflight: u64,
    /// Bytes of a value, at least 16
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(16..))]
    bytes: u64,
    /// Length of the measured window
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Share of reads among the operations, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    reads: f64,
    /// Operations a second in all, begun on time whether or not earlier ones are answered; latencies count from then
    #[arg(long)]
    open_loop: Option<f64>,
    /// Exponent of a Zipf distribution of the load over groups; without it all groups get the same
    #[arg(long)]
    zipf: Option<f64>,
    /// Client threads, each with a connection to each node
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Names of keys begin with it; two loads at a time need different ones
    #[arg(long, default_value = "load")]
    prefix: String,
    /// Write the result there as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Loads, measures, checks, prints.
pub(crate) fn load(options: &LoadOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(story(options))
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn say(line: &str) {
    println!("{line}");
}

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::Failed(what.to_string())
}

async fn story(options: &LoadOptions) -> Result<(), Failure> {
    let map = Map::of(&options.redis).await?;
    let (tallies, clients): (Vec<_>, Vec<_>) = (0..options.clients).map(|n| start(options, &map, n)).unzip();
    tokio::time::sleep(WARM_UP).await;
    let window = window::measure(&tallies, &options.admin, Duration::from_secs(options.seconds)).await;
    tallies.iter().for_each(|tally| tally.stop.store(true, Ordering::Relaxed));
    let mut keys = Vec::new();
    for client in clients {
        keys.push(client.join().map_err(|_| failed("a client thread panicked"))?);
    }
    if window.writes + window.reads == 0.0 {
        let why = tallies.iter().map(|t| t.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()).max();
        return Err(failed(format!("nothing was acknowledged in the window: {}", why.unwrap_or_default())));
    }
    check(&options.redis, keys).await?;

    let report = of_window(options, map.shards.count(), &window, &tallies);
    let sum = |of: fn(&Tally) -> &AtomicU64| tallies.iter().map(|t| of(t).load(Ordering::Relaxed)).sum();
    report.print(Trouble { refused: sum(|t| &t.refused), unknown: sum(|t| &t.unknown), overdue: sum(|t| &t.overdue) });
    options.json.as_ref().map_or(Ok(()), |path| report.write(path))
}

/// How the cluster looks at the start.
struct Map {
    shards: Shards,
    leaders: Vec<Option<Arc<str>>>,
}

impl Map {
    async fn of(addrs: &[String]) -> Result<Map, Failure> {
        for addr in addrs {
            let (Some(ranges), Some(groups)) = (led_ranges(addr).await, applied(addr).await) else { continue };
            let shards = u16::try_from(groups.len()).ok().and_then(Shards::new);
            let mut leaders = vec![None; usize::from(SLOTS)];
            for (first, last, leader) in ranges {
                let leader: Arc<str> = leader.into();
                (first..=last).for_each(|slot| leaders[usize::from(slot)] = Some(Arc::clone(&leader)));
            }
            return Ok(Map { shards: shards.ok_or_else(|| failed(format!("{addr} has no groups")))?, leaders });
        }
        Err(Failure::Unreachable(format!("none of {} answers", addrs.join(", "))))
    }
}

/// The `n`-th client.
fn start(options: &LoadOptions, map: &Map, n: u64) -> (Arc<Tally>, JoinHandle<Keys>) {
    // The first clients take what is left over.
    let of = |all: u64| all / options.clients + u64::from(n < all % options.clients);
    let names = (0..of(KEYS).max(4 * of(options.inflight))).map(|key| format!("{}:{n}:{key}", options.prefix));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp = u64::try_from(now.as_micros()).unwrap_or_default();
    let keys = Keys::new(names, &map.shards, options.zipf, stamp);
    let share = Share {
        inflight: of(options.inflight) as usize,
        bytes: options.bytes as usize,
        reads: options.reads,
        every: options.open_loop.map(|rate| Duration::from_secs_f64(options.clients as f64 / rate)),
    };
    let tally = Tally::new();
    let client = Client::new(share, keys, Arc::clone(&tally), &options.redis, map.leaders.clone());
    (tally, std::thread::spawn(move || client.run()))
}

/// Reads every key that was written to.
async fn check(addrs: &[String], all: Vec<Keys>) -> Result<(), Failure> {
    let mut reading = JoinSet::new();
    for keys in all {
        reading.spawn(read_back(addrs.to_vec(), keys));
    }
    let mut wrong = Vec::new();
    while let Some(found) = reading.join_next().await {
        wrong.extend(found.map_err(failed)?);
    }
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(failed(format!("{} keys hold what they must not, e.g. {first}", wrong.len()))),
    }
}

async fn read_back(addrs: Vec<String>, keys: Keys) -> Vec<String> {
    let mut client = ClusterClient::new(addrs, DEADLINE);
    let mut wrong = keys.wrong().to_vec();
    for key in keys.written() {
        let Key { name, .. } = key;
        wrong.extend(match client.call_retrying(name, &[b"GET", name], TRIES).await {
            Answer::Done(value) => keys.judge(key, &value),
            other => Some(format!("{}: cannot be read back: {other:?}", name.escape_ascii())),
        });
    }
    wrong
}

fn of_window(options: &LoadOptions, groups: u16, window: &Window, tallies: &[Arc<Tally>]) -> Report {
    let mut latencies = Histogram::<u64>::new(3).expect("three digits are valid");
    for tally in tallies {
        // A histogram that grows takes any value.
        let _fits = latencies.add(&*tally.latencies.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let (operations, seconds) = (window.writes + window.reads, window.time.as_secs_f64());
    let replicated = window.writes * options.bytes as f64 * options.admin.len() as f64;
    let of_nodes = |f: &dyn Fn([f64; 4]) -> f64| window.nodes.map(f).filter(|figure| figure.is_finite());
    Report {
        groups,
        inflight: options.inflight,
        bytes: options.bytes,
        machine: "kv",
        writes_per_s: operations / seconds,
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        p999_us: latencies.value_at_quantile(0.999),
        driver_cpu_us_per_write: window.cpu_us / operations,
        entries_per_sync: of_nodes(&|[entries, syncs, ..]| entries / syncs),
        syncs_per_s: of_nodes(&|[_, syncs, ..]| syncs / seconds),
        log_bytes_per_payload_byte: of_nodes(&|[_, _, bytes, _]| bytes / replicated),
        messages_per_write: of_nodes(&|[.., messages]| messages / operations),
        ..Report::default()
    }
}
