//! What this node knows of its peers: what is synced of them, and what they said since this start.
//!
//! Leaves to others: the decision (`judge`), writing (`sink`).
//! Invariant: a peer's record is never behind what was written of it; at most `MAX_PEERS` are kept.

use crate::codec::{DecodeError, PeerRecord};
use crate::env::{Hello, MetaWrite, Refusal, meta_keys};
use crate::ids::{NodeId, StoreSeq};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Most peers that are remembered: a bound against a peer that invents node ids.
pub(super) const MAX_PEERS: usize = 4096;

/// One peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// What is synced here, with a watermark that may be newer.
    pub(super) record: Option<PeerRecord>,
    /// The watermark in `record` is newer than the written one.
    pub(super) dirty: bool,
    /// Address to dial, from the configuration; a resolver's answer wins.
    pub(super) configured: Option<String>,
    /// Its last word since this start.
    pub(super) hello: Option<Hello>,
    /// It has confirmed this node's incarnation since this start.
    pub(super) confirmed: bool,
    /// The last refusal between the two, either way.
    pub(super) refusal: Option<Refusal>,
}

/// All peers, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// By node.
    peers: BTreeMap<NodeId, Peer>,
}

/// What is known of a peer, for people and for the transport's dialler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// The peer.
    pub node: NodeId,
    /// Where it listens: configured, or as it said itself.
    pub listen: String,
    /// Its advert, once it said hello since this start.
    pub advert: Bytes,
    /// It said that its founding is complete.
    pub admitted: bool,
    /// It has confirmed this node since this start.
    pub confirmed: bool,
    /// The last refusal between the two since this start.
    pub refusal: Option<Refusal>,
}

impl Book {
    /// Takes in one stored record.
    pub(super) fn load(&mut self, key: &[u8], value: Bytes) -> Result<(), DecodeError> {
        let id = key.strip_prefix(meta_keys::PEER).and_then(|id| <[u8; 8]>::try_from(id).ok());
        let id = id.ok_or_else(|| DecodeError { what: "peer key", why: format!("{} bytes", key.len()) })?;
        let record = PeerRecord::decode(value)?;
        self.peers.entry(NodeId(u64::from_be_bytes(id))).or_default().record = Some(record);
        Ok(())
    }

    /// Notes where a peer is configured to listen.
    pub(super) fn configure(&mut self, node: NodeId, listen: &str) {
        self.peers.entry(node).or_default().configured = Some(listen.to_owned());
    }

    /// The peer, if it is known or there is room for one more.
    pub(super) fn peer_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&node) {
            return None;
        }
        Some(self.peers.entry(node).or_default())
    }

    /// The peer, if it is known.
    pub(super) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// Has every one of these confirmed this node?
    pub(super) fn all_confirmed(&self, nodes: &[NodeId]) -> bool {
        nodes.iter().all(|n| self.peers.get(n).is_some_and(|p| p.confirmed))
    }

    /// A watermark that a peer told; `true` if it is news.
    pub(super) fn on_synced(&mut self, node: NodeId, synced: StoreSeq) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        match &mut peer.record {
            Some(record) if record.synced < synced => {
                record.synced = synced;
                peer.dirty = true;
                true
            }
            _ => false,
        }
    }

    /// Records whose watermark moved since they were written; they count as written from now on.
    pub(super) fn take_dirty(&mut self) -> Vec<MetaWrite> {
        let all = self.peers.iter_mut();
        all.filter_map(|(node, p)| {
            let moved = std::mem::take(&mut p.dirty);
            p.record.as_ref().filter(|_| moved).map(|r| peer_write(*node, r))
        })
        .collect()
    }

    /// What is known, ascending by node.
    pub(super) fn views(&self) -> Vec<PeerView> {
        self.peers.iter().map(|(node, p)| view(*node, p)).collect()
    }
}

fn view(node: NodeId, peer: &Peer) -> PeerView {
    let told = peer.record.as_ref().map(|r| r.listen.clone()).filter(|l| !l.is_empty());
    PeerView {
        node,
        listen: peer.configured.clone().or(told).unwrap_or_default(),
        advert: peer.hello.as_ref().map(|h| h.advert.clone()).unwrap_or_default(),
        admitted: peer.hello.as_ref().is_some_and(|h| h.admitted),
        confirmed: peer.confirmed,
        refusal: peer.refusal.clone(),
    }
}

/// The write of a peer's record.
pub(super) fn peer_write(node: NodeId, record: &PeerRecord) -> MetaWrite {
    let mut key = BytesMut::from(meta_keys::PEER);
    key.put_u64(node.0);
    MetaWrite { key: key.freeze(), value: Some(record.encode()) }
}
