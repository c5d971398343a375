//! Links between nodes: made by a handshake of the real identity code, broken by crashes and by cuts that are noticed.
//!
//! A start does nothing but shake hands until it is admitted and has heard every peer that lives (boot.md 1 and 2).
//! Leaves to others: the decision (`identity`), what frames meet on a link (`network`), exchanged disks (`exchange`).
//! Invariant: nothing but handshakes passes between two starts that have not welcomed each other.

use super::world::{What, World};
use crate::env::{Admission, Gatekeeper, Hello, Refusal};
use crate::ids::{NodeId, StoreSeq};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A start gives its peers so long to say what they know of its disk.
const HEARING: Duration = Duration::from_secs(2);
/// Between two beacons.
const BEACON: Duration = Duration::from_secs(1);
/// Handshakes that break off half way, per mille, while things go wrong.
const HALF_WAY: u64 = 60;

/// What is between the nodes.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Pairs that have welcomed each other, the lower node first.
    made: BTreeSet<(NodeId, NodeId)>,
    /// What a running node has heard that another had synced.
    heard: BTreeMap<(NodeId, NodeId), StoreSeq>,
}

impl Links {
    fn cut(&mut self, a: NodeId, b: NodeId) -> bool {
        self.made.remove(&(a.min(b), a.max(b)))
    }

    pub(super) fn has(&self, a: NodeId, b: NodeId) -> bool {
        self.made.contains(&(a.min(b), a.max(b)))
    }

    /// Are any two nodes linked?
    pub(super) fn any(&self) -> bool {
        !self.made.is_empty()
    }

    /// Does `node` know that `of` had synced more than this?
    pub(super) fn knows_better(&self, node: NodeId, of: NodeId, than: StoreSeq) -> bool {
        self.heard.get(&(node, of)).is_some_and(|seq| *seq > than)
    }
}

impl World {
    pub(super) fn peers_of(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|n| *n != id).collect()
    }

    /// A start dials all peers.
    pub(super) fn seek_peers(&mut self, id: NodeId) {
        let boot = self.nodes[&id].boots;
        for peer in self.peers_of(id) {
            let at = self.soon(Duration::from_millis(50));
            self.put(at, What::Meet(id, peer));
        }
        self.put(self.now.after(HEARING), What::Heard(id, boot));
        self.put(self.now.after(BEACON), What::Beacon(id, boot));
    }

    /// Two nodes try to make their link.
    pub(super) fn meet(&mut self, a: NodeId, b: NodeId) {
        let both_up = [a, b].iter().all(|n| self.nodes[n].up.is_some());
        if !both_up || self.links.has(a, b) {
            return;
        }
        if self.is_unreachable(a, b) {
            let again = self.soon(Duration::from_millis(400)).after(Duration::from_millis(100));
            return self.put(again, What::Meet(a, b));
        }
        self.shake(a, b);
        [a, b].into_iter().for_each(|n| self.after(n));
        [a, b].into_iter().for_each(|n| self.on_shaken(n));
    }

    fn is_unreachable(&mut self, a: NodeId, b: NodeId) -> bool {
        let idle = |n: NodeId| self.nodes[&n].paused.max(self.nodes[&n].hung) > self.now;
        let lost = !self.healed && self.exchanged.is_none() && self.rng.chance(self.swarm.loss);
        self.network.is_cut(a, b) || self.network.is_cut(b, a) || idle(a) || idle(b) || lost
    }

    /// Both judge; each learns the other's verdict, unless the connection breaks before.
    fn shake(&mut self, a: NodeId, b: NodeId) {
        let (Some(gate_a), Some(gate_b)) = (self.gate(a), self.gate(b)) else { return };
        let (hello_a, hello_b) = (gate_a.hello(), gate_b.hello());
        let of_a = gate_b.admit(&hello_a);
        if !self.healed && self.exchanged.is_none() && self.rng.chance(HALF_WAY) {
            self.count("handshakes cut short");
            let again = self.soon(Duration::from_millis(300));
            return self.put(again, What::Meet(a, b));
        }
        let of_b = gate_a.admit(&hello_b);
        let verdicts = [(a, &gate_a, &hello_b, of_a), (b, &gate_b, &hello_a, of_b)];
        let mut welcome = true;
        for (who, gate, peer, verdict) in verdicts {
            match verdict {
                Admission::Welcome => gate.on_welcome(peer),
                Admission::Refused(why) => {
                    welcome = false;
                    gate.on_refused(peer, &why);
                    self.on_refusal(who, peer, &why);
                }
            }
        }
        if welcome {
            self.links.heard.insert((a, b), hello_b.synced.max(hello_b.recovered));
            self.links.heard.insert((b, a), hello_a.synced.max(hello_a.recovered));
            self.connect(a, b);
        }
    }

    fn gate(&self, id: NodeId) -> Option<std::sync::Arc<crate::identity::Identity>> {
        self.nodes[&id].up.as_ref().map(|up| up.identity.clone())
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        self.count("handshakes");
        self.links.made.insert((a.min(b), a.max(b)));
        for (from, to) in [(a, b), (b, a)] {
            self.net.set_link(from, to, true);
            let at = self.soon(Duration::from_millis(50));
            self.put(at, What::Link(from, to));
        }
    }

    /// `who` was refused by `by`.
    fn on_refusal(&mut self, who: NodeId, by: &Hello, why: &Refusal) {
        self.count("handshakes refused");
        self.note(|| format!("node {} refuses node {who}: {why}", by.node));
        let store_failed = matches!(why, Refusal::Protocol(_)) && self.nodes[&by.node].media.disk.is_poisoned();
        if store_failed {
            // The refusing node cannot remember anybody: whoever runs it ends it.
            let (at, boot) = (self.soon(Duration::from_millis(200)), self.nodes[&by.node].boots);
            return self.put(at, What::Exit(by.node, boot));
        }
        let dead = [who, by.node].iter().any(|n| self.nodes[n].up.as_ref().is_none_or(|up| !up.power.is_on()));
        if !dead && !self.may_be_refused(who) {
            self.check(Err(format!("node {} refuses node {who}: {why}", by.node)));
        }
    }

    /// The connection of two nodes broke; they dial again.
    pub(super) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        if !self.links.cut(a, b) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.net.set_link(from, to, false);
            let at = self.soon(Duration::from_millis(100));
            self.put(at, What::Link(from, to));
        }
        let again = self.soon(Duration::from_millis(400));
        self.put(again, What::Meet(a, b));
    }

    /// What a node knows about one link is brought up to date.
    pub(super) fn tell_link(&mut self, node: NodeId, peer: NodeId) {
        let up = self.links.has(node, peer);
        self.net.tell_link(node, peer, up);
        self.wake_up(node);
    }

    /// Each second: how far the log is synced, to whoever is linked.
    pub(super) fn beacon(&mut self, id: NodeId, boot: u64) {
        if self.running(id, boot).is_none() {
            return;
        }
        self.put(self.now.after(BEACON), What::Beacon(id, boot));
        let Some(gate) = self.gate(id) else { return };
        let held = self.nodes[&id].paused.max(self.nodes[&id].hung) > self.now;
        if held {
            return;
        }
        for peer in self.peers_of(id) {
            if self.links.has(id, peer)
                && !self.network.is_cut(id, peer)
                && let Some(other) = self.gate(peer)
            {
                other.on_beacon(id, gate.beacon());
                self.links.heard.insert((peer, id), gate.beacon().synced);
                self.after(peer);
                self.on_shaken(peer);
            }
        }
        let kept = gate.write_watermarks();
        if kept.is_err() {
            let at = self.soon(Duration::from_millis(200));
            self.put(at, What::Exit(id, boot));
        }
        self.after(id);
    }

    /// After each word of a peer: may this start serve, or is it refused for good?
    fn on_shaken(&mut self, id: NodeId) {
        let Some(gate) = self.gate(id) else { return };
        if gate.fatal().is_some() {
            return self.on_refused_for_good(id);
        }
        let all = self.peers_of(id).iter().all(|p| self.links.has(id, *p) || self.nodes[p].up.is_none());
        if all {
            self.serve(id);
        }
    }

    /// Whoever has not answered by now is not waited for.
    pub(super) fn heard(&mut self, id: NodeId, boot: u64) {
        if self.running(id, boot).is_some_and(|up| !up.serving) {
            self.serve(id);
            // Founding may take longer.
            self.put(self.now.after(Duration::from_millis(500)), What::Heard(id, boot));
        }
    }

    fn serve(&mut self, id: NodeId) {
        let Some(up) = self.nodes.get_mut(&id).and_then(|n| n.up.as_mut()) else { return };
        let admitted = up.identity.is_admitted() && up.identity.fatal().is_none() && up.power.is_on();
        if up.serving || !admitted {
            return;
        }
        up.serving = true;
        let (me, power, router) = (up.identity.me(), up.power.clone(), up.handle.router().clone());
        if self.is_exchanged(id) {
            return self.on_unseen_exchange(id);
        }
        router.open();
        self.net.listen(me, power, router);
        for peer in self.peers_of(id) {
            for (who, whom) in [(id, peer), (peer, id)] {
                let at = self.soon(Duration::from_millis(50));
                self.put(at, What::Link(who, whom));
            }
        }
        self.serving(id);
    }

    /// Peers notice that a node is gone, each in its own time.
    pub(super) fn lose_links(&mut self, id: NodeId) {
        self.links.heard.retain(|(node, _), _| *node != id);
        for peer in self.peers_of(id) {
            self.links.cut(id, peer);
            self.net.set_link(peer, id, false);
            self.net.set_link(id, peer, false);
            let at = self.soon(Duration::from_millis(50));
            self.put(at, What::Link(peer, id));
        }
    }

    /// A later start of a disk is never shown as an earlier one.
    pub(super) fn check_epoch(&mut self, id: NodeId) {
        let Some(gate) = self.gate(id) else { return };
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        let (me, before) = (gate.me(), node.shown);
        node.shown = Some(me);
        let ok = before.is_none_or(|b| b.incarnation == me.incarnation && b.epoch.counter < me.epoch.counter);
        self.check(if ok { Ok(()) } else { Err(format!("node {id} was {before:?}, shows itself as {me:?}")) });
    }

    /// When nothing holds a node up.
    pub(super) fn is_calm(&self, id: NodeId) -> bool {
        let node = &self.nodes[&id];
        let serving = node.up.as_ref().is_some_and(|up| up.serving && up.power.is_on());
        serving && node.paused.max(node.hung) <= self.now && !node.media.disk.is_poisoned()
    }
}
