//! SIGKILL of one node and of all three in turn, at random times under full load through the bulk queue. The drivers die with
//! their nodes; what they acknowledged is in their ledgers.
//!
//! Leaves to others: the ledgers (`ledger`), the check (`check`). Invariant: nothing that a ledger holds may be missing, and no
//! machine may hold more than was acknowledged or in flight.

use super::cluster::{Cluster, NODES};
use super::control::{Load, Outcome, Pace, total};
use super::ledger::Ledger;
use super::options::KillOptions;
use super::report::say;
use super::{Failure, check};
use pontoon_raftstore::testing::Rng;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest time between a load that goes on and the next kill, and that a killed node stays down. Milliseconds.
const LONGEST: u64 = 1_500;
/// How long a load may take to go on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledgements after which it goes on.
const ENOUGH: u64 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `drive kills`.
pub(crate) fn run(options: &KillOptions) -> Result<(), Failure> {
    let setup = &options.setup;
    let seed = options.seed.unwrap_or_else(fresh_seed);
    say(&format!("kills of {} machines, --seed {seed}", setup.machine.as_str()));
    let mut cluster = Cluster::new(&setup.cluster, setup.machine)?;
    let done = rounds(&mut cluster, options, &mut Rng::new(seed));
    if done.is_err() && options.keep {
        cluster.keep_directories();
        say(&format!("left: {}", cluster.dir().display()));
    }
    done
}

fn rounds(cluster: &mut Cluster, options: &KillOptions, rng: &mut Rng) -> Result<(), Failure> {
    cluster.keep_ledgers();
    cluster.found()?;
    let inflight = options.setup.load.inflight;
    let pace = Pace { rate: None, inflight };
    let load = Load { options: options.setup.load.clone(), pace, slots: inflight };
    cluster.load(&load)?;
    for round in 1..=options.rounds {
        wait_busy(cluster)?;
        pause(rng);
        let victims: Vec<u64> = if round % 2 == 1 { vec![1 + rng.below(NODES)] } else { (1..=NODES).collect() };
        if victims.len() > 1 {
            cluster.kill_all();
        } else {
            victims.iter().for_each(|id| cluster.kill(*id));
            pause(rng);
        }
        let took = cluster.start()?;
        victims.iter().try_for_each(|id| cluster.load_one(*id, &load))?;
        say(&format!("{round}: killed {victims:?}, open again after {took:.2?}"));
    }
    wait_busy(cluster)?;
    pause(rng);
    cluster.kill_all();
    // Every second round, and the last kill, took all three.
    let killed = options.rounds.div_ceil(2) + (options.rounds / 2 + 1) * NODES;
    let outcomes = ledgers(cluster, killed * inflight)?;
    let acked: u64 = outcomes.iter().flat_map(|o| o.per_group.values()).sum();
    let unknown: u64 = outcomes.iter().map(|o| total(&o.unknown)).sum();
    say(&format!("acknowledged {acked}, of unknown outcome {unknown} at the most"));
    check::after_restart(cluster, &outcomes)?;
    say("nothing that was acknowledged is missing, all replicas are equal");
    Ok(())
}

/// What the nodes acknowledged. `in_flight`: how many may have been under way when nodes were killed.
fn ledgers(cluster: &Cluster, in_flight: u64) -> Result<Vec<Outcome>, Failure> {
    let read = |id| Ledger::open(&cluster.ledger(id), cluster.groups())?.read(id);
    let mut outcomes = (1..=NODES).map(read).collect::<Result<Vec<Outcome>, Failure>>()?;
    if outcomes.iter().all(|o| o.per_group.is_empty()) {
        return Err("the ledgers are empty".into());
    }
    outcomes[0].unknown.insert("in flight".to_owned(), in_flight);
    Ok(outcomes)
}

/// Until all groups are led and more is acknowledged than was.
fn wait_busy(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.wait_led()?;
    let (began, before) = (Instant::now(), cluster.counters()?.acked);
    while cluster.counters()?.acked < before + ENOUGH {
        if began.elapsed() > PATIENCE {
            return Err("the load does not go on".into());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn pause(rng: &mut Rng) {
    thread::sleep(Duration::from_millis(rng.below(LONGEST)));
}

fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()))
}
