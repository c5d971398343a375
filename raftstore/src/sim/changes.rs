//! Changes of members: somebody asks for others again and again, gives changes up, and looks at what he is told.
//!
//! Leaves to others: carrying a change out (production), what the log says of it (`configs`), the end (`members`).
//! Invariant: whoever is told that the members are as he wished finds it so in the committed log; every caller hears
//! something, unless the node that he asked dies.

use super::clients::nobody;
use super::node::SimNode;
use super::swarm::Fault;
use super::world::{What, World};
use crate::error::AdminError;
use crate::ids::{GroupId, Index, NodeId};
use crate::proposal::AdminDone;
use crate::reconfigure::Target;
use crate::testing::{AdminCell, Cell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most changes meet the first few groups, so that they meet one another.
const FEW: usize = 4;

type NodeSet = BTreeSet<NodeId>;

/// Somebody who waits for an answer.
pub(super) struct Asked {
    group: GroupId,
    node: NodeId,
    /// Start of the node.
    boot: u64,
    /// `None`: to give up the change under way.
    target: Option<Target>,
    slot: Arc<AdminCell>,
}

impl World {
    /// It is time for another change; the next one follows.
    pub(super) fn on_change_due(&mut self) {
        if !self.healed {
            let next = self.soon(Duration::from_secs(3)).after(Duration::from_millis(300));
            self.put(next, What::Change);
            self.strike(Fault::Reconfigure);
        }
    }

    /// Long after healing: who still catches up, with windows of one entry say, is not waited for. What is past that ends by itself.
    pub(super) fn give_changes_up(&mut self) {
        for group in self.living() {
            let leads = |n: &&SimNode| n.status(group).is_some_and(|s| s.is_leader() && s.reconfigure.is_some());
            let leader = self.nodes.values().find(leads).map(|n| n.id);
            let Some((id, up)) = leader.and_then(|id| Some((id, self.nodes[&id].serving()?))) else { continue };
            let _refused_is_fine = up.handle.abort_reconfigure(group, nobody(&up.power));
            self.count("changes given up long after healing");
            self.wake_up(id);
        }
    }

    /// Other members are asked for, in up to three groups. False: nobody took it.
    pub(super) fn change_members(&mut self) -> bool {
        let mut taken = false;
        for _ in 0..=self.rng.below(3) {
            let living = self.living();
            let among = if self.rng.chance(700) { living.len().min(FEW) } else { living.len() };
            let group = living[self.rng.below(among as u64) as usize];
            taken |= self.ask_for_members(group);
        }
        taken
    }

    fn ask_for_members(&mut self, group: GroupId) -> bool {
        let Some(node) = self.whom_to_ask(group) else { return false };
        let target = (!self.rng.chance(120)).then(|| self.draw_target(group, node));
        let boot = self.nodes[&node].boots;
        let Some(up) = self.nodes[&node].serving() else { return false };
        let slot: Arc<AdminCell> = Cell::new(up.power.clone());
        let taken = match &target {
            Some(target) => up.handle.reconfigure(group, target.clone(), slot.clone()),
            None => up.handle.abort_reconfigure(group, slot.clone()),
        };
        self.story.note(self.now, || format!("node {node} is asked for {target:?} of group {group}: {taken:?}"));
        if taken.is_ok() {
            self.asked.push(Asked { group, node, boot, target, slot });
        }
        self.wake_up(node);
        taken.is_ok()
    }

    /// Mostly who leads.
    fn whom_to_ask(&mut self, group: GroupId) -> Option<NodeId> {
        let serving = self.nodes.values().filter(|n| n.serving().is_some());
        let leads = |n: &&SimNode| n.status(group).is_some_and(|s| s.is_leader());
        let all: Vec<NodeId> = serving.clone().map(|n| n.id).collect();
        let leaders: Vec<NodeId> = serving.filter(leads).map(|n| n.id).collect();
        let among = if self.rng.chance(100) { all } else { leaders };
        (!among.is_empty()).then(|| *self.rng.pick(&among))
    }

    fn draw_target(&mut self, group: GroupId, asked: NodeId) -> Target {
        let (mut voters, mut learners) = self.facts.nodes_of(group);
        let all: NodeSet = self.nodes.keys().copied().collect();
        let others: NodeSet = all.difference(&voters).copied().collect();
        match self.rng.below(8) {
            0 => {
                voters = all.iter().copied().filter(|_| self.rng.chance(500)).collect();
                learners = all.difference(&voters).copied().filter(|_| self.rng.chance(250)).collect();
            }
            // One for another.
            1 => {
                self.move_one(&mut voters, &mut NodeSet::new());
                self.move_one(&mut others.clone(), &mut voters);
            }
            2 => self.move_one(&mut others.clone(), &mut voters),
            3 => self.move_one(&mut voters, &mut NodeSet::new()),
            // The leader goes, or whoever was asked.
            4 => drop(voters.take(&asked)),
            5 => self.move_one(&mut others.clone(), &mut learners),
            6 => self.move_one(&mut voters, &mut learners),
            _ => {
                voters.append(&mut learners);
            }
        }
        if voters.is_empty() {
            voters.insert(asked);
        }
        learners.retain(|node| !voters.contains(node));
        let since = self.facts.config(group).map(|c| c.since()).unwrap_or_default();
        let if_conf = *self.rng.pick(&[None, None, None, Some(since), Some(Index(1))]);
        Target { voters, learners, if_conf, promote_lag: *self.rng.pick(&[0, 0, 4, 64]) }
    }

    fn move_one(&mut self, from: &mut NodeSet, to: &mut NodeSet) {
        let list: Vec<NodeId> = from.iter().copied().collect();
        if !list.is_empty() {
            let node = *self.rng.pick(&list);
            from.remove(&node);
            to.insert(node);
        }
    }

    /// Looks at the answers that a node may have given.
    pub(super) fn take_words(&mut self, id: NodeId) {
        let boot = self.nodes[&id].boots;
        let mut told = Vec::new();
        self.asked.retain(|a| {
            let answer = if (a.node, a.boot) == (id, boot) { a.slot.take() } else { None };
            let waits = answer.is_none() && (a.node != id || a.boot == boot);
            told.extend(answer.map(|answer| (a.group, a.target.clone(), answer)));
            waits
        });
        for (group, target, answer) in told {
            self.story.note(self.now, || format!("node {id} answers about group {group}: {answer:?}"));
            self.on_word(group, target.as_ref(), &answer);
        }
    }

    fn on_word(&mut self, group: GroupId, target: Option<&Target>, answer: &Result<AdminDone, AdminError>) {
        self.count(match answer {
            Ok(AdminDone::Reconfigured(_)) => "callers told: reconfigured",
            Ok(_) => "callers told: given up",
            Err(AdminError::NotLeader { .. }) => "callers told: not leader",
            Err(AdminError::ReconfigureInProgress { .. }) => "callers told: another change is under way",
            Err(AdminError::ConfChanged { .. }) => "callers told: the configuration is another",
            Err(AdminError::NoProgress(_)) => "callers told: no progress",
            Err(AdminError::Aborted) => "callers told: somebody gave it up",
            Err(AdminError::PastAbort | AdminError::NoReconfigure) => "callers told: nothing to give up",
            Err(_) => "callers told: something else",
        });
        if let (Some(target), Ok(AdminDone::Reconfigured(at))) = (target, answer)
            && !self.facts.had_members(group, *at, target)
        {
            self.check(Err(format!("group {group}: reconfigured at {at}, is told, but there were not {target:?}")));
        }
    }

    /// At the end: nobody waits any more whose node lives.
    pub(super) fn check_callers(&self) -> Result<(), String> {
        let waits = |a: &&Asked| self.nodes[&a.node].boots == a.boot && self.nodes[&a.node].up.is_some();
        match self.asked.iter().find(waits) {
            Some(a) => Err(format!("group {}: node {} never answers about {:?}", a.group, a.node, a.target)),
            None => Ok(()),
        }
    }
}
