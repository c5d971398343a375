//! Mutated records and streams from a seed: whatever comes, the decoder answers, the node lives, a good peer gets in.
//!
//! A failure prints the round; the same seed makes the same bytes.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::BytesMut;
use common::{Book, Event, Node, Raw, WELCOME, fast, wire_hello};
use pontoon_raftstore::env::Lane;
use pontoon_raftstore::ids::NodeId;
use pontoon_raftstore::testing::Rng;
use pontoon_transport::Config;
use pontoon_transport::frame::{Caps, Decoder, Kind, header};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Flips, cuts, doubles or inserts.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        let at = usize::try_from(rng.below(bytes.len().max(1) as u64)).unwrap();
        match rng.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(rng.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            _ => bytes.insert(at.min(bytes.len()), 0xff),
        }
    }
}

#[test]
fn streams_of_mutated_frames_never_harm_the_decoder() {
    let caps = Caps { frame: 4096, snapshot: 100 };
    let mut rng = Rng::new(0xf4a3e);
    let mut taken = 0;
    for round in 0..20_000 {
        let mut stream = Vec::new();
        for (seq, lane) in [Lane::Urgent, Lane::Append, Lane::Snapshot].into_iter().enumerate() {
            let body = vec![round as u8; usize::try_from(rng.below(100)).unwrap()];
            stream.extend_from_slice(&header(Kind::Data(lane), seq as u64, &body));
            stream.extend_from_slice(&body);
        }
        mutate(&mut rng, &mut stream);
        let (mut decoder, mut buf) = (Decoder::new(caps), BytesMut::from(&stream[..]));
        while let Ok(Some(frame)) = decoder.take_frame(&mut buf) {
            assert!(frame.body.len() <= caps.of(frame.kind), "round {round}");
            taken += 1;
        }
    }
    assert!(taken > 10_000, "the frames before a mutation are taken: {taken}");
}

#[test]
fn mutated_handshakes_and_beacons_never_harm_the_node() {
    let config = Config { handshake_deadline: Duration::from_millis(200), ..fast(B) };
    let node = Node::start(config, &Arc::new(Book::default()));
    let mut rng = Rng::new(0x5eed);
    for round in 0..400 {
        let mut raw = Raw::connect(node.net.local_addr());
        let (mut hello, mut verdict) = (wire_hello(A, B).encode_to_vec(), WELCOME.to_vec());
        mutate(&mut rng, if round % 4 == 0 { &mut verdict } else { &mut hello });
        raw.send(Kind::Handshake, &hello);
        raw.send(Kind::Handshake, &verdict);
        let mut beacon = b"\x10\x01\x18\x02\x20\x03\x28\x04".to_vec();
        mutate(&mut rng, &mut beacon);
        beacon.truncate(256);
        raw.send(Kind::Beacon, &beacon);
        let _ = raw.socket.shutdown(std::net::Shutdown::Write); // it may have been closed already
        raw.read_to_end();
    }
    let mut good = Raw::admitted(A, &node);
    good.send(Kind::Data(Lane::Urgent), b"alive");
    node.fake.events.wait("the good peer", |log| {
        log.iter().find(|e| matches!(e, Event::Frame(A, Lane::Urgent, b) if b == "alive")).map(|_| ())
    });
}
