//! The bytes of protocols 1 and 2, pinned: what production code writes equals the files, and the files read back.
//!
//! `PONTOON_GOLDEN=write cargo test -p pontoon-transport --test golden` writes files that do not exist yet; an
//! existing one is never changed: another form is another version in another directory (law 11).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Book, Event, Node, Raw, fake, fast, hello, proto, wire_hello};
use pontoon_raftstore::env::{Lane, Listing, Refusal};
use pontoon_raftstore::ids::{BootEpoch, ClusterId, Incarnation, NodeId, StoreSeq};
use pontoon_transport::Config;
use pontoon_transport::frame::{Caps, Decoder, Frame, Kind, header};
use prost::Message;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

fn golden(name: &str) -> Vec<u8> {
    let digits: Vec<u8> = fs::read(path(name)).unwrap().into_iter().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn assert_golden(name: &str, got: &[u8]) {
    if std::env::var("PONTOON_GOLDEN").is_ok_and(|v| v == "write") && !path(name).exists() {
        let line = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ") + "\n";
        fs::write(path(name), got.chunks(16).map(line).collect::<String>()).unwrap();
    }
    assert_eq!(got, golden(name), "{name}: the wire form has changed");
}

fn framed(kind: Kind, seq: u64, body: &[u8]) -> Vec<u8> {
    [&header(kind, seq, body)[..], body].concat()
}

fn refusals() -> [(&'static str, Refusal); 6] {
    let (disk, epoch) = (|n: u64| Incarnation(0xd0 + n), |counter: u64| BootEpoch { counter, nonce: 0xe0 + counter });
    [
        ("other_disk", Refusal::OtherDisk { node: A, known: disk(1), shown: disk(2) }),
        ("old_copy", Refusal::OldCopy { node: A, known: epoch(7), shown: epoch(6) }),
        ("lost_log", Refusal::LostLog { node: A, recovered: StoreSeq(5), synced: StoreSeq(9) }),
        ("other_cluster", Refusal::OtherCluster { ours: ClusterId([1; 16]), theirs: ClusterId([2; 16]) }),
        ("other_digest", Refusal::OtherDigest { ours: 1, theirs: u64::MAX }),
        ("protocol", Refusal::Protocol("another reason".into())),
    ]
}

#[test]
fn frames_of_every_kind() {
    let kinds = [
        ("handshake", Kind::Handshake),
        ("beacon", Kind::Beacon),
        ("urgent", Kind::Data(Lane::Urgent)),
        ("append", Kind::Data(Lane::Append)),
        ("snapshot", Kind::Data(Lane::Snapshot)),
    ];
    let mut stream = BytesMut::new();
    for (seq, (name, kind)) in kinds.into_iter().enumerate() {
        let frame = framed(kind, seq as u64, name.as_bytes());
        assert_golden(&format!("v1/frame_{name}"), &frame);
        stream.extend_from_slice(&frame);
    }
    let mut decoder = Decoder::new(Caps { frame: 100, snapshot: 100 });
    for (name, kind) in kinds {
        let frame = Frame { kind, body: Bytes::from_static(name.as_bytes()) };
        assert_eq!(decoder.take_frame(&mut stream).unwrap(), Some(frame));
    }
}

#[test]
fn a_diallers_hello() {
    let (listener, book) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(Book::default()));
    // The caps of the file, whatever the defaults of today.
    let config = Config { max_frame: 9 << 20, max_snapshot_frame: (1 << 20) + (64 << 10), ..fast(A) };
    let node = Node::start(config, &book);
    book.0.lock().insert(B, listener.local_addr().unwrap());
    node.net.set_peers(vec![B]);
    let frame = Raw::new(listener.accept().unwrap().0).read().unwrap();
    assert_golden("v2/hello", &framed(frame.kind, 0, &frame.body));
}

/// Node 2, to which node 1's hello from the file is played.
fn played(fake: Arc<common::Fake>) -> (Node, Raw) {
    let node = Node::start_with(fake, fast(B), &Arc::new(Book::default()));
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send_raw(&golden("v1/hello"));
    raw.seq = 1;
    raw.read().unwrap();
    (node, raw)
}

#[test]
fn the_hello_of_the_file_is_admitted_and_welcomed() {
    let (node, mut raw) = played(fake(B));
    let verdict = raw.read().unwrap();
    assert_golden("v1/welcome", &framed(verdict.kind, 1, &verdict.body));
    assert_eq!(*node.fake.shown.lock(), [hello(A)]);
    raw.send_raw(&golden("v1/welcome"));
    node.wait_up(A);
}

#[test]
fn every_refusal_is_written_and_read_back() {
    for (name, why) in refusals() {
        let (fake, file) = (fake(B), format!("v1/refused_{name}"));
        fake.refuse.lock().insert(A, why.clone());
        let (node, mut raw) = played(fake);
        let verdict = raw.read().unwrap();
        assert_golden(&file, &framed(verdict.kind, 1, &verdict.body));
        raw.send_raw(&golden(&file));
        node.fake.events.wait_for(&Event::RefusedBy(A, why));
    }
}

#[test]
fn a_beacon() {
    let record = proto::Beacon {
        cluster: Bytes::from_static(&[0xc1; 16]),
        synced: 1 << 40,
        stamp: 5_000_000_000,
        echo: 4_000_000_000,
        echo_held: 999_999,
    };
    assert_golden("v1/beacon", &record.encode_to_vec());
    let (node, mut raw) = played(fake(B));
    raw.read().unwrap();
    raw.send_raw(&golden("v1/welcome"));
    raw.seq = 2;
    raw.send(Kind::Beacon, &golden("v1/beacon"));
    node.fake.events.wait("the beacon", |log| {
        log.iter().find(|e| matches!(e, Event::Beacon(A, b) if b.synced == StoreSeq(1 << 40))).map(|_| ())
    });
}

fn table() -> Vec<Listing> {
    let listing = |node, listen: &str| Listing {
        node: NodeId(node),
        incarnation: Incarnation(0xabcd_0000 + node),
        boot: node * 100,
        listen: listen.to_owned(),
    };
    vec![listing(3, "db3.example:7001"), listing(1 << 40, "[2001:db8::1]:7001"), listing(5, "10.0.0.5:7001")]
}

/// Node 2, to which a hello of protocol 2 from the file is played; the pages that it sends are pinned, and read back.
#[test]
fn pages_of_the_table_from_protocol_2_on() {
    let fake = fake(B);
    *fake.table.lock() = table();
    let node = Node::start_with(fake, fast(B), &Arc::new(Book::default()));
    let mut raw = Raw::connect(node.net.local_addr());
    raw.send_raw(&golden("v2/hello"));
    raw.seq = 1;
    raw.read().unwrap();
    let verdict = raw.read().unwrap();
    assert_golden("v2/welcome", &framed(verdict.kind, 1, &verdict.body));
    raw.send_raw(&golden("v2/welcome"));
    raw.seq = 2;
    let mut pages = Vec::new();
    while pages.len() < 2 {
        let frame = raw.read().unwrap();
        if frame.kind == Kind::Directory {
            pages.push(frame.body);
        }
    }
    for (n, page) in pages.iter().enumerate() {
        assert_golden(&format!("v2/directory_{n}"), page);
        raw.send(Kind::Directory, page);
    }
    for page in table().chunks(2) {
        node.fake.events.wait_for(&Event::Listings(A, page.to_vec()));
    }
    assert_golden("v2/frame_directory", &framed(Kind::Directory, 7, b"directory"));
}

/// A later version may add fields; this one must go on reading it.
#[test]
fn unknown_fields_are_ignored() {
    let node = Node::start(fast(B), &Arc::new(Book::default()));
    let mut raw = Raw::connect(node.net.local_addr());
    let mut body = wire_hello(A, B).encode_to_vec();
    body.extend_from_slice(&[0x8a, 0x01, 0x03, b'n', b'e', b'w']); // field 17, bytes
    raw.send(Kind::Handshake, &body);
    assert_eq!(raw.read_to_end_of_handshake().len(), 2);
    assert_eq!(*node.fake.shown.lock(), [hello(A)]);
}
