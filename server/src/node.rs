//! One server: the engine with its key-value groups, the slots, and where the other servers are.
//!
//! Leaves to others: the protocol (`conn`, `cmd`), replication (the engine).
//! Invariant: every slot has its group handle here from the start.

use crate::advert::Advert;
use crate::errors::no_leader;
use crate::resp::Reply;
use crate::shards::Shards;
use pontoon::kv::KvMachine;
use pontoon::{Engine, Group, GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What every connection shares.
pub(crate) struct ServerNode {
    pub(crate) engine: Engine,
    pub(crate) me: NodeId,
    /// Own addresses, as peers and clients are told.
    pub(crate) own: Advert,
    pub(crate) shards: Shards,
    /// By group id - 1.
    groups: Vec<Group<KvMachine>>,
    /// How long a command may take.
    pub(crate) deadline: Duration,
    /// Numbers connections.
    pub(crate) connections: AtomicU64,
    /// Commands answered.
    pub(crate) commands: AtomicU64,
}

impl ServerNode {
    pub(crate) fn new(
        engine: Engine,
        me: NodeId,
        own: Advert,
        shards: Shards,
        groups: Vec<Group<KvMachine>>,
        deadline: Duration,
    ) -> ServerNode {
        assert_eq!(groups.len(), usize::from(shards.count()), "a handle for each group");
        let (connections, commands) = (AtomicU64::new(1), AtomicU64::new(0));
        ServerNode { engine, me, own, shards, groups, deadline, connections, commands }
    }

    pub(crate) fn group_of(&self, slot: u16) -> (GroupId, &Group<KvMachine>) {
        let id = self.shards.group_of(slot);
        (id, &self.groups[id.0 as usize - 1])
    }

    pub(crate) fn group(&self, id: u64) -> Option<&Group<KvMachine>> {
        self.groups.get(usize::try_from(id.checked_sub(1)?).ok()?)
    }

    /// Which node leads each group, as far as known here; in slot order.
    pub(crate) fn leaders(&self) -> Vec<Option<NodeId>> {
        self.groups.iter().map(|g| g.status().leader.map(|hint| hint.node)).collect()
    }

    pub(crate) fn leads(&self, group: &Group<KvMachine>) -> bool {
        group.status().leader.is_some_and(|hint| hint.node == self.me)
    }

    /// Where clients reach each node: this one, and the peers heard of so far.
    pub(crate) fn adverts(&self) -> BTreeMap<NodeId, Advert> {
        let peers = self.engine.peers().into_iter().filter_map(|p| Some((p.node, Advert::decode(&p.advert)?)));
        peers.chain([(self.me, self.own.clone())]).collect()
    }

    /// `MOVED` to a node; `CLUSTERDOWN` if its address was never heard of.
    pub(crate) fn moved(&self, to: NodeId, slot: u16) -> Reply {
        match self.adverts().get(&to) {
            Some(advert) if to != self.me => Reply::error(format!("MOVED {slot} {}", advert.redis)),
            _ => no_leader(),
        }
    }

    /// What a client is told that should ask the leader.
    pub(crate) fn not_leader(&self, group: &Group<KvMachine>, slot: u16) -> Reply {
        group.status().leader.map_or_else(no_leader, |hint| self.moved(hint.node, slot))
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}
