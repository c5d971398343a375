//! One peer's link: its states, when to dial, which connection is the link's, and what to send next.
//!
//! No I/O and no clock: events go in through `on_*(now, ..)`, frames come out of `take_frames`, `next_dial` says
//! when to dial. `driver` and `dialer` do what it says.
//! Invariant: at most one session is up; the queues are empty unless it is; session numbers only grow.

use crate::config::Config;
use crate::frame::{Caps, Kind};
use crate::lanes::Lanes;
use bytes::Bytes;
use pontoon_raftstore::env::{Destination, Instant, Lane, LinkState, SendError};
use pontoon_raftstore::ids::{Incarnation, NodeId};
use std::time::Duration;

/// Number of one connection of a link: orders the connections of a pair at this node.
pub(crate) type SessionNo = u64;

/// A session that was up for so long starts its pauses from the shortest again.
const SETTLED: Duration = Duration::from_secs(5);

/// Which of a pair dials: the lower id. So there are no crossed dials to resolve (docs/wire-format.md).
pub(crate) fn is_dialer(us: NodeId, peer: NodeId) -> bool {
    us < peer
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do here: the peer dials, or a dial is due now.
    Idle,
    /// A dial or its handshake is under way.
    Dialing,
    /// Until the next dial.
    BackingOff { until: Instant },
    /// The session is admitted by both sides and carries frames.
    Up { session: SessionNo, by: NodeId, since: Instant, disk: Incarnation },
}

/// When to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextDial {
    /// Now.
    Now,
    /// Then.
    At(Instant),
    /// Not before something else happens.
    Never,
}

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Party {
    /// Its disk, as the handshake proved it.
    pub(crate) disk: Incarnation,
    /// What it takes.
    pub(crate) send_caps: Caps,
}

/// May a connection become the link's?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Yes, under this number; a session with a lower one ends.
    Taken(SessionNo),
    /// The link has a better one.
    Declined,
}

/// The link to one peer.
#[derive(Debug)]
pub(crate) struct Link {
    /// This node.
    us: NodeId,
    /// The other one.
    peer: NodeId,
    /// Is the peer one that this node wants a link to? Otherwise it is only answered.
    listed: bool,
    /// Where the link stands.
    phase: Phase,
    /// Queued frames. Invariant: empty unless `phase` is `Up`.
    lanes: Lanes,
    /// The beacon to send next; a newer one takes its place.
    beacon: Option<Bytes>,
    /// The page of the peers' table to send next.
    directory: Option<Bytes>,
    /// What the peer takes. Means something in `Up` only.
    send_caps: Caps,
    /// Number of the last offered connection.
    last_session: SessionNo,
    /// Dials that failed since the link was settled.
    failures: u32,
    /// The last refusal in either direction since the link was up.
    refused: Option<String>,
    /// Round trip of the last answered beacon.
    rtt: Option<Duration>,
    /// First and longest pause.
    backoff: (Duration, Duration),
    /// State of the jitter's generator.
    jitter: u64,
}

impl Link {
    pub(crate) fn new(config: &Config, peer: NodeId) -> Link {
        Link {
            us: config.node,
            peer,
            listed: false,
            phase: Phase::Idle,
            lanes: Lanes::new(config.queue),
            beacon: None,
            directory: None,
            send_caps: config.caps(),
            last_session: 0,
            failures: 0,
            refused: None,
            rtt: None,
            backoff: config.backoff,
            jitter: config.seed ^ config.node.0.rotate_left(32) ^ peer.0,
        }
    }

    // ---- dialling

    /// The set of wanted peers has changed.
    pub(crate) fn on_listed(&mut self, listed: bool) {
        self.listed = listed;
    }

    /// When the dialer should dial. Ask again after every event.
    pub(crate) fn next_dial(&self, now: Instant) -> NextDial {
        match self.phase {
            _ if !self.listed || !is_dialer(self.us, self.peer) => NextDial::Never,
            Phase::Idle => NextDial::Now,
            Phase::BackingOff { until } if until <= now => NextDial::Now,
            Phase::BackingOff { until } => NextDial::At(until),
            Phase::Dialing | Phase::Up { .. } => NextDial::Never,
        }
    }

    /// A dial begins.
    pub(crate) fn on_dial(&mut self) {
        assert!(matches!(self.phase, Phase::Idle | Phase::BackingOff { .. }), "{:?}", self.phase);
        self.phase = Phase::Dialing;
    }

    /// The dial that began came to nothing.
    pub(crate) fn on_dial_failed(&mut self, now: Instant) {
        if self.phase == Phase::Dialing {
            self.failures = self.failures.saturating_add(1);
            self.become_backing_off(now);
        }
    }

    /// A handshake with the peer ended in a refusal, in whichever direction. Repeating it soon would change nothing.
    pub(crate) fn on_refused(&mut self, now: Instant, why: String) {
        if matches!(self.phase, Phase::Up { .. }) {
            return; // a stranger with the peer's name must not disturb the link
        }
        self.refused = Some(why);
        if self.phase == Phase::Dialing {
            self.failures = u32::MAX;
            self.become_backing_off(now);
        }
    }

    fn become_backing_off(&mut self, now: Instant) {
        let (first, longest) = self.backoff;
        let doublings = self.failures.saturating_sub(1).min(20);
        let whole = first.saturating_mul(1 << doublings).min(longest);
        let pause = whole / 2 + self.draw(whole / 2);
        self.phase = Phase::BackingOff { until: now.after(pause) };
    }

    /// A duration in `[0, below]`, evenly (splitmix64).
    fn draw(&mut self, below: Duration) -> Duration {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let nanos = u64::try_from(below.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(z % (nanos + 1))
    }

    // ---- sessions

    /// Both sides of a connection have admitted each other. The connection that the right side dialled takes the
    /// place of any other: its dialler has given the former up. One from the wrong side serves only while there is no other.
    pub(crate) fn on_offer(&mut self, by: NodeId) -> Offer {
        let other = if by == self.us { self.peer } else { self.us };
        if matches!(self.phase, Phase::Up { by: current, .. } if current != by) && !is_dialer(by, other) {
            return Offer::Declined;
        }
        self.last_session += 1;
        Offer::Taken(self.last_session)
    }

    /// The session with this number carries the link from now on; the one before it has ended.
    pub(crate) fn on_up(&mut self, now: Instant, session: SessionNo, by: NodeId, with: Party) {
        assert!(!matches!(self.phase, Phase::Up { .. }), "{:?} while session {session} comes up", self.phase);
        assert!(session <= self.last_session);
        self.phase = Phase::Up { session, by, since: now, disk: with.disk };
        self.send_caps = with.send_caps;
        self.refused = None;
        self.rtt = None;
    }

    /// The session with this number has ended. Returns the number of frames lost in the queues.
    pub(crate) fn on_down(&mut self, now: Instant, session: SessionNo) -> usize {
        let Phase::Up { session: current, since, .. } = self.phase else { return 0 };
        if current != session {
            return 0;
        }
        self.failures = if now.since(since) >= SETTLED { 1 } else { self.failures.saturating_add(1) };
        self.become_backing_off(now);
        self.beacon = None;
        self.directory = None;
        self.rtt = None;
        self.lanes.clear()
    }

    // ---- frames

    /// Queues a body for the peer, if it is the disk that is meant.
    pub(crate) fn on_send(&mut self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError> {
        match self.phase {
            Phase::Up { disk, .. } if !to.allows(disk) => return Err(SendError::OtherDisk),
            Phase::Up { .. } => {}
            _ => return Err(SendError::Down),
        }
        if body.len() > self.send_caps.of(Kind::Data(lane)) {
            return Err(SendError::TooLarge);
        }
        self.lanes.push(lane, body)
    }

    /// The periodic word for a session is ready.
    pub(crate) fn on_beacon(&mut self, session: SessionNo, body: Bytes) {
        if self.is_up_as(session) {
            self.beacon = Some(body);
        }
    }

    /// May a session have its next page? Not while one waits: none is lost or overtaken.
    pub(crate) fn takes_directory(&self, session: SessionNo) -> bool {
        self.is_up_as(session) && self.directory.is_none()
    }

    /// The next page, if there is news. Ask `takes_directory` before.
    pub(crate) fn on_directory(&mut self, body: Option<Bytes>) {
        self.directory = body;
    }

    /// The peer answered a beacon.
    pub(crate) fn on_rtt(&mut self, session: SessionNo, rtt: Duration) {
        if self.is_up_as(session) {
            self.rtt = Some(rtt);
        }
    }

    /// Moves what a session should write next to `out`: the beacon, then about `budget` bytes of the lanes. Call
    /// again after it is written if this says that more waits, and after every `on_send` or `on_beacon`.
    pub(crate) fn take_frames(&mut self, session: SessionNo, budget: usize, out: &mut Vec<(Kind, Bytes)>) -> bool {
        if !self.is_up_as(session) {
            return false;
        }
        out.extend(self.beacon.take().map(|body| (Kind::Beacon, body)));
        out.extend(self.directory.take().map(|body| (Kind::Directory, body)));
        let mut frames = Vec::new();
        self.lanes.take(budget, &mut frames);
        out.extend(frames.into_iter().map(|(lane, body)| (Kind::Data(lane), body)));
        self.queued() != [0; 3]
    }

    fn is_up_as(&self, session: SessionNo) -> bool {
        matches!(self.phase, Phase::Up { session: current, .. } if current == session)
    }

    // ---- answers

    /// As raftstore sees it.
    pub(crate) fn state(&self) -> LinkState {
        match (&self.phase, &self.refused) {
            (Phase::Up { .. }, _) => LinkState::Up,
            (_, Some(why)) => LinkState::Refused(why.clone()),
            (_, None) => LinkState::Down,
        }
    }

    /// Does a session carry frames?
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Is it a wanted peer?
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Round trip of the last answered beacon.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Bytes waiting: urgent, append, snapshot.
    pub(crate) fn queued(&self) -> [usize; 3] {
        self.lanes.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOW: NodeId = NodeId(1);
    const HIGH: NodeId = NodeId(2);
    const DISK: Incarnation = Incarnation(7);

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn link(us: NodeId, peer: NodeId) -> Link {
        let mut link = Link::new(&Config::loopback(us), peer);
        link.on_listed(true);
        link
    }

    fn up(link: &mut Link, now: Instant, by: NodeId) -> SessionNo {
        let Offer::Taken(session) = link.on_offer(by) else { panic!("declined") };
        let caps = link.send_caps;
        link.on_up(now, session, by, Party { disk: DISK, send_caps: caps });
        session
    }

    #[test]
    fn only_the_lower_id_dials() {
        assert_eq!(link(LOW, HIGH).next_dial(at(0)), NextDial::Now);
        assert_eq!(link(HIGH, LOW).next_dial(at(0)), NextDial::Never);
        let mut unlisted = link(LOW, HIGH);
        unlisted.on_listed(false);
        assert_eq!(unlisted.next_dial(at(0)), NextDial::Never);
    }

    #[test]
    fn pauses_double_up_to_the_longest_with_jitter_and_restart_after_a_settled_session() {
        let mut link = link(LOW, HIGH);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            link.on_dial();
            link.on_dial_failed(at(1000));
            let NextDial::At(until) = link.next_dial(at(1000)) else { panic!() };
            pauses.push(until.since(at(1000)).as_millis());
        }
        for (pause, whole) in pauses.iter().zip([50, 100, 200, 400, 800, 1000, 1000, 1000]) {
            assert!((whole / 2..=whole).contains(pause), "{pauses:?}");
        }
        link.on_dial();
        let session = up(&mut link, at(2000), LOW);
        link.on_down(at(20_000), session);
        let NextDial::At(until) = link.next_dial(at(20_000)) else { panic!() };
        assert!(until.since(at(20_000)) <= Duration::from_millis(50));
    }

    #[test]
    fn the_jitter_comes_from_the_seed() {
        let pause = |seed| {
            let mut link = Link::new(&Config { seed, ..Config::loopback(LOW) }, HIGH);
            link.on_listed(true);
            link.on_dial();
            link.on_dial_failed(at(0));
            link.next_dial(at(0))
        };
        assert_eq!(pause(7), pause(7));
        assert_ne!(pause(7), pause(8));
    }

    #[test]
    fn nothing_is_queued_while_down_and_nothing_survives_a_session() {
        let mut link = link(LOW, HIGH);
        assert_eq!(link.on_send(HIGH.into(), Lane::Urgent, Bytes::new()), Err(SendError::Down));
        let session = up(&mut link, at(0), LOW);
        link.on_send(HIGH.into(), Lane::Append, Bytes::from_static(b"a")).unwrap();
        link.on_beacon(session, Bytes::from_static(b"b"));
        assert_eq!(link.on_down(at(1), session), 1);
        let next = up(&mut link, at(2), LOW);
        let mut out = Vec::new();
        link.take_frames(next, 1000, &mut out);
        link.take_frames(session, 1000, &mut out);
        assert_eq!(out, []);
    }

    #[test]
    fn an_old_session_can_neither_take_frames_nor_end_the_link() {
        let mut link = link(LOW, HIGH);
        let old = up(&mut link, at(0), LOW);
        link.on_down(at(1), old);
        let new = up(&mut link, at(2), LOW);
        assert_eq!(link.on_down(at(3), old), 0);
        assert_eq!(link.state(), LinkState::Up);
        link.on_send(HIGH.into(), Lane::Urgent, Bytes::from_static(b"x")).unwrap();
        let mut out = Vec::new();
        link.take_frames(old, 1000, &mut out);
        assert_eq!(out, []);
        link.take_frames(new, 1000, &mut out);
        assert_eq!(out, [(Kind::Data(Lane::Urgent), Bytes::from_static(b"x"))]);
    }

    #[test]
    fn the_right_diallers_connection_wins_on_both_sides() {
        for us in [LOW, HIGH] {
            let peer = if us == LOW { HIGH } else { LOW };
            let mut link = link(us, peer);
            up(&mut link, at(0), LOW);
            assert_eq!(link.on_offer(HIGH), Offer::Declined, "the wrong side's");
            assert_eq!(link.on_offer(LOW), Offer::Taken(2), "a newer one of the right side");
        }
        let mut joined = link(LOW, HIGH);
        up(&mut joined, at(0), HIGH);
        assert_eq!(joined.on_offer(LOW), Offer::Taken(2));
    }

    #[test]
    fn a_refusal_shows_until_the_link_is_up_and_never_disturbs_it() {
        let mut link = link(LOW, HIGH);
        link.on_dial();
        link.on_refused(at(0), "other disk".into());
        assert_eq!(link.state(), LinkState::Refused("other disk".into()));
        let NextDial::At(until) = link.next_dial(at(0)) else { panic!() };
        assert!(until >= at(500), "no hurry after a refusal");
        up(&mut link, at(1000), LOW);
        assert_eq!(link.state(), LinkState::Up);
        link.on_refused(at(2000), "an impostor".into());
        assert_eq!(link.state(), LinkState::Up);
    }

    #[test]
    fn bodies_over_the_peers_cap_are_refused_here() {
        let mut link = link(LOW, HIGH);
        let Offer::Taken(session) = link.on_offer(LOW) else { panic!() };
        let send_caps = Caps { frame: 10, snapshot: 5 };
        link.on_up(at(0), session, LOW, Party { disk: DISK, send_caps });
        assert_eq!(link.on_send(HIGH.into(), Lane::Append, Bytes::from_static(&[0; 11])), Err(SendError::TooLarge));
        assert_eq!(link.on_send(HIGH.into(), Lane::Snapshot, Bytes::from_static(&[0; 6])), Err(SendError::TooLarge));
        link.on_send(HIGH.into(), Lane::Append, Bytes::from_static(&[0; 10])).unwrap();
    }
}
