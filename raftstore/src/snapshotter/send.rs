//! Streams that leave: chunks in order, a small window, few at once to one node, one rate for the node, an end in any case.
//!
//! Leaves to others: the file (`build`), what a receiver does with it (`receive`).
//! Invariant: every stream begun ends in exactly one `Sent`, unless its group was forgotten or a newer stream to the
//! same replica replaced it; bytes leave no faster than the rate plus one burst.

use super::Spools;
use crate::codec::{AckStatus, Digest, SnapshotAck, SnapshotChunk, SnapshotFrame, SnapshotHeader};
use crate::env::{Destination, Instant, Lane, PeerIdentity, SpoolReader, Transport};
use crate::ids::{GroupId, NodeId, PollerId, ReplicaId, SpoolId, StreamId};
use crate::mail::Mail;
use crate::task::{GroupMessage, PollerMsg, SendEnd, SnapshotEvent, Spooled};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Content bytes of a chunk.
pub(super) const CHUNK: u64 = 256 << 10;
/// Chunks that may be unacknowledged.
pub(super) const WINDOW: u64 = 4;
/// Most streams, those that wait for their turn included; more are refused and raft asks again.
const MAX_STREAMS: usize = 64;
/// Most at once to one node, which has room for few and more leaders than this one.
const MAX_TO_ONE: usize = 4;
/// A node that refused one has none begin before.
const PAUSE: Duration = Duration::from_millis(200);
/// Most chunks of one turn.
const MAX_CHUNKS: usize = 16;
/// Without an ack for so long, everything unacknowledged is sent again.
const RESEND: Duration = Duration::from_secs(1);
/// Without progress for so long, the stream has failed. Long, because a receiver builds and verifies in between.
const STALLED: Duration = Duration::from_secs(30);
/// When to try again after the transport took nothing.
const RETRY: Duration = Duration::from_millis(200);

/// One stream.
struct Stream {
    /// To which node and disk.
    to: Destination,
    /// Owner of the sending replica.
    poller: PollerId,
    /// The group.
    group: GroupId,
    /// To which replica.
    replica: ReplicaId,
    /// Travels with the first chunk.
    header: SnapshotHeader,
    /// The contents' name; held until the stream ends.
    spool: SpoolId,
    /// The contents.
    file: Box<dyn SpoolReader>,
    /// Next byte to send. Invariant: a multiple of `CHUNK`, or the size.
    next: u64,
    /// Bytes acknowledged in order.
    acked: u64,
    /// Of the first `digested` bytes.
    digest: Digest,
    /// Invariant: at least `next`.
    digested: u64,
    /// When everything unacknowledged is sent again.
    resend_at: Instant,
    /// When the stream is given up.
    fail_at: Instant,
    /// Not before: the transport took nothing.
    not_before: Instant,
    /// An ack without progress has already led to sending again from `acked`.
    rewound: bool,
    /// It had its turn to begin; until then no time runs.
    begun: bool,
}

/// All streams that leave.
pub(super) struct Sends {
    /// The network.
    transport: Arc<dyn Transport>,
    /// In order of beginning.
    streams: BTreeMap<StreamId, Stream>,
    /// Nodes that refused one, and until when none begins to them.
    paused: BTreeMap<NodeId, Instant>,
    /// Name of the next stream. Invariant: never used before by this process.
    next_stream: StreamId,
    /// After which stream the next chunk is looked for: turns go round.
    last: StreamId,
    /// The node's rate.
    bucket: Bucket,
}

impl Sends {
    /// No streams; `rate` in bytes per second.
    pub(super) fn new(transport: Arc<dyn Transport>, rate: u64) -> Sends {
        let bucket = Bucket { rate: rate.max(1), filled: burst(rate), at: Instant::default() };
        let (streams, paused) = (BTreeMap::new(), BTreeMap::new());
        Sends { transport, streams, paused, next_stream: StreamId(1), last: StreamId(0), bucket }
    }

    /// A stream is to begin.
    #[allow(clippy::too_many_arguments, reason = "the task's parts, each once")]
    pub(super) fn begin(
        &mut self,
        now: Instant,
        spools: &mut Spools,
        mail: &Mail,
        poller: PollerId,
        to: Destination,
        message: GroupMessage,
        spooled: &Spooled,
    ) {
        let (group, replica) = (message.group, message.message.to);
        self.drop_where(spools, |s| (s.group, s.replica) == (group, replica));
        if self.streams.len() >= MAX_STREAMS {
            return tell(mail, poller, group, replica, SendEnd::Refused);
        }
        let Ok(file) = spools.hold(spooled.spool) else { return tell(mail, poller, group, replica, SendEnd::Failed) };
        let stream = Stream {
            to,
            poller,
            group,
            replica,
            header: SnapshotHeader { message, size: spooled.size, record: spooled.record.clone() },
            spool: spooled.spool,
            file,
            next: 0,
            acked: 0,
            digest: Digest::default(),
            digested: 0,
            resend_at: Instant::NEVER,
            fail_at: Instant::NEVER,
            not_before: now,
            rewound: false,
            begun: false,
        };
        self.streams.insert(self.next_stream, stream);
        self.next_stream = StreamId(self.next_stream.0 + 1);
    }

    /// A receiver's word.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        spools: &mut Spools,
        mail: &Mail,
        from: PeerIdentity,
        ack: SnapshotAck,
    ) {
        let theirs = |s: &&mut Stream| s.to.node == from.node && s.to.allows(from.incarnation);
        let Some(stream) = self.streams.get_mut(&ack.stream).filter(theirs) else { return };
        match ack.status {
            AckStatus::More => stream.on_more(now, ack.next),
            AckStatus::Done => self.end(spools, mail, ack.stream, SendEnd::Done),
            AckStatus::Damaged => self.end(spools, mail, ack.stream, SendEnd::Failed),
            AckStatus::Refused => {
                self.paused.insert(from.node, now.after(PAUSE));
                self.end(spools, mail, ack.stream, SendEnd::Refused);
            }
        }
    }

    /// Streams begin whose turn it is, the oldest first.
    fn begin_some(&mut self, now: Instant) {
        self.paused.retain(|_, until| *until > now);
        let mut sending: BTreeMap<NodeId, usize> = BTreeMap::new();
        for stream in self.streams.values().filter(|s| s.begun) {
            *sending.entry(stream.to.node).or_default() += 1;
        }
        for stream in self.streams.values_mut().filter(|s| !s.begun) {
            let to_it = sending.entry(stream.to.node).or_default();
            if *to_it < MAX_TO_ONE && !self.paused.contains_key(&stream.to.node) {
                *to_it += 1;
                stream.begun = true;
                stream.made_progress(now);
            }
        }
    }

    /// Sends what window and rate allow, gives up what has stalled. Did anything leave, and when is the next call due?
    pub(super) fn pump(&mut self, now: Instant, spools: &mut Spools, mail: &Mail) -> (bool, Instant) {
        self.expire(now, spools, mail);
        self.begin_some(now);
        self.bucket.fill(now);
        let mut sent = 0;
        while sent < MAX_CHUNKS {
            let Some(id) = self.next_with_work(now) else { break };
            let stream = self.streams.get_mut(&id).expect("just found");
            if !self.bucket.take(stream.chunk_len()) {
                break;
            }
            self.last = id;
            match stream.send_chunk(now, id, &*self.transport) {
                Ok(bytes) => {
                    metrics::counter!("pontoon_snapshot_sent_bytes_total").increment(bytes);
                    sent += 1;
                }
                Err(error) => {
                    tracing::warn!(group = %stream.group, %error, "a spooled snapshot cannot be read");
                    self.end(spools, mail, id, SendEnd::Failed);
                }
            }
        }
        (sent > 0, self.due(now))
    }

    /// The group is gone here.
    pub(super) fn forget(&mut self, spools: &mut Spools, group: GroupId) {
        self.drop_where(spools, |s| s.group == group);
    }

    /// The node stops.
    pub(super) fn end_all(&mut self, spools: &mut Spools, mail: &Mail) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(spools, mail, id, SendEnd::Failed));
    }

    fn drop_where(&mut self, spools: &mut Spools, ends: impl Fn(&Stream) -> bool) {
        self.streams.retain(|_, s| {
            if ends(s) {
                spools.unhold(s.spool);
            }
            !ends(s)
        });
    }

    fn end(&mut self, spools: &mut Spools, mail: &Mail, id: StreamId, how: SendEnd) {
        if let Some(s) = self.streams.remove(&id) {
            spools.unhold(s.spool);
            tell(mail, s.poller, s.group, s.replica, how);
        }
    }

    fn expire(&mut self, now: Instant, spools: &mut Spools, mail: &Mail) {
        let silent: BTreeSet<NodeId> = self.streams.values().filter(|s| s.fail_at <= now).map(|s| s.to.node).collect();
        // Who waits for its turn behind one that has stalled would stall, too.
        let stalls = |s: &Stream| s.fail_at <= now || (!s.begun && silent.contains(&s.to.node));
        let stalled: Vec<StreamId> = self.streams.iter().filter(|(_, s)| stalls(s)).map(|(id, _)| *id).collect();
        stalled.into_iter().for_each(|id| self.end(spools, mail, id, SendEnd::Failed));
        for stream in self.streams.values_mut().filter(|s| s.resend_at <= now) {
            stream.rewind(now);
        }
    }

    fn next_with_work(&self, now: Instant) -> Option<StreamId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = self.streams.range((Excluded(self.last), Unbounded));
        let mut round = behind.chain(self.streams.range(..=self.last));
        round.find(|(_, s)| s.has_work() && s.not_before <= now).map(|(id, _)| *id)
    }

    fn due(&self, now: Instant) -> Instant {
        let of_stream = |s: &Stream| {
            let work =
                if s.has_work() { s.not_before.max(self.bucket.ready_at(now, s.chunk_len())) } else { Instant::NEVER };
            work.min(s.resend_at).min(s.fail_at)
        };
        let begins = self.paused.values().copied();
        self.streams.values().map(of_stream).chain(begins).min().unwrap_or(Instant::NEVER)
    }
}

impl Stream {
    /// Before the first ack nobody knows whether the receiver has room: one chunk asks.
    fn has_work(&self) -> bool {
        let window = if self.acked == 0 { CHUNK } else { WINDOW * CHUNK };
        self.begun && self.next < self.header.size && self.next - self.acked < window
    }

    fn made_progress(&mut self, now: Instant) {
        self.resend_at = now.after(RESEND);
        self.fail_at = now.after(STALLED);
    }

    fn chunk_len(&self) -> u64 {
        CHUNK.min(self.header.size - self.next)
    }

    fn on_more(&mut self, now: Instant, next: u64) {
        if next > self.acked && next <= self.next && next.is_multiple_of(CHUNK) {
            self.acked = next;
            self.rewound = false;
            self.made_progress(now);
        } else if next == self.acked && self.next > self.acked && !self.rewound {
            // The receiver got something behind a gap. Once: the other chunks in flight say the same.
            self.rewind(now);
            self.rewound = true;
        }
    }

    fn rewind(&mut self, now: Instant) {
        self.next = self.acked;
        self.resend_at = now.after(RESEND);
    }

    /// Bytes that left; 0 if the transport took nothing.
    fn send_chunk(&mut self, now: Instant, id: StreamId, transport: &dyn Transport) -> io::Result<u64> {
        let len = self.chunk_len() as usize;
        let data = read_exact(&mut *self.file, self.next, len)?;
        let end = self.next + data.len() as u64;
        if end > self.digested {
            self.digest.update(&data);
            self.digested = end;
        }
        let chunk = SnapshotChunk {
            stream: id,
            offset: self.next,
            header: (self.next == 0).then(|| Box::new(self.header.clone())),
            data,
            digest: (end == self.header.size).then(|| self.digest.clone().finish()),
        };
        match transport.send(self.to, Lane::Snapshot, SnapshotFrame::Chunk(chunk).encode()) {
            Ok(()) => {
                let sent = end - self.next;
                self.next = end;
                Ok(sent)
            }
            Err(_) => {
                self.not_before = now.after(RETRY);
                Ok(0)
            }
        }
    }
}

fn read_exact(file: &mut dyn SpoolReader, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut data = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(offset + filled as u64, &mut data[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => filled += more,
        }
    }
    Ok(data.into())
}

fn tell(mail: &Mail, poller: PollerId, group: GroupId, to: ReplicaId, end: SendEnd) {
    mail.poller(poller, PollerMsg::Snapshot(SnapshotEvent::Sent { group, to, end }));
}

/// A token bucket over all streams.
struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// Bytes that may leave now.
    filled: u64,
    /// When it was filled last.
    at: Instant,
}

fn burst(rate: u64) -> u64 {
    (rate / 8).max(2 * CHUNK)
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let more = u128::from(self.rate) * now.since(self.at).as_nanos() / 1_000_000_000;
        if more > 0 {
            self.filled = burst(self.rate).min(self.filled + u64::try_from(more).unwrap_or(u64::MAX / 2));
            self.at = now;
        }
    }

    fn take(&mut self, bytes: u64) -> bool {
        let enough = self.filled >= bytes;
        if enough {
            self.filled -= bytes;
        }
        enough
    }

    fn ready_at(&self, now: Instant, bytes: u64) -> Instant {
        let missing = u128::from(bytes.saturating_sub(self.filled));
        let nanos = (missing * 1_000_000_000).div_ceil(u128::from(self.rate));
        now.after(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}
