//! The seam to the network: bytes to a node on a lane, never blocking, losses allowed.
//!
//! Leaves to others: retry (raft retries), the meaning of the bytes (`codec`), who may connect (`Gatekeeper`).
//! Invariant: per lane and link, frames arrive in order and at most once; a frame arrives whole or not at all.

use crate::ids::{BootEpoch, Incarnation, NodeId};
use bytes::Bytes;

/// Separate queues and sockets' share, so that bulk never delays what keeps leaders alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes and their answers; small.
    Urgent,
    /// Appends and their answers.
    Append,
    /// Snapshot chunks and their acks.
    Snapshot,
}

/// Why a frame was not queued. It is gone: raft retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No link: tell raft that the peer is unreachable.
    #[error("no link to the node")]
    Down,
    /// The queue's byte bound is reached: likewise.
    #[error("send queue to the node is full")]
    Full,
    /// The body is over what the lane or the peer takes: sending it again is in vain.
    #[error("body is over the lane's cap")]
    TooLarge,
    /// The link leads to another disk than the one meant (boot.md 3): tell raft that the peer is unreachable.
    #[error("the node shows another disk")]
    OtherDisk,
}

/// State of the link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connected and admitted.
    Up,
    /// Dialling or waiting to.
    Down,
    /// The peer was refused, or refuses this node.
    Refused(String),
}

/// Who sent a frame, as proven by the handshake of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// Its start.
    pub epoch: BootEpoch,
}

/// Whom a frame is meant for: a replica map names node and disk, and frames of a replica go only over a link of that
/// disk (boot.md 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The node.
    pub node: NodeId,
    /// Its disk; 0: not known yet, whichever answers.
    pub disk: Incarnation,
}

impl Destination {
    /// May a frame for it go over a link to this disk?
    #[must_use]
    pub fn allows(&self, disk: Incarnation) -> bool {
        self.disk == Incarnation(0) || self.disk == disk
    }
}

impl From<NodeId> for Destination {
    fn from(node: NodeId) -> Destination {
        Destination { node, disk: Incarnation(0) }
    }
}

impl From<PeerIdentity> for Destination {
    fn from(peer: PeerIdentity) -> Destination {
        Destination { node: peer.node, disk: peer.incarnation }
    }
}

/// A frame's body makes no sense: drop the connection and count it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad frame: {0}")]
pub struct BadFrame(pub String);

/// The network as raftstore uses it.
pub trait Transport: Send + Sync {
    /// Queues one frame body for a node. Never blocks; bounded by bytes per peer and lane.
    fn send(&self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError>;
    /// State of the link to a node.
    fn link(&self, to: NodeId) -> LinkState;
}

/// What the network calls; implemented by raftstore.
pub trait Inbound: Send + Sync {
    /// One frame. Never blocks for long; over its budget it drops (and raft retries).
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame>;
    /// A link came up, to this start of this disk.
    fn on_link_up(&self, peer: PeerIdentity);
    /// A link went down.
    fn on_link_down(&self, peer: NodeId);
}

const _: fn(&dyn Transport) = |_| {};
const _: fn(&dyn Inbound) = |_| {};
