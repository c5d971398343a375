//! Exchanged disks: somebody starts a node on an older copy of its disk, or on an empty one. It must be refused before it
//! says anything (boot.md 1); then the operator puts the true disk back.
//!
//! Leaves to others: who refuses (`identity`, `boot`). Invariant: one exchange at a time, while a peer lives that knows
//! better, and nothing else goes wrong until it is over: what no living peer knows is not detected (docs/invariants.md).

use super::node::Media;
use super::swarm::Fault;
use super::world::{What, World};
use crate::env::Gatekeeper;
use crate::ids::NodeId;
use std::time::Duration;

/// A copy is at least so old when it is used: peers have heard of what was synced since.
const AGE: Duration = Duration::from_secs(4);

/// A node on a disk that is not its own.
pub(super) struct Exchange {
    node: NodeId,
    fault: Fault,
    /// Starts of peers that know better.
    knowers: Vec<(NodeId, u64)>,
}

impl World {
    pub(super) fn is_exchanged(&self, id: NodeId) -> bool {
        self.exchanged.as_ref().is_some_and(|e| e.node == id)
    }

    /// The first call copies the disks, a later one starts a node on its copy. False: nobody was started.
    pub(super) fn exchange(&mut self, fault: Fault) -> bool {
        let mut ids: Vec<NodeId> = self.nodes.keys().copied().filter(|id| self.is_calm(*id)).collect();
        if ids.is_empty() {
            return false;
        }
        let from = self.rng.below(ids.len() as u64) as usize;
        ids.rotate_left(from);
        let found = ids.into_iter().find_map(|id| {
            let other = self.other_disk(fault, id)?;
            let knowers = self.who_knows_better(id, &other);
            (!knowers.is_empty()).then_some((id, other, knowers))
        });
        let Some((id, other, knowers)) = found else { return false };
        self.crash(id, Duration::from_millis(100));
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        node.aside = Some(std::mem::replace(&mut node.media, other));
        node.copy = None;
        self.exchanged = Some(Exchange { node: id, fault, knowers });
        true
    }

    /// What this node could be started on instead.
    fn other_disk(&mut self, fault: Fault, id: NodeId) -> Option<Media> {
        if fault == Fault::WipedDisk {
            return Some(Media::default());
        }
        let now = self.now;
        let node = self.nodes.get_mut(&id)?;
        let (at, copy) = node.copy.get_or_insert_with(|| (now, node.media.copy()));
        (now.since(*at) >= AGE).then(|| copy.copy())
    }

    fn who_knows_better(&self, id: NodeId, disk: &Media) -> Vec<(NodeId, u64)> {
        let found = disk.durable_seq();
        let linked = |p: &NodeId| !self.network.is_cut(*p, id) && !self.network.is_cut(id, *p);
        let knows = |p: &NodeId| self.is_calm(*p) && linked(p) && self.links.knows_better(*p, id, found);
        self.peers_of(id).into_iter().filter(knows).map(|p| (p, self.nodes[&p].boots)).collect()
    }

    /// Is it no surprise that this node is refused?
    pub(super) fn may_be_refused(&self, id: NodeId) -> bool {
        // A peer that knew no better has welcomed the copy, and takes the true disk for one now, once.
        self.is_exchanged(id) || self.nodes[&id].was_exchanged
    }

    pub(super) fn on_refused_for_good(&mut self, id: NodeId) {
        if self.is_exchanged(id) {
            self.count_refused();
            self.end_exchange();
        } else if self.nodes[&id].was_exchanged {
            self.count("true disks taken for copies");
            self.crash(id, Duration::from_millis(100));
        }
    }

    fn count_refused(&mut self) {
        if let Some(fault) = self.exchanged.as_ref().map(|e| e.fault) {
            self.count(format!("refused {fault:?}"));
        }
    }

    /// The boot itself found out.
    pub(super) fn on_refused_at_boot(&mut self) {
        self.count_refused();
        self.count("exchanged disks refused at boot");
        self.end_exchange();
    }

    /// It would serve now: wrong, if anybody knows better and can be reached.
    pub(super) fn on_unseen_exchange(&mut self, id: NodeId) {
        let Some(Exchange { fault, knowers, .. }) = &self.exchanged else { return };
        let alive = |(peer, boot): &&(NodeId, u64)| self.nodes[peer].boots == *boot && self.is_calm(*peer);
        let wrong = knowers.iter().find(alive).map(|(peer, _)| {
            let me = self.nodes[&id].up.as_ref().map(|up| up.identity.hello());
            format!("{fault:?}: node {id} serves as {me:?}, node {peer} knew better")
        });
        self.check(wrong.map_or(Ok(()), Err));
        self.count("exchanged disks that nobody saw");
        self.end_exchange();
    }

    /// The process ends, the true disk is put back.
    pub(super) fn end_exchange(&mut self) {
        let Some(Exchange { node: id, .. }) = self.exchanged.take() else { return };
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        if let Some(up) = node.up.take() {
            up.power.cut();
        }
        if let Some(own) = node.aside.take() {
            node.media = own;
        }
        node.was_exchanged = true;
        self.net.forget(id);
        let _said_nothing = self.net.take_sent();
        self.lose_links(id);
        let at = self.soon(Duration::from_millis(300));
        self.put(at, What::Start(id));
    }
}
