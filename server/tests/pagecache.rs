//! Real processes that lose their page cache: SIGKILL of all under load, then a seeded part of what no completed sync
//! covers is undone in every node's directory (`pagecache/shim.c`, `pagecache/undo.rs`), then restart and judgement.
//!
//! The gate runs two rounds with small files, and one with pipelines and the settings as they are by default.
//! `PONTOON_ROUNDS=20 cargo test -p pontoon-server --release --test pagecache -- --nocapture` is the record;
//! `PONTOON_SEED=n` replays one round (load and roll-back; not the interleaving of the processes).
//! Invariant: a round's own journals are gone when it ends.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "pagecache/shim.rs"]
mod shim;
mod support;
#[path = "pagecache/undo.rs"]
mod undo;

use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::{Nodes, wait_all_led};
use shim::Shim;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Clients, Load, PATIENCE, all_led, equal_contents, rounds, running, three_nodes, until_true};
use undo::{Cut, Report};

const CLIENTS: u64 = 16;
const KEYS: u64 = 400;
/// Small files, so that each node's log store recycles some in every round; flushes and little log kept, so that the log
/// is truncated and what was truncated must be in the contents.
const FLAGS: [&str; 6] = ["--log-file", "64KiB", "--log-keep", "32KiB", "--flush-every", "1s"];
/// Commands of a client's pipelines.
const AT_ONCE: usize = 16;
/// Seeds within which the run without syncs must have lost something.
const LIES: u64 = 6;

fn writes() -> u64 {
    if std::env::var_os("PONTOON_ROUNDS").is_some() { 20_000 } else { 4_000 }
}

fn seeds() -> Vec<u64> {
    let one = std::env::var("PONTOON_SEED").ok().and_then(|s| s.parse().ok());
    one.map_or_else(|| (1..=rounds(2)).collect(), |seed| vec![seed])
}

fn start_all(nodes: &mut Nodes, shim: &Shim, round: &str, lie: Option<&str>) {
    for id in 1..=3 {
        let env = shim.env(&nodes.node(id).data, round, lie);
        nodes.start_with(id, &env.iter().map(|(k, v)| (*k, v.as_path())).collect::<Vec<_>>()).unwrap();
    }
}

/// Undoes part of what each node had not synced.
fn cut_power(nodes: &Nodes, shim: &Shim, round: &str, cut: Cut<'_>) -> Vec<Report> {
    let cut = |node: &pontoon_server::harness::NodeProcess| {
        let root = node.data.canonicalize().unwrap();
        let journal = shim.journal(&node.data, round);
        let on_disk = disk_bytes(&journal);
        let cut = match cut {
            Cut::Seeded(seed) => Cut::Seeded(seed.wrapping_mul(3) + node.id),
            all => all,
        };
        let report = undo::roll_back(&journal, &root, cut).unwrap();
        shim.forget(&node.data, round);
        println!("  node {}: {report:?}, journal {} KiB", node.id, on_disk >> 10);
        report
    };
    nodes.nodes.iter().map(cut).collect()
}

/// Table files of the contents.
fn flushed(data: &Path) -> usize {
    let files = std::fs::read_dir(data.join("engine/kinds/kv")).unwrap();
    files.filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "sst"))).count()
}

/// Waits, under load, until every node has a table file of contents: only then can log and contents part in a cut.
async fn contents_are_flushed(nodes: &Nodes) {
    until_true("contents are flushed", || nodes.nodes.iter().all(|n| flushed(&n.data) > 0)).await;
}

/// What a sparse file takes.
fn disk_bytes(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).unwrap().blocks() * 512
}

/// What the power cuts of a test undid.
#[derive(Debug, Default)]
struct Sum {
    writes: u64,
    names: u64,
    /// Files of the log that came into use again, by node.
    recycled: [u64; 3],
}

/// A power cut under load for each seed, restart, judgement. `flushed`: only once every node has flushed contents.
async fn power_cuts(flags: &[&str], at_once: usize, flushed: bool, seeds: &[u64]) -> Sum {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::build(dir.path());
    let mut nodes = three_nodes(dir.path(), 12, flags);
    let mut sum = Sum::default();
    start_all(&mut nodes, &shim, "begin", None);
    let mut last = "begin".to_owned();
    for seed in seeds {
        all_led(&nodes).await;
        let round = format!("seed-{seed}-{at_once}");
        let load = Load { clients: CLIENTS, keys: KEYS, at_once, value: 0 };
        let clients = Clients::load(nodes.redis(), load, &round, *seed);
        // Pipelines take no longer for four times as much.
        clients.acknowledge(writes() * at_once.min(4) as u64).await;
        if flushed {
            contents_are_flushed(&nodes).await;
        }
        nodes.kill_all().unwrap();
        println!("{round}: replay with PONTOON_SEED={seed}");
        for (report, recycled) in cut_power(&nodes, &shim, &last, Cut::Seeded(*seed)).iter().zip(&mut sum.recycled) {
            *recycled += report.recycled;
            sum.writes += report.writes;
            sum.names += report.names;
            assert!(report.syncs > 0 && report.lies == 0, "the shim saw no sync: {report:?}");
        }
        start_all(&mut nodes, &shim, &round, None);
        all_led(&nodes).await;
        let seen = clients.finish(&round, KEYS).await;
        seen.report(&round);
        assert_eq!(seen.verdict(), KvVerdict::Ok, "{round}");
        last = round;
    }
    equal_contents(&nodes).await;
    println!("{} rounds: {sum:?}", seeds.len());
    assert!(sum.writes > 0, "nothing was undone");
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_without_the_page_cache() {
    let sum = power_cuts(&FLAGS, 1, true, &seeds()).await;
    assert!(sum.recycled.iter().all(|n| *n > 0), "each node must recycle a file of its log: {sum:?}");
}

/// Log files and flushes as they are by default, so that most of what is acknowledged is in the log alone; what each node
/// does comes in bulk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_in_pipelines_is_lost_without_the_page_cache() {
    let half = seeds().len().div_ceil(2);
    power_cuts(&[], AT_ONCE, false, &seeds()[..half]).await;
}

/// The same with the sync call patched out. A node may come up or refuse; `None`: nobody noticed, nothing was lost.
async fn round_of_lies(seed: u64, lie: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::build(dir.path());
    let mut nodes = running(dir.path(), 12, &FLAGS).await;
    nodes.kill_all().unwrap();
    start_all(&mut nodes, &shim, "lie", Some(lie));
    all_led(&nodes).await;
    let (round, began) = (format!("lie-{seed}"), Instant::now());
    let clients = Clients::start(nodes.redis(), CLIENTS, KEYS, &round, seed);
    clients.acknowledge(1_000).await;
    // The mark is synced at most a second late; a power cut before that may take log and mark together.
    while began.elapsed() < Duration::from_millis(1500) {
        let more = clients.acknowledged.load(std::sync::atomic::Ordering::Relaxed) + 50;
        clients.acknowledge(more).await;
    }
    nodes.kill_all().unwrap();
    // A cut that takes the log's mark with it, or keeps all that the mark covers, is not the log store's to notice: the
    // state machine is the first to miss the rest then. So of some files all is taken, and of others nothing.
    let cut = if lie.is_empty() { Cut::Seeded(seed) } else { Cut::AllOf(lie) };
    let reports = cut_power(&nodes, &shim, "lie", cut);
    assert!(reports.iter().all(|r| r.lies > 0 && (r.syncs == 0 || !lie.is_empty())), "let through: {reports:?}");
    nodes.start_all().unwrap();
    if let Some(why) = refusal(&mut nodes).await {
        drop(clients);
        return Some(format!("refused: {why}"));
    }
    let verdict = clients.finish(&round, KEYS).await.verdict();
    (verdict != KvVerdict::Ok).then(|| format!("read back: {verdict:?}"))
}

/// Waits until all groups are led; the last words of a node that gave up instead.
async fn refusal(nodes: &mut Nodes) -> Option<String> {
    let all = nodes.redis();
    let began = Instant::now();
    while wait_all_led(&all, &all, Duration::from_millis(200)).await.is_none() {
        for id in 1..=3 {
            if nodes.exit_code(id).unwrap().is_some_and(|code| code != 0) {
                let log = std::fs::read_to_string(&nodes.node(id).log).unwrap();
                return Some(format!("node {id}: {}", log.lines().last().unwrap_or_default()));
            }
        }
        if began.elapsed() > PATIENCE / 2 {
            let stands_still = |id| std::fs::read_to_string(&nodes.node(id).log).unwrap().contains("quarantined");
            let still: Vec<u64> = (1..=3).filter(|id| stands_still(*id)).collect();
            assert!(!still.is_empty(), "neither up nor refused");
            return Some(format!("replicas stand still on nodes {still:?}"));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_loses_what_was_acknowledged() {
    harm_of("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_store_notices_a_log_that_was_not_synced() {
    let harm = harm_of(".log").await;
    assert!(harm.contains("pontoon: log store: "), "the log store itself must notice: {harm}");
}

/// The first harm that a seed does.
async fn harm_of(lie: &str) -> String {
    let first = seeds()[0];
    for seed in first..first + LIES {
        match round_of_lies(seed, lie).await {
            Some(harm) => {
                println!("syncs of *{lie} left out, seed {seed}: {harm}");
                return harm;
            }
            None => println!("syncs of *{lie} left out, seed {seed}: nothing was lost"),
        }
    }
    panic!("{LIES} power cuts without a sync of *{lie}, and nothing was lost: the test above proves nothing");
}
