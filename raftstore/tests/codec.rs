//! Properties of the byte forms: what is encoded decodes to the same, what decodes encodes to the same bytes, and no
//! bytes whatever make a decoder panic or allocate beyond what it was given.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use pontoon_raft::{
    Append, AppendResp, Body, ConfState, Entry, EntryKind, EntryRun, HardState, Message, Snapshot, SnapshotMeta,
    VoteRequest,
};
use pontoon_raftstore::codec::*;
use pontoon_raftstore::env::{Creation, Install, Truncation};
use pontoon_raftstore::group_spec::BIRTH;
use pontoon_raftstore::ids::*;
use pontoon_raftstore::reconfigure::{Goal, WhyAborted};
use pontoon_raftstore::task::{Aside, GroupMessage, Invitation};
use pontoon_raftstore::testing::{Replay, Rng, seeds};
use std::sync::Arc;

const ROUNDS: u64 = 2_000;

fn number(rng: &mut Rng) -> u64 {
    let bits = rng.below(63);
    rng.next_u64() >> 1 >> (62 - bits)
}

fn replica(rng: &mut Rng) -> ReplicaId {
    ReplicaId(number(rng).max(1))
}

fn blob(rng: &mut Rng, max: u64) -> Bytes {
    let len = rng.below(max);
    rng.bytes(len as usize).into()
}

fn pos(rng: &mut Rng) -> LogPos {
    match rng.below(5) {
        0 => LogPos::NONE,
        _ => LogPos::new(Term(number(rng) / 4), Index(number(rng).max(1) / 4 + 1)),
    }
}

fn kind(rng: &mut Rng) -> EntryKind {
    *rng.pick(&[EntryKind::Normal, EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2])
}

fn run(rng: &mut Rng, prev: LogPos) -> Vec<Entry> {
    let mut last = prev;
    (0..rng.below(6))
        .map(|_| {
            let step = if rng.chance(200) { number(rng) / 64 } else { 0 };
            let term = Term((last.term.0 + step).max(1));
            let e = Entry { term, index: last.index.next(), kind: kind(rng), replaced: false, data: blob(rng, 40) };
            last = e.pos();
            e
        })
        .collect()
}

fn unplaced(rng: &mut Rng, n: u64) -> Vec<Entry> {
    (0..n).map(|_| Entry { kind: kind(rng), data: blob(rng, 40), ..Entry::default() }).collect()
}

fn conf(rng: &mut Rng) -> ConfState {
    let mut list = |max: u64| {
        let mut ids: Vec<_> = (0..rng.below(max)).map(|_| replica(rng)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let mut c = ConfState {
        voters: list(6),
        voters_outgoing: list(4),
        learners: list(3),
        learners_next: list(3),
        auto_leave: false,
    };
    c.auto_leave = rng.chance(500);
    c
}

fn snapshot(rng: &mut Rng, term: Term) -> Snapshot {
    let meta = SnapshotMeta { index: Index(number(rng).max(1)), term, conf_state: conf(rng) };
    Snapshot { meta, data: blob(rng, 100) }
}

fn body(rng: &mut Rng) -> (Term, Body) {
    let term = Term(u64::MAX / 2 - rng.below(9));
    let vote = VoteRequest { last: pos(rng), transfer: rng.chance(500) };
    let (context, index) = (blob(rng, 9), Index(number(rng)));
    let body = match rng.below(15) {
        0 => return (Term::NONE, Body::Propose { entries: unplaced(rng, 3) }),
        1 => return (Term::NONE, Body::ReadIndex { entries: unplaced(rng, 1) }),
        2 => Body::ReadIndexResp { index, entries: unplaced(rng, 1) },
        3 | 4 => {
            let prev = pos(rng);
            Body::Append(Append { prev, entries: run(rng, prev).into(), commit: index })
        }
        5 => Body::AppendResp(AppendResp { index, reject: None }),
        6 => {
            let hint = LogPos::new(Term(rng.below(3)), Index(number(rng)));
            Body::AppendResp(AppendResp { index, reject: Some(hint) })
        }
        7 => Body::Vote(vote),
        8 => Body::PreVote(vote),
        9 => Body::VoteResp { reject: rng.chance(500) },
        10 => Body::PreVoteResp { reject: rng.chance(500) },
        11 => Body::Snap { snapshot: Box::new(snapshot(rng, Term(7))) },
        12 => Body::Heartbeat { commit: index, context },
        13 => Body::HeartbeatResp { context },
        _ => rng.pick(&[Body::TransferLeader, Body::TimeoutNow]).clone(),
    };
    (term, body)
}

fn message(rng: &mut Rng) -> GroupMessage {
    let (term, body) = body(rng);
    let from = replica(rng);
    let to = ReplicaId(from.0 + 1);
    let birth = if rng.chance(500) { rng.next_u64() } else { 0 };
    let message = Message { from, to, term, body };
    GroupMessage { group: GroupId(number(rng).max(1)), epoch: rng.below(3), birth, aside: aside(rng), message }
}

fn aside(rng: &mut Rng) -> Aside {
    match rng.below(5) {
        2 => Aside::Committed(pos(rng)),
        0 => Aside::Removed { conf: Index(number(rng) >> 1) },
        1 => {
            let creation = Arc::new(creation(rng));
            Aside::Invitation(Box::new(Invitation { creation, disk: Incarnation(rng.next_u64()) }))
        }
        _ => Aside::Nothing,
    }
}

fn creation(rng: &mut Rng) -> Creation {
    Creation {
        kind: "kv".into(),
        digest: rng.next_u64(),
        members: vec![(ReplicaId(1), NodeId(number(rng).max(1)))],
        conf_state: conf(rng),
        birth: pos(rng),
    }
}

fn frame(rng: &mut Rng) -> SnapshotFrame {
    let stream = StreamId(rng.next_u64());
    if rng.chance(400) {
        let status = *rng.pick(&[AckStatus::More, AckStatus::Done, AckStatus::Refused, AckStatus::Damaged]);
        return SnapshotFrame::Ack(SnapshotAck { stream, next: number(rng) >> 3, status });
    }
    let header = rng.chance(500).then(|| {
        let mut message = message(rng);
        message.message.term = Term(9);
        message.message.body = Body::Snap { snapshot: Box::new(snapshot(rng, Term(9))) };
        Box::new(SnapshotHeader { message, size: number(rng) >> 4, record: blob(rng, 90) })
    });
    let offset = if header.is_some() { 0 } else { (number(rng) >> 4).max(1) };
    let digest = rng.chance(500).then(|| rng.next_u64());
    let data = if digest.is_some() { blob(rng, 80) } else { Bytes::from_static(b"some") };
    SnapshotFrame::Chunk(SnapshotChunk { stream, offset, header, data, digest })
}

fn members(rng: &mut Rng) -> Vec<Member> {
    (1..=rng.below(7)).map(|id| (ReplicaId(id), NodeId(number(rng).max(1)), Incarnation(rng.next_u64()))).collect()
}

fn goal(rng: &mut Rng) -> Goal {
    let why = [None, Some(WhyAborted::Asked), Some(WhyAborted::NoProgress(NodeId(number(rng).max(1))))];
    Goal {
        voters: (1..=1 + rng.below(4)).map(NodeId).collect(),
        learners: (10..10 + rng.below(4)).map(NodeId).collect(),
        promote_lag: rng.next_u64(),
        first: replica(rng),
        aborted: *rng.pick(&why),
    }
}

fn context(rng: &mut Rng) -> ConfContext {
    let order = match rng.below(4) {
        0 => Some(Order::Begin(goal(rng))),
        1 => Some(Order::Abort(*rng.pick(&[WhyAborted::Asked, WhyAborted::NoProgress(NodeId(7))]))),
        2 => Some(Order::Seal),
        _ => None,
    };
    ConfContext { named: members(rng), order }
}

fn record(rng: &mut Rng) -> ReplicaRecord {
    let members = members(rng);
    let plain = rng.chance(300);
    ReplicaRecord {
        group: GroupId(number(rng).max(1)),
        replica: replica(rng),
        generation: Generation(number(rng)),
        applied: pos(rng),
        conf_state: conf(rng),
        next_replica: ReplicaId(members.len() as u64 + 1 + rng.below(5)),
        members,
        conf_index: if plain { BIRTH.index } else { Index(number(rng) >> 1) },
        leaving: if plain { Vec::new() } else { self::members(rng) },
        goal: (!plain && rng.chance(500)).then(|| Box::new(goal(rng))),
    }
}

fn epoch(rng: &mut Rng) -> BootEpoch {
    BootEpoch { counter: number(rng), nonce: rng.next_u64() }
}

/// Decodes and encodes again; `None` where the bytes were refused.
type Recode = fn(Bytes) -> Option<Vec<u8>>;

/// One random value per form, as bytes, with its decoder.
fn samples(rng: &mut Rng) -> Vec<(&'static str, Vec<u8>, Recode)> {
    let messages: Vec<_> = (0..=rng.below(4)).map(|_| message(rng)).collect();
    let decoded = decode_messages(encode_messages(&messages)).unwrap();
    assert_eq!(decoded, messages);
    let sent = frame(rng);
    assert_eq!(SnapshotFrame::decode(sent.encode()).unwrap(), sent);
    let kept = record(rng);
    assert_eq!(ReplicaRecord::decode(kept.encode()).unwrap(), kept);
    let creation = creation(rng);
    assert_eq!(decode_creation(encode_creation(&creation).into()).unwrap(), creation);
    let install =
        Install { pos: pos(rng), conf_state: conf(rng), record: kept.encode(), generation: Generation(number(rng)) };
    assert_eq!(decode_install(encode_install(&install).into()).unwrap(), install);
    let truncation = Truncation { pos: pos(rng), conf_state: conf(rng) };
    assert_eq!(decode_truncation(encode_truncation(&truncation).into()).unwrap(), truncation);
    let cluster = rng.chance(500).then(|| ClusterId(rng.bytes(16).try_into().unwrap()));
    let node = NodeRecord {
        admitted: cluster.is_some(),
        cluster,
        node: NodeId(number(rng).max(1)),
        incarnation: Incarnation(rng.next_u64()),
        digest: rng.next_u64(),
    };
    assert_eq!(NodeRecord::decode(node.encode()).unwrap(), node);
    let peer = PeerRecord {
        incarnation: Incarnation(rng.next_u64()),
        epoch: epoch(rng),
        synced: StoreSeq(rng.next_u64()),
        listen: "127.0.0.1:7".into(),
    };
    assert_eq!(PeerRecord::decode(peer.encode()).unwrap(), peer);
    let boot = epoch(rng);
    assert_eq!(decode_epoch(encode_epoch(boot)).unwrap(), boot);
    let change = context(rng);
    assert_eq!(ConfContext::decode(change.encode()).unwrap(), change);
    vec![
        ("context", change.encode().to_vec(), |b| ConfContext::decode(b).ok().map(|c| c.encode().to_vec())),
        ("messages", encode_messages(&messages).to_vec(), |b| {
            decode_messages(b).ok().map(|m| encode_messages(&m).to_vec())
        }),
        ("snapshot frame", sent.encode().to_vec(), |b| SnapshotFrame::decode(b).ok().map(|f| f.encode().to_vec())),
        ("record", kept.encode().to_vec(), |b| ReplicaRecord::decode(b).ok().map(|r| r.encode().to_vec())),
        ("creation", encode_creation(&creation), |b| decode_creation(b).ok().map(|c| encode_creation(&c))),
        ("install", encode_install(&install), |b| decode_install(b).ok().map(|c| encode_install(&c))),
        ("truncation", encode_truncation(&truncation), |b| decode_truncation(b).ok().map(|c| encode_truncation(&c))),
        ("node", node.encode().to_vec(), |b| NodeRecord::decode(b).ok().map(|n| n.encode().to_vec())),
        ("peer", peer.encode().to_vec(), |b| PeerRecord::decode(b).ok().map(|n| n.encode().to_vec())),
        ("epoch", encode_epoch(boot).to_vec(), |b| decode_epoch(b).ok().map(|e| encode_epoch(e).to_vec())),
    ]
}

#[test]
fn round_trips_and_damage() {
    for seed in seeds(ROUNDS) {
        let _replay = Replay { test: "codec", case: "round_trips_and_damage", seed };
        let mut rng = Rng::new(seed);
        for (form, bytes, recode) in samples(&mut rng) {
            assert_eq!(recode(bytes.clone().into()).as_ref(), Some(&bytes), "{form}");
            for _ in 0..8 {
                let damaged = damage(&mut rng, &bytes);
                // Either refused, or it means something, and then exactly one thing.
                if let Some(again) = recode(damaged.clone().into()) {
                    assert_eq!(again, damaged, "{form}: two byte forms of one value");
                }
            }
        }
    }
}

fn damage(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(3) {
        let at = rng.below(out.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => out.truncate(at),
            1 => out.insert(at, rng.next_u64() as u8),
            2 => out.splice(at..at, [0xff; 9]).for_each(drop),
            _ if at < out.len() => out[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
    out
}

#[test]
fn arbitrary_bytes_are_refused_or_read() {
    for seed in seeds(ROUNDS) {
        let _replay = Replay { test: "codec", case: "arbitrary_bytes_are_refused_or_read", seed };
        let mut rng = Rng::new(seed);
        let forms = samples(&mut rng);
        let mut soup = blob(&mut rng, 200).to_vec();
        if let Some(version) = soup.first_mut() {
            *version = 1;
        }
        for (_, _, recode) in forms {
            let _ = recode(soup.clone().into());
        }
    }
}

#[test]
fn entries_and_runs() {
    for seed in seeds(ROUNDS) {
        let _replay = Replay { test: "codec", case: "entries_and_runs", seed };
        let mut rng = Rng::new(seed);
        let prev = pos(&mut rng);
        let entries = run(&mut rng, prev);
        let mut out = Vec::new();
        put_run(&mut out, prev, &EntryRun::from(entries.clone()));
        let mut r = Reader::new("run", out.clone().into());
        let taken = take_run(&mut r, prev).unwrap();
        assert_eq!(taken.to_vec(), entries);
        r.finish().unwrap();
        let (mut again, mut parts) = (Vec::new(), Vec::new());
        put_run(&mut again, prev, &taken);
        let (front, back) = Stretch::of(&taken).split_at(rng.below(1 + taken.len() as u64) as usize);
        put_stretches(&mut parts, prev, &[front, back]);
        assert_eq!((&again, &parts), (&out, &out), "with the form that it was read in");
        for entry in &entries {
            let mut out = Vec::new();
            encode_entry(&mut out, entry);
            let mut r = Reader::new("entry", out.into());
            assert_eq!(&decode_entry(&mut r).unwrap(), entry);
        }
        let hard_state = HardState { term: Term(number(&mut rng)), vote: replica(&mut rng), commit: Index(3) };
        let mut out = Vec::new();
        put_hard_state(&mut out, &hard_state);
        assert_eq!(take_hard_state(&mut Reader::new("hard state", out.into())).unwrap(), hard_state);
    }
}

#[test]
fn what_was_proposed_together_is_written_once_and_reads_as_if_it_were_not() {
    let commands = |n: u64, len: usize| (0..n).map(|i| Bytes::from(vec![i as u8; len])).collect::<Vec<_>>();
    let sizes = [(1, 3), (15, 3), (16, 3), (200, 127), (200, 128), (20, 1019), (20, 1020)];
    let formed = sizes.map(|(n, len)| run_of(commands(n, len)).form().is_some());
    assert_eq!(formed, [false, false, true, true, true, true, false], "many and small");
    for (prev_term, (n, len)) in [(4, (30, 7)), (3, (30, 300))] {
        let run = run_of(commands(n, len));
        let at = |(index, e): (u64, &Entry)| Entry { term: Term(4), index: Index(index), ..e.clone() };
        let entries: Vec<Entry> = (8..).zip(&run).map(at).collect();
        let prev = LogPos::new(Term(prev_term), Index(7));
        let placed = EntryRun::from(entries.clone()).with_form(run.form().unwrap().clone());
        let (mut with, mut without) = (Vec::new(), Vec::new());
        put_run(&mut with, prev, &placed);
        put_run(&mut without, prev, &EntryRun::from(entries.clone()));
        assert_eq!(with, without, "also behind an entry of another term, where the form does not fit");
        assert_eq!(take_run(&mut Reader::new("run", with.into()), prev).unwrap().to_vec(), entries);
    }
}

#[test]
fn reserved_kinds_and_local_ids_are_refused() {
    let mut out = Vec::new();
    encode_entry(&mut out, &Entry { term: Term(1), index: Index(1), ..Entry::normal(Bytes::new()) });
    for kind in 3..=255 {
        out[2] = kind;
        assert!(decode_entry(&mut Reader::new("entry", out.clone().into())).is_err(), "kind {kind}");
    }
    for to in [ReplicaId::NONE, ReplicaId::APPEND_THREAD, ReplicaId::APPLY_THREAD] {
        let message = Message { from: ReplicaId(1), to, term: Term(1), body: Body::TimeoutNow };
        let m = GroupMessage { group: GroupId(1), epoch: 0, birth: 0, aside: Aside::Nothing, message };
        assert!(decode_messages(encode_messages(&[m])).is_err(), "{to}");
    }
}

#[test]
fn a_count_beyond_the_frame_allocates_nothing() {
    let mut out = Vec::new();
    put_varint(&mut out, u64::MAX / 2);
    out.extend([0; 64]);
    let error = take_run(&mut Reader::new("run", out.into()), LogPos::NONE).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn digest_does_not_depend_on_the_cuts_and_shows_every_flip() {
    let data = Rng::new(1).bytes(100);
    let whole = digest_of(&[&data]);
    for cut in 0..100 {
        assert_eq!(digest_of(&[&data[..cut], &data[cut..]]), whole);
        let mut flipped = data.clone();
        flipped[cut] ^= 1;
        assert_ne!(digest_of(&[&flipped]), whole);
    }
    assert_ne!(digest_of(&[&data, &[0]]), whole);
}

fn digest_of(parts: &[&[u8]]) -> u64 {
    let mut d = Digest::default();
    parts.iter().for_each(|p| d.update(p));
    d.finish()
}
