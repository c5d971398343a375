//! What every run ends with: all nodes are killed and run again; do their replicas hold what was acknowledged?
//!
//! Leaves to others: what was acknowledged (the runs). Invariant: `Ok` only if the replicas of each group are equal, hold at
//! least what was acknowledged and at most what was also of unknown outcome, and each key reads back.

use super::Failure;
use super::cluster::{Cluster, unexpected};
use super::control::{Acked, Digest, Order, Outcome, Reply, total};
use super::measure::Usage;
use super::options::MachineName;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// How long replicas may take to reach one applied index.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often all keys are read back before the run gives up.
const ATTEMPTS: u32 = 5;

/// See the file's head. What was read of the nodes when they were open again.
pub(crate) fn after_restart(cluster: &mut Cluster, outcomes: &[Outcome]) -> Result<Vec<Usage>, Failure> {
    cluster.kill_all();
    cluster.start()?;
    let opened = cluster.usage()?;
    cluster.touch()?;
    let digests = settled(cluster)?;
    if cluster.machine() == MachineName::Count {
        let held: BTreeMap<u64, u64> = digests.iter().map(|(group, digest)| (*group, digest.number)).collect();
        // The touch is one more command in each group.
        lengths(&held, outcomes, held.len() as u64)?;
    }
    let mut wanted = Acked::new();
    for outcome in outcomes {
        for (group, keys) in &outcome.last {
            wanted.entry(*group).or_default().extend(keys);
        }
    }
    read_back(cluster, wanted)?;
    Ok(opened)
}

/// Are the chains as long as they must be, and no longer than they may be (a refusal was no append)?
fn lengths(held: &BTreeMap<u64, u64>, outcomes: &[Outcome], touched: u64) -> Result<(), Failure> {
    let mut acked: BTreeMap<u64, u64> = BTreeMap::new();
    outcomes.iter().flat_map(|o| &o.per_group).for_each(|(group, n)| *acked.entry(*group).or_default() += n);
    for (group, n) in &acked {
        let held = held.get(group).copied().unwrap_or(0);
        if held < *n {
            return Err(format!("group {group} acknowledged {n} commands and holds {held}").into());
        }
    }
    let (held, acked): (u64, u64) = (held.values().sum(), acked.values().sum());
    let unknown: u64 = outcomes.iter().map(|o| total(&o.unknown)).sum();
    if held > acked + unknown + touched {
        let may = format!("{acked} acknowledged, {unknown} of unknown outcome, {touched} by the check");
        return Err(format!("all groups hold {held} commands, more than {may}").into());
    }
    Ok(())
}

fn read_back(cluster: &mut Cluster, wanted: Acked) -> Result<(), Failure> {
    if cluster.machine() == MachineName::Count {
        return Ok(()); // keeps no keys
    }
    let keys: u64 = wanted.values().map(|keys| keys.len() as u64).sum();
    let order = Order::ReadBack { wanted };
    // A group whose leader moves meanwhile is read by nobody.
    for _ in 0..ATTEMPTS {
        cluster.wait_led()?;
        if read_once(cluster, &order)? >= keys {
            return Ok(());
        }
    }
    Err(format!("{keys} keys could not all be read back in {ATTEMPTS} attempts").into())
}

/// How many keys hold what they must.
fn read_once(cluster: &mut Cluster, order: &Order) -> Result<u64, Failure> {
    let mut read = 0;
    for (node, reply) in cluster.ask(order)? {
        match reply {
            Reply::Checked { good, bad } if bad.is_empty() => read += good,
            Reply::Checked { bad, .. } => return Err(format!("node {node}: {}: {}", bad.len(), bad[0]).into()),
            other => return Err(unexpected(&other)),
        }
    }
    Ok(read)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_neither_too_short_nor_too_long() {
        let outcome = |acked, unknown| Outcome {
            per_group: BTreeMap::from([(1, acked)]),
            unknown: BTreeMap::from([("timeout".to_owned(), unknown)]),
            ..Outcome::default()
        };
        let held = |n| BTreeMap::from([(1, n), (2, 1)]);
        let judge = |n, outcomes: &[Outcome]| lengths(&held(n), outcomes, 2);
        // Two nodes led the group one after the other.
        assert!(judge(8, &[outcome(3, 0), outcome(4, 0)]).is_ok());
        assert!(judge(6, &[outcome(3, 0), outcome(4, 0)]).is_err(), "lost");
        assert!(judge(9, &[outcome(3, 0), outcome(4, 0)]).is_err(), "refused and yet appended");
        assert!(judge(9, &[outcome(3, 0), outcome(4, 1)]).is_ok(), "of unknown outcome, and appended");
    }
}
