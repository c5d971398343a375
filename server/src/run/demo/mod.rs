//! `pontoon demo`: three processes on the loopback, load, kills, restarts, and a check that nothing acknowledged was lost.
//!
//! Leaves to others: processes (`harness`), load (`load`), the final check (`check`), the live line (`live`).
//! Invariant: exit code 0 only if every check held.

mod check;
mod live;
mod load;

use crate::cli::Failure;
use crate::harness::{Nodes, NodesConfig, applied, leaders, wait_all_led};
use clap::Args;
use load::Load;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Flags of `pontoon demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Seconds of load, kills included
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Leave the three nodes running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Number of groups
    #[arg(long, default_value_t = 48)]
    groups: u16,
    /// Number of clients, each with one command in flight
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// Where the nodes' directories go; a temporary directory if absent
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Tells the story; every failed check is an error.
pub(crate) fn demo(options: DemoOptions) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Failed(format!("cannot start threads: {e}")))?;
    let dir = options
        .data
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("pontoon-demo-{}", std::process::id())));
    if dir.exists() {
        return Err(Failure::Config(vec![format!("--data {} exists already: name a new directory", dir.display())]));
    }
    let result = runtime.block_on(story(&options, dir.clone()));
    match &result {
        Ok(()) => drop(std::fs::remove_dir_all(&dir)),
        Err(_) => say(&format!("the nodes' directories and logs are left in {}", dir.display())),
    }
    result
}

#[expect(clippy::print_stdout, reason = "the demo talks to a person")]
fn say(line: &str) {
    println!("{line}");
}

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::Failed(what.to_string())
}

async fn story(options: &DemoOptions, dir: PathBuf) -> Result<(), Failure> {
    let binary = std::env::current_exe().map_err(failed)?;
    let config = NodesConfig { binary, dir, nodes: 3, groups: options.groups, flags: Vec::new() };
    let mut nodes = Nodes::new(config).map_err(failed)?;
    let all = nodes.redis();
    say(&format!("starting 3 nodes with {} groups", options.groups));
    nodes.start_all().map_err(failed)?;
    let took = wait_all_led(&all, &all, PATIENCE).await.ok_or_else(|| failed("the cluster did not come up"))?;
    say(&format!("all slots are led on all nodes after {:.1} s", took.as_secs_f64()));

    let load = Load::start(&all, options.clients);
    let line = tokio::spawn(live::line_a_second(
        Arc::clone(&load),
        nodes.nodes.iter().map(|n| (n.redis.clone(), n.admin.clone())).collect(),
    ));
    let part = Duration::from_secs(options.seconds.max(6)) / 3;
    tokio::time::sleep(part).await;
    kill_the_leader(&mut nodes, &all).await?;
    tokio::time::sleep(part).await;
    say("SIGKILL of all three under load");
    nodes.kill_all().map_err(failed)?;
    nodes.start_all().map_err(failed)?;
    let took = wait_all_led(&all, &all, PATIENCE).await.ok_or_else(|| failed("the cluster did not come up again"))?;
    say(&format!("restarted: all slots are led after {:.1} s", took.as_secs_f64()));
    tokio::time::sleep(part).await;

    let history = load.stop().await;
    line.abort();
    check::check(&all, options.groups, &history).await?;
    look_around(&nodes);
    if options.keep {
        say("the nodes run until Ctrl-C");
        tokio::signal::ctrl_c().await.map_err(failed)?;
    }
    Ok(())
}

/// Kills the node that leads most, times the failover, restarts it and times its catch-up.
async fn kill_the_leader(nodes: &mut Nodes, all: &[String]) -> Result<(), Failure> {
    let (led, _) = leaders(&all[0]).await.ok_or_else(|| failed("node 1 does not answer"))?;
    let victim = led.iter().max_by_key(|(_, slots)| **slots).map(|(addr, _)| addr.clone());
    let victim = victim.ok_or_else(|| failed("no node leads anything"))?;
    let id = nodes.nodes.iter().find(|n| n.redis == victim).map(|n| n.id).ok_or_else(|| failed("a stranger leads"))?;
    let living: Vec<String> = all.iter().filter(|a| **a != victim).cloned().collect();
    say(&format!("SIGKILL of node {id}, which leads {} of 16384 slots", led[&victim]));
    nodes.kill(id).map_err(failed)?;
    let took = wait_all_led(&living, &living, PATIENCE).await.ok_or_else(|| failed("no failover"))?;
    say(&format!("failover: all slots are led by the other two after {:.2} s", took.as_secs_f64()));
    let target = applied(&living[0]).await.ok_or_else(|| failed("a living node does not answer"))?;
    nodes.start(id).map_err(failed)?;
    let began = Instant::now();
    loop {
        let now = applied(&victim).await.unwrap_or_default();
        if now.len() == target.len() && now.iter().zip(&target).all(|(a, t)| a >= t) {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(failed(format!("node {id} did not catch up")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    say(&format!("node {id} is back and caught up after {:.2} s", began.elapsed().as_secs_f64()));
    Ok(())
}

fn look_around(nodes: &Nodes) {
    let port = nodes.nodes[0].redis.rsplit(':').next().unwrap_or("?");
    say("\nto look around (run with --keep, or `pontoon serve` by hand):");
    say(&format!("  redis-cli -c -p {port} set greeting hello"));
    say(&format!("  redis-cli -c -p {port} cluster nodes"));
    say(&format!("  curl http://{}/groups?limit=5", nodes.nodes[0].admin));
    say(&format!("  curl http://{}/metrics", nodes.nodes[0].admin));
}
