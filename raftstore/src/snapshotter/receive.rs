//! Streams that arrive: spooled in order, read back, verified, then handed to the replica's owner.
//!
//! Leaves to others: whether raft wants it (the replica steps its message), installing (applier).
//! Invariant: nothing is handed on that was not read back whole from the file; receptions and bytes staged have bounds;
//! a stream that ends in any other way leaves no file.

use super::Spools;
use super::send::{CHUNK, WINDOW};
use crate::codec::{AckStatus, Digest, ReplicaRecord, SnapshotAck, SnapshotChunk, SnapshotFrame, SnapshotHeader};
use crate::env::{Instant, Lane, PeerIdentity, SpoolWriter, Transport};
use crate::ids::{GroupId, NodeId, ReplicaId, SpoolId, StreamId};
use crate::router::Router;
use crate::spool::SpoolInput;
use crate::task::{GroupMessage, PollerMsg, SnapshotEvent, Spooled};
use pontoon_raft::{Body, SnapshotMeta};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Most streams at once.
const MAX_RECEPTIONS: usize = 8;
/// Most verified files that wait for their replica.
const MAX_DELIVERED: usize = 64;
/// Most bytes of both together, by the sizes announced.
const MAX_STAGED: u64 = 1 << 40;
/// Without a chunk for so long, the reception is given up.
const SILENT: Duration = Duration::from_secs(60);
/// Streams whose end is remembered, in case its ack was lost.
const MAX_ENDED: usize = 128;

/// One stream.
struct Reception {
    /// Who sends.
    from: PeerIdentity,
    /// What is delivered at the end.
    header: SnapshotHeader,
    /// The file.
    spool: SpoolId,
    /// Its writing end.
    file: Box<dyn SpoolWriter>,
    /// Bytes received in order.
    next: u64,
    /// Of these bytes.
    digest: Digest,
    /// When it is given up.
    expires: Instant,
}

/// A verified file that its replica has not installed or dropped yet.
struct Delivered {
    group: GroupId,
    replica: ReplicaId,
    size: u64,
}

/// All streams that arrive.
pub(super) struct Receptions {
    /// For acks.
    transport: Arc<dyn Transport>,
    /// By sender and stream.
    open: BTreeMap<(NodeId, StreamId), Reception>,
    /// Verified files in the hands of replicas.
    delivered: BTreeMap<SpoolId, Delivered>,
    /// How the last streams ended.
    ended: VecDeque<(PeerIdentity, SnapshotAck)>,
}

/// Why a chunk ends its stream.
enum Bad {
    /// Not wanted or not possible now.
    Refused(&'static str),
    /// What arrived is not what was sent.
    Damaged(String),
}

impl Receptions {
    /// No streams.
    pub(super) fn new(transport: Arc<dyn Transport>) -> Receptions {
        Receptions { transport, open: BTreeMap::new(), delivered: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// A chunk: taken in order, everything else is answered with what is expected.
    pub(super) fn on_chunk(
        &mut self,
        now: Instant,
        spools: &mut Spools,
        router: &Router,
        from: PeerIdentity,
        chunk: SnapshotChunk,
    ) {
        let key = (from.node, chunk.stream);
        if let Some((_, ack)) = self.ended.iter().find(|(who, ack)| *who == from && ack.stream == chunk.stream) {
            return self.send(from, *ack);
        }
        let known = self.open.get(&key).is_some_and(|r| r.from == from);
        let taken = match (&chunk.header, known) {
            (Some(header), false) => self.begin(now, spools, router, from, chunk.stream, header),
            // Its first chunk was lost, so far: the header comes again.
            (None, false) if chunk.offset < WINDOW * CHUNK => return self.expect_header(from, key.1),
            (None, false) => Err(Bad::Refused("it does not begin with its header")),
            (_, true) => Ok(()),
        };
        match taken.and_then(|()| self.take(now, spools, router, key, chunk)) {
            Ok((next, true)) => self.end(from, key.1, next, AckStatus::Done),
            Ok((next, false)) => self.send(from, SnapshotAck { stream: key.1, next, status: AckStatus::More }),
            Err(bad) => self.fail(spools, from, key, bad),
        }
    }

    fn expect_header(&self, from: PeerIdentity, stream: StreamId) {
        self.send(from, SnapshotAck { stream, next: 0, status: AckStatus::More });
    }

    /// Gives up what has gone silent; when is the next one due?
    pub(super) fn expire(&mut self, now: Instant, spools: &mut Spools) -> Instant {
        self.abort_where(spools, |r| r.expires <= now);
        self.open.values().map(|r| r.expires).min().unwrap_or(Instant::NEVER)
    }

    /// A file left the hands of its replica: installed or dropped.
    pub(super) fn release(&mut self, spool: SpoolId) {
        self.delivered.remove(&spool);
    }

    /// The group's replicas before `next_replica` are gone here.
    pub(super) fn forget(&mut self, spools: &mut Spools, group: GroupId, next_replica: ReplicaId) {
        let is_gone = |(of, replica)| of == group && replica < next_replica;
        self.abort_where(spools, |r| is_gone((r.header.message.group, r.header.message.message.to)));
        self.delivered.retain(|spool, d| {
            let gone = is_gone((d.group, d.replica));
            if gone {
                spools.remove(*spool);
            }
            !gone
        });
    }

    /// The node stops.
    pub(super) fn abort_all(&mut self, spools: &mut Spools) {
        self.abort_where(spools, |_| true);
    }

    fn abort_where(&mut self, spools: &mut Spools, ends: impl Fn(&Reception) -> bool) {
        let keys: Vec<_> = self.open.iter().filter(|(_, r)| ends(r)).map(|(key, _)| *key).collect();
        for reception in keys.iter().filter_map(|key| self.open.remove(key)).collect::<Vec<_>>() {
            tracing::warn!(node = %reception.from.node, "a snapshot stream was given up");
            abort(spools, reception);
        }
    }

    fn begin(
        &mut self,
        now: Instant,
        spools: &mut Spools,
        router: &Router,
        from: PeerIdentity,
        stream: StreamId,
        header: &SnapshotHeader,
    ) -> Result<(), Bad> {
        find_receiver(router, from, &header.message)?;
        self.make_room(spools, from, header)?;
        let spool = spools.take_id();
        let file = spools.files.create(spool).map_err(|error| {
            tracing::warn!(%error, "no file for a snapshot");
            Bad::Refused("no file")
        })?;
        let (header, digest, expires) = (header.clone(), Digest::default(), now.after(SILENT));
        let reception = Reception { from, header, spool, file, next: 0, digest, expires };
        if let Some(stale) = self.open.insert((from.node, stream), reception) {
            abort(spools, stale); // of an earlier start of that node
        }
        Ok(())
    }

    /// One stream per group: a newer leader's, or the same sender's next one, replaces it.
    fn make_room(&mut self, spools: &mut Spools, from: PeerIdentity, header: &SnapshotHeader) -> Result<(), Bad> {
        let (group, term) = (header.message.group, header.message.message.term);
        let rival = self.open.iter().find(|(_, r)| r.header.message.group == group).map(|(key, r)| {
            let yields = term > r.header.message.message.term || r.from.node == from.node;
            (*key, yields)
        });
        match rival {
            Some((_, false)) => return Err(Bad::Refused("another stream of the group is arriving")),
            Some((key, true)) => self.open.remove(&key).into_iter().for_each(|r| abort(spools, r)),
            None => {}
        }
        let sizes = self.open.values().map(|r| r.header.size).chain(self.delivered.values().map(|d| d.size));
        let staged = sizes.fold(0u64, u64::saturating_add);
        if self.open.len() >= MAX_RECEPTIONS || self.delivered.len() >= MAX_DELIVERED {
            return Err(Bad::Refused("too many snapshots at once"));
        }
        if staged.saturating_add(header.size) > MAX_STAGED {
            return Err(Bad::Refused("too many bytes staged"));
        }
        Ok(())
    }

    /// Bytes received in order, and whether that was all.
    fn take(
        &mut self,
        now: Instant,
        spools: &mut Spools,
        router: &Router,
        key: (NodeId, StreamId),
        chunk: SnapshotChunk,
    ) -> Result<(u64, bool), Bad> {
        let r = self.open.get_mut(&key).expect("begun before its first chunk is taken");
        r.expires = now.after(SILENT);
        if chunk.offset != r.next {
            return Ok((r.next, false)); // sent again, or behind a gap
        }
        let end = r.next + chunk.data.len() as u64;
        let is_last = chunk.digest.is_some();
        if end > r.header.size || (end == r.header.size) != is_last {
            return Err(Bad::Damaged("it has another length than announced".to_owned()));
        }
        r.file.write(&chunk.data).map_err(|error| {
            tracing::warn!(%error, "a snapshot cannot be spooled");
            Bad::Refused("the file cannot be written")
        })?;
        r.digest.update(&chunk.data);
        r.next = end;
        metrics::counter!("pontoon_snapshot_received_bytes_total").increment(chunk.data.len() as u64);
        let Some(digest) = chunk.digest else { return Ok((end, false)) };
        if r.digest.clone().finish() != digest {
            return Err(Bad::Damaged("its digest does not match".to_owned()));
        }
        self.deliver(spools, router, key)?;
        Ok((end, true))
    }

    /// All bytes are there: read back, verified, handed to the owner. Not synced: a durable machine makes its own copy durable,
    /// and a file that becomes a volatile one's is synced as it is published.
    fn deliver(&mut self, spools: &mut Spools, router: &Router, key: (NodeId, StreamId)) -> Result<(), Bad> {
        let r = self.open.get_mut(&key).expect("its last chunk was just taken");
        let header = &r.header;
        let meta = verified(spools, r.spool, header).map_err(Bad::Damaged)?;
        let (group, replica) = (header.message.group, header.message.message.to);
        let cell = router.cell(group).ok_or(Bad::Refused("no replica of the group"))?;
        let r = self.open.remove(&key).expect("it is there");
        let spooled = Spooled { spool: r.spool, size: r.header.size, meta, record: r.header.record };
        self.delivered.insert(r.spool, Delivered { group, replica, size: r.header.size });
        let received =
            SnapshotEvent::Received { from: r.from, message: Box::new(r.header.message), spooled: Box::new(spooled) };
        router.mail().poller(cell.poller, PollerMsg::Snapshot(received));
        Ok(())
    }

    fn fail(&mut self, spools: &mut Spools, from: PeerIdentity, key: (NodeId, StreamId), bad: Bad) {
        if let Some(reception) = self.open.remove(&key) {
            abort(spools, reception);
        }
        let (why, status) = match &bad {
            Bad::Refused(why) => (*why, AckStatus::Refused),
            Bad::Damaged(why) => (why.as_str(), AckStatus::Damaged),
        };
        tracing::warn!(node = %from.node, why, "a snapshot stream was refused");
        metrics::counter!("pontoon_snapshot_receptions_failed_total").increment(1);
        self.end(from, key.1, 0, status);
    }

    fn end(&mut self, from: PeerIdentity, stream: StreamId, next: u64, status: AckStatus) {
        let ack = SnapshotAck { stream, next, status };
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back((from, ack));
        self.send(from, ack);
    }

    /// A lost ack is made good by the sender's next chunk.
    fn send(&self, to: PeerIdentity, ack: SnapshotAck) {
        let _lost = self.transport.send(to.into(), Lane::Snapshot, SnapshotFrame::Ack(ack).encode());
    }
}

/// The replica that the stream is for must live. Its header may give birth to it, as any word of a leader's, or end the
/// older one that stands in its place; the stream comes again.
fn find_receiver(router: &Router, from: PeerIdentity, message: &GroupMessage) -> Result<(), Bad> {
    match router.cell(message.group) {
        Some(cell) if cell.replica == message.message.to => Ok(()),
        Some(cell) => {
            let letter = PollerMsg::Peer { from, messages: vec![message.clone()], bytes: 0 };
            router.mail().poller(cell.poller, letter);
            Err(Bad::Refused("meant for another replica"))
        }
        None => {
            router.on_unknown(from, message.clone());
            Err(Bad::Refused("no replica of the group"))
        }
    }
}

fn abort(spools: &mut Spools, reception: Reception) {
    drop(reception.file);
    spools.remove(reception.spool);
}

/// Reads the file back: is it whole, and the snapshot that its message speaks of?
fn verified(spools: &Spools, spool: SpoolId, header: &SnapshotHeader) -> Result<SnapshotMeta, String> {
    let reader = spools.files.open(spool).map_err(|e| e.to_string())?;
    let record = SpoolInput::open(reader).and_then(SpoolInput::verify).map_err(|e| e.to_string())?;
    let announced = ReplicaRecord::decode(header.record.clone()).map_err(|e| e.to_string())?;
    let Body::Snap { snapshot } = &header.message.message.body else {
        return Err("its message carries no snapshot".to_owned());
    };
    let same = record == announced
        && record.group == header.message.group
        && record.applied == snapshot.meta.pos()
        && record.conf_state.equivalent(&snapshot.meta.conf_state);
    if same { Ok(snapshot.meta.clone()) } else { Err("its message speaks of another snapshot".to_owned()) }
}
