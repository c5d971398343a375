//! The seam between the handshake and identity: who may talk to whom (boot.md 1-2).
//!
//! The transport carries a `Hello` each way and asks the `Gatekeeper`; the decision table lives in `identity`.
//! Invariant: nothing but the handshake passes a link before both sides have admitted each other.

use crate::ids::{BootEpoch, ClusterId, Incarnation, NodeId, StoreSeq};
use bytes::Bytes;

/// What a node shows when a link is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The cluster; `None` while it is not yet minted or adopted.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// Its start.
    pub epoch: BootEpoch,
    /// Has it completed its founding?
    pub admitted: bool,
    /// Digest of what was founded (node ids, groups, ranges).
    pub digest: u64,
    /// What its log store recovered at this start.
    pub recovered: StoreSeq,
    /// What its log store has synced so far.
    pub synced: StoreSeq,
    /// Where it listens for peers.
    pub listen: String,
    /// Opaque to Pontoon: e.g. client and admin addresses.
    pub advert: Bytes,
}

/// Small periodic word on every link (each second).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// The cluster, once known: how non-minting founders learn it.
    pub cluster: Option<ClusterId>,
    /// What the sender's log store has synced.
    pub synced: StoreSeq,
}

/// Where a node listens, as heard: what peers pass on about each other, so that nodes that run learn of a joiner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// Counter of the start that this was true for: of two listings of one disk the higher one is newer.
    pub boot: u64,
    /// Where it listens for peers.
    pub listen: String,
}

/// The answer to a `Hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Synced: this incarnation and epoch are the ones known for the node from now on.
    Welcome,
    /// No link. Sent to the peer with both sides' values.
    Refused(Refusal),
}

/// Why a peer was refused (table of boot.md 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Stops the refused node.
    #[error(
        "node {node} was known with disk {known:?}, now shows {shown:?}: a lost disk's node id is never used again, start it under a new node id"
    )]
    OtherDisk {
        /// The refused node.
        node: NodeId,
        /// What was synced of it.
        known: Incarnation,
        /// What it showed.
        shown: Incarnation,
    },
    /// Stops the refused node.
    #[error(
        "node {node} shows boot {shown:?}, but {known:?} was seen: an older copy of its disk, or two copies running"
    )]
    OldCopy {
        /// The refused node.
        node: NodeId,
        /// What was synced of it.
        known: BootEpoch,
        /// What it showed.
        shown: BootEpoch,
    },
    /// Stops the refused node.
    #[error("node {node} recovered its log up to {recovered}, but had synced {synced}: it lost acknowledged log")]
    LostLog {
        /// The refused node.
        node: NodeId,
        /// What it recovered.
        recovered: StoreSeq,
        /// What it was known to have synced.
        synced: StoreSeq,
    },
    /// Ends the link only.
    #[error("cluster {theirs} is not {ours}")]
    OtherCluster {
        /// Of the node that refuses.
        ours: ClusterId,
        /// Of the refused.
        theirs: ClusterId,
    },
    /// Ends the link only, and keeps a founding node out.
    #[error(
        "founded with digest {theirs:#x}, here with {ours:#x}: start all nodes with the same --cluster and --groups"
    )]
    OtherDigest {
        /// Of the node that refuses.
        ours: u64,
        /// Of the refused.
        theirs: u64,
    },
    /// Ends the link only: a joiner keeps to members (boot.md 2).
    #[error("node {node} is not admitted to a cluster yet: join through a member")]
    NotAMember {
        /// The node that was asked.
        node: NodeId,
    },
    /// Ends the link only.
    #[error("{0}")]
    Protocol(String),
}

impl Refusal {
    /// Does a refusal of this kind, from a peer of the same cluster, stop the refused node?
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Refusal::OtherDisk { .. } | Refusal::OldCopy { .. } | Refusal::LostLog { .. })
    }
}

/// Identity as the transport asks for it; implemented by raftstore. Calls may sync a few bytes: never made from a
/// poller, run on a blocking thread.
pub trait Gatekeeper: Send + Sync {
    /// What to show now.
    fn hello(&self) -> Hello;
    /// Judge a peer; `Welcome` only after what it showed is synced here.
    fn admit(&self, peer: &Hello) -> Admission;
    /// A peer admitted this node: it has synced our incarnation (a founding confirmation).
    fn on_welcome(&self, peer: &Hello);
    /// A peer refused this node.
    fn on_refused(&self, by: &Hello, why: &Refusal);
    /// What to send each second.
    fn beacon(&self) -> Beacon;
    /// A peer's periodic word.
    fn on_beacon(&self, from: NodeId, beacon: Beacon);
    /// A page of what is known of others' addresses and changed after `since` (0: everything), and from where to ask
    /// on. An empty page: nothing new. Never blocks.
    fn listings(&self, since: u64) -> (Vec<Listing>, u64);
    /// What a peer knows of others' addresses: hearsay, never an identity. Never blocks.
    fn on_listings(&self, from: NodeId, listings: Vec<Listing>);
}

const _: fn(&dyn Gatekeeper) = |_| {};
