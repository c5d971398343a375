//! What every network promises, as cases over a fixture of two nodes.
//!
//! Leaves to others: handshakes and refusals (each adapter's own tests), what the bytes mean.
//! The fixture waits by condition, never by time alone.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use super::contract::contract;
use crate::env::{Lane, LinkState, PeerIdentity, SendError};
use crate::ids::Incarnation;
use bytes::Bytes;

/// Node A or node B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Two nodes with a link between them.
pub trait TransportFixture {
    /// Who a node is in its current start.
    fn identity(&self, side: Side) -> PeerIdentity;
    /// Sends from `side` to the other node, or to another disk of it.
    fn send_to(&self, side: Side, disk: Incarnation, lane: Lane, body: Bytes) -> Result<(), SendError>;
    /// Sends from `side` to the other node, whatever its disk.
    fn send(&self, side: Side, lane: Lane, body: Bytes) -> Result<(), SendError> {
        self.send_to(side, Incarnation(0), lane, body)
    }
    /// State of the link as `side` sees it.
    fn link(&self, side: Side) -> LinkState;
    /// Takes what arrived at `side` since the last call.
    fn take_arrived(&mut self, side: Side) -> Vec<(PeerIdentity, Lane, Bytes)>;
    /// Lets the network work for a while; returns early once something arrived or a link changed.
    fn work(&mut self);
    /// Breaks the link; both sides see it as down before this returns.
    fn cut(&mut self);
    /// Lets the link come up again; both sides see it as up before this returns.
    fn heal(&mut self);
    /// Node B stops and starts anew, with another boot epoch; the link is up again before this returns.
    fn restart_b(&mut self);
}

const LANES: [Lane; 3] = [Lane::Urgent, Lane::Append, Lane::Snapshot];

fn receive(w: &mut dyn TransportFixture, side: Side, n: usize) -> Vec<(PeerIdentity, Lane, Bytes)> {
    let mut all = Vec::new();
    for _ in 0..10_000 {
        all.extend(w.take_arrived(side));
        if all.len() >= n {
            return all;
        }
        w.work();
    }
    panic!("only {} of {n} frames arrived", all.len());
}

contract! { dyn TransportFixture;
    /// Frames arrive whole, with the sender that the handshake proved.
    fn frames_arrive_whole(w) {
        for lane in LANES {
            for len in [1, 2, 255, 256, 70_000, 1 << 20] {
                let body = Bytes::from(vec![len as u8; len]);
                w.send(Side::A, lane, body.clone()).unwrap();
                let got = receive(w, Side::B, 1);
                assert_eq!(got.len(), 1);
                assert_eq!((got[0].0, got[0].1), (w.identity(Side::A), lane));
                assert!(got[0].2 == body, "{len} bytes on {lane:?}");
            }
        }
    }

    /// What is meant for a disk goes to that disk or nowhere (boot.md 3).
    fn another_disk_gets_nothing(w) {
        let disk = w.identity(Side::B).incarnation;
        for lane in LANES {
            let other = Incarnation(disk.0 ^ 1);
            assert_eq!(w.send_to(Side::A, other, lane, Bytes::from_static(b"for another")), Err(SendError::OtherDisk));
            w.send_to(Side::A, disk, lane, Bytes::from_static(b"for b")).unwrap();
            let got = receive(w, Side::B, 1);
            assert_eq!((got.len(), &got[0].2[..]), (1, &b"for b"[..]));
        }
    }

    /// Both ways.
    fn both_directions(w) {
        w.send(Side::B, Lane::Urgent, Bytes::from_static(b"to a")).unwrap();
        let got = receive(w, Side::A, 1);
        assert_eq!((got[0].0, &got[0].2[..]), (w.identity(Side::B), &b"to a"[..]));
    }

    /// Within a lane frames arrive in order and once.
    fn order_within_a_lane(w) {
        for i in 0..300u32 {
            w.send(Side::A, LANES[i as usize % 3], Bytes::copy_from_slice(&i.to_be_bytes())).unwrap();
        }
        let got = receive(w, Side::B, 300);
        for (at, lane) in LANES.iter().enumerate() {
            let seen: Vec<u32> = got.iter().filter(|f| f.1 == *lane).map(|f| u32::from_be_bytes(f.2[..].try_into().unwrap())).collect();
            let sent: Vec<u32> = (0..300).filter(|i| *i as usize % 3 == at).collect();
            assert_eq!(seen, sent, "{lane:?}");
        }
    }

    /// Without a link a frame is refused at once, and lost; with the link back, later ones arrive.
    fn a_cut_link_refuses(w) {
        assert_eq!(w.link(Side::A), LinkState::Up);
        w.cut();
        assert_eq!((w.link(Side::A), w.link(Side::B)), (LinkState::Down, LinkState::Down));
        assert_eq!(w.send(Side::A, Lane::Append, Bytes::from_static(b"lost")), Err(SendError::Down));
        w.heal();
        assert_eq!((w.link(Side::A), w.link(Side::B)), (LinkState::Up, LinkState::Up));
        w.send(Side::A, Lane::Append, Bytes::from_static(b"found")).unwrap();
        let got = receive(w, Side::B, 1);
        assert_eq!(&got[0].2[..], b"found");
    }

    /// A node that started anew shows so with every frame.
    fn a_restart_shows_a_new_epoch(w) {
        let before = w.identity(Side::B);
        w.restart_b();
        let after = w.identity(Side::B);
        assert!(before.epoch != after.epoch && before.incarnation == after.incarnation);
        w.send(Side::B, Lane::Urgent, Bytes::from_static(b"again")).unwrap();
        let got = receive(w, Side::A, 1);
        assert_eq!(got[0].0, after);
        w.send(Side::A, Lane::Urgent, Bytes::from_static(b"hello")).unwrap();
        assert_eq!(receive(w, Side::B, 1).len(), 1);
    }

    /// What nobody takes does not pile up: at some bound frames are refused, and later ones flow again.
    fn queues_are_bounded(w) {
        let body = Bytes::from(vec![7; 64 << 10]);
        let mut sent = 0;
        let refused = (0..16_384).find_map(|_| {
            let answer = w.send(Side::A, Lane::Append, body.clone());
            sent += usize::from(answer.is_ok());
            answer.err()
        });
        assert_eq!(refused, Some(SendError::Full), "1 GiB was queued");
        assert!(receive(w, Side::B, sent).len() >= sent);
        w.send(Side::A, Lane::Append, Bytes::from_static(b"after")).unwrap();
        assert_eq!(&receive(w, Side::B, 1)[0].2[..], b"after");
    }
}
