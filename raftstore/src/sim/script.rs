//! Scripted worlds: a schedule file instead of drawn faults, run by the same simulator.
//!
//! A line is `name value`, `at TIME command`, or a comment (`#`). Times are seconds. Commands: `campaign N`,
//! `cut A from B C`, `mute A to B C` (A's append lane to them), `join A with B C`, `hang N until T` (its disk),
//! `pause N until T`, `put N KEY VALUE`, `crash N`, `flush N`. All groups have all nodes as voters.
//! Leaves to others: what is checked. Invariant: a script that cannot be read runs nothing.

use super::swarm::Swarm;
use super::verdict::Report;
use super::world::{What, World};
use crate::config::Config;
use crate::env::{Instant, Lane};
use crate::ids::{GroupId, NodeId};
use crate::testing::KvOp;
use bytes::Bytes;
use std::time::Duration;

/// One scripted step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Campaign(NodeId),
    Cut(NodeId, Vec<NodeId>),
    Mute(NodeId, Vec<NodeId>),
    Join(NodeId, Vec<NodeId>),
    Hang(NodeId, Instant),
    Pause(NodeId, Instant),
    Put(NodeId, String, String),
    Crash(NodeId),
    Flush(NodeId),
}

/// The only group of most scripts.
const GROUP: GroupId = GroupId(1);

/// A schedule file that was read.
#[derive(Clone, Debug)]
pub struct Script {
    seed: u64,
    swarm: Swarm,
    steps: Vec<(Instant, Command)>,
}

impl Script {
    /// Reads a schedule file; an error names the line.
    pub fn read(text: &str) -> Result<Script, String> {
        let mut script = Script { seed: 1, swarm: calm(), steps: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            script.line(&words).map_err(|why| format!("line {}: {why}: {line:?}", number + 1))?;
        }
        Ok(script)
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        let swarm = &mut self.swarm;
        match words {
            [] => {}
            ["at", at, command @ ..] => self.steps.push((moment(at)?, read_command(command)?)),
            ["seed", n] => self.seed = number(n)?,
            ["nodes", n] => (swarm.nodes, swarm.voters) = (number(n)?, number(n)?),
            ["groups", n] => swarm.groups = number(n)?,
            ["faults", t] => swarm.fault_phase = seconds(t)?,
            ["heal", t] => swarm.heal_phase = seconds(t)?,
            ["election", ticks] => swarm.config.election_ticks = number(ticks)?,
            ["writes", low, high] => swarm.write = (seconds(low)?, seconds(high)?),
            _ => return Err("not understood".to_owned()),
        }
        Ok(())
    }

    /// Runs it; with the last lines of what happened to group 1 in the report.
    #[must_use]
    pub fn run(&self) -> Report {
        let mut world = World::new(self.seed, self.swarm.clone());
        world.tell_about(GROUP);
        for (at, command) in self.steps.clone() {
            world.put(at, What::Scripted(command));
        }
        world.run(self.seed)
    }
}

/// Small delays, no faults; clients come when everything is healed.
fn calm() -> Swarm {
    let millis = |from, to| (Duration::from_millis(from), Duration::from_millis(to));
    Swarm {
        nodes: 3,
        voters: 3,
        groups: 1,
        volatile: 0,
        config: Config { log_keep: 64 << 10, disk_stall: Duration::from_secs(60), ..Config::default() },
        clients: 8,
        queues: 0,
        clients_from: Duration::MAX,
        operations: 0,
        delay: millis(1, 2),
        reorder: 0,
        loss: 0,
        duplicate: 0,
        write: millis(1, 2),
        lag: Duration::from_micros(50),
        kill: 0,
        faults: Vec::new(),
        fault_every: Duration::from_secs(3600),
        down: Duration::from_secs(1),
        fault_phase: Duration::from_secs(20),
        heal_phase: Duration::from_secs(30),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn seconds(word: &str) -> Result<Duration, String> {
    let t: f64 = word.parse().map_err(|_| format!("{word} is no time"))?;
    Duration::try_from_secs_f64(t).map_err(|e| e.to_string())
}

fn moment(word: &str) -> Result<Instant, String> {
    Ok(Instant(1).after(seconds(word)?))
}

fn node(word: &str) -> Result<NodeId, String> {
    number(word).map(NodeId)
}

fn nodes(words: &[&str]) -> Result<Vec<NodeId>, String> {
    words.iter().map(|w| node(w)).collect()
}

fn read_command(words: &[&str]) -> Result<Command, String> {
    Ok(match words {
        ["campaign", n] => Command::Campaign(node(n)?),
        ["cut", a, "from", others @ ..] => Command::Cut(node(a)?, nodes(others)?),
        ["mute", a, "to", others @ ..] => Command::Mute(node(a)?, nodes(others)?),
        ["join", a, "with", others @ ..] => Command::Join(node(a)?, nodes(others)?),
        ["hang", n, "until", t] => Command::Hang(node(n)?, moment(t)?),
        ["pause", n, "until", t] => Command::Pause(node(n)?, moment(t)?),
        ["put", n, key, value] => Command::Put(node(n)?, (*key).to_owned(), (*value).to_owned()),
        ["crash", n] => Command::Crash(node(n)?),
        ["flush", n] => Command::Flush(node(n)?),
        _ => return Err("unknown command".to_owned()),
    })
}

impl World {
    /// One step of a script.
    pub(super) fn obey(&mut self, command: Command) {
        self.note(|| format!("script {command:?}"));
        self.count("scripted steps");
        match command {
            Command::Campaign(node) => {
                let campaign = |up: &super::node::Running| up.handle.campaign(GROUP).is_ok();
                let _taken = self.nodes.get(&node).and_then(|n| n.up.as_ref()).is_some_and(campaign);
                self.wake_up(node);
            }
            Command::Cut(a, others) => others.iter().for_each(|b| {
                self.network.cut(a, *b);
                self.network.cut(*b, a);
            }),
            Command::Mute(a, others) => others.iter().for_each(|b| self.network.mute(a, *b, Lane::Append)),
            Command::Join(a, others) => others.iter().for_each(|b| self.network.join(a, *b)),
            Command::Hang(node, until) => self.hold(node, |n| n.hung = until),
            Command::Pause(node, until) => self.hold(node, |n| n.paused = until),
            Command::Put(node, key, value) => {
                let pair = (Bytes::from(format!("{GROUP}:{key}")), Bytes::from(value));
                let admitted = self.clients.begin_at(node, KvOp::Put(vec![pair]), GROUP, self.now, &self.nodes);
                self.count(if admitted { "scripted puts" } else { "scripted puts refused" });
                self.wake_up(node);
            }
            Command::Crash(node) => self.crash(node, self.swarm.down),
            Command::Flush(node) => {
                self.nodes.get(&node).iter().flat_map(|n| n.media.machines.values()).for_each(|m| m.flush());
            }
        }
    }

    fn hold(&mut self, node: NodeId, change: impl FnOnce(&mut super::node::SimNode)) {
        if let Some(node) = self.nodes.get_mut(&node) {
            change(node);
        }
    }
}
