//! SIGKILL of the node that leads most, again and again: how long until the others lead every group and each group
//! acknowledged a write.

use super::cluster::Cluster;
use super::control::Outcome;
use super::options::{FailoverOptions, MachineName};
use super::report::say;
use super::{Failure, check};
use std::time::{Duration, Instant};

/// `drive failover`.
pub(crate) fn run(options: &FailoverOptions) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&options.cluster, MachineName::Count)?;
    cluster.found()?;
    let mut took = Vec::new();
    for round in 1..=options.rounds {
        let (led, _) = cluster.wait_led()?;
        let (victim, leads) = led.into_iter().max_by_key(|l| l.1).ok_or("no node runs")?;
        let began = Instant::now();
        cluster.kill(victim);
        cluster.wait_led()?;
        let led_after = began.elapsed();
        cluster.touch()?;
        took.push(began.elapsed());
        say(&format!(
            "{round}: node {victim} led {leads}: led after {led_after:.2?}, written to after {:.2?}",
            began.elapsed()
        ));
        cluster.start()?;
    }
    took.sort_unstable();
    let at = |q: f64| took[((took.len() as f64 * q).ceil() as usize).clamp(1, took.len()) - 1];
    let worst: Duration = at(1.0);
    say(&format!("{} failovers: p50 {:.2?}, p99 {:.2?}, worst {worst:.2?}", took.len(), at(0.5), at(0.99)));
    let touched = (1..=cluster.groups()).map(|group| (group, options.rounds)).collect();
    check::after_restart(&mut cluster, &[Outcome { per_group: touched, ..Outcome::default() }]).map(drop)
}
