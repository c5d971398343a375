//! What this node knows of its peers: what is synced of them, and what they said since this start.
//!
//! Leaves to others: the decision (`judge`), writing (`sink`).
//! Addresses are known in three ways: configured, shown by the node itself (synced in its record), and heard of from
//! others (`Listing`, kept for this start only: it is heard again). Each change of the last two gets a number, so that
//! links pass on what is new.
//! Invariant: a peer's record is never behind what was written of it; at most `MAX_PEERS` are kept; hearsay never
//! replaces what the node itself has shown, except by a later start of the same disk.

use crate::codec::{DecodeError, PeerRecord};
use crate::env::{Hello, Listing, MetaWrite, Refusal, meta_keys};
use crate::ids::{Incarnation, NodeId, StoreSeq};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Most peers that are remembered: a bound against a peer that invents node ids.
pub(super) const MAX_PEERS: usize = 4096;
/// Most listings of one page.
const PAGE: usize = 64;
/// Longest address that is taken from hearsay, bytes.
const MAX_LISTEN: usize = 255;

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
    /// What others say of it.
    heard: Option<Listing>,
    /// Number of the last change of `listing`.
    changed: u64,
}

impl Peer {
    /// Its disk: as it showed itself, else as others say.
    pub(super) fn disk(&self) -> Option<Incarnation> {
        let shown = self.record.as_ref().map(|r| r.incarnation);
        shown.or(self.heard.as_ref().map(|h| h.incarnation))
    }

    /// Where it was last known to listen.
    fn listing(&self, node: NodeId) -> Option<Listing> {
        let shown = self.record.as_ref().map(|r| Listing {
            node,
            incarnation: r.incarnation,
            boot: r.epoch.counter,
            listen: r.listen.clone(),
        });
        match (shown, &self.heard) {
            (Some(shown), Some(heard)) if heard.boot > shown.boot => Some(heard.clone()),
            (Some(shown), _) => Some(shown),
            (None, heard) => heard.clone(),
        }
    }

    /// Is this news about the same disk, or the first word about the node?
    fn would_learn(&self, told: &Listing) -> bool {
        match self.listing(told.node) {
            Some(known) => known.incarnation == told.incarnation && known.boot < told.boot,
            None => true,
        }
    }
}

/// All peers, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// By node.
    peers: BTreeMap<NodeId, Peer>,
    /// Number of the last change of any listing.
    changes: u64,
}

/// What is known of a peer, for people and for the transport's dialler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// The peer.
    pub node: NodeId,
    /// Its disk, as it showed itself or as others say.
    pub disk: Option<Incarnation>,
    /// Where it listens: configured, as it said itself, or as others say.
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
        let node = NodeId(u64::from_be_bytes(id));
        self.peers.entry(node).or_default().record = Some(record);
        self.on_listing_changed(node);
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

    /// The node's record or what others say of it has changed: links pass it on.
    pub(super) fn on_listing_changed(&mut self, node: NodeId) {
        self.changes += 1;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.changed = self.changes;
        }
    }

    /// What a peer says of another node.
    pub(super) fn hear(&mut self, told: Listing) {
        let node = told.node;
        if node == NodeId(0) || !(1..=MAX_LISTEN).contains(&told.listen.len()) {
            return;
        }
        let Some(peer) = self.peer_mut(node).filter(|p| p.would_learn(&told)) else { return };
        peer.heard = Some(told);
        self.on_listing_changed(node);
    }

    /// A page of the listings that changed after `since`, in the order of the changes; and where the next page begins.
    pub(super) fn listings(&self, since: u64) -> (Vec<Listing>, u64) {
        let mut news: Vec<(u64, &NodeId, &Peer)> =
            self.peers.iter().map(|(n, p)| (p.changed, n, p)).filter(|p| p.0 > since).collect();
        news.sort_unstable_by_key(|p| p.0);
        news.truncate(PAGE);
        let next = news.last().map_or(since, |p| p.0);
        let listing = |(_, node, peer): (u64, &NodeId, &Peer)| peer.listing(*node).filter(|l| !l.listen.is_empty());
        (news.into_iter().filter_map(listing).collect(), next)
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
    let told = peer.listing(node).map(|l| l.listen).filter(|l| !l.is_empty());
    PeerView {
        node,
        disk: peer.disk(),
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
