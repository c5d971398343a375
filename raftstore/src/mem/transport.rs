//! The network's twin: frames wait in one place until a test or the simulator delivers, drops or copies them.
//!
//! Leaves to others: delays and losses (the simulator), the handshake's decision (`identity`).
//! Invariant: a frame is delivered to the start of the node that it was sent to, or to nobody; a dead node sends nothing.

use super::power::{CrashPoint, Power};
use crate::env::{BadFrame, Destination, Inbound, Lane, LinkState, PeerIdentity, SendError, Transport};
use crate::ids::NodeId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One frame on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sender as its handshake proved it.
    pub from: PeerIdentity,
    /// Receiver.
    pub to: NodeId,
    /// Lane.
    pub lane: Lane,
    /// Frame body.
    pub body: Bytes,
}

/// The medium that all nodes share.
#[derive(Default)]
pub struct MemNet {
    /// All state.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Who listens.
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// Links (from, to) that are known to be down: `send` says so at once.
    down: BTreeSet<(NodeId, NodeId)>,
    /// Sent and not taken.
    sent: Vec<Packet>,
    /// Bytes that `sent` may hold per receiver and lane before `Full`.
    limit: Option<usize>,
}

struct Endpoint {
    /// This start.
    identity: PeerIdentity,
    /// Its power.
    power: Arc<Power>,
    /// Where frames go.
    inbound: Arc<dyn Inbound>,
}

impl MemNet {
    /// The handle of one start of a node.
    #[must_use]
    pub fn transport(self: &Arc<MemNet>, me: PeerIdentity, power: Arc<Power>) -> MemTransport {
        MemTransport { net: self.clone(), me, power }
    }

    /// The node listens from now on.
    pub fn listen(&self, me: PeerIdentity, power: Arc<Power>, inbound: Arc<dyn Inbound>) {
        self.inner.lock().endpoints.insert(me.node, Endpoint { identity: me, power, inbound });
    }

    /// The node is gone.
    pub fn forget(&self, node: NodeId) {
        self.inner.lock().endpoints.remove(&node);
    }

    /// Sets whether `from` knows its link to `to` as up.
    pub fn set_link(&self, from: NodeId, to: NodeId, up: bool) {
        let mut inner = self.inner.lock();
        if up {
            inner.down.remove(&(from, to))
        } else {
            inner.down.insert((from, to))
        };
    }

    /// Bounds what waits per receiver and lane, in bytes.
    pub fn set_limit(&self, bytes: usize) {
        self.inner.lock().limit = Some(bytes);
    }

    /// Takes everything sent since the last call, in order.
    #[must_use]
    pub fn take_sent(&self) -> Vec<Packet> {
        std::mem::take(&mut self.inner.lock().sent)
    }

    /// Hands a frame to its receiver, if it lives.
    pub fn deliver(&self, packet: Packet) -> Result<(), BadFrame> {
        let target = {
            let inner = self.inner.lock();
            inner.endpoints.get(&packet.to).filter(|e| e.power.is_on()).map(|e| e.inbound.clone())
        };
        target.map_or(Ok(()), |inbound| inbound.on_frame(packet.from, packet.lane, packet.body))
    }

    /// Takes and delivers until nothing is under way; a frame that the receiver calls bad is returned.
    pub fn deliver_all(&self) -> Vec<BadFrame> {
        let mut bad = Vec::new();
        loop {
            let sent = self.take_sent();
            if sent.is_empty() {
                return bad;
            }
            bad.extend(sent.into_iter().filter_map(|p| self.deliver(p).err()));
        }
    }

    /// Tells a node that its link to a peer changed; that it came up only if the peer listens.
    pub fn tell_link(&self, node: NodeId, peer: NodeId, up: bool) {
        let (target, identity) = {
            let inner = self.inner.lock();
            let target = inner.endpoints.get(&node).map(|e| e.inbound.clone());
            (target, inner.endpoints.get(&peer).map(|e| e.identity))
        };
        match (target, identity) {
            (Some(inbound), Some(peer)) if up => inbound.on_link_up(peer),
            (Some(inbound), _) if !up => inbound.on_link_down(peer),
            _ => {}
        }
    }

    /// The start of a node that listens, if any.
    #[must_use]
    pub fn identity(&self, node: NodeId) -> Option<PeerIdentity> {
        self.inner.lock().endpoints.get(&node).map(|e| e.identity)
    }
}

/// The handle of one start of one node.
pub struct MemTransport {
    /// The medium.
    net: Arc<MemNet>,
    /// Shown with every frame.
    me: PeerIdentity,
    /// Of this start.
    power: Arc<Power>,
}

impl Transport for MemTransport {
    fn send(&self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError> {
        if !self.power.pass(CrashPoint::BeforeSend) {
            return Err(SendError::Down);
        }
        let mut inner = self.net.inner.lock();
        if inner.endpoints.get(&to.node).is_some_and(|e| !to.allows(e.identity.incarnation)) {
            return Err(SendError::OtherDisk);
        }
        let to = to.node;
        if inner.down.contains(&(self.me.node, to)) {
            return Err(SendError::Down);
        }
        if let Some(limit) = inner.limit {
            let queue = inner.sent.iter().filter(|p| (p.from.node, p.to, p.lane) == (self.me.node, to, lane));
            if queue.map(|p| p.body.len()).sum::<usize>() + body.len() > limit {
                return Err(SendError::Full);
            }
        }
        inner.sent.push(Packet { from: self.me, to, lane, body });
        Ok(())
    }

    fn link(&self, to: NodeId) -> LinkState {
        let down = self.net.inner.lock().down.contains(&(self.me.node, to));
        if down { LinkState::Down } else { LinkState::Up }
    }
}
