//! Three nodes as processes: starting, killing, asking.
//!
//! Leaves to others: what is asked (`control`). Invariant: processes, and directories unless they are kept, are gone when a
//! `Cluster` is dropped; ports and directories of a node never change, so that a restart is the same node.

use super::Failure;
use super::control::{Counters, Load, Order, Outcome, Reply, Seen};
use super::measure::Usage;
use super::options::{ClusterOptions, MachineName};
use pontoon_server::harness::{free_ports, signal};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nodes of a cluster.
pub(crate) const NODES: u64 = 3;
/// How long a group may be without a leader before a run gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often leaders are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the file's head.
pub(crate) struct Cluster {
    options: ClusterOptions,
    machine: MachineName,
    ports: Vec<u16>,
    /// Nodes keep ledgers.
    ledgers: bool,
    nodes: BTreeMap<u64, Node>,
    /// Of them, those that stand still: they are not asked.
    stopped: BTreeSet<u64>,
    /// Goes last: nodes that run would write to it again.
    dir: TempDir,
}

/// A process and its two pipes.
struct Node {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Node {
    fn tell(&mut self, order: &Order) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line)?;
        Ok(self.orders.flush()?)
    }

    fn hear(&mut self) -> Result<Reply, Failure> {
        let mut line = String::new();
        if self.replies.read_line(&mut line)? == 0 {
            return Err("a node ended".into());
        }
        match serde_json::from_str(&line)? {
            Reply::Failed(why) => Err(why.into()),
            reply => Ok(reply),
        }
    }
}

impl Cluster {
    /// Ports and directories; nothing runs.
    pub(crate) fn new(options: &ClusterOptions, machine: MachineName) -> Result<Cluster, Failure> {
        let base = options.data.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("pontoon-drive-").tempdir_in(base)?;
        let ports = free_ports(NODES as usize)?;
        let (options, nodes, stopped) = (options.clone(), BTreeMap::new(), BTreeSet::new());
        Ok(Cluster { dir, options, machine, ports, ledgers: false, nodes, stopped })
    }

    /// From now on nodes are started with a ledger of what they acknowledge.
    pub(crate) fn keep_ledgers(&mut self) {
        self.ledgers = true;
    }

    /// Directories stay when this is dropped.
    pub(crate) fn keep_directories(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Where a node's ledger is.
    pub(crate) fn ledger(&self, id: u64) -> PathBuf {
        self.dir().join(format!("ledger-{id}"))
    }

    /// Starts all and creates the groups; they are led when this returns.
    pub(crate) fn found(&mut self) -> Result<(), Failure> {
        self.start()?;
        self.ask(&Order::Create)?;
        self.wait_led().map(drop)
    }

    /// Starts the load on all.
    pub(crate) fn load(&mut self, load: &Load) -> Result<(), Failure> {
        self.ask(&Order::Load(load.clone())).map(drop)
    }

    /// Starts the load on one.
    pub(crate) fn load_one(&mut self, id: u64, load: &Load) -> Result<(), Failure> {
        let node = self.node(id)?;
        node.tell(&Order::Load(load.clone()))?;
        node.hear().map(drop)
    }

    /// How many groups.
    pub(crate) fn groups(&self) -> u64 {
        self.options.groups
    }

    /// What the machines are.
    pub(crate) fn machine(&self) -> MachineName {
        self.machine
    }

    /// The directory of all.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts those that do not run and waits until they are open.
    pub(crate) fn start(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        let missing: Vec<u64> = (1..=NODES).filter(|id| !self.nodes.contains_key(id)).collect();
        for id in &missing {
            let node = self.spawn(*id)?;
            self.nodes.insert(*id, node);
        }
        for id in missing {
            self.node(id)?.hear()?;
        }
        Ok(began.elapsed())
    }

    fn spawn(&self, id: u64) -> Result<Node, Failure> {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let dir: PathBuf = self.dir().join(format!("node-{id}"));
        let ledger = self.ledgers.then(|| [PathBuf::from("--ledger"), self.ledger(id)]);
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", "--node", &id.to_string(), "--ports", &ports.join(",")])
            .args(["--groups", &self.options.groups.to_string(), "--pollers", &self.options.pollers.to_string()])
            .args(["--machine", self.machine.as_str()])
            .arg("--dir")
            .arg(dir)
            .args(ledger.into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no pipe to a node")?;
        let replies = BufReader::new(child.stdout.take().ok_or("no pipe from a node")?);
        Ok(Node { child, orders, replies })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        self.nodes.remove(&id);
    }

    /// SIGKILL of all.
    pub(crate) fn kill_all(&mut self) {
        for node in self.nodes.values_mut() {
            let _ended_already = node.child.kill();
        }
        self.nodes.clear();
    }

    /// SIGSTOP: it stands still, its connections stay open.
    pub(crate) fn stop(&mut self, id: u64) -> Result<(), Failure> {
        self.stopped.insert(id);
        Ok(signal(self.node(id)?.child.id(), "-STOP")?)
    }

    /// SIGCONT.
    pub(crate) fn go_on(&mut self, id: u64) -> Result<(), Failure> {
        self.stopped.remove(&id);
        Ok(signal(self.node(id)?.child.id(), "-CONT")?)
    }

    fn node(&mut self, id: u64) -> Result<&mut Node, Failure> {
        Ok(self.nodes.get_mut(&id).ok_or_else(|| format!("node {id} does not run"))?)
    }

    /// Asks every running node at once; answers by node.
    pub(crate) fn ask(&mut self, order: &Order) -> Result<BTreeMap<u64, Reply>, Failure> {
        let mut asked: Vec<_> = self.nodes.iter_mut().filter(|(id, _)| !self.stopped.contains(id)).collect();
        asked.iter_mut().try_for_each(|(_, node)| node.tell(order))?;
        let mut answers = BTreeMap::new();
        for (id, node) in asked {
            answers.insert(*id, node.hear().map_err(|e| format!("node {id}: {e}"))?);
        }
        Ok(answers)
    }

    /// What is read of each node from outside.
    pub(crate) fn usage(&self) -> Result<Vec<Usage>, Failure> {
        self.nodes.values().map(|node| Usage::of(node.child.id())).collect()
    }

    /// Sums of the running nodes' counters.
    pub(crate) fn counters(&mut self) -> Result<Counters, Failure> {
        let mut sum = Counters::default();
        for reply in self.ask(&Order::Counters)?.into_values() {
            let Reply::Counters(c) = reply else { return Err(unexpected(&reply)) };
            sum.acked += c.acked;
            sum.reads += c.reads;
            sum.driver_cpu_us += c.driver_cpu_us;
            sum.entries += c.entries;
            sum.syncs += c.syncs;
            sum.log_bytes += c.log_bytes;
            sum.messages += c.messages;
            sum.elections += c.elections;
            sum.late_turns += c.late_turns;
            sum.live_log_bytes += c.live_log_bytes;
            sum.budget_bytes += c.budget_bytes;
            sum.memtable_bytes += c.memtable_bytes;
            sum.allocations = c.allocations.map(|n| n + sum.allocations.unwrap_or(0));
        }
        Ok(sum)
    }

    /// Ends the window of latencies on all nodes; what they saw in it.
    pub(crate) fn cut(&mut self) -> Result<Vec<Seen>, Failure> {
        let take = |reply| if let Reply::Seen(seen) = reply { Ok(seen) } else { Err(unexpected(&reply)) };
        self.ask(&Order::Cut)?.into_values().map(take).collect()
    }

    /// Ends the load; what the drivers saw.
    pub(crate) fn results(&mut self) -> Result<Vec<Outcome>, Failure> {
        let take = |reply| if let Reply::Result(outcome) = reply { Ok(outcome) } else { Err(unexpected(&reply)) };
        self.ask(&Order::Result)?.into_values().map(take).collect()
    }

    /// Replicas of groups whose log was never truncated.
    pub(crate) fn untruncated(&mut self) -> Result<u64, Failure> {
        let take = |reply| if let Reply::Number(n) = reply { Ok(n) } else { Err(unexpected(&reply)) };
        self.ask(&Order::Untruncated)?.into_values().map(take).sum()
    }

    /// Waits until all running nodes agree on a living leader of every group; how many each leads, and the time taken.
    pub(crate) fn wait_led(&mut self) -> Result<(BTreeMap<u64, u64>, Duration), Failure> {
        self.wait_until("led", |_| true)
    }

    /// Waits until the nodes' own balancers have evened the leaders out: a transfer later on would be counted as an election.
    pub(crate) fn wait_even(&mut self) -> Result<(), Failure> {
        let even = |led: &BTreeMap<u64, u64>| {
            let ends = led.values().max().zip(led.values().min());
            ends.is_none_or(|(most, least)| *most <= least + 1)
        };
        self.wait_until("led evenly", even).map(drop)
    }

    /// As `wait_led`, and until that is how it should be.
    fn wait_until(
        &mut self,
        what: &str,
        holds: impl Fn(&BTreeMap<u64, u64>) -> bool,
    ) -> Result<(BTreeMap<u64, u64>, Duration), Failure> {
        let began = Instant::now();
        loop {
            let led = self.led()?;
            match led {
                Some(led) if holds(&led) => return Ok((led, began.elapsed())),
                _ if began.elapsed() > PATIENCE => return Err(format!("groups are not {what}: {led:?}").into()),
                _ => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// One write to every group, by whoever leads it. The machine's state before it is then committed everywhere: a leader
    /// commits what its predecessors left with its own first entry.
    pub(crate) fn touch(&mut self) -> Result<(), Failure> {
        let mut missing: BTreeSet<u64> = (1..=self.options.groups).collect();
        let began = Instant::now();
        while !missing.is_empty() {
            self.wait_led()?;
            for (id, reply) in self.ask(&Order::Touch { groups: missing.iter().copied().collect() })? {
                let Reply::Touched { groups, bad } = reply else { return Err(unexpected(&reply)) };
                if let Some(first) = bad.first() {
                    return Err(format!("node {id} refused {} writes: {first}", bad.len()).into());
                }
                for group in groups {
                    missing.remove(&group);
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{} groups are led by nobody who takes a write", missing.len()).into());
            }
        }
        Ok(())
    }

    /// How far each running node has applied, by node and group.
    pub(crate) fn applied(&mut self) -> Result<BTreeMap<u64, BTreeMap<u64, u64>>, Failure> {
        let take = |(id, reply)| if let Reply::Applied(at) = reply { Ok((id, at)) } else { Err(unexpected(&reply)) };
        self.ask(&Order::Applied)?.into_iter().map(take).collect()
    }

    /// How many groups each node leads, if all running nodes agree that every group is led.
    pub(crate) fn led(&mut self) -> Result<Option<BTreeMap<u64, u64>>, Failure> {
        let mut views = Vec::new();
        for reply in self.ask(&Order::Leaders)?.into_values() {
            let Reply::Leaders(view) = reply else { return Err(unexpected(&reply)) };
            views.push(view);
        }
        let Some(first) = views.first() else { return Err("no node runs".into()) };
        let whole = first.len() as u64 == self.options.groups && first.values().all(|l| self.nodes.contains_key(l));
        if !whole || views.iter().any(|v| v != first) {
            return Ok(None);
        }
        let mut led: BTreeMap<u64, u64> = self.nodes.keys().map(|id| (*id, 0)).collect();
        first.values().for_each(|leader| *led.entry(*leader).or_default() += 1);
        Ok(Some(led))
    }
}

/// An answer to something else.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    format!("a node answered {reply:?}").into()
}
