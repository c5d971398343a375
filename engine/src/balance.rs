//! Evens leaders out between nodes, by transfers, slowly: at most five a second from a node.
//!
//! Each node counts, in its own status copies, who leads the groups that it is a member of, and hands one of its
//! leaders over when it leads clearly more than a live voter of that group. No node tells another to do anything.
//! Leaves to others: the transfer (raftstore). Invariant: a transfer makes the two nodes' counts more equal, so the
//! leaders settle; none is begun while another one of this node is under way.

use crate::core::Core;
use crate::group::AdminAnswer;
use crate::ticker::Upkeep;
use pontoon_raftstore::ids::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The least difference in leaders that is worth a transfer: with 1 two nodes would swap for ever.
const WORTH: usize = 2;
/// Steps to wait after a start, until leaders are known.
const SETTLE: u32 = 25;
/// Steps to the next look after one that found nothing to do: it goes over all groups.
const REST: u32 = 10;

/// See the file's head.
pub(crate) struct Balance {
    /// Steps before the next look.
    wait: u32,
    /// The group whose leader is being moved, with the steps that this may still take.
    moving: Option<(GroupId, u32)>,
}

/// One group led here.
struct Led {
    group: GroupId,
    /// Nodes that could lead it, with whom there is a link and which are not behind.
    heirs: Vec<NodeId>,
}

impl Balance {
    /// Of a node that starts.
    pub(crate) fn new() -> Balance {
        Balance { wait: SETTLE, moving: None }
    }

    /// One step: perhaps one transfer.
    pub(crate) fn step(&mut self, core: &Core, upkeep: &dyn Upkeep) {
        if self.wait > 0 {
            self.wait -= 1;
            return;
        }
        if let Some((group, left)) = self.moving {
            let still = core.node.cell(group).is_ok_and(|c| c.with_status(|s| s.is_leader()));
            self.moving = (still && left > 0).then(|| (group, left - 1));
            if self.moving.is_some() {
                return;
            }
        }
        let (counts, led) = count(core, upkeep);
        if let Some((group, to)) = choose(core.me, &counts, &led) {
            let asked = core.node.transfer(group, Some(to), Arc::new(AdminAnswer::default()));
            self.moving = asked.is_ok().then_some((group, SETTLE));
        } else {
            self.wait = REST;
        }
    }
}

fn count(core: &Core, upkeep: &dyn Upkeep) -> (BTreeMap<NodeId, usize>, Vec<Led>) {
    let mut counts = BTreeMap::new();
    let mut led = Vec::new();
    for cell in core.node.router().cells() {
        cell.with_status(|s| {
            if let Some(leader) = s.leader {
                *counts.entry(leader.node).or_insert(0) += 1;
            }
            if s.is_leader() && s.transferring.is_none() {
                let fit = s.followers.iter().filter(|f| f.active && !f.learner && s.last.0 <= f.matched.0 + 1024);
                let heirs = fit.filter_map(|f| f.node).filter(|n| upkeep.is_up(*n)).collect();
                led.push(Led { group: s.group, heirs });
            }
        });
    }
    (counts, led)
}

/// The group to hand over and to whom: the heir with the fewest leaders, if that makes things more equal.
fn choose(me: NodeId, counts: &BTreeMap<NodeId, usize>, led: &[Led]) -> Option<(GroupId, NodeId)> {
    let leads = |node: NodeId| counts.get(&node).copied().unwrap_or(0);
    let mine = leads(me);
    let options = led.iter().flat_map(|l| l.heirs.iter().map(|h| (leads(*h), l.group, *h)));
    let (theirs, group, heir) = options.min()?;
    (mine >= theirs + WORTH).then_some((group, heir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_settle_and_stay() {
        let all = [1, 2, 3].map(NodeId);
        let mut leaders: Vec<NodeId> = (0..48).map(|g| if g < 40 { NodeId(1) } else { NodeId(2) }).collect();
        let mut transfers = 0;
        loop {
            let mut moved = false;
            for me in all {
                let mut counts = BTreeMap::new();
                leaders.iter().for_each(|l| *counts.entry(*l).or_insert(0) += 1);
                let own = (0..).zip(&leaders).filter(|(_, l)| **l == me);
                let heirs: Vec<NodeId> = all.into_iter().filter(|n| *n != me).collect();
                let led: Vec<Led> = own.map(|(g, _)| Led { group: GroupId(g), heirs: heirs.clone() }).collect();
                if let Some((group, to)) = choose(me, &counts, &led) {
                    leaders[group.0 as usize] = to;
                    transfers += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
            assert!(transfers < 100, "no end");
        }
        let count = |n| leaders.iter().filter(|l| l.0 == n).count();
        let counts = [count(1), count(2), count(3)];
        assert!(counts.iter().max().zip(counts.iter().min()).is_some_and(|(a, b)| a - b <= 1), "{counts:?}");
    }

    #[test]
    fn nobody_takes_over_from_a_node_without_heirs() {
        let led = [Led { group: GroupId(1), heirs: vec![] }];
        assert_eq!(choose(NodeId(1), &BTreeMap::from([(NodeId(1), 9)]), &led), None);
    }
}
