//! Rounds on the twin of the directory: what is kept, where, and what a start finds. Streams on the twin of the network: whose turn
//! it is.
#![allow(clippy::unwrap_used)]

use super::Spools;
use super::build::{Builds, Order};
use super::send::{CHUNK, Sends};
use crate::boot::KeptFiles;
use crate::codec::{AckStatus, ReplicaRecord, SnapshotAck, SnapshotFrame};
use crate::config::Config;
use crate::env::{Instant, PeerIdentity, SmError, SnapshotFiles, SnapshotOutput, SnapshotSource};
use crate::ids::{
    BootEpoch, GroupId, Incarnation, Index, LogPos, NodeId, PollerId, ReplicaId, SpoolId, StreamId, Term,
};
use crate::mem::{MemFiles, MemNet, MemSnapshotFiles, Packet, Power};
use crate::router::Router;
use crate::spool::{SpoolInput, walk};
use crate::task::{Aside, GroupMessage, PollerMsg, SendEnd, SnapshotEvent, SnapshotPurpose, Spooled};
use crate::testing::Rng;
use bytes::Bytes;
use pontoon_raft::{Body, Message, Snapshot, SnapshotMeta};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Gives one chunk; fails afterwards if it is told to.
struct Contents {
    data: Vec<u8>,
    fails: bool,
}

impl SnapshotSource for Contents {
    fn write_to(self: Box<Self>, out: &mut dyn SnapshotOutput) -> Result<(), SmError> {
        out.chunk(self.data.into())?;
        if self.fails { Err(SmError::Corruption("told to".to_owned())) } else { Ok(()) }
    }
}

struct World {
    medium: Arc<MemFiles>,
    files: Arc<MemSnapshotFiles>,
    spools: Spools,
    builds: Builds,
    router: Arc<Router>,
    inbox: crossbeam_channel::Receiver<PollerMsg>,
}

fn record(group: u64, index: u64) -> ReplicaRecord {
    let applied = LogPos::new(Term(1), Index(index));
    let (replica, next_replica) = (ReplicaId(1), ReplicaId(4));
    ReplicaRecord {
        group: GroupId(group),
        replica,
        applied,
        next_replica,
        conf_index: Index(1),
        ..ReplicaRecord::default()
    }
}

impl World {
    fn new() -> World {
        let medium = Arc::new(MemFiles::default());
        let files = Arc::new(medium.open(Arc::new(Power::default())));
        let (router, inboxes) = Router::new(&Config::default());
        let inbox = inboxes.pollers.into_iter().next().unwrap();
        let spools = Spools { files: files.clone(), next: SpoolId(1), held: BTreeMap::new() };
        World { medium, files, spools, builds: Builds::new(KeptFiles::default(), Arc::default()), router, inbox }
    }

    fn give(&mut self, group: u64, index: u64, bytes: usize, fails: bool) {
        let (purpose, poller) = (SnapshotPurpose::Keep, PollerId(0));
        let order = Order { group: GroupId(group), poller, purpose, record: record(group, index) };
        let source = Box::new(Contents { data: vec![group as u8; bytes], fails });
        self.builds.build(&mut self.spools, self.router.mail(), order, source);
    }

    fn end(&mut self) -> BTreeMap<u64, u64> {
        self.builds.end_round(&mut self.spools, self.router.mail());
        let mut durable = BTreeMap::new();
        for letter in self.inbox.try_iter() {
            if let PollerMsg::Durable(all) = letter {
                durable.extend(all.into_iter().map(|(group, _, _, at)| (group.0, at.index.0)));
            }
        }
        durable
    }

    fn round(&mut self, groups: impl IntoIterator<Item = u64>, index: u64, bytes: usize) -> BTreeMap<u64, u64> {
        groups.into_iter().for_each(|group| self.give(group, index, bytes, false));
        self.end()
    }

    /// Newest position of each group, whole, after a crash.
    fn found(&self) -> BTreeMap<u64, u64> {
        let copy = self.medium.copy();
        copy.crash(&mut Rng::new(1));
        let files = copy.open(Arc::new(Power::default()));
        let mut found = BTreeMap::new();
        for id in files.published().unwrap() {
            for (extent, record) in walk(&files, id).snapshots {
                let whole = SpoolInput::open_at(files.open(id).unwrap(), extent).and_then(SpoolInput::verify).unwrap();
                assert_eq!(whole, record);
                let newest: &mut u64 = found.entry(record.group.0).or_default();
                *newest = record.applied.index.0.max(*newest);
            }
        }
        found
    }

    fn bytes(&self) -> u64 {
        let ids = self.files.published().unwrap();
        ids.into_iter().map(|id| walk(&*self.files, id).size).sum()
    }
}

fn all(groups: std::ops::RangeInclusive<u64>, index: u64) -> BTreeMap<u64, u64> {
    groups.map(|group| (group, index)).collect()
}

#[test]
fn many_groups_share_a_file() {
    let mut world = World::new();
    assert_eq!(world.round(1..=100, 5, 10), all(1..=100, 5));
    assert_eq!((world.medium.count(), world.found()), (1, all(1..=100, 5)));
    // The next round takes its place.
    assert_eq!(world.round(1..=100, 6, 10), all(1..=100, 6));
    assert_eq!((world.medium.count(), world.found()), (1, all(1..=100, 6)));
}

#[test]
fn a_machine_that_fails_costs_nobody_else_a_snapshot() {
    let mut world = World::new();
    world.round(1..=3, 5, 10);
    world.give(1, 6, 10, false);
    world.give(2, 6, 10, true);
    world.give(3, 6, 10, false);
    assert_eq!(world.end(), BTreeMap::from([(1, 6), (3, 6)]));
    assert_eq!(world.found(), BTreeMap::from([(1, 6), (2, 5), (3, 6)]));
}

#[test]
fn a_full_disk_fails_the_round_and_leaves_nothing() {
    let mut world = World::new();
    world.round(1..=3, 5, 10);
    for writes in [0, 1] {
        world.medium.fill_after(writes);
        assert!(world.round(1..=3, 6, 70_000).is_empty());
        world.medium.make_room();
        assert_eq!((world.medium.count(), world.found()), (1, all(1..=3, 5)));
    }
    assert_eq!(world.round(1..=3, 6, 10), all(1..=3, 6));
}

#[test]
fn idle_groups_do_not_keep_old_files_alive() {
    let mut world = World::new();
    world.round(1..=64, 5, 1000);
    let once = world.bytes();
    // In each round one group fewer is written: each leaves a snapshot in a file of its own, but for the copies.
    for round in 1..=64 {
        world.round(round..=64, 5 + round, 1000);
        assert!(world.bytes() <= 3 * once, "{} of {once} after {round}", world.bytes());
    }
    assert_eq!(world.found(), (1..=64).map(|group| (group, 5 + group)).collect());
    assert!(world.medium.count() < 12, "{}", world.medium.count());
}

#[test]
fn who_is_forgotten_within_the_turn_leaves_nothing() {
    let mut world = World::new();
    world.round([1, 2], 5, 10);
    world.give(1, 6, 10, false);
    world.give(2, 6, 10, false);
    world.builds.forget(&mut world.spools, GroupId(1));
    assert_eq!(world.end(), BTreeMap::from([(2, 6)]));
    world.builds.forget(&mut world.spools, GroupId(2));
    assert_eq!(world.medium.count(), 0);
}

#[test]
fn damage_costs_one_snapshot_and_the_file_stays() {
    let mut world = World::new();
    world.round(1..=5, 5, 1000);
    let id = world.files.published().unwrap()[0];
    let (third, _) = walk(&*world.files, id).snapshots[2].clone();
    // The length of its record's frame.
    world.medium.flip(id, third.at + 9);
    let walked = walk(&*world.files, id);
    assert!(walked.is_damaged);
    assert_eq!(walked.snapshots.iter().map(|(_, r)| r.group.0).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn what_rots_is_not_copied_and_stays_as_evidence() {
    let mut world = World::new();
    world.round(1..=4, 5, 1000);
    let old = world.files.published().unwrap()[0];
    let (first, _) = walk(&*world.files, old).snapshots[0].clone();
    world.medium.flip(old, first.end() - 100);
    assert_eq!(world.round(2..=4, 6, 1000), all(2..=4, 6));
    let files = world.files.published().unwrap();
    assert_eq!((files.len(), files[0]), (2, old), "group 1 has nothing else");
    let groups: Vec<u64> = walk(&*world.files, files[1]).snapshots.iter().map(|(_, r)| r.group.0).collect();
    assert_eq!(groups, [2, 3, 4], "a start would believe the newer copy");
}

#[test]
fn a_pinned_file_stays() {
    let mut world = World::new();
    world.round([1, 2], 5, 10);
    let id = world.files.published().unwrap()[0];
    let newest = walk(&*world.files, id).snapshots.into_iter().map(|(extent, record)| crate::boot::KeptSnapshot {
        spool: id,
        extent,
        record,
    });
    let pinned = [id].into();
    let found = KeptFiles { newest: newest.collect(), pinned, next_spool: SpoolId(9), ..KeptFiles::default() };
    world.builds = Builds::new(found, Arc::default());
    world.spools.next = SpoolId(9);
    world.round([1, 2], 6, 10);
    assert_eq!(world.files.published().unwrap(), [id, SpoolId(9)]);
}

/// Streams to nodes 2 and 3, and what of them was seen on the network.
struct Streams {
    world: World,
    net: Arc<MemNet>,
    sends: Sends,
    now: Instant,
}

impl Streams {
    /// One of each group to each of the nodes.
    fn new(groups: std::ops::RangeInclusive<u64>, nodes: &[u64]) -> Streams {
        let (world, net) = (World::new(), Arc::new(MemNet::default()));
        let transport = Arc::new(net.transport(node(1), Arc::default()));
        let (sends, now) = (Sends::new(transport, 1 << 40), Instant(1));
        let spool = SpoolId(7);
        world.files.create(spool).unwrap().write(&vec![1; 2 * CHUNK as usize]).unwrap();
        let meta = SnapshotMeta { index: Index(5), term: Term(1), ..SnapshotMeta::default() };
        let spooled = Spooled { spool, size: 2 * CHUNK, meta: meta.clone(), record: Bytes::new() };
        let mut streams = Streams { world, net, sends, now };
        for (group, node) in groups.flat_map(|group| nodes.iter().map(move |node| (group, *node))) {
            let snapshot = Box::new(Snapshot { meta: meta.clone(), data: Bytes::new() });
            let message =
                Message { from: ReplicaId(1), term: Term(1), ..Message::to(ReplicaId(node), Body::Snap { snapshot }) };
            let message = GroupMessage { group: GroupId(group), epoch: 0, birth: 0, aside: Aside::Nothing, message };
            let Streams { world, sends, now, .. } = &mut streams;
            let mail = world.router.mail();
            sends.begin(*now, &mut world.spools, mail, PollerId(0), NodeId(node).into(), message, &spooled);
        }
        streams
    }

    /// Node and stream of each chunk that left.
    fn pump(&mut self) -> Vec<(u64, StreamId)> {
        self.sends.pump(self.now, &mut self.world.spools, self.world.router.mail());
        let chunk = |packet: Packet| match SnapshotFrame::decode(packet.body).unwrap() {
            SnapshotFrame::Chunk(chunk) => (packet.to.0, chunk.stream),
            SnapshotFrame::Ack(_) => panic!("nothing was received"),
        };
        self.net.take_sent().into_iter().map(chunk).collect()
    }

    fn ack(&mut self, (from, stream): (u64, StreamId), next: u64, status: AckStatus) {
        let ack = SnapshotAck { stream, next, status };
        self.sends.on_ack(self.now, &mut self.world.spools, self.world.router.mail(), node(from), ack);
    }

    fn ends(&self) -> Vec<SendEnd> {
        let end =
            |letter| if let PollerMsg::Snapshot(SnapshotEvent::Sent { end, .. }) = letter { Some(end) } else { None };
        self.world.inbox.try_iter().filter_map(end).collect()
    }
}

fn node(id: u64) -> PeerIdentity {
    PeerIdentity { node: NodeId(id), incarnation: Incarnation(id), epoch: BootEpoch { counter: 1, nonce: id } }
}

/// The bug: with many groups behind, all that stood ready went to a node with room for few; what it refused was built again.
#[test]
fn few_streams_go_to_a_node_at_once_and_the_others_wait() {
    let mut streams = Streams::new(1..=10, &[2, 3]);
    let first = streams.pump();
    let to = |node| first.iter().copied().filter(move |s| s.0 == node).collect::<Vec<_>>();
    assert_eq!((to(2).len(), to(3).len()), (4, 4), "a chunk each asks for room");
    streams.ack(to(2)[0], CHUNK, AckStatus::More);
    assert_eq!(streams.pump(), [to(2)[0]]);
    streams.ack(to(2)[0], 2 * CHUNK, AckStatus::Done);
    assert_eq!(streams.pump().len(), 1, "the next has its turn");
    // Who refused one is left in peace for a while.
    streams.ack(to(3)[0], 0, AckStatus::Refused);
    assert!(streams.pump().is_empty());
    assert_eq!(streams.ends(), [SendEnd::Done, SendEnd::Refused]);
    streams.now = streams.now.after(Duration::from_millis(200));
    assert_eq!(streams.pump().iter().map(|s| s.0).collect::<Vec<_>>(), [3]);
}

#[test]
fn who_waits_behind_streams_that_stall_fails_with_them() {
    let mut streams = Streams::new(1..=10, &[2, 3]);
    let first = streams.pump();
    streams.now = streams.now.after(Duration::from_secs(20));
    first.iter().filter(|s| s.0 == 2).for_each(|s| streams.ack(*s, CHUNK, AckStatus::More));
    streams.now = streams.now.after(Duration::from_secs(10));
    streams.pump();
    assert_eq!(streams.ends(), [SendEnd::Failed; 10], "all to node 3, none to node 2");
}
