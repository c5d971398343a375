//! What the transport's tests share: a recording gatekeeper and receiver, a pair of nodes, and a bare socket that
//! speaks the protocol by hand.
//!
//! Waiting is on conditions that the fakes signal, with a limit that only a failing test reaches.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)]

pub mod counters;
#[path = "../../src/proto/mod.rs"]
pub mod proto;

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use pontoon_raftstore::env::{
    Admission, BadFrame, Beacon, Gatekeeper, Hello, Inbound, Lane, LinkState, Listing, PeerIdentity, Refusal, Transport,
};
use pontoon_raftstore::ids::{BootEpoch, ClusterId, Incarnation, NodeId, StoreSeq};
use pontoon_transport::frame::{Caps, Decoder, Frame, Kind, header};
use pontoon_transport::{BoxFuture, Config, ResolveError, Resolver, TcpTransport};
use prost::Message;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reached by failing tests only.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What happened at a node, and a way to wait for it.
#[derive(Default)]
pub struct Events {
    log: Mutex<Vec<Event>>,
    changed: Condvar,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Link(NodeId, bool),
    Frame(NodeId, Lane, Bytes),
    Admit(NodeId),
    Welcome(NodeId),
    RefusedBy(NodeId, Refusal),
    Beacon(NodeId, Beacon),
    Listings(NodeId, Vec<Listing>),
}

impl Events {
    pub fn note(&self, event: Event) {
        self.log.lock().push(event);
        self.changed.notify_all();
    }

    /// Waits until `found` finds something in the log.
    pub fn wait<T>(&self, what: &str, found: impl Fn(&[Event]) -> Option<T>) -> T {
        let (mut log, until) = (self.log.lock(), Instant::now() + LIMIT);
        loop {
            if let Some(found) = found(&log) {
                return found;
            }
            assert!(!self.changed.wait_until(&mut log, until).timed_out(), "never: {what}; log {log:?}");
        }
    }

    pub fn wait_for(&self, event: &Event) {
        self.wait(&format!("{event:?}"), |log| log.contains(event).then_some(()));
    }

    /// Waits for the `n`th such event.
    pub fn wait_count(&self, event: &Event, n: usize) {
        self.wait(&format!("{n} of {event:?}"), |log| (log.iter().filter(|e| *e == event).count() >= n).then_some(()));
    }

    pub fn all(&self) -> Vec<Event> {
        self.log.lock().clone()
    }

    pub fn frames(&self) -> Vec<(Lane, Bytes)> {
        let log = self.log.lock();
        log.iter().filter_map(|e| if let Event::Frame(_, l, b) = e { Some((*l, b.clone())) } else { None }).collect()
    }
}

/// Gatekeeper and receiver of one node.
pub struct Fake {
    pub hello: Mutex<Hello>,
    pub events: Events,
    /// What peers have shown to `admit`.
    pub shown: Mutex<Vec<Hello>>,
    /// Refuses these nodes.
    pub refuse: Mutex<BTreeMap<NodeId, Refusal>>,
    /// What it passes on, two to a page.
    pub table: Mutex<Vec<Listing>>,
    /// `on_frame` waits while this is held by the test.
    pub gate: Mutex<()>,
    /// `on_frame` answers `BadFrame` for this body.
    pub bad: Mutex<Option<Bytes>>,
}

impl Gatekeeper for Fake {
    fn hello(&self) -> Hello {
        self.hello.lock().clone()
    }
    fn admit(&self, peer: &Hello) -> Admission {
        self.shown.lock().push(peer.clone());
        self.events.note(Event::Admit(peer.node));
        self.refuse.lock().get(&peer.node).map_or(Admission::Welcome, |why| Admission::Refused(why.clone()))
    }
    fn on_welcome(&self, peer: &Hello) {
        self.events.note(Event::Welcome(peer.node));
    }
    fn on_refused(&self, by: &Hello, why: &Refusal) {
        self.events.note(Event::RefusedBy(by.node, why.clone()));
    }
    fn beacon(&self) -> Beacon {
        let hello = self.hello.lock();
        Beacon { cluster: hello.cluster, synced: hello.synced }
    }
    fn on_beacon(&self, from: NodeId, beacon: Beacon) {
        self.events.note(Event::Beacon(from, beacon));
    }
    fn listings(&self, since: u64) -> (Vec<Listing>, u64) {
        let table = self.table.lock();
        (table.iter().skip(since as usize).take(2).cloned().collect(), (since + 2).min(table.len() as u64))
    }
    fn on_listings(&self, from: NodeId, listings: Vec<Listing>) {
        self.events.note(Event::Listings(from, listings));
    }
}

impl Inbound for Fake {
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame> {
        drop(self.gate.lock());
        if self.bad.lock().as_ref() == Some(&body) {
            return Err(BadFrame("as told".into()));
        }
        self.events.note(Event::Frame(from.node, lane, body));
        Ok(())
    }
    fn on_link_up(&self, peer: PeerIdentity) {
        self.events.note(Event::Link(peer.node, true));
    }
    fn on_link_down(&self, peer: NodeId) {
        self.events.note(Event::Link(peer, false));
    }
}

/// Addresses that tests may change.
#[derive(Default)]
pub struct Book(pub Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Resolver for Book {
    fn resolve(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<SocketAddr>, ResolveError>> {
        let found = self.0.lock().get(&node).map(|at| vec![*at]).ok_or_else(|| ResolveError("not in the book".into()));
        Box::pin(async move { found })
    }
}

pub struct Node {
    pub id: NodeId,
    pub fake: Arc<Fake>,
    pub net: Arc<TcpTransport>,
}

pub fn hello(id: NodeId) -> Hello {
    Hello {
        cluster: Some(ClusterId([0xc1; 16])),
        node: id,
        incarnation: Incarnation(0x1000 + id.0),
        epoch: BootEpoch { counter: 1, nonce: 0x2000 + id.0 },
        admitted: true,
        digest: 0xd1,
        recovered: StoreSeq(10),
        synced: StoreSeq(20),
        listen: format!("127.0.0.1:{}", 7000 + id.0),
        advert: Bytes::from_static(b"advert"),
    }
}

pub fn fast(id: NodeId) -> Config {
    Config {
        beacon_every: Duration::from_millis(100),
        backoff: (Duration::from_millis(5), Duration::from_millis(50)),
        ..Config::loopback(id)
    }
}

pub fn fake(id: NodeId) -> Arc<Fake> {
    Arc::new(Fake {
        hello: Mutex::new(hello(id)),
        events: Events::default(),
        shown: Mutex::default(),
        refuse: Mutex::default(),
        table: Mutex::default(),
        gate: Mutex::default(),
        bad: Mutex::default(),
    })
}

impl Node {
    pub fn start(config: Config, book: &Arc<Book>) -> Node {
        Node::start_with(fake(config.node), config, book)
    }

    pub fn start_with(fake: Arc<Fake>, config: Config, book: &Arc<Book>) -> Node {
        let id = config.node;
        let net = TcpTransport::start(config, None, book.clone(), fake.clone(), fake.clone()).unwrap();
        book.0.lock().insert(id, net.local_addr());
        Node { id, fake, net }
    }

    pub fn send(&self, to: &Node, lane: Lane, body: &'static [u8]) {
        self.net.send(to.id.into(), lane, Bytes::from_static(body)).unwrap();
    }

    pub fn wait_up(&self, peer: NodeId) {
        self.fake.events.wait_for(&Event::Link(peer, true));
    }

    /// Waits for a state that no event announces.
    pub fn wait_state(&self, peer: NodeId, found: impl Fn(&LinkState) -> bool) {
        let until = Instant::now() + LIMIT;
        while !found(&self.net.link(peer)) {
            assert!(Instant::now() < until, "stays {:?}", self.net.link(peer));
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.net.shutdown_blocking();
    }
}

/// Nodes that know each other.
pub fn cluster(ids: &[u64], configure: impl Fn(&mut Config)) -> (Vec<Node>, Arc<Book>) {
    let book = Arc::new(Book::default());
    let start = |id: &u64| {
        let mut config = fast(NodeId(*id));
        configure(&mut config);
        Node::start(config, &book)
    };
    let nodes: Vec<_> = ids.iter().map(start).collect();
    for node in &nodes {
        node.net.set_peers(ids.iter().map(|id| NodeId(*id)).collect());
    }
    (nodes, book)
}

/// A socket that speaks by hand.
pub struct Raw {
    pub socket: TcpStream,
    buf: BytesMut,
    decoder: Decoder,
    pub seq: u64,
}

impl Raw {
    pub fn connect(to: SocketAddr) -> Raw {
        Raw::new(TcpStream::connect(to).unwrap())
    }

    pub fn new(socket: TcpStream) -> Raw {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_nodelay(true).unwrap();
        let decoder = Decoder::new(Caps { frame: 64 << 20, snapshot: 64 << 20 });
        Raw { socket, buf: BytesMut::new(), decoder, seq: 0 }
    }

    pub fn send(&mut self, kind: Kind, body: &[u8]) {
        let mut wire = header(kind, self.seq, body).to_vec();
        wire.extend_from_slice(body);
        self.seq += 1;
        self.send_raw(&wire);
    }

    /// The other side may have closed already.
    pub fn send_raw(&mut self, wire: &[u8]) {
        let _ = self.socket.write_all(wire);
    }

    /// The next frame; `None` when the other side has closed.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.take_frame(&mut self.buf).unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.buf.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("not closed: {e}"),
            }
        }
    }

    /// Reads hello and verdict.
    pub fn read_to_end_of_handshake(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read()).take(2).collect()
    }

    /// Reads until the other side closes; returns what came.
    pub fn read_to_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read()).collect()
    }
}

/// The welcome to protocol 1, by hand: field 1, varint 1.
pub const WELCOME: &[u8] = &[0x08, 0x01];

/// The hello of a well-behaved node `id` that dials `to`.
pub fn wire_hello(id: NodeId, to: NodeId) -> proto::Hello {
    let us = hello(id);
    proto::Hello {
        protocol_min: 1,
        protocol_max: 1,
        to: to.0,
        max_frame: 9 << 20,
        max_snapshot_frame: 1 << 20,
        cluster: Bytes::copy_from_slice(&[0xc1; 16]),
        node: id.0,
        incarnation: us.incarnation.0,
        epoch_counter: us.epoch.counter,
        epoch_nonce: us.epoch.nonce,
        admitted: us.admitted,
        digest: us.digest,
        recovered: us.recovered.0,
        synced: us.synced.0,
        listen: us.listen,
        advert: us.advert,
    }
}

impl Raw {
    /// Dials `to` as `id` and is admitted.
    pub fn admitted(id: NodeId, to: &Node) -> Raw {
        let mut raw = Raw::connect(to.net.local_addr());
        raw.send(Kind::Handshake, &wire_hello(id, to.id).encode_to_vec());
        raw.read().expect("hello");
        assert_eq!(raw.read().expect("verdict").body, WELCOME);
        raw.send(Kind::Handshake, WELCOME);
        raw
    }
}
