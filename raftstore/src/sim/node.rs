//! One simulated node: media that survive its crashes, and, while it is up, the production parts around them.
//!
//! The log writer's letters pass through a tap, so that checks know what is on its way to the disk.
//! Leaves to others: when which part turns (`world`). Invariant: a start of the node shares nothing with the one before
//! but the media.

use super::groups::Order;
use super::swarm::Swarm;
use crate::env::{Clock, Env, GroupOp, Instant, LogStore, MachineKind, PeerIdentity};
use crate::error::BootError;
use crate::events::EventStream;
use crate::group_status::GroupStatus;
use crate::identity::{Identity, IdentityOptions, Start};
use crate::ids::{GroupId, NodeId, StoreSeq};
use crate::mem::{GroupImage, MemClock, MemDisk, MemFiles, MemMachineDisk, MemNet, Persistence, Power};
use crate::node::{NodeHandle, NodeInputs, NodeParts, boot};
use crate::router::Router;
use crate::task::WriterMsg;
use crate::turn::Active;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use pontoon_raft::{Index, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Name of the durable kind.
pub(super) const DURABLE: &str = "durable";
/// Name of the volatile kind.
pub(super) const VOLATILE: &str = "volatile";

/// What survives a crash.
pub(super) struct Media {
    pub(super) disk: Arc<MemDisk>,
    pub(super) files: Arc<MemFiles>,
    pub(super) machines: BTreeMap<&'static str, Arc<MemMachineDisk>>,
}

impl Default for Media {
    fn default() -> Media {
        let machine = |name, persistence| (name, MemMachineDisk::new(persistence));
        Media {
            disk: Arc::default(),
            files: Arc::default(),
            machines: [machine(DURABLE, Persistence::Durable), machine(VOLATILE, Persistence::Volatile)].into(),
        }
    }
}

impl Media {
    /// As a crash would leave them.
    pub(super) fn copy(&self) -> Media {
        Media {
            disk: self.disk.copy(),
            files: self.files.copy(),
            machines: self.machines.iter().map(|(name, m)| (*name, m.copy())).collect(),
        }
    }

    /// What the log would recover.
    pub(super) fn durable_seq(&self) -> StoreSeq {
        self.disk.durable(|image| image.seq)
    }
}

/// A node over all its starts.
pub(super) struct SimNode {
    pub(super) id: NodeId,
    /// Starts so far.
    pub(super) boots: u64,
    /// What it runs on.
    pub(super) media: Media,
    /// Its own, while it runs on others.
    pub(super) aside: Option<Media>,
    /// A copy that somebody took of them, and when.
    pub(super) copy: Option<(Instant, Media)>,
    /// It was started on a copy once.
    pub(super) was_exchanged: bool,
    /// As its last start showed itself.
    pub(super) shown: Option<PeerIdentity>,
    /// While it is up.
    pub(super) up: Option<Running>,
    /// No part turns before this.
    pub(super) paused: Instant,
    /// No write ends before this.
    pub(super) hung: Instant,
    /// Writes take this many times as long until then.
    pub(super) slow: (u32, Instant),
    /// Groups that it said to have destroyed.
    pub(super) buried: BTreeSet<GroupId>,
    /// What each group's commit must not fall behind after the next start.
    pub(super) least_commits: Vec<(GroupId, Index)>,
}

/// One start of a node.
pub(super) struct Running {
    pub(super) power: Arc<Power>,
    pub(super) handle: NodeHandle,
    pub(super) identity: Arc<Identity>,
    /// It was admitted and lets its parts turn.
    pub(super) serving: bool,
    /// Pollers, appliers, writer, log reader, snapshotter, lifecycle, durability.
    pub(super) parts: Vec<Box<dyn Active>>,
    /// When each part turns next.
    pub(super) wake: Vec<Option<Instant>>,
    /// Does the next turn come because of letters? (A turn that comes by time takes letters, too.)
    pub(super) expected: Vec<bool>,
    /// Place of the writer in `parts`.
    pub(super) writer: usize,
    pub(super) tap: Tap,
    /// What happens here.
    pub(super) events: EventStream,
    /// What it was told and has not answered.
    pub(super) orders: Vec<Order>,
}

/// Between everybody and the log writer.
pub(super) struct Tap {
    from_all: Receiver<WriterMsg>,
    to_writer: Sender<WriterMsg>,
    /// For the next write.
    held: VecDeque<WriterMsg>,
    /// What the writer has not taken yet, in order.
    pub(super) in_flight: VecDeque<Vec<(GroupId, GroupOp)>>,
}

impl Tap {
    /// Takes in what came; returns how many batches.
    pub(super) fn pass(&mut self) -> usize {
        let mut came = 0;
        while let Ok(letter) = self.from_all.try_recv() {
            if let WriterMsg::Write { batch, .. } = &letter {
                self.in_flight.push_back(batch.writes.iter().map(|w| (w.group, w.op.clone())).collect());
                came += 1;
            }
            self.held.push_back(letter);
        }
        came
    }

    /// A write begins: it will contain what has come so far. What comes while it lasts is for the next one.
    pub(super) fn begin(&mut self) {
        for letter in self.held.drain(..) {
            let _stopped = self.to_writer.send(letter);
        }
    }

    /// The writer has turned: what it took is written.
    pub(super) fn settle(&mut self) {
        let left = self.held.len() + self.to_writer.len();
        while self.in_flight.len() > left {
            self.in_flight.pop_front();
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.held.is_empty() || !self.to_writer.is_empty()
    }
}

impl SimNode {
    pub(super) fn new(id: NodeId) -> SimNode {
        let node = SimNode {
            id,
            boots: 0,
            media: Media::default(),
            aside: None,
            copy: None,
            was_exchanged: false,
            shown: None,
            up: None,
            paused: Instant::default(),
            hung: Instant::default(),
            slow: (1, Instant::default()),
            buried: BTreeSet::new(),
            least_commits: Vec::new(),
        };
        let _begin = node.media.disk.take_journal();
        node.media.machines.values().for_each(|m| drop(m.take_applied()));
        node
    }

    /// Boots production code on the media. `Ok(false)`: the power was cut on the way.
    pub(super) fn start(
        &mut self,
        swarm: &Swarm,
        net: &Arc<MemNet>,
        clock: &Arc<MemClock>,
        entropy: [u64; 4],
        power: Arc<Power>,
    ) -> Result<bool, BootError> {
        match self.boot(swarm, net, clock, entropy, &power) {
            Err(_) if !power.is_on() => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn boot(
        &mut self,
        swarm: &Swarm,
        net: &Arc<MemNet>,
        clock: &Arc<MemClock>,
        entropy: [u64; 4],
        power: &Arc<Power>,
    ) -> Result<(), BootError> {
        self.boots += 1;
        let log: Arc<dyn LogStore> = Arc::new(self.media.disk.open(power.clone()));
        let recovered = log.load()?;
        let identity = Identity::open(log.clone(), &recovered.meta, founding(self.id, swarm.nodes, entropy))?;
        let me = identity.me();
        let kinds = self.media.machines.iter();
        let kinds = kinds.map(|(n, m)| ((*n).to_owned(), Arc::new(m.open(power.clone())) as Arc<dyn MachineKind>));
        let env = Env {
            log: log.clone(),
            transport: Arc::new(net.transport(me, power.clone())),
            clock: clock.clone() as Arc<dyn Clock>,
            kinds: kinds.collect(),
            files: Arc::new(self.media.files.open(power.clone())),
        };
        let (router, mut inboxes) = Router::new(&swarm.config);
        let (to_writer, tapped) = unbounded();
        let from_all = std::mem::replace(&mut inboxes.writer, tapped);
        let tap = Tap { from_all, to_writer, held: VecDeque::new(), in_flight: VecDeque::new() };
        let inputs = NodeInputs { env, config: swarm.config.clone(), router: router.clone(), inboxes, me, recovered };
        let (handle, parts) = boot(inputs)?;
        let (parts, writer) = line_up(parts);
        let (wake, expected) = (vec![None; parts.len()], vec![false; parts.len()]);
        let events = handle.events();
        let (power, serving) = (power.clone(), false);
        self.up = Some(Running {
            power,
            handle,
            identity,
            serving,
            parts,
            wake,
            expected,
            writer,
            tap,
            events,
            orders: Vec::new(),
        });
        Ok(())
    }

    /// Term of the entry at `index` as this start would read it: durable, written, and on its way to the disk.
    pub(super) fn term_in_sight(&self, group: GroupId, index: Index) -> Option<Term> {
        let in_flight = self.up.iter().flat_map(|up| up.tap.in_flight.iter().rev());
        for (_, op) in in_flight.flat_map(|batch| batch.iter().rev().filter(|(g, _)| *g == group)) {
            match op {
                GroupOp::Append { entries, .. } if entries.first().is_some_and(|e| e.index <= index) => {
                    let at = index.0 - entries[0].index.0;
                    return entries.get(at as usize).map(|e| e.term);
                }
                GroupOp::Install { install, .. } => {
                    return (install.pos.index == index).then_some(install.pos.term);
                }
                _ => {}
            }
        }
        self.own().disk.live(|image| image.groups.get(&group).and_then(|g| g.term(index)))
    }

    /// What counts as this node's.
    fn own(&self) -> &Media {
        self.aside.as_ref().unwrap_or(&self.media)
    }

    /// This start, if it serves.
    pub(super) fn serving(&self) -> Option<&Running> {
        self.up.as_ref().filter(|up| up.serving)
    }

    /// What this start tells of a group, if it serves.
    pub(super) fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.serving()?.handle.status(group).ok()
    }

    /// Looks at a group as every crash would keep it.
    pub(super) fn durable<T>(&self, group: GroupId, look: impl FnOnce(&GroupImage) -> T) -> Option<T> {
        self.own().disk.durable(|image| image.groups.get(&group).map(look))
    }

    /// Does a write that is on its way remove or replace the durable entry at `index`, be it for a while only?
    pub(super) fn is_being_undone(&self, group: GroupId, index: Index) -> bool {
        let durable = self.durable(group, |g| g.term(index)).flatten();
        if durable.is_none() || self.is_below_truncation(group, index) {
            return false;
        }
        let on_disk = self.own().disk.live(|image| image.groups.get(&group).and_then(|g| g.term(index)));
        let ops = self.up.iter().flat_map(|up| up.tap.in_flight.iter().flatten());
        let replaced = |op: &GroupOp| match op {
            GroupOp::Append { entries, .. } if entries.first().is_some_and(|e| e.index <= index) => {
                entries.get((index.0 - entries[0].index.0) as usize).map(|e| e.term) != durable
            }
            _ => false,
        };
        on_disk != durable || ops.filter(|(g, _)| *g == group).any(|(_, op)| replaced(op))
    }

    fn is_below_truncation(&self, group: GroupId, index: Index) -> bool {
        let on_disk = self.own().disk.live(|i| i.groups.get(&group).is_none_or(|g| index <= g.truncated.pos.index));
        let ops = self.up.iter().flat_map(|up| up.tap.in_flight.iter().flatten());
        on_disk
            || ops.filter(|(g, _)| *g == group).any(|(_, op)| match op {
                GroupOp::Truncate(upto) => index <= upto.pos.index,
                GroupOp::Install { install, .. } => index <= install.pos.index,
                GroupOp::Destroy { .. } => true,
                _ => false,
            })
    }
}

/// All nodes found the cluster together.
fn founding(node: NodeId, nodes: u64, entropy: [u64; 4]) -> IdentityOptions {
    IdentityOptions {
        node,
        start: Start::Found { peers: (1..=nodes).map(|n| (NodeId(n), format!("node{n}"))).collect() },
        cluster: None,
        listen: format!("node{node}"),
        advert: Bytes::new(),
        digest: 33,
        entropy,
    }
}

fn line_up(parts: NodeParts) -> (Vec<Box<dyn Active>>, usize) {
    let NodeParts { pollers, log_writer, log_reader, appliers, snapshotter, lifecycle, durability } = parts;
    let mut all: Vec<Box<dyn Active>> = Vec::new();
    pollers.into_iter().for_each(|p| all.push(Box::new(p)));
    appliers.into_iter().for_each(|a| all.push(Box::new(a)));
    let writer = all.len();
    all.push(Box::new(log_writer));
    all.push(Box::new(log_reader));
    all.push(Box::new(snapshotter));
    all.push(Box::new(lifecycle));
    all.push(Box::new(durability));
    (all, writer)
}
