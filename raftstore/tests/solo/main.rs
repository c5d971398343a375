//! Three nodes that their hosts drive, over files and channels: elections, proposals, kills, restarts, membership,
//! snapshots; and what a host is told when it misuses one.
//!
//! Time passes when nothing else happens: a tick is given when no host has news. Nothing sleeps.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod disk;
mod host;
mod misuse;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use host::{Host, Net};
use pontoon_raft::{
    ConfChangeSingle, ConfChangeType, ConfChangeV1, ConfChangeV2, ConfState, Entry, Index, LogPos, ReplicaId, StateRole,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    dir: PathBuf,
    net: Net,
    hosts: BTreeMap<u64, Host>,
    news: (Sender<()>, Receiver<()>),
}

impl Cluster {
    /// Founders, each with an empty file.
    fn found(name: &str, founders: &[u64]) -> Cluster {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("solo").join(name);
        let _none_yet = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut cluster = Cluster { dir, net: Net::default(), hosts: BTreeMap::new(), news: bounded(1) };
        founders.iter().for_each(|id| cluster.start(*id, founders));
        cluster
    }

    fn start(&mut self, id: u64, founders: &[u64]) {
        let path = self.dir.join(id.to_string());
        self.hosts.insert(id, Host::start(id, &path, founders, &self.net, &self.news.0));
    }

    fn kill(&mut self, id: u64) {
        self.hosts.remove(&id).unwrap().kill();
    }

    /// Lets time pass until `done`.
    fn until<T>(&self, what: &str, mut done: impl FnMut(&Cluster) -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(found) = done(self) {
                return found;
            }
            if self.news.1.recv_timeout(Duration::from_millis(1)).is_err() {
                self.hosts.values().for_each(|h| h.node.tick().unwrap());
            }
        }
        let seen: Vec<_> = self.hosts.values().map(|h| (h.node.status(), h.state().conf)).collect();
        panic!("not within 20,000 ticks: {what}: {seen:#?}");
    }

    /// The node that leads and whose followers know it.
    fn leader(&self) -> u64 {
        self.until("a leader that all know", |c| {
            let seen: Vec<_> = c.hosts.values().map(|h| h.node.status().unwrap().basic).collect();
            let leader = seen.iter().find(|s| s.role == StateRole::Leader)?;
            seen.iter().all(|s| s.lead == leader.id).then_some(leader.id.0)
        })
    }

    fn propose(&self, at: u64, command: &str) -> Option<LogPos> {
        self.hosts[&at].node.propose(Entry::normal(Bytes::copy_from_slice(command.as_bytes())), PATIENCE).unwrap()
    }

    /// `{prefix}0=0` and so on.
    fn propose_many(&self, at: u64, prefix: &str, n: u64) {
        (0..n).for_each(|n| assert!(self.propose(at, &format!("{prefix}{n}={n}")).is_some()));
    }

    /// All hosts have this value.
    fn everywhere(&self, key: &str, value: &str) {
        self.until(&format!("{key}={value} everywhere"), |c| {
            c.hosts.values().all(|h| h.state().map.get(key.as_bytes()).is_some_and(|v| v == value)).then_some(())
        });
    }

    fn change(&self, at: u64, changes: &[(ConfChangeType, u64)]) {
        let changes = changes.iter().map(|(kind, id)| ConfChangeSingle::new(*kind, ReplicaId(*id))).collect();
        let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        self.hosts[&at].node.propose(change.to_entry(), PATIENCE).unwrap();
    }

    fn voters_everywhere(&self, ids: &[u64]) {
        let wanted = ConfState::new(ids.iter().map(|id| ReplicaId(*id)).collect(), vec![]);
        self.until(&format!("voters {ids:?} everywhere"), |c| {
            ids.iter().all(|id| c.hosts[id].state().conf == wanted).then_some(())
        });
    }
}

#[test]
fn three_nodes_elect_and_replicate() {
    let cluster = Cluster::found("replicate", &[1, 2, 3]);
    let leader = cluster.leader();
    let at = cluster.propose(leader, "a=1").expect("appended by the leader");
    let follower = leader % 3 + 1;
    assert_eq!(cluster.propose(follower, "b=2"), None, "forwarded by a follower");
    cluster.everywhere("a", "1");
    cluster.everywhere("b", "2");
    let state = cluster.hosts[&follower].state();
    assert!(state.applied > at.index, "{state:?}");
    // A read at the follower: its position covers what was acknowledged before.
    let node = &cluster.hosts[&follower].node;
    node.read_index(Bytes::from_static(b"read")).unwrap();
    let index = cluster.until("a read position", |c| c.hosts[&follower].state().reads.get(&b"read"[..]).copied());
    assert!(index >= at.index, "{index} behind {at:?}");
}

#[test]
fn a_leader_is_killed_and_comes_back_from_its_file() {
    let mut cluster = Cluster::found("kill", &[1, 2, 3]);
    let first = cluster.leader();
    cluster.propose_many(first, "before", 5);
    cluster.everywhere("before4", "4");
    cluster.kill(first);
    let second = cluster.leader();
    assert_ne!(first, second);
    cluster.propose_many(second, "during", 5);
    cluster.everywhere("during4", "4");
    cluster.start(first, &[]);
    cluster.everywhere("during4", "4");
    cluster.everywhere("before0", "0");
}

#[test]
fn all_are_killed_and_nothing_applied_is_lost() {
    let mut cluster = Cluster::found("all", &[1, 2, 3]);
    let leader = cluster.leader();
    cluster.propose_many(leader, "k", 50);
    cluster.until("the last is applied by its leader", |c| c.hosts[&leader].state().map.get(&b"k49"[..]).cloned());
    let commit = cluster.hosts[&leader].state().applied;
    [1, 2, 3].iter().for_each(|id| cluster.kill(*id));
    [1, 2, 3].iter().for_each(|id| cluster.start(*id, &[]));
    assert_eq!(cluster.hosts[&leader].state().installed, 0);
    cluster.leader();
    (0..50).for_each(|n| cluster.everywhere(&format!("k{n}"), &n.to_string()));
    assert!(cluster.hosts.values().all(|h| h.state().applied >= commit));
}

#[test]
fn a_node_joins_by_a_snapshot_and_the_leader_leaves() {
    let mut cluster = Cluster::found("members", &[1, 2, 3]);
    let leader = cluster.leader();
    cluster.propose_many(leader, "k", 60);
    cluster.everywhere("k59", "59");
    // The log in front is gone: node 4, which has an empty file, needs a snapshot.
    cluster.start(4, &[]);
    cluster.change(leader, &[(ConfChangeType::AddNode, 4)]);
    cluster.voters_everywhere(&[1, 2, 3, 4]);
    cluster.everywhere("k0", "0");
    assert!(cluster.hosts[&4].state().installed > 0);
    // By joint consensus one goes and another comes.
    let gone = cluster.leader();
    cluster.start(5, &[]);
    cluster.change(gone, &[(ConfChangeType::RemoveNode, gone), (ConfChangeType::AddNode, 5)]);
    let rest: Vec<u64> = (1..=5).filter(|id| *id != gone).collect();
    cluster.voters_everywhere(&rest);
    cluster.kill(gone);
    let leader = cluster.leader();
    assert_ne!(leader, gone);
    cluster.propose(leader, "after=1");
    cluster.everywhere("after", "1");
    // What was learnt by a snapshot and a joint change is in the files.
    rest.iter().for_each(|id| cluster.kill(*id));
    rest.iter().for_each(|id| cluster.start(*id, &[]));
    cluster.leader();
    cluster.voters_everywhere(&rest);
    cluster.everywhere("after", "1");
    cluster.everywhere("k59", "59");
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::found("transfer", &[1, 2, 3]);
    let first = cluster.leader();
    let target = first % 3 + 1;
    cluster.propose(first, "a=1");
    cluster.everywhere("a", "1");
    cluster.hosts[&first].node.transfer_leader(ReplicaId(target)).unwrap();
    cluster.until("the target leads", |c| (c.leader() == target).then_some(()));
    // A V1 change by the new leader, and a campaign by hand.
    let change = ConfChangeV1::new(ConfChangeType::AddLearnerNode, ReplicaId(9));
    cluster.hosts[&target].node.propose(change.to_entry(), PATIENCE).unwrap();
    cluster.until("a learner everywhere", |c| {
        c.hosts.values().all(|h| h.state().conf.learners == [ReplicaId(9)]).then_some(())
    });
    assert!(cluster.hosts[&target].node.status().unwrap().basic.commit > Index(4));
}
