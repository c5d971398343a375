//! One server: the engine with its key-value groups, the slots, and where the other servers are.
//!
//! Leaves to others: the protocol (`conn`, `cmd`), replication (the engine), what other nodes say of groups that have
//! no replica here (`routes`).
//! Invariant: a slot's group is fixed; whether it has a replica here changes while the node runs.

use crate::advert::Advert;
use crate::errors::no_leader;
use crate::resp::Reply;
use crate::routes::{Route, Routes};
use crate::shards::Shards;
use pontoon::kv::KvMachine;
use pontoon::{Engine, Group, GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What every connection shares.
pub(crate) struct ServerNode {
    pub(crate) engine: Engine,
    pub(crate) me: NodeId,
    /// Own addresses, as peers and clients are told.
    pub(crate) own: Advert,
    pub(crate) shards: Shards,
    /// By group id - 1; set once a replica of it was here. A handle of a group that has left says so itself.
    groups: Vec<OnceLock<Group<KvMachine>>>,
    /// What other nodes say.
    pub(crate) routes: Routes,
    /// How long a command may take.
    pub(crate) deadline: Duration,
    /// Numbers connections.
    pub(crate) connections: AtomicU64,
    /// Commands answered.
    pub(crate) commands: AtomicU64,
}

impl ServerNode {
    pub(crate) fn new(engine: Engine, me: NodeId, own: Advert, shards: Shards, deadline: Duration) -> ServerNode {
        let groups = (0..shards.count()).map(|_| OnceLock::new()).collect();
        let (connections, commands) = (AtomicU64::new(1), AtomicU64::new(0));
        let routes = Routes::new(shards.count());
        ServerNode { engine, me, own, shards, groups, routes, deadline, connections, commands }
    }

    pub(crate) fn group_of(&self, slot: u16) -> GroupId {
        self.shards.group_of(slot)
    }

    /// A handle on a group, if a replica of it is or was here.
    pub(crate) fn group(&self, id: u64) -> Option<&Group<KvMachine>> {
        let place = self.groups.get(usize::try_from(id.checked_sub(1)?).ok()?)?;
        match place.get() {
            Some(group) => Some(group),
            None => {
                let group = self.engine.group(GroupId(id)).ok()?;
                Some(place.get_or_init(|| group))
            }
        }
    }

    /// Who leads and holds a group: as the replica here knows, else as other nodes say.
    pub(crate) fn route(&self, id: GroupId) -> Option<Route> {
        let here = self.engine.status(id).ok().and_then(|s| {
            let members = s.members.iter().map(|m| m.1).collect();
            s.leader.map(|l| Route { term: l.term.0, leader: l.node, members })
        });
        here.or_else(|| self.routes.heard(id))
    }

    /// Who leads and holds each group, in slot order.
    pub(crate) fn all_routes(&self) -> Vec<Option<Route>> {
        (1..=u64::from(self.shards.count())).map(|id| self.route(GroupId(id))).collect()
    }

    pub(crate) fn leads(&self, group: &Group<KvMachine>) -> bool {
        group.status().leader.is_some_and(|hint| hint.node == self.me)
    }

    /// Where clients reach each node: this one, and the peers heard of so far.
    pub(crate) fn adverts(&self) -> BTreeMap<NodeId, Advert> {
        let peers = self.engine.peers().into_iter().filter_map(|p| Some((p.node, Advert::decode(&p.advert)?)));
        peers.chain([(self.me, self.own.clone())]).collect()
    }

    /// Of the adverts, those of nodes that hold a group, and this node's own.
    pub(crate) fn serving(&self, routes: &[Option<Route>]) -> BTreeMap<NodeId, Advert> {
        let holders: BTreeSet<NodeId> = routes.iter().flatten().flat_map(|r| r.members.iter().copied()).collect();
        self.adverts().into_iter().filter(|(id, _)| *id == self.me || holders.contains(id)).collect()
    }

    /// `MOVED` to a node; `CLUSTERDOWN` if its address was never heard of.
    pub(crate) fn moved(&self, to: NodeId, slot: u16) -> Reply {
        match self.adverts().get(&to) {
            Some(advert) if to != self.me => Reply::error(format!("MOVED {slot} {}", advert.redis)),
            _ => no_leader(),
        }
    }

    /// What a client is told that should ask the leader.
    pub(crate) fn not_leader(&self, slot: u16) -> Reply {
        self.route(self.group_of(slot)).map_or_else(no_leader, |route| self.moved(route.leader, slot))
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}
