//! Members of groups: who they are at the end, by the log, and what must be left of whom.
//!
//! Leaves to others: the log's configurations (`configs`). Invariant: the end is judged by the membership entries that
//! are committed, and every replica's own view must be the same.

use super::configs::Config;
use super::groups::has_nothing_of;
use super::node::SimNode;
use super::world::World;
use crate::group_status::GroupStatus;
use crate::ids::{GroupId, Index, NodeId, ReplicaId};
use crate::testing::Map;

impl World {
    /// What the replicas know to be committed is read by the facts, too.
    pub(super) fn read_to_the_end(&mut self) -> Result<(), String> {
        for group in self.living() {
            for node in self.nodes.values() {
                let applied = node.status(group).map(|s| s.applied).unwrap_or_default();
                self.facts.read_configs(node.id, group, applied)?;
            }
        }
        Ok(())
    }

    /// Entries that members have not applied and a peer has, in all.
    pub(super) fn lag(&self) -> u64 {
        let of_group = |group: GroupId| {
            let members = self.facts.config(group).map(Config::members).unwrap_or_default();
            let node = |replica| self.nodes.get(&self.facts.node_of(group, replica)?);
            let applied = members.into_iter().filter_map(node).filter_map(|n| Some(n.status(group)?.applied.0));
            let applied: Vec<u64> = applied.collect();
            let most = applied.iter().copied().max().unwrap_or_default();
            applied.into_iter().map(|at| most - at).sum::<u64>()
        };
        self.living().into_iter().map(of_group).sum()
    }

    /// At the end: the members are those that the log says, equal and at work; of everybody else nothing is left.
    pub(super) fn check_members(&self, group: GroupId) -> Result<(), String> {
        let config = self.facts.config(group).ok_or_else(|| format!("group {group} was never born"))?;
        if config.is_joint() {
            return Err(format!("group {group} is still joint at the end: {config:?}"));
        }
        let mut first: Option<(Index, Map)> = None;
        let mut here = Vec::new();
        for replica in config.members() {
            let node = self.facts.node_of(group, replica).unwrap_or_default();
            let (status, data) = self.check_member(group, config, replica, node)?;
            let at = status.applied;
            let own = (at, data);
            if first.get_or_insert_with(|| own.clone()) != &own {
                let all = self.nodes.values().filter_map(|n| n.up.as_ref()?.handle.status(group).ok());
                return Err(format!(
                    "group {group}: node {node} stands at {at} with other contents than its peers, or elsewhere: {:?}; {:?}",
                    first.map(|f| f.0),
                    all.flat_map(|s| s.followers).collect::<Vec<_>>()
                ));
            }
            here.push(node);
        }
        let others = self.nodes.values().filter(|n| !here.contains(&n.id));
        others.filter(|n| !is_forsaken(n, group, &here)).try_for_each(|n| has_nothing_of(n, group))
    }

    fn check_member(
        &self,
        group: GroupId,
        config: &Config,
        replica: ReplicaId,
        node: NodeId,
    ) -> Result<(GroupStatus, Map), String> {
        let up = self.nodes.get(&node).and_then(|n| n.serving());
        let up = up.ok_or_else(|| format!("node {node} is down at the end"))?;
        let status = up.handle.status(group).map_err(|e| format!("node {node}: {e}"))?;
        if let Some(why) = &status.quarantined {
            return Err(format!("node {node}, group {group}: quarantined: {why}"));
        }
        if status.replica != replica || !config.is(&status.conf_state) || status.reconfigure.is_some() {
            return Err(format!(
                "node {node}: replica {replica} is to be of {config:?} at the end, and shows {status:?}"
            ));
        }
        let machine = &self.nodes[&node].media.machines[self.kind_of[&group]];
        let data = machine.contents(group, replica, status.generation).map(|c| c.0).unwrap_or_default();
        Ok((status, data))
    }
}

/// Did a removed replica sleep there while everybody it knows was replaced? Nobody is left to tell it (docs/membership.md).
fn is_forsaken(node: &SimNode, group: GroupId, members: &[NodeId]) -> bool {
    node.status(group)
        .is_some_and(|s| s.members.iter().all(|(_, known, _)| *known == node.id || !members.contains(known)))
}
