//! What strangers and broken peers may send: each ends with a closed connection, a counted reason, and nothing else.
//!
//! The peer here is a bare socket that speaks by hand. Counters are those of the whole process, so each test reads
//! reasons that no other test of this file causes, or asks for "at least".
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::counters::Counters;
use common::{Book, Event, LIMIT, Node, Raw, WELCOME, fake, fast, proto, wire_hello};
use pontoon_raftstore::env::{Lane, LinkState, Refusal, SendError, Transport};
use pontoon_raftstore::ids::{ClusterId, NodeId};
use pontoon_transport::Config;
use pontoon_transport::frame::{HEADER, Kind, header};
use prost::Message;
use std::sync::Arc;
use std::time::{Duration, Instant};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Node 2, who is dialled by the hostile node 1.
fn victim(configure: impl Fn(&mut Config)) -> Node {
    Counters::get();
    let mut config = fast(B);
    configure(&mut config);
    let node = Node::start(config, &Arc::new(Book::default()));
    node.net.set_peers(vec![A]);
    node
}

fn faults(reason: &str) -> String {
    format!("pontoon_transport_peer_faults_total{{reason={reason}}}")
}

/// Sends `wire` to a new connection; it is closed without a word, counted, and asks nobody.
fn is_dropped(wire: &[u8], reason: &str) {
    let (node, before) = (victim(|_| {}), Counters::get().of(&faults(reason)));
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send_raw(wire);
    assert_eq!(raw.read_to_end(), []);
    Counters::get().wait(&faults(reason), before + 1);
    assert_eq!(node.fake.events.all(), []);
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    [&header(kind, 0, body)[..], body].concat()
}

fn hello_frame() -> Vec<u8> {
    framed(Kind::Handshake, &wire_hello(A, B).encode_to_vec())
}

#[test]
fn garbage_is_dropped_at_its_first_byte() {
    is_dropped(b"G", "bad_magic");
    is_dropped(b"GET / HTTP/1.1\r\n\r\n", "bad_magic");
    is_dropped(&[0x16, 3, 1, 2, 0, 1], "bad_magic");
}

#[test]
fn another_version_kind_or_flag_is_dropped() {
    for (at, byte, reason) in [(2, 9, "bad_version"), (3, 99, "bad_kind"), (4, 1, "bad_flags")] {
        let mut wire = hello_frame();
        wire[at] = byte;
        is_dropped(&wire, reason);
    }
}

#[test]
fn an_oversize_length_is_dropped_by_its_header_alone() {
    let mut wire = hello_frame();
    wire[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    is_dropped(&wire[..HEADER], "too_long");
}

#[test]
fn a_damaged_frame_is_dropped() {
    let mut wire = hello_frame();
    *wire.last_mut().unwrap() ^= 1;
    is_dropped(&wire, "bad_crc");
}

#[test]
fn frames_before_the_handshake_are_dropped() {
    is_dropped(&framed(Kind::Data(Lane::Append), b"entries"), "early_frame");
    is_dropped(&framed(Kind::Beacon, b""), "early_frame");
}

#[test]
fn hellos_that_make_no_sense_are_dropped() {
    let nonsense: [fn(&mut proto::Hello); 7] = [
        |h| h.node = 0,
        |h| h.cluster = Bytes::from_static(b"short"),
        |h| h.listen = "x".repeat(256),
        |h| h.advert = Bytes::from(vec![0; (16 << 10) + 1]),
        |h| h.protocol_min = 0,
        |h| (h.protocol_min, h.protocol_max) = (2, 1),
        |h| h.max_frame = 0,
    ];
    for spoil in nonsense {
        let mut record = wire_hello(A, B);
        spoil(&mut record);
        is_dropped(&framed(Kind::Handshake, &record.encode_to_vec()), "bad_record");
    }
    is_dropped(&framed(Kind::Handshake, b"\xff\xff\xff"), "bad_record");
}

#[test]
fn a_frame_between_hello_and_verdict_is_dropped() {
    let node = victim(|_| {});
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
    raw.send(Kind::Data(Lane::Urgent), b"vote");
    assert_eq!(raw.read_to_end().len(), 2, "hello and verdict, nothing else");
    assert!(!node.fake.events.all().iter().any(|e| matches!(e, Event::Frame(..) | Event::Link(..))));
}

#[test]
fn verdicts_that_make_no_sense_are_dropped() {
    for verdict in [&[][..], &[0x08, 0x02], &[0x08, 0x01, 0x3a, 0x01, b'x'], b"\xff"] {
        let (node, before) = (victim(|_| {}), Counters::get().of(&faults("bad_record")));
        let mut raw = Raw::connect(node.net.local_addr());
        raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
        raw.send(Kind::Handshake, verdict);
        assert_eq!(raw.read_to_end().len(), 2);
        Counters::get().wait(&faults("bad_record"), before + 1);
        assert!(!node.fake.events.all().iter().any(|e| matches!(e, Event::Link(..) | Event::Welcome(_))));
    }
}

#[test]
fn a_slow_handshake_is_closed_by_the_deadline_wherever_it_stops() {
    let node = victim(|c| c.handshake_deadline = Duration::from_millis(100));
    for cut in [0, 1, 10, HEADER, HEADER + 5] {
        let before = Counters::get().of(&faults("slow_handshake"));
        let mut raw = Raw::connect(node.net.local_addr());
        raw.send_raw(&hello_frame()[..cut]);
        assert_eq!(raw.read_to_end(), [], "cut {cut}");
        Counters::get().wait(&faults("slow_handshake"), before + 1);
    }
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send_raw(&hello_frame());
    assert_eq!(raw.read_to_end().len(), 2, "our verdict never comes");
}

#[test]
fn half_open_connections_are_bounded() {
    let node = victim(|c| c.max_half_open = 2);
    let mut waiting: Vec<_> = (0..2).map(|_| Raw::connect(node.net.local_addr())).collect();
    // Accepted in order: when the third is closed, the first two hold both places.
    assert_eq!(Raw::connect(node.net.local_addr()).read(), None);
    Counters::get().wait("pontoon_transport_crowded_total{}", 1);
    // A place is free again once one has shaken hands: the hello it answers proves that it was served.
    for raw in &mut waiting {
        raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
        assert!(raw.read().is_some());
    }
}

#[test]
fn another_cluster_is_refused_with_both_values_on_both_sides() {
    let node = victim(|_| {});
    let why = Refusal::OtherCluster { ours: ClusterId([0xc1; 16]), theirs: ClusterId([0xc2; 16]) };
    node.fake.refuse.lock().insert(A, why.clone());
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
    raw.read().unwrap();
    let verdict = proto::Verdict::decode(raw.read().unwrap().body).unwrap();
    let Some(proto::verdict::Why::OtherCluster(told)) = verdict.why else { panic!("{verdict:?}") };
    assert_eq!((&told.ours[..], &told.theirs[..]), (&[0xc1; 16][..], &[0xc2; 16][..]));
    // It hangs up without a verdict of its own: ours stands.
    drop(raw);
    node.wait_state(A, |s| matches!(s, LinkState::Refused(text) if text.contains(&why.to_string())));
    Counters::get().wait("pontoon_transport_refusals_total{by=us,reason=other_cluster}", 1);
}

#[test]
fn another_protocol_or_address_is_refused_without_asking_the_gatekeeper() {
    type Spoil = fn(&mut proto::Hello);
    let wrong: [(Spoil, &str); 3] = [
        (|h| (h.protocol_min, h.protocol_max) = (7, 9), "node 1 speaks protocols 7..=9, node 2 1..=2"),
        (|h| h.to = 3, "node 3 was dialled, this is node 2"),
        (|h| h.node = 2, "met itself"),
    ];
    for (spoil, text) in wrong {
        let node = victim(|_| {});
        let mut record = wire_hello(A, B);
        spoil(&mut record);
        let mut raw = Raw::connect(node.net.local_addr());
        raw.send(Kind::Handshake, &record.encode_to_vec());
        raw.read().unwrap();
        let verdict = proto::Verdict::decode(raw.read().unwrap().body).unwrap();
        assert!(matches!(&verdict.why, Some(proto::verdict::Why::Other(why)) if why.contains(text)), "{verdict:?}");
        raw.send(Kind::Handshake, WELCOME);
        assert_eq!(raw.read(), None);
        assert_eq!(node.fake.events.all(), []);
    }
}

#[test]
fn text_of_a_refusal_is_cut_and_cleaned() {
    let node = victim(|_| {});
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
    let evil = proto::Verdict { protocol: 0, why: Some(proto::verdict::Why::Other("\x1b[2J\n".repeat(1000))) };
    raw.send(Kind::Handshake, &evil.encode_to_vec());
    raw.read_to_end();
    let text = node.fake.events.wait("told", |log| {
        log.iter().find_map(|e| if let Event::RefusedBy(A, why) = e { Some(why.to_string()) } else { None })
    });
    assert!(text.chars().count() <= 256 && !text.chars().any(char::is_control), "{text:?}");
}

/// Misbehaviour after the handshake: the link goes down, and what came before has arrived.
fn is_dropped_after_admission(reason: &str, misbehave: impl Fn(&mut Raw)) {
    let (node, before) = (victim(|_| {}), Counters::get().of(&faults(reason)));
    let mut raw = Raw::admitted(A, &node);
    raw.send(Kind::Data(Lane::Append), b"good");
    misbehave(&mut raw);
    raw.send(Kind::Data(Lane::Append), b"too late");
    node.fake.events.wait_for(&Event::Link(A, false));
    Counters::get().wait(&faults(reason), before + 1);
    assert_eq!(node.fake.events.frames(), [(Lane::Append, Bytes::from_static(b"good"))], "{reason}");
    assert_eq!(node.net.send(A.into(), Lane::Urgent, Bytes::new()), Err(SendError::Down));
}

#[test]
fn misbehaviour_after_the_handshake_ends_the_link() {
    is_dropped_after_admission("second_handshake", |raw| {
        raw.send(Kind::Handshake, &wire_hello(A, B).encode_to_vec());
    });
    is_dropped_after_admission("out_of_sequence", |raw| raw.seq += 1);
    is_dropped_after_admission("out_of_sequence", |raw| raw.seq -= 1);
    is_dropped_after_admission("bad_record", |raw| raw.send(Kind::Beacon, b"\xff"));
    is_dropped_after_admission("bad_crc", |raw| {
        let mut wire = header(Kind::Data(Lane::Append), raw.seq, b"").to_vec();
        wire[20] ^= 1;
        raw.send_raw(&wire);
    });
    is_dropped_after_admission("too_long", |raw| {
        let mut wire = header(Kind::Data(Lane::Snapshot), raw.seq, b"").to_vec();
        wire[8..12].copy_from_slice(&(2u32 << 20).to_le_bytes());
        raw.send_raw(&wire);
    });
}

#[test]
fn a_connection_that_ends_inside_a_frame_delivers_nothing_of_it() {
    let node = victim(|_| {});
    let mut raw = Raw::admitted(A, &node);
    let wire = [&header(Kind::Data(Lane::Append), raw.seq, b"half of it")[..], b"half"].concat();
    raw.send_raw(&wire);
    drop(raw);
    node.fake.events.wait_for(&Event::Link(A, false));
    assert_eq!(node.fake.events.frames(), []);
}

#[test]
fn a_silent_peer_is_dropped() {
    let node = victim(|c| c.silence = Duration::from_millis(300));
    let mut raw = Raw::admitted(A, &node);
    node.wait_up(A);
    // It reads our beacons, but says nothing.
    raw.read_to_end();
    node.fake.events.wait_for(&Event::Link(A, false));
    Counters::get().wait(&faults("silent"), 1);
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_though_it_speaks() {
    let node = victim(|c| c.silence = Duration::from_millis(500));
    let mut raw = Raw::admitted(A, &node);
    node.wait_up(A);
    let speaker = std::thread::spawn({
        let node_net = node.net.clone();
        move || {
            // Beacons as fast as the other side takes them, without ever reading; until the link is down.
            while node_net.link(A) == LinkState::Up {
                raw.send(Kind::Beacon, &[]);
                std::thread::yield_now();
            }
        }
    });
    let (chunk, until) = (Bytes::from(vec![0; 1 << 20]), Instant::now() + LIMIT);
    while node.net.send(A.into(), Lane::Snapshot, chunk.clone()) != Err(SendError::Down) {
        assert!(Instant::now() < until, "never dropped");
        std::thread::yield_now();
    }
    speaker.join().unwrap();
    Counters::get().wait(&faults("stalled"), 1);
}

#[test]
fn a_newer_connection_takes_the_place_of_an_older_one() {
    let node = victim(|_| {});
    let mut old = Raw::admitted(A, &node);
    old.send(Kind::Data(Lane::Urgent), b"old");
    node.fake.events.wait_for(&Event::Frame(A, Lane::Urgent, Bytes::from_static(b"old")));
    let mut new = Raw::admitted(A, &node);
    node.fake.events.wait_count(&Event::Link(A, true), 2);
    old.send(Kind::Data(Lane::Urgent), b"late");
    old.read_to_end();
    new.send(Kind::Data(Lane::Urgent), b"new");
    node.fake.events.wait_for(&Event::Frame(A, Lane::Urgent, Bytes::from_static(b"new")));
    let links: Vec<_> = node.fake.events.all().into_iter().filter(|e| matches!(e, Event::Link(..))).collect();
    assert_eq!(links, [Event::Link(A, true), Event::Link(A, false), Event::Link(A, true)]);
    assert!(!node.fake.events.frames().contains(&(Lane::Urgent, Bytes::from_static(b"late"))));
}

#[test]
fn a_dialled_stranger_is_dropped_and_dialled_again() {
    Counters::get();
    let (listener, book) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(Book::default()));
    let node = Node::start_with(fake(A), fast(A), &book);
    book.0.lock().insert(B, listener.local_addr().unwrap());
    node.net.set_peers(vec![B]);
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b""] {
        let mut raw = Raw::new(listener.accept().unwrap().0);
        assert_eq!(raw.read().unwrap().kind, Kind::Handshake);
        raw.send_raw(answer);
        if answer.is_empty() {
            raw.socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        assert_eq!(raw.read(), None);
    }
    listener.accept().unwrap();
    assert_eq!(node.net.link(B), LinkState::Down);
}

#[test]
fn a_page_of_the_table_on_a_link_of_protocol_1() {
    is_dropped_after_admission("bad_kind", |raw| raw.send(Kind::Directory, b""));
}
