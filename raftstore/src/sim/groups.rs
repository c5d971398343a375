//! Groups that come and go while things go wrong: creations, destructions, and the proof that nothing destroyed comes back.
//!
//! Leaves to others: what a creation or a destruction does (`lifecycle`), when one is ordered (`faults`).
//! Invariant: each node gets the order in a moment of its own, and again after every start; the end of a group is seen to on
//! all nodes to the end, for a leader that lives may give birth to a replica where one was destroyed.

use super::node::SimNode;
use super::world::{What, World};
use crate::error::{GroupError, LifecycleError};
use crate::group_spec::GroupSpec;
use crate::ids::{GroupId, NodeId};
use crate::testing::{Cell, LifecycleCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most groups that are created after the beginning.
const MOST_NEW: u64 = 8;
/// Between two looks at a node after a group that ended.
const LOOK: Duration = Duration::from_secs(4);
/// The first ones live to the end.
const SPARED: GroupId = GroupId(2);

/// What a node was told about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Create,
    Destroy,
    /// To create what it has destroyed: must be refused.
    Revive,
}

/// An errand that was not answered yet.
pub(super) struct Order {
    group: GroupId,
    errand: Errand,
    slot: Arc<LifecycleCell>,
}

impl World {
    /// Groups that clients use.
    pub(super) fn living(&self) -> Vec<GroupId> {
        self.specs.iter().map(|s| s.id).filter(|g| !self.ended.contains(g)).collect()
    }

    /// One of them.
    pub(super) fn some_group(&mut self) -> GroupId {
        let living = self.living();
        *self.rng.pick(&living)
    }

    /// A new group is ordered. False: there are enough.
    pub(super) fn create_group(&mut self) -> bool {
        let born = self.specs.len() as u64;
        if born >= self.swarm.groups + MOST_NEW {
            return false;
        }
        let id = GroupId(born + 1);
        self.draw_group(id);
        self.clients.add_group(id);
        let founders = self.founders_of(id);
        self.spread(id, founders, Duration::from_secs(3));
        true
    }

    /// The end of a group is ordered. False: too few are left.
    pub(super) fn destroy_group(&mut self) -> bool {
        let candidates = self.destroyable();
        if candidates.is_empty() {
            return false;
        }
        let id = *self.rng.pick(&candidates);
        self.ended.insert(id);
        self.facts.end_group(id);
        self.clients.drop_group(id);
        let all = self.nodes.keys().copied().collect();
        self.spread(id, all, Duration::from_secs(6));
        true
    }

    /// Groups that may end.
    pub(super) fn destroyable(&self) -> Vec<GroupId> {
        self.living().into_iter().filter(|g| *g > SPARED).collect()
    }

    fn spread(&mut self, group: GroupId, nodes: BTreeSet<NodeId>, within: Duration) {
        for node in nodes {
            let at = self.soon(within);
            self.put(at, What::Tell(node, group));
        }
    }

    fn founders_of(&self, group: GroupId) -> BTreeSet<NodeId> {
        self.specs.iter().find(|s| s.id == group).map(|s| s.voters.clone()).unwrap_or_default()
    }

    /// The node is told about all groups that are its business.
    pub(super) fn tell_all(&mut self, node: NodeId) {
        let concerns = |s: &&GroupSpec| s.voters.contains(&node) || self.ended.contains(&s.id);
        let own: Vec<GroupId> = self.specs.iter().filter(concerns).map(|s| s.id).collect();
        own.into_iter().for_each(|group| self.tell(node, group));
    }

    /// A moment that was set for telling a node.
    pub(super) fn on_told(&mut self, node: NodeId, group: GroupId) {
        self.tell(node, group);
        if self.ended.contains(&group) {
            let again = self.soon(LOOK).after(LOOK);
            self.put(again, What::Tell(node, group));
        }
    }

    /// The node is told what is to become of its replica of a group.
    fn tell(&mut self, id: NodeId, group: GroupId) {
        let Some(spec) = self.specs.iter().find(|s| s.id == group) else { return };
        let ended = self.ended.contains(&group);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(up) = node.up.as_mut().filter(|up| up.serving) else { return };
        let stands = up.handle.status(group).is_ok();
        let errand = match (ended, node.buried.contains(&group)) {
            (false, _) => Errand::Create,
            (true, true) if !stands && spec.voters.contains(&id) => Errand::Revive,
            (true, true) if !stands => return,
            (true, _) => Errand::Destroy,
        };
        if up.orders.iter().any(|o| o.group == group && o.errand == errand) {
            return;
        }
        let slot: Arc<LifecycleCell> = Cell::new(up.power.clone());
        match errand {
            Errand::Create | Errand::Revive => up.handle.create(spec.clone(), slot.clone()),
            Errand::Destroy => up.handle.destroy(group, slot.clone()),
        }
        up.orders.push(Order { group, errand, slot });
        self.wake_up(id);
    }

    /// Looks at the answers that a node may have given.
    pub(super) fn take_answers(&mut self, id: NodeId) {
        let Some(up) = self.nodes.get_mut(&id).and_then(|n| n.up.as_mut()).filter(|up| !up.orders.is_empty()) else {
            return;
        };
        let mut answers = Vec::new();
        up.orders.retain(|order| match order.slot.take() {
            Some(answer) => {
                answers.push((order.group, order.errand, answer));
                false
            }
            None => true,
        });
        answers.into_iter().for_each(|(group, errand, answer)| self.on_answer(id, group, errand, answer));
    }

    fn on_answer(&mut self, id: NodeId, group: GroupId, errand: Errand, answer: Result<(), LifecycleError>) {
        match (errand, answer) {
            (Errand::Create, Ok(())) => self.count("replicas created, or there already"),
            (Errand::Destroy, Ok(())) => self.on_destroyed(id, group),
            (Errand::Destroy, Err(LifecycleError::Group(GroupError::NotFound(_)))) => {
                self.count("destroyed before they were created");
            }
            (Errand::Revive, Ok(())) => {
                let first = self.specs.iter().find(|s| s.id == group).and_then(|s| s.replica_of(id));
                let here = self.nodes[&id].media.disk.live(|i| i.groups.get(&group).map(|g| g.replica));
                if first.is_some() && here == first {
                    self.check(Err(format!("node {id} creates group {group} again, which it has destroyed")));
                }
                self.count("born by a leader where one was destroyed");
            }
            (Errand::Revive, Err(LifecycleError::Group(GroupError::Destroyed(_)))) => {
                self.count("creations refused by a tombstone");
            }
            // A node that stops or is poisoned is told again after its next start.
            (_, Err(_)) => self.count("orders not followed"),
        }
    }

    /// The node says that its replica is gone: then the tombstone is durable.
    fn on_destroyed(&mut self, id: NodeId, group: GroupId) {
        self.count("replicas destroyed");
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        node.buried.insert(group);
        let stands = node.media.disk.durable(|i| i.tombstones.contains_key(&group) && !i.groups.contains_key(&group));
        self.check(if stands { Ok(()) } else { Err(format!("node {id}: group {group} is gone without a tombstone")) });
    }

    /// After a start: a machine shows nothing that the log store does not vouch for (boot.md 6).
    pub(super) fn check_garbage(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let living = node.media.disk.live(|image| {
            let names = |(group, g): (&GroupId, &crate::mem::GroupImage)| {
                let install = g.intent.as_ref().map(|i| i.generation);
                [Some(g.generation), install].into_iter().flatten().map(|n| (*group, g.replica, n)).collect::<Vec<_>>()
            };
            image.groups.iter().flat_map(names).collect::<BTreeSet<_>>()
        });
        let found = node.media.machines.values().flat_map(|m| m.names());
        let garbage: Vec<_> = found.filter(|name| !living.contains(name)).collect();
        if !garbage.is_empty() {
            self.check(Err(format!("node {id} starts with contents of nobody: {garbage:?}")));
        }
    }

    /// At the end: nothing of a group that ended is left, but its tombstones.
    pub(super) fn check_ended(&self) -> Result<(), String> {
        for group in &self.ended {
            self.nodes.values().try_for_each(|node| has_nothing_of(node, *group))?;
        }
        Ok(())
    }
}

/// Nothing of a group is on a node, but a tombstone.
pub(super) fn has_nothing_of(node: &SimNode, group: GroupId) -> Result<(), String> {
    let up = node.up.as_ref().ok_or_else(|| format!("node {} is down at the end", node.id))?;
    if let Ok(status) = up.handle.status(group) {
        return Err(format!("group {group} is to be gone from node {}, which shows {status:?}", node.id));
    }
    if node.media.disk.durable(|i| i.groups.contains_key(&group)) {
        return Err(format!("group {group} is to be gone from node {}, which still has its log", node.id));
    }
    if node.media.machines.values().flat_map(|m| m.names()).any(|name| name.0 == group) {
        return Err(format!("group {group} is to be gone from node {}, which still shows its contents", node.id));
    }
    Ok(())
}
