//! Many groups without load: what they cost, and how long they take to come up, first and after a SIGKILL of all.

use super::cluster::{Cluster, NODES};
use super::control::{Order, Outcome};
use super::measure::Usage;
use super::options::{IdleOptions, MachineName};
use super::report::say;
use super::{Failure, check};
use std::thread;
use std::time::{Duration, Instant};

/// `drive idle`.
pub(crate) fn run(options: &IdleOptions) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&options.cluster, MachineName::Count)?;
    let groups = options.cluster.groups;
    cluster.start()?;
    let empty = cluster.usage()?;
    let began = Instant::now();
    cluster.ask(&Order::Create)?;
    let created = began.elapsed();
    let (led, _) = cluster.wait_led()?;
    say(&format!("{groups} groups: created in {created:.2?}, all led after {:.2?} (leaders {led:?})", began.elapsed()));
    show("idle", &mut cluster, options, &empty)?;

    cluster.kill_all();
    let began = Instant::now();
    let opened = cluster.start()?;
    cluster.wait_led()?;
    cluster.touch()?;
    say(&format!("restarted: open after {opened:.2?}, all led and written to after {:.2?}", began.elapsed()));
    show("idle after the restart", &mut cluster, options, &empty)?;
    let touched = Outcome { per_group: (1..=groups).map(|group| (group, 1)).collect(), ..Outcome::default() };
    check::after_restart(&mut cluster, &[touched])?;
    say("restarted again: all replicas equal, and nothing is missing");
    Ok(())
}

fn show(when: &str, cluster: &mut Cluster, options: &IdleOptions, empty: &[Usage]) -> Result<(), Failure> {
    let (before, syncs) = (cluster.usage()?, cluster.counters()?.syncs);
    let began = Instant::now();
    thread::sleep(Duration::from_secs(options.seconds));
    let (after, time) = (cluster.usage()?, began.elapsed());
    let syncs = cluster.counters()?.syncs - syncs;
    let sum = |all: &[Usage], f: fn(&Usage) -> f64| all.iter().map(f).sum::<f64>();
    let per_node = |f: fn(&Usage) -> f64| sum(&after, f) / NODES as f64;
    let cpu = (sum(&after, |u| u.cpu_us) - sum(&before, |u| u.cpu_us)) / time.as_secs_f64() / 1e6 / NODES as f64;
    let memory = (sum(&after, |u| u.rss as f64) - sum(empty, |u| u.rss as f64)) / NODES as f64;
    say(&format!(
        "{when}, per node: {:.1}% of a core, {:.0} MiB ({:.1} KiB a replica), {:.0} threads; {:.1} syncs/s in all",
        cpu * 100.0,
        per_node(|u| u.rss as f64) / f64::from(1 << 20),
        memory / options.cluster.groups as f64 / 1024.0,
        per_node(|u| u.threads as f64),
        syncs / time.as_secs_f64(),
    ));
    Ok(())
}
