//! raftstore's contract suite for networks, over TCP on the loopback with a wire that can be cut.
//!
//! Each case runs on a fresh pair. Node A dials node B through `Wire`, which forwards bytes until it is cut.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Book, Fake, LIMIT, fast};
use parking_lot::{Condvar, Mutex};
use pontoon_raftstore::env::{BadFrame, Destination, Inbound, Lane, LinkState, PeerIdentity, SendError, Transport};
use pontoon_raftstore::ids::{Incarnation, NodeId};
use pontoon_raftstore::testing::transport_contract::{CASES, Side, TransportFixture};
use pontoon_transport::{Config, TcpTransport};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Bytes that a node takes before the test takes them.
const INBOX: usize = 4 << 20;

/// What arrived at a node and was not taken yet; holds the network up while it is full.
#[derive(Default)]
struct Inbox {
    inner: Mutex<Arrived>,
    changed: Condvar,
}

#[derive(Default)]
struct Arrived {
    frames: Vec<(PeerIdentity, Lane, Bytes)>,
    bytes: usize,
    closed: bool,
}

impl Inbound for Inbox {
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame> {
        let mut inner = self.inner.lock();
        while inner.bytes > INBOX && !inner.closed {
            self.changed.wait(&mut inner);
        }
        inner.bytes += body.len();
        inner.frames.push((from, lane, body));
        self.changed.notify_all();
        Ok(())
    }
    fn on_link_up(&self, _: PeerIdentity) {
        self.changed.notify_all();
    }
    fn on_link_down(&self, _: NodeId) {
        self.changed.notify_all();
    }
}

impl Inbox {
    fn take(&self) -> Vec<(PeerIdentity, Lane, Bytes)> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        self.changed.notify_all();
        std::mem::take(&mut inner.frames)
    }

    fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Forwards connections, until cut.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    to: Option<SocketAddr>,
    sockets: Vec<TcpStream>,
}

impl Wire {
    /// Starts to listen; ends with the test process.
    fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, wire) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || listener.incoming().for_each(|socket| wire.join(socket.unwrap())));
        address
    }

    fn join(&self, near: TcpStream) {
        let mut ends = self.0.lock();
        let Some(far) = ends.to.and_then(|to| TcpStream::connect(to).ok()) else { return };
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        ends.sockets.extend([near, far]);
    }

    fn cut(&self) {
        let mut ends = self.0.lock();
        ends.to = None;
        for socket in ends.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

struct Node {
    fake: Arc<Fake>,
    inbox: Arc<Inbox>,
    net: Arc<TcpTransport>,
}

impl Node {
    fn start(id: NodeId, epoch: u64, book: &Arc<Book>) -> Node {
        let (fake, inbox) = (common::fake(id), Arc::new(Inbox::default()));
        fake.hello.lock().epoch.counter = epoch;
        // A full inbox is no reason to give the link up here.
        let config = Config { silence: 3 * LIMIT, ..fast(id) };
        let net = TcpTransport::start(config, None, book.clone(), fake.clone(), inbox.clone()).unwrap();
        net.set_peers(vec![A, B]);
        Node { fake, inbox, net }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inbox.close();
        self.net.shutdown_blocking();
    }
}

struct Pair {
    a: Node,
    b: Node,
    wire: Wire,
    book: Arc<Book>,
}

impl Pair {
    fn new() -> Pair {
        let (wire, book) = (Wire::default(), Arc::new(Book::default()));
        book.0.lock().insert(B, wire.listen());
        let (a, b) = (Node::start(A, 1, &book), Node::start(B, 1, &book));
        let mut pair = Pair { a, b, wire, book };
        pair.heal();
        pair
    }

    fn at(&self, side: Side) -> (&Node, NodeId) {
        match side {
            Side::A => (&self.a, B),
            Side::B => (&self.b, A),
        }
    }

    fn wait_both(&self, state: &LinkState) {
        let until = Instant::now() + LIMIT;
        while [Side::A, Side::B].iter().any(|side| self.link(*side) != *state) {
            assert!(Instant::now() < until, "never {state:?}");
            std::thread::yield_now();
        }
    }
}

impl TransportFixture for Pair {
    fn identity(&self, side: Side) -> PeerIdentity {
        let hello = self.at(side).0.fake.hello.lock().clone();
        PeerIdentity { node: hello.node, incarnation: hello.incarnation, epoch: hello.epoch }
    }
    fn send_to(&self, side: Side, disk: Incarnation, lane: Lane, body: Bytes) -> Result<(), SendError> {
        let (node, peer) = self.at(side);
        node.net.send(Destination { node: peer, disk }, lane, body)
    }
    fn link(&self, side: Side) -> LinkState {
        let (node, peer) = self.at(side);
        node.net.link(peer)
    }
    fn take_arrived(&mut self, side: Side) -> Vec<(PeerIdentity, Lane, Bytes)> {
        self.at(side).0.inbox.take()
    }
    fn work(&mut self) {
        // Either inbox may be the one that is waited for: look at both, often.
        for node in [&self.a, &self.b] {
            let mut inner = node.inbox.inner.lock();
            if inner.frames.is_empty() {
                node.inbox.changed.wait_for(&mut inner, Duration::from_millis(2));
            }
        }
    }
    fn cut(&mut self) {
        self.wire.cut();
        self.wait_both(&LinkState::Down);
    }
    fn heal(&mut self) {
        self.wire.0.lock().to = Some(self.b.net.local_addr());
        self.wait_both(&LinkState::Up);
    }
    fn restart_b(&mut self) {
        let epoch = self.b.fake.hello.lock().epoch.counter + 1;
        self.wire.cut();
        self.b = Node::start(B, epoch, &self.book);
        self.wait_both(&LinkState::Down);
        self.heal();
    }
}

#[test]
fn tcp_keeps_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        case(&mut Pair::new());
    }
}
