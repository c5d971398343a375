//! One connection: the handshake, then four loops (read, write, speak, heed) until one of them ends.
//!
//! Reads and writes what `handshake`, `link` and `frame` say; decides nothing itself. `listener` and `dialer` make
//! the connections; `outgoing` is shared with senders.
//! Invariant: no body reaches raftstore before `Admitted` exists, between `on_link_up` and `on_link_down` of the
//! session only, and never from a session that another one has followed.

use crate::batch::Batch;
use crate::beacon::Stamps;
use crate::context::Context;
use crate::directory;
use crate::error::{LocalFault, PeerFault};
use crate::frame::{Decoder, Frame, Kind};
use crate::handshake::{Admitted, Greeting, Outcome, Side};
use crate::link::{Offer, Party, SessionNo};
use crate::metrics::{count_fault, count_refusal};
use crate::outgoing::Outgoing;
use crate::peer::Peer;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pontoon_raftstore::env::{Admission, Beacon, PeerIdentity};
use pontoon_raftstore::ids::NodeId;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

/// Bytes read at once while frames are small.
const READ_CHUNK: usize = 64 << 10;
/// Bytes by which a buffer grows at most while a large body arrives.
const READ_GROWTH: usize = 1 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The peer is to blame; counted.
    #[error("peer fault: {0}")]
    Fault(PeerFault),
    /// This side is.
    #[error(transparent)]
    Local(#[from] LocalFault),
    /// A verdict was no; counted, and told to the gatekeeper where it concerns this node.
    #[error("{why}")]
    Refused { peer: NodeId, why: String },
    /// The peer closed in good order.
    #[error("closed by the peer")]
    Closed,
    /// Another connection carries the link.
    #[error("replaced by another connection")]
    Replaced,
    /// `shutdown`.
    #[error("shut down")]
    Stopped,
}

impl From<PeerFault> for End {
    fn from(fault: PeerFault) -> End {
        count_fault(&fault);
        End::Fault(fault)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                End::Closed
            }
            _ => End::Local(error.into()),
        }
    }
}

/// What arrives on a connection.
struct Incoming<R> {
    socket: R,
    /// Received, not yet decoded.
    buf: BytesMut,
    decoder: Decoder,
}

impl<R: tokio::io::AsyncRead + Unpin> Incoming<R> {
    /// Whole frames only. Grows as bytes arrive, never by what a header announces.
    async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.decoder.take_frame(&mut self.buf)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Reads once; returns how much.
    async fn fill(&mut self) -> Result<usize, End> {
        let room = self.buf.capacity() - self.buf.len();
        if room < READ_CHUNK / 4 {
            self.buf.reserve(self.buf.len().clamp(READ_CHUNK, READ_GROWTH));
        }
        match self.socket.read_buf(&mut self.buf).await? {
            0 if self.buf.is_empty() => Err(End::Closed),
            0 => Err(PeerFault::ClosedEarly.into()),
            n => Ok(n),
        }
    }
}

/// A connection before it is admitted.
pub(crate) struct Wire {
    incoming: Incoming<TcpStream>,
    batch: Batch,
}

impl Wire {
    pub(crate) fn new(cx: &Context, socket: TcpStream) -> Result<Wire, End> {
        socket.set_nodelay(true)?;
        let decoder = Decoder::new(cx.shared.config.caps());
        Ok(Wire { incoming: Incoming { socket, buf: BytesMut::new(), decoder }, batch: Batch::default() })
    }

    async fn read(&mut self) -> Result<Bytes, End> {
        let frame = match self.incoming.next().await {
            Err(End::Closed) => return Err(PeerFault::ClosedEarly.into()),
            other => other?,
        };
        match frame.kind {
            Kind::Handshake => Ok(frame.body),
            _ => Err(PeerFault::EarlyFrame.into()),
        }
    }

    async fn write(&mut self, body: Bytes) -> Result<(), End> {
        self.batch.push(Kind::Handshake, body);
        self.batch.seal();
        Ok(self.incoming.socket.write_all_buf(&mut self.batch).await?)
    }
}

/// The handshake, within its deadline.
pub(crate) async fn shake(cx: &Context, wire: &mut Wire, side: Side) -> Result<Admitted, End> {
    match timeout(cx.shared.config.handshake_deadline, exchange(cx, wire, side)).await {
        Ok(end) => end,
        Err(_) => Err(PeerFault::SlowHandshake.into()),
    }
}

async fn exchange(cx: &Context, wire: &mut Wire, side: Side) -> Result<Admitted, End> {
    // The accepting side says nothing, and asks nobody, before it has read something that looks like a peer.
    let first = if side == Side::Accepts { Some(wire.read().await?) } else { None };
    let us = cx.ask_gate(|gate| gate.hello()).await?;
    let greeting = Greeting::new(us, cx.shared.config.caps(), side)?;
    let shown = if let Some(first) = first {
        let shown = greeting.on_hello(first)?;
        wire.write(shown.reply()).await?;
        shown
    } else {
        wire.write(greeting.body(side.meant())).await?;
        greeting.on_hello(wire.read().await?)?
    };
    let admission = match shown.objection() {
        Some(why) => Admission::Refused(why),
        None => {
            let peer = shown.peer().clone();
            cx.ask_gate(move |gate| gate.admit(&peer)).await?
        }
    };
    let (verdict, judged) = shown.on_admission(admission);
    wire.write(verdict).await?;
    let outcome = match wire.read().await {
        Ok(body) => judged.on_verdict(body)?,
        Err(end) => judged.on_silence().ok_or(end)?,
    };
    conclude(cx, outcome).await
}

/// Tells the gatekeeper how the handshake ended.
async fn conclude(cx: &Context, outcome: Outcome) -> Result<Admitted, End> {
    let (peer, by_us, by_peer) = match outcome {
        Outcome::Admitted(admitted) => {
            let peer = admitted.peer().clone();
            cx.ask_gate(move |gate| gate.on_welcome(&peer)).await?;
            return Ok(admitted);
        }
        Outcome::Refused { peer, by_us, by_peer } => (peer, by_us, by_peer),
    };
    let (id, mut words) = (peer.node, Vec::new());
    if let Some(why) = by_us {
        count_refusal(&why, "us");
        words.push(format!("refused node {id}: {why}"));
    }
    if let Some(why) = by_peer {
        count_refusal(&why, "peer");
        words.push(format!("refused by node {id}: {why}"));
        cx.ask_gate(move |gate| gate.on_refused(&peer, &why)).await?;
    }
    Err(End::Refused { peer: id, why: words.join("; ") })
}

/// Says on drop, however the session ended, that the link is down.
struct Seated<'a> {
    cx: &'a Context,
    peer: &'a Peer,
    session: SessionNo,
}

impl<'a> Seated<'a> {
    fn take(cx: &'a Context, peer: &'a Peer, session: SessionNo, by: NodeId, admitted: &Admitted) -> Seated<'a> {
        let with = Party { disk: admitted.identity().incarnation, send_caps: admitted.send_caps() };
        peer.link.lock().on_up(cx.shared.now(), session, by, with);
        peer.metrics.up(true);
        cx.inbound.on_link_up(admitted.identity());
        Seated { cx, peer, session }
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        *self.peer.outgoing.lock() = None;
        let lost = self.peer.link.lock().on_down(self.cx.shared.now(), self.session);
        self.peer.metrics.lost(lost);
        self.peer.metrics.up(false);
        self.peer.metrics.queued([0; 3]);
        self.cx.inbound.on_link_down(self.peer.id);
        self.peer.redial.notify_one();
    }
}

/// Carries an admitted connection until it ends. `by`: who dialled it.
pub(crate) async fn run(cx: &Arc<Context>, wire: Wire, admitted: Admitted, by: NodeId) -> End {
    let Some(peer) = cx.shared.peer_or_new(admitted.identity().node) else {
        return LocalFault::TooManyPeers.into();
    };
    let Offer::Taken(session) = peer.link.lock().on_offer(by) else { return End::Replaced };
    peer.raise_floor(session);
    // The session before sees the floor, ends, and frees the seat.
    let Some(_seat) = cx.shared.unless_stopped(peer.seat.clone().lock_owned()).await else { return End::Stopped };
    if *peer.floor.borrow() > session {
        return End::Replaced;
    }
    let _seated = Seated::take(cx, &peer, session, by, &admitted);
    tracing::info!(peer = peer.id.0, session, "link up");
    let end = carry(cx, &peer, session, wire, &admitted).await;
    tracing::info!(peer = peer.id.0, session, why = %end, "link down");
    end
}

/// Runs the four loops; the first to end ends them all.
async fn carry(cx: &Arc<Context>, peer: &Arc<Peer>, session: SessionNo, wire: Wire, admitted: &Admitted) -> End {
    let Wire { incoming: Incoming { socket, buf, decoder }, batch } = wire;
    let (reader, writer) = socket.into_split();
    let outgoing = Outgoing::new(session, writer, batch, cx.shared.config.batch);
    *peer.outgoing.lock() = Some(outgoing);
    let incoming = Incoming { socket: reader, buf, decoder };
    let (heard, hear) = watch::channel(None);
    let stamps = Arc::new(Mutex::new(Stamps::default()));
    let (from, protocol) = (admitted.identity(), admitted.protocol());
    let side = Arc::new(Carrier { cx: cx.clone(), peer: peer.clone(), session, from, protocol, stamps });
    let mut loops = JoinSet::new();
    loops.spawn(side.clone().read(incoming, heard));
    loops.spawn(side.clone().write());
    loops.spawn(side.clone().speak());
    loops.spawn(side.heed(hear));
    let mut floor = peer.floor.subscribe();
    let end = tokio::select! {
        ended = loops.join_next() => match ended {
            Some(Ok(Err(end))) => end,
            Some(Ok(Ok(never))) => match never {},
            Some(Err(_)) | None => LocalFault::Gate.into(),
        },
        _ = floor.wait_for(|floor| *floor > session) => End::Replaced,
        () = cx.shared.stopped() => End::Stopped,
    };
    // Waits for them too: nothing of this session happens after its `on_link_down`.
    loops.shutdown().await;
    end
}

/// Nothing: the loops end with an `End` only.
enum Never {}

/// What the loops of one session share.
struct Carrier {
    cx: Arc<Context>,
    peer: Arc<Peer>,
    session: SessionNo,
    /// Whose frames these are.
    from: PeerIdentity,
    /// What both speak.
    protocol: u32,
    /// Stamps of the beacons in both directions.
    stamps: Arc<Mutex<Stamps>>,
}

impl Carrier {
    /// Hands bodies to raftstore. Any byte counts as a sign of life.
    async fn read(
        self: Arc<Carrier>,
        mut incoming: Incoming<OwnedReadHalf>,
        heard: watch::Sender<Option<Beacon>>,
    ) -> Result<Never, End> {
        loop {
            while let Some(frame) = incoming.decoder.take_frame(&mut incoming.buf)? {
                self.on_frame(frame, &heard)?;
            }
            let silence = self.cx.shared.config.silence;
            let n = timeout(silence, incoming.fill()).await.unwrap_or_else(|_| Err(PeerFault::Silent.into()))?;
            self.peer.metrics.received_bytes(n);
        }
    }

    fn on_frame(&self, frame: Frame, heard: &watch::Sender<Option<Beacon>>) -> Result<(), End> {
        match frame.kind {
            Kind::Data(lane) => {
                self.peer.metrics.received(lane);
                self.cx.inbound.on_frame(self.from, lane, frame.body).map_err(PeerFault::from)?;
            }
            Kind::Beacon => {
                let (beacon, rtt) = self.stamps.lock().on_beacon(self.cx.shared.now(), frame.body)?;
                heard.send_replace(Some(beacon));
                if let Some(rtt) = rtt {
                    self.peer.link.lock().on_rtt(self.session, rtt);
                    self.peer.metrics.rtt(rtt);
                }
            }
            Kind::Directory if self.protocol < directory::SINCE => {
                return Err(PeerFault::BadKind(frame.kind.to_byte()).into());
            }
            Kind::Directory => self.cx.gate().on_listings(self.from.node, directory::decode(frame.body)?),
            Kind::Handshake => return Err(PeerFault::SecondHandshake.into()),
        }
        Ok(())
    }

    /// Writes what senders could not write themselves; when there is nothing more, everything has been written.
    async fn write(self: Arc<Carrier>) -> Result<Never, End> {
        loop {
            match timeout(self.cx.shared.config.silence, poll_fn(|cx| self.peer.poll_write(cx))).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => self.peer.wake.notified().await,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(PeerFault::Stalled.into()),
            }
        }
    }

    /// Sends beacons. A gatekeeper that takes long (a slow disk) does not make the link look dead: the last word is
    /// said again.
    async fn speak(self: Arc<Carrier>) -> Result<Never, End> {
        let every = self.cx.shared.config.beacon_every;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Beacon::default();
        let mut listed = 0;
        loop {
            ticks.tick().await;
            if let Ok(beacon) = timeout(every / 2, self.cx.ask_gate(|gate| gate.beacon())).await {
                last = beacon?;
            }
            let body = self.stamps.lock().word(self.cx.shared.now(), last);
            let queued = {
                let mut link = self.peer.link.lock();
                link.on_beacon(self.session, body);
                if self.protocol >= directory::SINCE && link.takes_directory(self.session) {
                    let (page, upto) = self.cx.gate().listings(listed);
                    listed = upto;
                    link.on_directory((!page.is_empty()).then(|| directory::encode(page)));
                }
                link.queued()
            };
            self.peer.metrics.queued(queued);
            self.peer.push_out();
        }
    }

    /// Tells the gatekeeper what beacons say; of several that came meanwhile, the last.
    async fn heed(self: Arc<Carrier>, mut heard: watch::Receiver<Option<Beacon>>) -> Result<Never, End> {
        loop {
            if heard.changed().await.is_err() {
                return Err(End::Closed); // the reader has ended
            }
            let Some(beacon) = *heard.borrow_and_update() else { continue };
            let from = self.from.node;
            self.cx.ask_gate(move |gate| gate.on_beacon(from, beacon)).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frame::{Caps, HARD_CAP, HEADER, header};
    use pontoon_raftstore::env::Lane;
    use std::io::Cursor;

    /// A header that announces as much as a cap allows, and then next to nothing: the buffer follows the bytes.
    #[tokio::test]
    async fn a_length_field_alone_allocates_nothing() {
        for arrived in [0, 100_000, 3 << 20] {
            let mut wire = header(Kind::Data(Lane::Append), 0, &[]).to_vec();
            wire[8..12].copy_from_slice(&u32::try_from(HARD_CAP).unwrap().to_le_bytes());
            wire.resize(HEADER + arrived, 0);
            let decoder = Decoder::new(Caps { frame: HARD_CAP, snapshot: HARD_CAP });
            let mut incoming = Incoming { socket: Cursor::new(wire), buf: BytesMut::new(), decoder };
            assert!(matches!(incoming.next().await, Err(End::Fault(PeerFault::ClosedEarly))));
            let capacity = incoming.buf.capacity();
            assert!(capacity <= 2 * (arrived + READ_CHUNK), "{capacity} bytes for {arrived}");
        }
    }
}
