//! Nodes in one thread on the twins: every part turned by hand, one tick of time at a time.
//!
//! Shared with `tests/membership`. Leaves to others: faults drawn from a seed (the simulator). Invariant: deterministic.

#![allow(dead_code, reason = "shared by test files")]

use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::env::{Clock, Env, Instant, LogStore, PeerIdentity};
use pontoon_raftstore::error::{LifecycleError, ProposeError, ReadError};
use pontoon_raftstore::group_spec::GroupSpec;
use pontoon_raftstore::ids::{BootEpoch, GroupId, Incarnation, Index, LogPos, NodeId};
use pontoon_raftstore::mem::{MemClock, MemDisk, MemFiles, MemMachineDisk, MemNet, Packet, Persistence, Power};
use pontoon_raftstore::node::{NodeHandle, NodeInputs, NodeParts, boot};
use pontoon_raftstore::proposal::{Fence, Proposal, ReadRequest, ReplyTo};
use pontoon_raftstore::router::Router;
use pontoon_raftstore::testing::{AdminCell, Cell, KvOp, KvRet, KvSlot, LifecycleCell, ReadCell, Rng};
use pontoon_raftstore::turn::Active;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub const GROUP: GroupId = GroupId(7);

pub struct Node {
    pub id: NodeId,
    pub disk: Arc<MemDisk>,
    pub machines: Arc<MemMachineDisk>,
    pub files: Arc<MemFiles>,
    pub power: Arc<Power>,
    pub handle: NodeHandle,
    pub parts: NodeParts,
    /// Parts that are not turned: a hung disk, for instance.
    pub hung: BTreeSet<&'static str>,
    boots: u64,
}

pub struct Cluster {
    pub net: Arc<MemNet>,
    pub clock: Arc<MemClock>,
    pub now: Instant,
    pub config: Config,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Nodes that neither send nor receive.
    pub cut_off: BTreeSet<NodeId>,
    /// Name of the kind that nodes which start from now on register.
    pub kind: &'static str,
}

impl Cluster {
    pub fn new(n: u64, config: Config) -> Cluster {
        let mut cluster = Cluster {
            net: Arc::default(),
            clock: Arc::default(),
            now: Instant::default(),
            config,
            nodes: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            kind: "kv",
        };
        (1..=n).for_each(|id| cluster.add(NodeId(id)));
        cluster
    }

    /// A node with empty disks; linked to all.
    pub fn add(&mut self, id: NodeId) {
        let node = self.start(id, Arc::default(), MemMachineDisk::new(Persistence::Durable), Arc::default(), 1);
        self.nodes.insert(id, node);
    }

    fn start(
        &self,
        id: NodeId,
        disk: Arc<MemDisk>,
        machines: Arc<MemMachineDisk>,
        files: Arc<MemFiles>,
        boots: u64,
    ) -> Node {
        let power = Arc::new(Power::default());
        let epoch = BootEpoch { counter: boots, nonce: id.0 * 1000 + boots };
        let me = PeerIdentity { node: id, incarnation: Incarnation(100 + id.0), epoch };
        let log = Arc::new(disk.open(power.clone()));
        let recovered = log.load().unwrap();
        let env = Env {
            log,
            transport: Arc::new(self.net.transport(me, power.clone())),
            clock: self.clock.clone() as Arc<dyn Clock>,
            kinds: BTreeMap::from([(self.kind.to_owned(), Arc::new(machines.open(power.clone())) as _)]),
            files: Arc::new(files.open(power.clone())),
        };
        let (router, inboxes) = Router::new(&self.config);
        let config = self.config.clone();
        let (handle, parts) = boot(NodeInputs { env, config, router: router.clone(), inboxes, me, recovered }).unwrap();
        router.open();
        self.net.listen(me, power.clone(), router);
        for other in self.nodes.keys() {
            self.net.tell_link(*other, id, true);
            self.net.tell_link(id, *other, true);
        }
        Node { id, disk, machines, files, power, handle, parts, hung: BTreeSet::new(), boots }
    }

    /// Loses everything unsynced and starts again.
    pub fn crash_and_restart(&mut self, id: NodeId) {
        let old = self.nodes.remove(&id).unwrap();
        old.power.cut();
        let (disk, machines, files, boots) = (old.disk.clone(), old.machines.clone(), old.files.clone(), old.boots);
        drop(old);
        let mut rng = Rng::new(id.0);
        disk.crash(&mut rng);
        machines.crash();
        files.crash(&mut rng);
        let node = self.start(id, disk, machines, files, boots + 1);
        self.nodes.insert(id, node);
    }

    pub fn create(&mut self, group: GroupId) {
        let voters = self.nodes.keys().copied().collect();
        self.create_on(group, voters);
    }

    pub fn create_on(&mut self, group: GroupId, voters: BTreeSet<NodeId>) {
        let at = voters.clone();
        self.create_at(&at, &GroupSpec { id: group, kind: "kv".into(), voters, learners: BTreeSet::new() });
    }

    /// Only these nodes are told to create it.
    pub fn create_at(&mut self, at: &BTreeSet<NodeId>, spec: &GroupSpec) {
        let cells: Vec<Arc<LifecycleCell>> = self
            .nodes
            .values()
            .filter(|n| at.contains(&n.id))
            .map(|n| {
                let cell: Arc<LifecycleCell> = Cell::new(n.power.clone());
                n.handle.create(spec.clone(), cell.clone());
                cell
            })
            .collect();
        self.settle();
        for cell in cells {
            let done: Option<Result<(), LifecycleError>> = cell.take();
            assert_eq!(done, Some(Ok(())));
        }
    }

    pub fn destroy(&mut self, at: NodeId, group: GroupId) -> Result<(), LifecycleError> {
        let cell: Arc<LifecycleCell> = Cell::new(self.nodes[&at].power.clone());
        self.nodes[&at].handle.destroy(group, cell.clone());
        self.settle();
        cell.take().expect("answered")
    }

    /// Turns everything at the present moment until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("never comes to rest");
    }

    /// Turns everything once and delivers what was sent. Returns whether anything moved.
    pub fn step(&mut self) -> bool {
        let (mut worked, sent) = self.turn();
        worked |= !sent.is_empty();
        for packet in sent {
            if !self.cut_off.contains(&packet.to) && !self.cut_off.contains(&packet.from.node) {
                self.net.deliver(packet).unwrap();
            }
        }
        worked
    }

    /// Turns everything once. Returns whether anything moved, and what was sent.
    pub fn turn(&mut self) -> (bool, Vec<Packet>) {
        let worked = self.nodes.values_mut().fold(false, |worked, node| worked | turn_all(node, self.now));
        (worked, self.net.take_sent())
    }

    pub fn ticks(&mut self, n: u64) {
        for _ in 0..n {
            self.pass_tick();
            self.settle();
        }
    }

    /// Time alone: nothing is turned.
    pub fn pass_tick(&mut self) {
        self.pass(Duration::from_millis(100));
    }

    /// The same, so much of it.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.clock.set(self.now);
    }

    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leads = |n: &&Node| n.handle.status(group).is_ok_and(|s| s.is_leader());
        self.nodes.values().filter(leads).max_by_key(|n| n.handle.status(group).unwrap().term).map(|n| n.id)
    }

    pub fn await_leader(&mut self, group: GroupId) -> NodeId {
        for _ in 0..100 {
            match self.leader(group).filter(|l| !self.cut_off.contains(l)) {
                Some(leader) => return leader,
                None => self.ticks(1),
            }
        }
        panic!("no leader: {:#?}", self.nodes.values().map(|n| n.handle.status(group)).collect::<Vec<_>>());
    }

    pub fn propose(&self, at: NodeId, group: GroupId, op: &KvOp) -> Result<Arc<KvSlot>, ProposeError> {
        self.propose_in(at, group, op, None)
    }

    pub fn propose_in(
        &self,
        at: NodeId,
        group: GroupId,
        op: &KvOp,
        fence: Option<&Fence>,
    ) -> Result<Arc<KvSlot>, ProposeError> {
        let node = &self.nodes[&at];
        let slot: Arc<KvSlot> = Cell::new(node.power.clone());
        node.handle.propose(Proposal {
            group,
            command: op.encode(),
            fence: fence.cloned(),
            reply: ReplyTo::only(slot.clone()),
        })?;
        Ok(slot)
    }

    pub fn put(&mut self, key: &str, value: &str) -> Result<(LogPos, KvRet), ProposeError> {
        let leader = self.await_leader(GROUP);
        let pair = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        let slot = self.propose(leader, GROUP, &KvOp::Put(vec![pair]))?;
        self.settle();
        self.ticks(1);
        slot.take().expect("answered")
    }

    pub fn read(&self, at: NodeId, group: GroupId) -> Result<Arc<ReadCell>, ReadError> {
        let node = &self.nodes[&at];
        let slot: Arc<ReadCell> = Cell::new(node.power.clone());
        node.handle.read(ReadRequest { group, slot: slot.clone() })?;
        Ok(slot)
    }

    pub fn read_now(&mut self, at: NodeId) -> Result<Index, ReadError> {
        let slot = self.read(at, GROUP)?;
        self.settle();
        self.ticks(1);
        slot.take().expect("answered")
    }

    pub fn transfer(&mut self, from: NodeId, to: NodeId) -> Arc<AdminCell> {
        let slot: Arc<AdminCell> = Cell::new(self.nodes[&from].power.clone());
        self.nodes[&from].handle.transfer(GROUP, Some(to), slot.clone()).unwrap();
        self.settle();
        slot
    }

    /// Every replica's contents, one line each.
    pub fn contents(&self, group: GroupId) -> Vec<BTreeMap<Bytes, Bytes>> {
        let look = |n: &Node| {
            let s = n.handle.status(group).unwrap();
            n.machines.contents(group, s.replica, s.generation).map(|c| c.0).unwrap_or_default()
        };
        self.nodes.values().map(look).collect()
    }
}

fn turn_all(node: &mut Node, now: Instant) -> bool {
    let NodeParts { pollers, log_writer, log_reader, appliers, snapshotter, lifecycle, durability } = &mut node.parts;
    let mut parts: Vec<(&str, &mut dyn Active)> = Vec::new();
    parts.extend(pollers.iter_mut().map(|p| ("poller", p as &mut dyn Active)));
    parts.push(("log_writer", log_writer));
    parts.push(("log_reader", log_reader));
    parts.extend(appliers.iter_mut().map(|p| ("applier", p as &mut dyn Active)));
    parts.push(("snapshotter", snapshotter));
    parts.push(("lifecycle", lifecycle));
    parts.push(("durability", durability));
    let mut worked = false;
    for (name, part) in parts {
        if !node.hung.contains(name) {
            worked |= part.turn(now).worked;
        }
    }
    worked
}
