//! Links between whole transports on the loopback: coming up, carrying, breaking, coming back, refusing, ending.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Book, Event, Node, cluster, fake, fast, hello};
use pontoon_raftstore::env::{Beacon, Lane, LinkState, Listing, Refusal, SendError, Transport};
use pontoon_raftstore::ids::{Incarnation, NodeId, StoreSeq};
use pontoon_transport::{Config, StartError, TcpTransport};
use std::sync::Arc;
use std::time::Duration;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

#[test]
fn frames_pass_both_ways_on_every_lane_in_order() {
    let (nodes, _book) = cluster(&[1, 2, 3], |_| {});
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            from.wait_up(to.id);
            for lane in [Lane::Urgent, Lane::Append, Lane::Snapshot] {
                for n in 0..100u64 {
                    from.net
                        .send(to.id.into(), lane, Bytes::copy_from_slice(&(from.id.0 << 32 | n).to_le_bytes()))
                        .unwrap();
                }
            }
        }
    }
    for to in &nodes {
        to.fake.events.wait("600 frames", |log| {
            (log.iter().filter(|e| matches!(e, Event::Frame(..))).count() == 600).then_some(())
        });
        for lane in [Lane::Urgent, Lane::Append, Lane::Snapshot] {
            for from in nodes.iter().filter(|from| from.id != to.id) {
                let got: Vec<u64> = (to.fake.events.all().into_iter())
                    .filter_map(|e| {
                        if let Event::Frame(f, l, b) = e { (f == from.id && l == lane).then_some(b) } else { None }
                    })
                    .map(|b| u64::from_le_bytes(b[..].try_into().unwrap()) & 0xffff_ffff)
                    .collect();
                assert!(got.into_iter().eq(0..100), "{lane:?} {} to {}", from.id, to.id);
            }
        }
    }
}

#[test]
fn the_largest_body_passes_and_a_larger_one_is_refused_at_the_door() {
    let (nodes, _book) = cluster(&[1, 2], |c| c.silence = Duration::from_secs(10));
    nodes[0].wait_up(B);
    let body = Bytes::from((0..10 << 20).map(|n: u32| (n >> 3) as u8).collect::<Vec<_>>());
    nodes[0].net.send(B.into(), Lane::Append, body.clone()).unwrap();
    nodes[1].fake.events.wait_for(&Event::Frame(A, Lane::Append, body));
    let too_large = Bytes::from(vec![0; (10 << 20) + 1]);
    assert_eq!(nodes[0].net.send(B.into(), Lane::Append, too_large), Err(SendError::TooLarge));
}

#[test]
fn both_sides_are_admitted_before_a_link_is_up_and_beacons_follow() {
    let (nodes, _book) = cluster(&[1, 2], |_| {});
    for (node, peer) in [(&nodes[0], B), (&nodes[1], A)] {
        let said = Beacon { cluster: hello(peer).cluster, synced: StoreSeq(20) };
        node.fake.events.wait_for(&Event::Beacon(peer, said));
        let log = node.fake.events.all();
        let at = |event| log.iter().position(|e| *e == event).unwrap();
        assert!(at(Event::Admit(peer)) < at(Event::Welcome(peer)));
        assert!(at(Event::Welcome(peer)) < at(Event::Link(peer, true)));
        node.fake.events.wait_count(&Event::Beacon(peer, said), 3);
        let link = &node.net.links()[0];
        assert_eq!((link.peer, &link.state, link.wanted), (peer, &LinkState::Up, true));
        assert!(link.rtt.unwrap() < Duration::from_secs(5));
    }
}

#[test]
fn a_restarted_peer_is_found_again_at_another_address() {
    let (mut nodes, book) = cluster(&[1, 2], |_| {});
    nodes[0].wait_up(B);
    for round in 1..=3 {
        let old = nodes.pop().unwrap();
        drop(old);
        nodes[0].fake.events.wait_count(&Event::Link(B, false), round);
        assert_eq!(nodes[0].net.send(B.into(), Lane::Urgent, Bytes::new()), Err(SendError::Down));
        let again = Node::start(fast(B), &book);
        again.net.set_peers(vec![A]);
        again.wait_up(A);
        nodes[0].fake.events.wait_count(&Event::Link(B, true), round + 1);
        nodes[0].send(&again, Lane::Urgent, b"again");
        again.fake.events.wait_for(&Event::Frame(A, Lane::Urgent, Bytes::from_static(b"again")));
        nodes.push(again);
    }
    let ups =
        nodes[0].fake.events.all().into_iter().filter_map(|e| if let Event::Link(B, up) = e { Some(up) } else { None });
    assert!(ups.eq([true, false].into_iter().cycle().take(7)), "ups and downs alternate");
}

#[test]
fn a_refusal_reaches_both_sides_whoever_refuses() {
    for (refuser, refused) in [(A, B), (B, A)] {
        let book = Arc::new(Book::default());
        let why = Refusal::OtherDisk { node: refused, known: Incarnation(1), shown: Incarnation(2) };
        let nodes: Vec<_> = [A, B]
            .map(|id| {
                let fake = fake(id);
                if id == refuser {
                    fake.refuse.lock().insert(refused, why.clone());
                }
                Node::start_with(fake, fast(id), &book)
            })
            .into();
        nodes.iter().for_each(|node| node.net.set_peers(vec![A, B]));
        let (there, here) = if refuser == A { (&nodes[1], &nodes[0]) } else { (&nodes[0], &nodes[1]) };
        there.fake.events.wait_for(&Event::RefusedBy(refuser, why.clone()));
        for (node, peer) in [(there, refuser), (here, refused)] {
            node.wait_state(peer, |s| matches!(s, LinkState::Refused(text) if text.contains(&why.to_string())));
            assert!(!node.fake.events.all().iter().any(|e| matches!(e, Event::Link(..) | Event::Welcome(_))));
        }
        // Once nothing speaks against it any more, the link comes up.
        here.fake.refuse.lock().clear();
        here.wait_up(refused);
        there.wait_up(refuser);
    }
}

#[test]
fn a_swapped_address_is_refused_at_both_ends_and_nobody_is_remembered() {
    let book = Arc::new(Book::default());
    let (one, three) = (Node::start(fast(A), &book), Node::start(fast(NodeId(3)), &book));
    book.0.lock().insert(B, three.net.local_addr());
    one.net.set_peers(vec![B]);
    one.wait_state(
        B,
        |s| matches!(s, LinkState::Refused(text) if text.contains("node 2 was dialled, node 3 answered")),
    );
    one.fake.events.wait("told", |log| log.iter().any(|e| matches!(e, Event::RefusedBy(NodeId(3), _))).then_some(()));
    three.fake.events.wait("told", |log| log.iter().any(|e| matches!(e, Event::RefusedBy(A, _))).then_some(()));
    for node in [&one, &three] {
        assert!(!node.fake.events.all().iter().any(|e| matches!(e, Event::Admit(_) | Event::Link(..))));
    }
}

#[test]
fn a_full_queue_says_so_and_the_urgent_lane_passes_a_waiting_snapshot() {
    let (nodes, _book) = cluster(&[1, 2], |c| c.silence = Duration::from_secs(60));
    nodes[0].wait_up(B);
    let stop = nodes[1].fake.gate.lock();
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let mut sent = 0;
    // The peer does not take anything: the socket fills, then the queue.
    let full = loop {
        match nodes[0].net.send(B.into(), Lane::Snapshot, chunk.clone()) {
            Ok(()) => sent += 1,
            Err(why) => {
                let queued = nodes[0].net.links()[0].queued[2];
                assert!(queued <= 4 << 20, "{queued}");
                // Full twice in a row with the writer stuck: no more room will come.
                if queued > 3 << 20 {
                    break why;
                }
            }
        }
        assert!(sent < 1000);
    };
    assert_eq!(full, SendError::Full);
    nodes[0].send(&nodes[1], Lane::Urgent, b"heartbeat");
    drop(stop);
    let heartbeat = Event::Frame(A, Lane::Urgent, Bytes::from_static(b"heartbeat"));
    nodes[1].fake.events.wait_for(&heartbeat);
    nodes[1].fake.events.wait("every queued chunk", |log| {
        (log.iter().filter(|e| matches!(e, Event::Frame(_, Lane::Snapshot, _))).count() >= sent).then_some(())
    });
    let log = nodes[1].fake.events.all();
    let after = log.iter().skip_while(|e| **e != heartbeat).count() - 1;
    assert!(after >= 3, "the queued chunks came after the heartbeat, {after} did");
}

#[test]
fn what_the_socket_does_not_take_follows_in_order_whoever_sends() {
    const SENDERS: u8 = 3;
    const FRAMES: u8 = 100;
    let (nodes, _book) = cluster(&[1, 2], |c| c.silence = Duration::from_secs(60));
    nodes[0].wait_up(B);
    let stop = nodes[1].fake.gate.lock();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let net = nodes[0].net.clone();
            scope.spawn(move || {
                for n in 0..FRAMES {
                    let mut body = vec![n; 1 + usize::from(n) * 977];
                    body[0] = sender;
                    net.send(B.into(), Lane::Append, body.into()).unwrap();
                }
            });
        }
    });
    drop(stop);
    let events = &nodes[1].fake.events;
    let all = usize::from(SENDERS) * usize::from(FRAMES);
    events
        .wait("every frame", |log| (log.iter().filter(|e| matches!(e, Event::Frame(..))).count() == all).then_some(()));
    for sender in 0..SENDERS {
        let lengths = events.frames().into_iter().filter(|(_, body)| body[0] == sender).map(|(_, body)| body.len());
        assert!(lengths.eq((0..FRAMES).map(|n| 1 + usize::from(n) * 977)), "of sender {sender}");
    }
}

#[test]
fn a_body_that_raftstore_cannot_read_ends_the_link() {
    let (nodes, _book) = cluster(&[1, 2], |_| {});
    nodes[0].wait_up(B);
    nodes[1].wait_up(A);
    *nodes[1].fake.bad.lock() = Some(Bytes::from_static(b"nonsense"));
    nodes[0].send(&nodes[1], Lane::Append, b"nonsense");
    nodes[1].fake.events.wait_for(&Event::Link(A, false));
    nodes[0].fake.events.wait_for(&Event::Link(B, false));
}

#[test]
fn shutdown_ends_links_on_both_sides_and_frees_the_port() {
    let (mut nodes, book) = cluster(&[1, 2], |_| {});
    nodes[0].wait_up(B);
    let gone = nodes.pop().unwrap();
    gone.wait_up(A);
    let address = gone.net.local_addr();
    gone.net.shutdown_blocking();
    gone.net.shutdown_blocking();
    assert_eq!(gone.net.send(A.into(), Lane::Urgent, Bytes::new()), Err(SendError::Down));
    assert_eq!(gone.fake.events.all().iter().filter(|e| **e == Event::Link(A, false)).count(), 1);
    nodes[0].fake.events.wait_for(&Event::Link(B, false));
    let again = Node::start(Config { listen: address, ..fast(B) }, &book);
    again.wait_up(A);
}

#[test]
fn starting_wrongly_is_a_typed_error() {
    let start = |config| TcpTransport::bind(config, None).map(|_| ()).unwrap_err();
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::loopback(A) };
    assert!(matches!(start(open.clone()), StartError::Insecure { .. }));
    TcpTransport::bind(Config { insecure_peers: true, ..open }, None).unwrap();
    assert!(
        matches!(start(Config { node: NodeId(0), batch: 0, ..Config::loopback(A) }), StartError::Config(f) if f.len() == 2)
    );
    let taken = TcpTransport::bind(Config::loopback(A), None).unwrap();
    let same = Config { listen: taken.local_addr(), ..Config::loopback(B) };
    assert!(matches!(start(same), StartError::Bind { .. }));
}

#[test]
fn it_runs_on_a_runtime_of_the_host() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (a, b, book) = (fake(A), fake(B), Arc::new(Book::default()));
        let here = Some(tokio::runtime::Handle::current());
        let one = TcpTransport::start(fast(A), here.clone(), book.clone(), a.clone(), a.clone()).unwrap();
        let two = TcpTransport::start(fast(B), here, book.clone(), b.clone(), b.clone()).unwrap();
        book.0.lock().insert(B, two.local_addr());
        one.set_peers(vec![B]);
        for (node, peer) in [(a.clone(), B), (b.clone(), A)] {
            tokio::task::spawn_blocking(move || node.events.wait_for(&Event::Link(peer, true))).await.unwrap();
        }
        one.shutdown().await;
        two.shutdown().await;
        assert!(a.events.all().contains(&Event::Link(B, false)));
    });
}

/// A frame that the socket takes at once waits for no other thread than the sender's.
#[test]
fn who_sends_writes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, book) = (fake(A), Arc::new(Book::default()));
    let two = Node::start(fast(B), &book);
    let one = TcpTransport::start(fast(A), Some(runtime.handle().clone()), book.clone(), a.clone(), a.clone()).unwrap();
    one.set_peers(vec![B]);
    let up = runtime.spawn_blocking(move || a.events.wait_for(&Event::Link(B, true)));
    runtime.block_on(up).unwrap();
    // From here on nobody runs its tasks.
    for body in [&b"one"[..], b"two"] {
        one.send(B.into(), Lane::Append, Bytes::from_static(body)).unwrap();
        two.fake.events.wait_for(&Event::Frame(A, Lane::Append, Bytes::from_static(body)));
    }
    runtime.block_on(one.shutdown());
}

#[test]
fn a_node_that_knocks_finds_out_who_is_there_and_both_learn_the_table() {
    let book = Arc::new(Book::default());
    let member = Node::start(fast(A), &book);
    let told = Listing { node: NodeId(9), incarnation: Incarnation(9), boot: 1, listen: "nine:1".into() };
    member.fake.table.lock().push(told.clone());
    for joiner in [NodeId(7), B] {
        // With no address book of its own: all it has is the member's address, beside one where nobody answers.
        let joiner = Node::start(fast(joiner), &Arc::new(Book::default()));
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        joiner.net.knock(vec![nobody.clone(), member.net.local_addr().to_string()]);
        joiner.wait_up(A);
        member.wait_up(joiner.id);
        joiner.fake.events.wait_for(&Event::Listings(A, vec![told.clone()]));
        assert_eq!(joiner.net.failed_knocks().into_iter().map(|k| k.0).collect::<Vec<_>>(), [nobody]);
        joiner.send(&member, Lane::Urgent, b"hello");
        member.fake.events.wait_for(&Event::Frame(joiner.id, Lane::Urgent, Bytes::from_static(b"hello")));
    }
}

#[test]
fn who_knocks_and_is_refused_is_told_and_knocks_again() {
    let member = Node::start(fast(A), &Arc::new(Book::default()));
    member.fake.refuse.lock().insert(B, Refusal::NotAMember { node: A });
    let joiner = Node::start(fast(B), &Arc::new(Book::default()));
    let address = member.net.local_addr().to_string();
    joiner.net.knock(vec![address.clone()]);
    let text = Refusal::NotAMember { node: A }.to_string();
    joiner.fake.events.wait_for(&Event::RefusedBy(A, Refusal::Protocol(text.clone())));
    member.fake.events.wait_count(&Event::Admit(B), 2);
    assert!(joiner.net.failed_knocks().iter().any(|k| k.0 == address && k.1.contains(&text)));
    member.fake.refuse.lock().clear();
    joiner.wait_up(A);
}
