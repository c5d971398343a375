//! One process: opens an engine, creates the groups, answers the parent's orders until its input ends.
//!
//! Leaves to others: the load (`load`). Invariant: everything goes through the engine's public face.

use super::Failure;
use super::control::{Acked, Counters, Digest, Order, Reply};
use super::ledger::Ledger;
use super::load::Driver;
use super::machines::{Count, Driven, Memory, Mint};
use super::measure::allocator_calls;
use super::options::{MachineName, NodeOptions};
use pontoon::kv::KvMachine;
use pontoon::{AdminApi, Config, Engine, Group, GroupId, GroupSpec, NodeId, Read};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const KIND: &str = "driven";
/// How long one answer of the engine may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until the parent closes the pipe.
pub(crate) fn run(options: &NodeOptions) -> Result<(), Failure> {
    match options.machine {
        MachineName::Count => Node::<Count>::open(options)?.serve(),
        MachineName::Memory => Node::<Memory>::open(options)?.serve(),
        MachineName::Kv => Node::<KvMachine>::open(options)?.serve(),
    }
}

struct Node<M: Driven> {
    runtime: Runtime,
    engine: Engine,
    admin: AdminApi,
    me: NodeId,
    voters: BTreeSet<NodeId>,
    groups: u64,
    ledger: Option<PathBuf>,
    /// Where each log began when the load began.
    firsts: BTreeMap<u64, u64>,
    driver: Option<Driver>,
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Driven> Node<M> {
    fn open(options: &NodeOptions) -> Result<Node<M>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let addr = |port: &u16| format!("127.0.0.1:{port}");
        let peers: BTreeMap<NodeId, String> = (1..).map(NodeId).zip(options.ports.iter().map(addr)).collect();
        let me = NodeId(options.node);
        let mut config = Config::default();
        if options.pollers > 0 {
            config.raft.pollers = options.pollers;
        }
        let listen = peers.get(&me).ok_or("this node has no port")?.clone();
        let voters: BTreeSet<NodeId> = peers.keys().copied().collect();
        let builder = Engine::builder(&options.dir, me)
            .config(config)
            .found(voters.clone())
            .listen(&listen)
            .resolver(peers)
            .metrics(true)
            .kind(KIND, M::kind());
        let engine = runtime.block_on(builder.open())?;
        let admin = AdminApi::new(&engine);
        let (groups, ledger) = (options.groups, options.ledger.clone());
        Ok(Node {
            runtime,
            engine,
            admin,
            me,
            voters,
            groups,
            ledger,
            firsts: BTreeMap::new(),
            driver: None,
            machine: std::marker::PhantomData,
        })
    }

    fn serve(mut self) -> Result<(), Failure> {
        let (stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
        let mut say = |reply: &Reply| -> Result<(), Failure> {
            serde_json::to_writer(&mut stdout, reply)?;
            stdout.write_all(b"\n")?;
            Ok(stdout.flush()?)
        };
        say(&Reply::Done)?;
        for line in stdin.lines() {
            let reply = self.obey(serde_json::from_str(&line?)?);
            say(&reply.unwrap_or_else(|e| Reply::Failed(e.to_string())))?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<Reply, Failure> {
        Ok(match order {
            Order::Create => self.create()?,
            Order::Leaders => Reply::Leaders(self.leaders()),
            Order::Applied => Reply::Applied(self.applied()),
            Order::Load(load) => {
                self.firsts = self.engine.groups().iter().map(|s| (s.group.0, s.first.0)).collect();
                let ledger = self.ledger.as_ref().map(|path| Ledger::open(path, self.groups)).transpose()?;
                self.driver = Some(Driver::start::<M>(self.engine.clone(), load, ledger)?);
                Reply::Done
            }
            Order::Change(pace) => {
                self.driver.as_ref().ok_or("nothing is driven")?.change(pace)?;
                Reply::Done
            }
            Order::Cut => Reply::Seen(self.driver.as_ref().ok_or("nothing is driven")?.cut()?),
            Order::Counters => Reply::Counters(self.counters()?),
            Order::Untruncated => Reply::Number(self.untruncated()),
            Order::Result => Reply::Result(self.driver.take().ok_or("nothing is driven")?.finish()?),
            Order::Digests => Reply::Digests(self.digests()?),
            Order::ReadBack { wanted } => self.read_back(&wanted)?,
            Order::Touch { groups } => self.touch(&groups)?,
        })
    }

    fn group(&self, id: u64) -> Result<Group<M>, Failure> {
        Ok(self.engine.group::<M>(GroupId(id))?)
    }

    fn create(&mut self) -> Result<Reply, Failure> {
        let spec = |id| GroupSpec {
            id: GroupId(id),
            kind: KIND.to_owned(),
            voters: self.voters.clone(),
            learners: BTreeSet::new(),
        };
        let mut creating = JoinSet::new();
        self.runtime.block_on(async {
            for spec in (1..=self.groups).map(spec) {
                let engine = self.engine.clone();
                creating.spawn(async move { engine.create::<M>(spec).await.map(drop) });
            }
            while let Some(one) = creating.join_next().await {
                one??;
            }
            Ok(Reply::Done)
        })
    }

    fn leaders(&self) -> BTreeMap<u64, u64> {
        let leader = |s: &pontoon::GroupStatus| s.leader.map_or(0, |l| l.node.0);
        self.engine.groups().iter().map(|s| (s.group.0, leader(s))).collect()
    }

    fn applied(&self) -> BTreeMap<u64, u64> {
        self.engine.groups().iter().map(|s| (s.group.0, s.applied.0)).collect()
    }

    /// How many logs begin where they did when the load began.
    fn untruncated(&self) -> u64 {
        let same = |s: &&pontoon::GroupStatus| self.firsts.get(&s.group.0).is_none_or(|first| s.first.0 <= *first);
        self.engine.groups().iter().filter(same).count() as u64
    }

    fn counters(&self) -> Result<Counters, Failure> {
        let text = self.admin.handle("GET", "/metrics", "").body;
        let mut counters = self.driver.as_ref().map_or(Ok(Counters::default()), Driver::counters)?;
        counters.entries = sum(&text, "pontoon_wal_entries_total");
        counters.syncs = sum(&text, "pontoon_wal_syncs_total");
        counters.log_bytes = sum(&text, "pontoon_wal_bytes_total");
        counters.messages = sum(&text, "pontoon_raft_messages_sent_total");
        counters.elections = sum(&text, "pontoon_leader_changes_total");
        counters.late_turns = sum(&text, "pontoon_late_turns_total");
        counters.live_log_bytes = sum(&text, "pontoon_wal_live_bytes");
        counters.budget_bytes = sum(&text, "pontoon_budget_bytes{part=\"used\"}");
        counters.memtable_bytes = sum(&text, "pontoon_rocksdb_bytes{db=\"log\",kind=\"memtables\"}");
        counters.allocations = allocator_calls();
        Ok(counters)
    }

    fn digests(&self) -> Result<BTreeMap<u64, Digest>, Failure> {
        let mut found = BTreeMap::new();
        for status in self.engine.groups() {
            let group = self.group(status.group.0)?;
            let digest = M::digest(&group.local_reader()?)?;
            // Taken before the contents: they are at least as new, and equal once nothing is applied any more.
            found.insert(status.group.0, Digest { applied: status.applied.0, ..digest });
        }
        Ok(found)
    }

    fn led_here(&self) -> impl Iterator<Item = u64> {
        let me = self.me.0;
        self.leaders().into_iter().filter(move |(_, leader)| *leader == me).map(|(group, _)| group)
    }

    fn read_back(&self, wanted: &Acked) -> Result<Reply, Failure> {
        let (mut good, mut bad) = (0, Vec::new());
        for group in self.led_here() {
            let Some(keys) = wanted.get(&group) else { continue };
            let reading = self.group(group)?;
            let view = self.runtime.block_on(reading.read_within(Read::Linearizable, PATIENCE))?;
            for (key, stamp) in keys {
                match M::stamp(&view, *key) {
                    Ok(Some(found)) if found >= *stamp => good += 1,
                    Ok(found) => bad.push(format!("group {group} key {key:#x}: wrote {stamp}, found {found:?}")),
                    Err(Some(e)) => return Err(e.into()),
                    Err(None) => {}
                }
            }
        }
        Ok(Reply::Checked { good, bad })
    }

    fn touch(&self, groups: &[u64]) -> Result<Reply, Failure> {
        let (mut acknowledged, mut bad) = (Vec::new(), Vec::new());
        let wanted: BTreeSet<u64> = groups.iter().copied().collect();
        let led: Vec<u64> = self.led_here().filter(|group| wanted.contains(group)).collect();
        self.runtime.block_on(async {
            let (mut writing, mut mint) = (Vec::new(), Mint::default());
            for group in led {
                let command = M::command(&mut mint, u64::MAX, 0, 16);
                writing.push((group, self.group(group)?.propose(command).timeout(PATIENCE)));
            }
            for (group, one) in writing {
                match one.await {
                    Ok(_) => acknowledged.push(group),
                    // Another leads by now: the parent asks again.
                    Err(e) if e.never_appended() => {}
                    Err(e) => bad.push(format!("group {group}: {e}")),
                }
            }
            Ok(Reply::Touched { groups: acknowledged, bad })
        })
    }
}

/// The sum over all series of one metric, or the value of one series, named with its labels.
fn sum(text: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        (name.ends_with('}') || rest.starts_with([' ', '{'])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    text.lines().filter_map(value).sum()
}
