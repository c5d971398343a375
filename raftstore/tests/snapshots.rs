//! Snapshot streams on the twins: loss, reordering, corruption, silence, rate, and files that belong to nobody.
#![allow(clippy::unwrap_used)]

mod parts;

use bytes::Bytes;
use parts::{Disks, G, Node, add, home, pos};
use pontoon_raft::{Body, Message, Snapshot};
use pontoon_raftstore::codec::{AckStatus, SnapshotAck, SnapshotChunk, SnapshotFrame};
use pontoon_raftstore::env::{Inbound, Instant, Lane};
use pontoon_raftstore::ids::{NodeId, ReplicaId, StreamId, Term};
use pontoon_raftstore::mem::{MemNet, Packet};
use pontoon_raftstore::task::{
    ApplierMsg, Aside, GroupMessage, PollerMsg, SendEnd, SnapshotEvent, SnapshotPurpose, SnapshotTask, Spooled,
};
use pontoon_raftstore::testing::{KvOp, Replay, Rng, seeds};
use std::sync::Arc;
use std::time::Duration;

/// Node 1 has an empty replica of the group, node 2 one with a large value.
struct Pair {
    net: Arc<MemNet>,
    to: Node,
    to_disks: Disks,
    from: Node,
    from_disks: Disks,
}

impl Pair {
    fn new(kind: &str, value: usize) -> Pair {
        let net = Arc::new(MemNet::default());
        let (mut to_disks, mut from_disks) = (Disks::new(1, &net), Disks::new(2, &net));
        to_disks.found_group(kind, 2, 2);
        from_disks.found_group(kind, 2, 2);
        let (mut to, mut from) = (to_disks.start(), from_disks.start());
        for node in [&to, &from] {
            net.listen(node.identity, node.power.clone(), node.router.clone());
        }
        let mut big = add(2, 1);
        big.data = KvOp::Put(vec![(Bytes::from_static(b"k"), vec![7; value].into())]).encode();
        let _slots = from.apply(G, vec![big]);
        from.run();
        from.letters();
        to.run();
        to.letters();
        Pair { net, to, to_disks, from, from_disks }
    }

    fn build(&mut self) -> Box<Spooled> {
        self.from.mail().applier(G, ApplierMsg::Snapshot { group: G, purpose: SnapshotPurpose::Send });
        self.from.run();
        self.from.letters().into_iter().find_map(built).unwrap().unwrap()
    }

    fn send(&mut self, spooled: &Spooled) {
        let message = Box::new(message(spooled, 1));
        let spooled = Box::new(spooled.clone());
        self.from.mail().snapshotter(SnapshotTask::Send { poller: home(), to: NodeId(1).into(), message, spooled });
        self.from.run();
    }

    /// One step: what was sent goes through `fate`, time passes.
    fn step(&mut self, by: Duration, fate: &mut impl FnMut(Packet) -> Vec<Packet>) {
        for packet in self.net.take_sent().into_iter().flat_map(fate) {
            self.net.deliver(packet).unwrap();
        }
        for node in [&mut self.to, &mut self.from] {
            node.now = node.now.after(by);
            node.run();
        }
    }

    fn steps(&mut self, n: usize) {
        (0..n).for_each(|_| self.step(Duration::from_millis(100), &mut |p| vec![p]));
    }

    fn received(&mut self) -> Option<Box<Spooled>> {
        self.to.letters().into_iter().find_map(|l| match l {
            PollerMsg::Snapshot(SnapshotEvent::Received { spooled, .. }) => Some(spooled),
            _ => None,
        })
    }

    fn sent(&mut self) -> Vec<bool> {
        let sent = |l| {
            if let PollerMsg::Snapshot(SnapshotEvent::Sent { end, .. }) = l { Some(end == SendEnd::Done) } else { None }
        };
        self.from.letters().into_iter().filter_map(sent).collect()
    }
}

fn message(spooled: &Spooled, term: u64) -> GroupMessage {
    let snapshot = Box::new(Snapshot { meta: spooled.meta.clone(), data: Bytes::new() });
    let body = Body::Snap { snapshot };
    let message = Message { from: ReplicaId(2), to: ReplicaId(1), term: Term(term), body };
    GroupMessage { group: G, epoch: 0, birth: 0, aside: Aside::Nothing, message }
}

fn built(letter: PollerMsg) -> Option<Result<Box<Spooled>, String>> {
    match letter {
        PollerMsg::Snapshot(SnapshotEvent::Built { result, .. }) => Some(result),
        _ => None,
    }
}

/// What arrived for a replica goes with it, and not with the one before it.
#[test]
fn a_burial_ends_what_arrives_for_the_dead_only() {
    let mut pair = Pair::new("kv", 1000);
    let spooled = pair.build();
    pair.send(&spooled);
    pair.steps(5);
    assert!(pair.received().is_some());
    for (next_replica, files) in [(ReplicaId(1), 1), (ReplicaId(2), 0)] {
        pair.to.mail().snapshotter(SnapshotTask::Forget { group: G, next_replica });
        pair.to.run();
        assert_eq!(pair.to_disks.files.count(), files, "{next_replica:?}");
    }
}

#[test]
fn a_stream_of_many_chunks_arrives_whole() {
    let mut pair = Pair::new("kv", 3 << 20);
    let spooled = pair.build();
    assert!(spooled.size > 3 << 20);
    pair.send(&spooled);
    let mut largest = 0;
    for _ in 0..40 {
        pair.step(Duration::from_millis(20), &mut |p| {
            largest = largest.max(p.body.len());
            vec![p]
        });
    }
    let received = pair.received().unwrap();
    assert_eq!((received.size, &received.meta), (spooled.size, &spooled.meta));
    assert_eq!(pair.sent(), [true]);
    assert!(largest < 260 << 10, "chunks are bounded: {largest}");
    pair.to.mail().snapshotter(SnapshotTask::Drop(received.spool));
    pair.from.mail().snapshotter(SnapshotTask::Drop(spooled.spool));
    pair.steps(1);
    assert_eq!((pair.to_disks.files.count(), pair.from_disks.files.count()), (0, 0));
}

#[test]
fn loss_copies_and_reordering_only_cost_time() {
    for seed in seeds(60) {
        let _replay = Replay { test: "snapshots", case: "loss_copies_and_reordering_only_cost_time", seed };
        let mut rng = Rng::new(seed);
        let mut pair = Pair::new("kv", 2 << 20);
        let spooled = pair.build();
        pair.send(&spooled);
        let mut late: Vec<Packet> = Vec::new();
        for _ in 0..600 {
            pair.step(Duration::from_millis(50), &mut |p| match rng.below(10) {
                0 => vec![],
                1 => vec![p.clone(), p],
                2 => std::mem::replace(&mut late, vec![p]),
                _ => vec![p],
            });
        }
        let received = pair.received().expect("it arrives in the end");
        assert_eq!(received.size, spooled.size);
        assert_eq!(pair.sent(), [true]);
    }
}

#[test]
fn corruption_never_arrives() {
    for seed in seeds(100) {
        let _replay = Replay { test: "snapshots", case: "corruption_never_arrives", seed };
        let mut rng = Rng::new(seed);
        let mut pair = Pair::new("kv", 600 << 10);
        let spooled = pair.build();
        pair.send(&spooled);
        let hit = rng.below(3);
        let mut chunks = 0;
        for _ in 0..400 {
            pair.step(Duration::from_millis(50), &mut |p| match SnapshotFrame::decode(p.body.clone()) {
                Ok(SnapshotFrame::Chunk(mut chunk)) => {
                    chunks += 1;
                    if chunks == hit + 1 {
                        let mut data = chunk.data.to_vec();
                        let at = rng.below(data.len() as u64) as usize;
                        data[at] ^= 1 << rng.below(8);
                        chunk.data = data.into();
                    }
                    vec![Packet { body: SnapshotFrame::Chunk(chunk).encode(), ..p }]
                }
                _ => vec![p],
            });
        }
        assert!(pair.received().is_none());
        assert_eq!(pair.sent(), [false]);
        assert_eq!(pair.to_disks.files.count(), 0, "nothing is left of it");
    }
}

#[test]
fn a_file_damaged_at_the_sender_is_found_at_the_receiver() {
    // The stream's own digest is over the damaged bytes: only the file's checksums can tell.
    let mut pair = Pair::new("kv", 100);
    let spooled = pair.build();
    let mut reader = pair.from.env.files.open(spooled.spool).unwrap();
    let mut data = vec![0; spooled.size as usize];
    assert_eq!(reader.read_at(0, &mut data).unwrap(), data.len());
    for at in 0..data.len() {
        let mut bad = data.clone();
        bad[at] ^= 0x10;
        let stream = StreamId(at as u64 + 1);
        pair.deliver_chunk(stream, &spooled, bad);
        let acks: Vec<SnapshotAck> = pair.acks();
        assert_eq!(acks, [SnapshotAck { stream, next: 0, status: AckStatus::Damaged }], "byte {at}");
        assert!(pair.received().is_none());
    }
    // A whole file under a message that speaks of another position, or with another record.
    let mut other = (*spooled).clone();
    other.meta.index = pos(3).index;
    pair.deliver_chunk(StreamId(9997), &other, data.clone());
    assert_eq!(pair.acks()[0].status, AckStatus::Damaged);
    let record = parts::record(G, ReplicaId(2), 0, pos(3)).encode();
    pair.deliver_chunk(StreamId(9998), &Spooled { record, ..(*spooled).clone() }, data.clone());
    assert_eq!(pair.acks()[0].status, AckStatus::Damaged);
    pair.deliver_chunk(StreamId(9999), &spooled, data);
    assert_eq!(pair.acks()[0].status, AckStatus::Done);
    assert!(pair.received().is_some());
}

impl Pair {
    /// A whole stream in one chunk, as an honest sender of these bytes would form it.
    fn deliver_chunk(&mut self, stream: StreamId, spooled: &Spooled, data: Vec<u8>) {
        let mut digest = pontoon_raftstore::codec::Digest::default();
        digest.update(&data);
        let header = pontoon_raftstore::codec::SnapshotHeader {
            message: message(spooled, 1),
            size: data.len() as u64,
            record: spooled.record.clone(),
        };
        let digest = Some(digest.finish());
        let chunk = SnapshotChunk { stream, offset: 0, header: Some(Box::new(header)), data: data.into(), digest };
        self.deliver_frame(&SnapshotFrame::Chunk(chunk));
    }

    fn deliver_frame(&mut self, frame: &SnapshotFrame) {
        self.to.router.on_frame(self.from.identity, Lane::Snapshot, frame.encode()).unwrap();
        self.to.run();
    }

    fn acks(&self) -> Vec<SnapshotAck> {
        let ack = |p: Packet| match SnapshotFrame::decode(p.body) {
            Ok(SnapshotFrame::Ack(ack)) => Some(ack),
            _ => None,
        };
        self.net.take_sent().into_iter().filter_map(ack).collect()
    }

    fn begin(&mut self, stream: u64, term: u64, size: u64) -> AckStatus {
        let spooled =
            Spooled { spool: pontoon_raftstore::ids::SpoolId(1), size, meta: Default::default(), record: Bytes::new() };
        let mut message = message(&spooled, term);
        message.message.body = Body::Snap { snapshot: Box::new(Snapshot { meta: parts_meta(), data: Bytes::new() }) };
        let header = pontoon_raftstore::codec::SnapshotHeader { message, size, record: Bytes::new() };
        let data = Bytes::from_static(b"some");
        let header = Some(Box::new(header));
        let chunk = SnapshotChunk { stream: StreamId(stream), offset: 0, header, data, digest: None };
        self.deliver_frame(&SnapshotFrame::Chunk(chunk));
        self.acks()[0].status
    }
}

fn parts_meta() -> pontoon_raft::SnapshotMeta {
    pontoon_raft::SnapshotMeta { index: pos(2).index, term: pos(2).term, conf_state: parts::conf() }
}

#[test]
fn receptions_are_bounded_and_leave_nothing_behind() {
    let mut pair = Pair::new("kv", 10);
    assert_eq!(pair.begin(1, 1, 100), AckStatus::More);
    assert_eq!(pair.begin(2, 1, 100), AckStatus::More, "the same sender's next stream replaces the first");
    assert_eq!(pair.to_disks.files.count(), 1);
    assert_eq!(pair.begin(3, 1, 1 << 50), AckStatus::Refused, "more than may be staged");
    assert_eq!(pair.begin(4, 1, 100), AckStatus::More);
    // A chunk behind the announced end.
    let data = vec![1; 200].into();
    let beyond = SnapshotChunk { stream: StreamId(4), offset: 4, header: None, data, digest: None };
    pair.deliver_frame(&SnapshotFrame::Chunk(beyond));
    assert_eq!(pair.acks()[0].status, AckStatus::Damaged);
    // A chunk of a stream that never began.
    let stray = SnapshotChunk {
        stream: StreamId(77),
        offset: 4 << 20,
        header: None,
        data: Bytes::from_static(b"x"),
        digest: None,
    };
    pair.deliver_frame(&SnapshotFrame::Chunk(stray));
    assert_eq!(pair.acks()[0].status, AckStatus::Refused);
    assert_eq!(pair.to_disks.files.count(), 0);
    // Silence.
    assert_eq!(pair.begin(5, 1, 100), AckStatus::More);
    pair.to.now = Instant(70_000_000_000);
    pair.to.run();
    assert_eq!(pair.to_disks.files.count(), 0, "a silent stream is given up");
    // A disk without room.
    pair.to_disks.files.fill_after(1);
    assert_eq!(pair.begin(6, 1, 100), AckStatus::Refused);
    pair.to_disks.files.make_room();
    assert_eq!(pair.to_disks.files.count(), 0);
    // Garbage.
    pair.to.router.on_frame(pair.from.identity, Lane::Snapshot, Bytes::from_static(b"garbage")).unwrap();
    pair.to.run();
    assert!(pair.received().is_none());
}

#[test]
fn a_receiver_that_is_gone_fails_the_stream() {
    let mut pair = Pair::new("kv", 600 << 10);
    let spooled = pair.build();
    pair.send(&spooled);
    for _ in 0..320 {
        pair.step(Duration::from_millis(100), &mut |_| vec![]);
    }
    assert_eq!(pair.sent(), [false]);
    pair.net.set_link(NodeId(2), NodeId(1), false);
    pair.send(&spooled);
    pair.steps(320);
    assert_eq!(pair.sent(), [false]);
    pair.net.set_link(NodeId(2), NodeId(1), true);
    pair.send(&spooled);
    pair.steps(30);
    assert_eq!(pair.sent(), [true]);
    pair.from.mail().snapshotter(SnapshotTask::Drop(spooled.spool));
    pair.steps(1);
    pair.send(&spooled);
    assert_eq!(pair.sent(), [false], "a spool that is gone cannot be sent");
}

#[test]
fn the_rate_is_kept_over_all_streams() {
    // 64 MiB/s with a burst of 8 MiB: 16 MiB take at least an eighth of a second.
    let mut pair = Pair::new("kv", 15 << 20);
    let spooled = pair.build();
    pair.send(&spooled);
    let mut bytes = 0usize;
    for ms in 1..=200u64 {
        pair.step(Duration::from_millis(1), &mut |p| {
            bytes += p.body.len();
            vec![p]
        });
        let allowed = (8 << 20) + ms as usize * 68_000 + (1 << 20);
        assert!(bytes <= allowed, "{bytes} bytes after {ms} ms");
    }
    assert!(bytes > 12 << 20, "it is not much slower either: {bytes}");
}

#[test]
fn a_drop_waits_for_the_stream_that_reads_the_file() {
    let mut pair = Pair::new("kv", 2 << 20);
    let spooled = pair.build();
    pair.send(&spooled);
    pair.from.mail().snapshotter(SnapshotTask::Drop(spooled.spool));
    pair.steps(30);
    assert_eq!(pair.sent(), [true]);
    assert_eq!(pair.from_disks.files.count(), 0);
}

#[test]
fn keeping_a_newer_snapshot_removes_the_older() {
    let mut pair = Pair::new("cache", 10);
    let keep = |pair: &mut Pair| {
        pair.from.mail().applier(G, ApplierMsg::Snapshot { group: G, purpose: SnapshotPurpose::Keep });
        pair.from.run();
        pair.from.letters()
    };
    let letters = keep(&mut pair);
    let durable = |letters: &[PollerMsg]| {
        letters.iter().find_map(|l| if let PollerMsg::Durable(d) = l { Some(d[0].3) } else { None })
    };
    assert_eq!(durable(&letters), Some(pos(2)));
    let _slots = pair.from.apply(G, vec![add(3, 1)]);
    pair.from.run();
    pair.from.letters();
    assert_eq!(durable(&keep(&mut pair)), Some(pos(3)));
    assert_eq!(pair.from_disks.files.count(), 1);
    // The same position again changes nothing.
    assert_eq!(durable(&keep(&mut pair)), Some(pos(3)));
    assert_eq!(pair.from_disks.files.count(), 1);
    pair.from_disks.files.fill_after(1);
    let _slots = pair.from.apply(G, vec![add(4, 1)]);
    pair.from.run();
    pair.from.letters();
    let letters = keep(&mut pair);
    assert_eq!(durable(&letters), None);
    assert!(letters.into_iter().find_map(built).unwrap().is_err());
    assert_eq!(pair.from_disks.files.count(), 1, "the older one stands");
}

#[test]
fn volatile_machines_are_kept_by_time() {
    let mut pair = Pair::new("cache", 10);
    pair.from.now = Instant(31_000_000_000);
    pair.from.run();
    let kept = pair.from.letters().into_iter().any(|l| matches!(l, PollerMsg::Durable(_)));
    assert!(kept);
    pair.from.now = Instant(62_000_000_000);
    pair.from.run();
    assert!(pair.from.letters().is_empty(), "nothing was applied since");
}

#[test]
fn a_failed_keep_stays_due() {
    let mut pair = Pair::new("cache", 10);
    pair.from_disks.files.fill_after(0);
    pair.from.now = Instant(31_000_000_000);
    pair.from.run();
    pair.from.letters();
    pair.from_disks.files.make_room();
    pair.from.now = Instant(62_000_000_000);
    pair.from.run();
    assert!(pair.from.letters().into_iter().any(|l| matches!(l, PollerMsg::Durable(_))));
}

/// The file's format is on disk and on the wire: a change of it is a new version, never another golden file.
#[test]
fn the_file_format_is_pinned() {
    let mut pair = Pair::new("kv", 5);
    let spooled = pair.build();
    let mut file = pair.from.env.files.open(spooled.spool).unwrap();
    let mut data = vec![0; spooled.size as usize];
    assert_eq!(file.read_at(0, &mut data).unwrap(), data.len());
    let hex: String =
        data.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect();
    assert_eq!(hex, include_str!("golden/v1/snapshot_file.hex"), "now:\n{hex}");
}
