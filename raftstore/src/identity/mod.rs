//! Who this node is, whom it admits, and when it is admitted itself (boot.md 1 and 2).
//!
//! Leaves to others: links (transport), the log store's own watermark (`wal`).
//! Invariant: what a peer is told rests on what is synced here: own incarnation and epoch before the first message, a
//! peer's before its first welcome, "admitted" before anything votes. Calls block on syncs: never made from a turn.
//! Locks: `writing` is held over a decision and its sync, so that two hellos are judged one after the other; `state`
//! only for a moment, so that looking never waits for a disk.

mod book;
mod judge;
mod sink;
mod start;

pub use book::PeerView;
pub use sink::{DirectSink, MetaSink};
pub use start::{IdentityOptions, Start};

use crate::codec::{NodeRecord, PeerRecord, encode_epoch};
use crate::env::{
    Admission, Beacon, Gatekeeper, Hello, Listing, LogStore, MetaWrite, PeerIdentity, Refusal, WriteFailed, meta_keys,
};
use crate::error::BootError;
use crate::ids::{BootEpoch, ClusterId, Incarnation, NodeId};
use book::Book;
use bytes::Bytes;
use judge::{Judge, Known, judge};
use parking_lot::{Condvar, Mutex};
use sink::Outlet;
use start::Opening;
use std::sync::Arc;
use std::time::Duration;

/// This node's identity, and what it knows of others.
pub struct Identity {
    /// What never changes during a start.
    fixed: Fixed,
    /// Where records go.
    outlet: Outlet,
    /// For `recovered_seq` and `synced_seq`.
    log: Arc<dyn LogStore>,
    /// One decision with its sync at a time.
    writing: Mutex<()>,
    /// What changes.
    state: Mutex<State>,
    /// Rung when this node is admitted, refused for good, or stopped.
    bell: Condvar,
}

#[derive(Debug)]
struct Fixed {
    /// This node.
    node: NodeId,
    /// Its disk.
    incarnation: Incarnation,
    /// This start.
    epoch: BootEpoch,
    /// Digest of the founding; 0 if it joined.
    digest: u64,
    /// Everybody who founds, ascending; empty unless this start is part of a founding.
    founders: Vec<NodeId>,
    /// The cluster id, should this node mint it.
    minted: ClusterId,
    /// Where it listens.
    listen: String,
    /// Refuse to become part of any other cluster.
    wanted: Option<ClusterId>,
    /// Enters a cluster that stands.
    joins: bool,
}

#[derive(Debug)]
struct State {
    /// Minted, adopted, or heard of and not yet written.
    cluster: Option<ClusterId>,
    /// Written.
    admitted: bool,
    /// Peers.
    book: Book,
    /// Shown to peers.
    advert: Bytes,
    /// Refused for good.
    fatal: Option<BootError>,
    /// Nobody waits any more.
    stopped: bool,
}

impl Identity {
    /// Opens the identity of a directory, or makes one: incarnation, node record and the new boot epoch are synced on
    /// return. `meta`: the node records that the log store recovered. Nothing else may write to `log` until
    /// `write_through`.
    pub fn open(
        log: Arc<dyn LogStore>,
        meta: &[(Bytes, Bytes)],
        options: IdentityOptions,
    ) -> Result<Arc<Identity>, BootError> {
        let Opening { record, epoch, book, founders } = start::open(meta, &options)?;
        let sink = DirectSink::new(log.clone());
        sink.put(vec![
            node_write(&record),
            MetaWrite { key: meta_keys::EPOCH.into(), value: Some(encode_epoch(epoch)) },
        ])?;
        let [_, _, high, low] = options.entropy;
        let fixed = Fixed {
            node: record.node,
            incarnation: record.incarnation,
            epoch,
            digest: record.digest,
            founders,
            minted: ClusterId((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
            listen: options.listen,
            wanted: options.cluster,
            joins: options.start == Start::Join,
        };
        let (cluster, admitted, advert) = (record.cluster, record.admitted, options.advert);
        let state = State { cluster, admitted, book, advert, fatal: None, stopped: false };
        let identity = Identity {
            fixed,
            outlet: Outlet::new(Arc::new(sink)),
            log,
            writing: Mutex::new(()),
            state: Mutex::new(state),
            bell: Condvar::new(),
        };
        identity.advance()?; // a node that founds alone
        Ok(Arc::new(identity))
    }

    /// From now on records are written through the node's log writer.
    pub fn write_through(&self, sink: Arc<dyn MetaSink>) {
        let _guard = self.writing.lock();
        self.outlet.exchange(sink);
    }

    /// Waits until this node is admitted. `false`: not within `limit`, or stopped.
    pub fn wait_admitted(&self, limit: Duration) -> Result<bool, BootError> {
        let mut state = self.state.lock();
        if !state.is_settled() {
            let _timed_out = self.bell.wait_for(&mut state, limit);
        }
        match &state.fatal {
            Some(why) => Err(why.clone()),
            None => Ok(state.admitted),
        }
    }

    /// Wakes who waits.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.bell.notify_all();
    }

    /// Did a peer of this cluster refuse this node for good?
    #[must_use]
    pub fn fatal(&self) -> Option<BootError> {
        self.state.lock().fatal.clone()
    }

    /// Is the founding or joining complete?
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.state.lock().admitted
    }

    /// The cluster, once known.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.state.lock().cluster
    }

    /// Peers that connect from now on are shown this.
    pub fn advertise(&self, advert: Bytes) {
        self.state.lock().advert = advert;
    }

    /// As peers see this start.
    #[must_use]
    pub fn me(&self) -> PeerIdentity {
        PeerIdentity { node: self.fixed.node, incarnation: self.fixed.incarnation, epoch: self.fixed.epoch }
    }

    /// What is known of the peers, ascending by node.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.state.lock().book.views()
    }

    /// Writes the peers' watermarks that moved. To be called once a second.
    pub fn write_watermarks(&self) -> Result<(), WriteFailed> {
        let _guard = self.writing.lock();
        let dirty = self.state.lock().book.take_dirty();
        if dirty.is_empty() { Ok(()) } else { self.outlet.put(dirty) }
    }

    /// Completes the founding or joining if all it needs is there.
    fn advance(&self) -> Result<(), WriteFailed> {
        let _guard = self.writing.lock();
        let record = {
            let state = self.state.lock();
            let Some(cluster) = self.due_cluster(&state) else { return Ok(()) };
            let Fixed { node, incarnation, digest, .. } = self.fixed;
            NodeRecord { cluster: Some(cluster), node, incarnation, admitted: true, digest }
        };
        self.outlet.put(vec![node_write(&record)])?;
        let mut state = self.state.lock();
        state.cluster = record.cluster;
        state.admitted = true;
        self.bell.notify_all();
        Ok(())
    }

    /// The cluster that this node may now write itself into.
    fn due_cluster(&self, state: &State) -> Option<ClusterId> {
        if state.admitted || state.fatal.is_some() {
            return None;
        }
        let Some(lowest) = self.fixed.founders.first() else {
            // Joining: a member's word is enough; configurations name incarnations (boot.md 3).
            return state.cluster.filter(|_| state.book.views().iter().any(|p| p.confirmed && p.admitted));
        };
        let others: Vec<NodeId> = self.fixed.founders.iter().copied().filter(|n| *n != self.fixed.node).collect();
        if !state.book.all_confirmed(&others) {
            return None;
        }
        state.cluster.or((*lowest == self.fixed.node).then_some(self.fixed.wanted.unwrap_or(self.fixed.minted)))
    }

    /// A node that is not admitted learns its cluster from a peer that it has admitted.
    fn hear_cluster(&self, state: &mut State, cluster: Option<ClusterId>) {
        let acceptable = cluster.filter(|c| self.fixed.wanted.is_none_or(|wanted| wanted == *c));
        state.cluster = state.cluster.or(acceptable);
    }

    fn judged(&self, peer: &Hello) -> Result<PeerRecord, Refusal> {
        let mut state = self.state.lock();
        let own = Judge {
            node: self.fixed.node,
            cluster: state.cluster.or(self.fixed.wanted),
            digest: self.fixed.digest,
            joining: self.fixed.joins && !state.admitted,
        };
        let peer_known = state.book.peer(peer.node);
        let record = peer_known.and_then(|p| p.record.as_ref());
        let refusal = judge(&own, Known { record, heard: peer_known.and_then(book::Peer::disk) }, peer);
        let watermark = record.map(|r| r.synced).unwrap_or_default();
        let Some(entry) = state.book.peer_mut(peer.node) else {
            return Err(Refusal::Protocol("this node knows too many peers already".into()));
        };
        entry.refusal = refusal.clone();
        let synced = watermark.max(peer.synced).max(peer.recovered);
        let Hello { incarnation, epoch, .. } = *peer;
        refusal.map_or(Ok(PeerRecord { incarnation, epoch, synced, listen: peer.listen.clone() }), Err)
    }

    /// Keeps and syncs what a welcome peer showed.
    fn remember(&self, peer: &Hello, record: PeerRecord) -> Result<(), WriteFailed> {
        let known = self.state.lock().book.peer(peer.node).and_then(|p| p.record.clone());
        let names = |r: &PeerRecord| (r.incarnation, r.epoch, r.listen.clone());
        let news = known.as_ref().map(names) != Some(names(&record));
        if news {
            self.outlet.put(vec![book::peer_write(peer.node, &record)])?;
        }
        let mut state = self.state.lock();
        self.hear_cluster(&mut state, peer.cluster);
        let synced = record.synced;
        if let Some(entry) = state.book.peer_mut(peer.node) {
            entry.hello = Some(peer.clone());
            if news {
                // A beacon may have told more while this was being written.
                let told = entry.record.as_ref().map(|r| r.synced).unwrap_or_default();
                entry.record = Some(PeerRecord { synced: synced.max(told), ..record });
                entry.dirty = told > synced;
            }
        }
        state.book.on_synced(peer.node, synced);
        if news {
            state.book.on_listing_changed(peer.node);
        }
        Ok(())
    }

    fn is_final(&self, state: &State, by: &Hello, why: &Refusal) -> bool {
        let same_cluster = state.cluster.is_none() || state.cluster == by.cluster;
        // While founding, a cluster that stands already without this node is proof of a mistake here. Founders that
        // merely differ stay out of each other's way and show both digests: nobody knows which one is wrong.
        let outsider = !state.admitted && by.admitted && matches!(why, Refusal::OtherDigest { .. });
        (why.is_fatal() && same_cluster) || outsider
    }
}

impl State {
    fn is_settled(&self) -> bool {
        self.admitted || self.fatal.is_some() || self.stopped
    }
}

fn node_write(record: &NodeRecord) -> MetaWrite {
    MetaWrite { key: meta_keys::NODE.into(), value: Some(record.encode()) }
}

impl Gatekeeper for Identity {
    fn hello(&self) -> Hello {
        let state = self.state.lock();
        Hello {
            cluster: state.cluster,
            node: self.fixed.node,
            incarnation: self.fixed.incarnation,
            epoch: self.fixed.epoch,
            admitted: state.admitted,
            digest: self.fixed.digest,
            recovered: self.log.recovered_seq(),
            synced: self.log.synced_seq(),
            listen: self.fixed.listen.clone(),
            advert: state.advert.clone(),
        }
    }

    fn admit(&self, peer: &Hello) -> Admission {
        let judged = {
            let _guard = self.writing.lock();
            self.judged(peer).and_then(|record| {
                self.remember(peer, record).map_err(|e| Refusal::Protocol(format!("cannot remember the peer: {e}")))
            })
        };
        // A failed write poisons the store; whoever runs the node learns it from there.
        let judged = judged.and_then(|()| self.advance().map_err(|e| Refusal::Protocol(e.to_string())));
        judged.map_or_else(Admission::Refused, |()| Admission::Welcome)
    }

    fn on_welcome(&self, peer: &Hello) {
        {
            let mut state = self.state.lock();
            if let Some(entry) = state.book.peer_mut(peer.node) {
                entry.confirmed = true;
            }
        }
        let _poisoned_store_is_told_elsewhere = self.advance();
    }

    fn on_refused(&self, by: &Hello, why: &Refusal) {
        let mut state = self.state.lock();
        if self.is_final(&state, by, why) && state.fatal.is_none() {
            state.fatal = Some(BootError::Refused { by: by.node, why: why.clone() });
            self.bell.notify_all();
        }
        if let Some(entry) = state.book.peer_mut(by.node) {
            entry.refusal = Some(why.clone());
        }
    }

    fn beacon(&self) -> Beacon {
        Beacon { cluster: self.state.lock().cluster, synced: self.log.synced_seq() }
    }

    fn on_beacon(&self, from: NodeId, beacon: Beacon) {
        let due = {
            let mut state = self.state.lock();
            state.book.on_synced(from, beacon.synced);
            self.hear_cluster(&mut state, beacon.cluster);
            !state.admitted && state.cluster.is_some()
        };
        if due {
            let _poisoned_store_is_told_elsewhere = self.advance();
        }
    }

    fn listings(&self, since: u64) -> (Vec<Listing>, u64) {
        self.state.lock().book.listings(since)
    }

    fn on_listings(&self, _from: NodeId, listings: Vec<Listing>) {
        let mut state = self.state.lock();
        listings.into_iter().filter(|l| l.node != self.fixed.node).for_each(|l| state.book.hear(l));
    }
}
