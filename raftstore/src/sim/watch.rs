//! What is looked at after every step on a node, and handed to the checks.
//!
//! Leaves to others: the checks (`facts`). Invariant: looking takes what the twins noted, it never changes a node.

use super::world::World;
use crate::budget::Pressure;
use crate::env::GroupOp;
use crate::events::Event;
use crate::ids::{GroupId, Index, NodeId};

impl World {
    /// A restarted replica's commit is at least the one known when its last recovered entry was appended.
    pub(super) fn check_recovered(&mut self, id: NodeId) {
        if self.is_exchanged(id) {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        let Some(up) = node.up.as_ref().filter(|_| !node.least_commits.is_empty()) else { return };
        let mut behind = None;
        node.least_commits.retain(|(group, least)| match up.handle.status(*group) {
            Ok(status) if status.last > Index::NONE => {
                if status.commit < *least {
                    behind =
                        Some(format!("group {group} recovered commit {}, {least} was known before", status.commit));
                }
                false
            }
            Ok(_) => true,
            Err(_) => false,
        });
        self.check(behind.map_or(Ok(()), |why| Err(format!("node {id}: {why}"))));
    }

    /// A replica stands still only because this world broke its machine. Late turns are counted.
    pub(super) fn check_events(&mut self, id: NodeId) {
        let Some(up) = &self.nodes[&id].up else { return };
        let (mut wrong, mut late) = (None, Vec::new());
        while let Some(event) = up.events.try_next() {
            self.story.note(self.now, || format!("node {id}: {event:?}"));
            match event {
                Event::Quarantined { group, why } if !why.contains("injected") && up.power.is_on() => {
                    wrong = Some(format!("node {id}, group {group} is quarantined: {why}"));
                }
                Event::LateTurn { cause, .. } => late.push(format!("late turns {}", cause.name())),
                _ => {}
            }
        }
        late.into_iter().for_each(|l| self.count(l));
        self.check(wrong.map_or(Ok(()), Err));
    }

    /// How full the node is.
    pub(super) fn note_load(&mut self, id: NodeId) {
        let Some(up) = &self.nodes[&id].up else { return };
        let budget = up.handle.router().budget();
        let full = budget.used() > budget.limit();
        let moments = [
            ("moments: much is on its way", budget.on_its_way() > budget.limit() / 16),
            ("moments: the budget is tight", budget.pressure() >= Pressure::Tight),
            ("moments: the budget is short", budget.pressure() >= Pressure::Short),
            ("moments: the budget is full", budget.pressure() >= Pressure::Full),
            ("moments: above the budget", full),
        ];
        moments.into_iter().filter(|m| m.1).for_each(|m| self.count(m.0));
    }

    pub(super) fn note_durable(&mut self, id: NodeId) {
        for batch in self.nodes[&id].media.disk.take_journal() {
            self.story.on_durable(self.now, id, &batch);
            let checked = self.facts.on_durable(&self.nodes, id, &batch);
            self.check(checked);
        }
    }

    pub(super) fn note_applied(&mut self, id: NodeId) {
        for machine in self.nodes[&id].media.machines.values() {
            for applied in machine.take_applied() {
                self.story.on_applied(self.now, id, &applied);
                if let Err(why) = self.facts.on_applied(&self.nodes, id, &applied) {
                    self.broken.get_or_insert(why);
                }
            }
        }
    }

    pub(super) fn note_handed(&mut self, id: NodeId) {
        let Some(up) = self.nodes.get_mut(&id).and_then(|n| n.up.as_mut()) else { return };
        let came = up.tap.pass();
        let node = &self.nodes[&id];
        let Some(up) = &node.up else { return };
        let new = up.tap.in_flight.iter().skip(up.tap.in_flight.len().saturating_sub(came));
        for batch in new {
            // What waited behind an install was appended earlier, when less was known.
            let installs = |g: &GroupId| batch.iter().any(|(i, op)| i == g && matches!(op, GroupOp::Install { .. }));
            for (group, op) in batch.iter().filter(|(g, _)| !installs(g)) {
                self.facts.on_handed(node, *group, op);
            }
        }
    }
}
