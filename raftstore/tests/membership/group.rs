//! A group whose members change: asking, waiting, and what must hold afterwards.
//!
//! Leaves to others: the nodes (`cluster`). Invariant: time passes by ticks; nothing waits for a clock.

use crate::cluster::{Cluster, GROUP};
use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::error::{AdminError, GroupError};
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::NodeId;
use pontoon_raftstore::proposal::AdminDone;
use pontoon_raftstore::reconfigure::Target;
use pontoon_raftstore::testing::{AdminCell, Cell, KvOp, KvSlot};
use std::collections::BTreeSet;
use std::sync::Arc;

pub type Answer = Result<AdminDone, AdminError>;

pub fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub fn target(voters: &[u64], learners: &[u64]) -> Target {
    Target { voters: nodes(voters), learners: nodes(learners), if_conf: None, promote_lag: 0 }
}

/// `n` nodes; the group lives on these.
pub fn cluster_with(n: u64, voters: &[u64], config: Config) -> Cluster {
    let mut c = Cluster::new(n, config);
    c.create_on(GROUP, nodes(voters));
    c.await_leader(GROUP);
    c.ticks(3);
    c
}

pub fn cluster(n: u64, voters: &[u64]) -> Cluster {
    cluster_with(n, voters, Config::default())
}

pub fn status(c: &Cluster, node: u64) -> GroupStatus {
    c.nodes[&NodeId(node)].handle.status(GROUP).unwrap()
}

pub fn lead_at(c: &mut Cluster, node: u64) {
    let leader = c.await_leader(GROUP);
    if leader != NodeId(node) {
        let _done = c.transfer(leader, NodeId(node));
        c.ticks(3);
    }
    assert_eq!(c.await_leader(GROUP), NodeId(node));
}

pub fn ask(c: &Cluster, at: NodeId, to: Target) -> Arc<AdminCell> {
    let cell: Arc<AdminCell> = Cell::new(c.nodes[&at].power.clone());
    c.nodes[&at].handle.reconfigure(GROUP, to, cell.clone()).unwrap();
    cell
}

pub fn ask_leader(c: &mut Cluster, to: Target) -> Arc<AdminCell> {
    let leader = c.await_leader(GROUP);
    ask(c, leader, to)
}

pub fn abort(c: &Cluster, at: NodeId) -> Arc<AdminCell> {
    let cell: Arc<AdminCell> = Cell::new(c.nodes[&at].power.clone());
    c.nodes[&at].handle.abort_reconfigure(GROUP, cell.clone()).unwrap();
    cell
}

/// Waits for an answer.
pub fn answer(c: &mut Cluster, cell: &AdminCell) -> Answer {
    for _ in 0..400 {
        if let Some(answer) = cell.take() {
            return answer;
        }
        c.ticks(1);
    }
    panic!("no answer: {:#?}", c.nodes.values().map(|n| n.handle.status(GROUP)).collect::<Vec<_>>());
}

/// Asks whoever leads until the members are as wished: what an operator does who lost his connection.
pub fn insist(c: &mut Cluster, to: &Target) {
    for _ in 0..20 {
        let cell = ask_leader(c, to.clone());
        if let Ok(AdminDone::Reconfigured(_)) = answer(c, &cell) {
            return;
        }
        c.ticks(5);
    }
    panic!("not reached: {:#?}", c.nodes.values().map(|n| n.handle.status(GROUP)).collect::<Vec<_>>());
}

pub fn change(c: &mut Cluster, voters: &[u64], learners: &[u64]) {
    let cell = ask_leader(c, target(voters, learners));
    let answer = answer(c, &cell);
    assert!(matches!(answer, Ok(AdminDone::Reconfigured(_))), "{answer:?}");
    c.ticks(30);
    expect_members(c, voters, learners);
}

/// Voters and learners by node, as the leader has them.
pub fn members(c: &mut Cluster) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let leader = c.await_leader(GROUP);
    let s = status(c, leader.0);
    assert!(s.conf_state.voters_outgoing.is_empty(), "still joint: {s:?}");
    let on = |replicas: &[pontoon_raftstore::ids::ReplicaId]| {
        s.members.iter().filter(|m| replicas.contains(&m.0)).map(|m| m.1).collect::<BTreeSet<_>>()
    };
    (on(&s.conf_state.voters), on(&s.conf_state.learners))
}

/// The members are these, with equal contents; nobody else has a replica, but nodes that are cut off.
pub fn expect_members(c: &mut Cluster, voters: &[u64], learners: &[u64]) {
    assert_eq!(members(c), (nodes(voters), nodes(learners)));
    c.put("probe", "served").unwrap();
    c.ticks(5);
    let mut contents = Vec::new();
    for node in c.nodes.values().filter(|n| !c.cut_off.contains(&n.id)) {
        let member = voters.contains(&node.id.0) || learners.contains(&node.id.0);
        match node.handle.status(GROUP) {
            Ok(s) if member => {
                assert_eq!(s.reconfigure, None, "node {}", node.id);
                contents.push(node.machines.contents(GROUP, s.replica, s.generation).map(|m| m.0).unwrap_or_default());
            }
            Err(GroupError::NotFound(_) | GroupError::Destroyed(_)) if !member => {}
            other => panic!("node {}, member: {member}: {other:?}", node.id),
        }
    }
    assert!(contents.windows(2).all(|w| w[0] == w[1]), "contents differ");
    assert!(contents[0].contains_key(&b"probe"[..]));
}

/// A client that writes numbered keys at whoever leads and remembers what was acknowledged.
#[derive(Default)]
pub struct Load {
    next: u64,
    waiting: Vec<(u64, Arc<KvSlot>)>,
    pub acked: Vec<u64>,
}

impl Load {
    pub fn write(&mut self, c: &Cluster) {
        let Some(leader) = c.leader(GROUP) else { return };
        for _ in 0..4 {
            self.next += 1;
            let pair = (Bytes::from(self.next.to_string()), Bytes::from(vec![b'x'; 100]));
            if let Ok(slot) = c.propose(leader, GROUP, &KvOp::Put(vec![pair])) {
                self.waiting.push((self.next, slot));
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        let acked = &mut self.acked;
        self.waiting.retain(|(n, slot)| match slot.take() {
            Some(answer) => {
                acked.extend(answer.is_ok().then_some(*n));
                false
            }
            None => true,
        });
    }

    /// Everything acknowledged is there, on every member.
    pub fn expect_all(&mut self, c: &mut Cluster) {
        c.ticks(10);
        self.collect();
        assert!(self.acked.len() > 20, "only {} writes were acknowledged", self.acked.len());
        let leader = c.await_leader(GROUP);
        for (_, node, _) in status(c, leader.0).members {
            let s = status(c, node.0);
            let map = c.nodes[&node].machines.contents(GROUP, s.replica, s.generation).unwrap().0;
            for n in &self.acked {
                assert!(map.contains_key(n.to_string().as_bytes()), "write {n} is lost on node {node}");
            }
        }
    }
}
