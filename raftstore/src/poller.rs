//! The part that owns groups: drains its inbox, steps their cores, gathers one batch and one outbox per turn.
//!
//! Leaves to others: what an event means to a group (`replica`), writing, applying, reading (they answer by letter).
//! Invariant: a replica is owned by exactly one poller; nothing here blocks, and nothing leaves once the node is
//! poisoned. A turn takes a bounded bite of the inbox.

mod control;
mod crowd;
mod late;
mod peers;
mod report;
mod standing;

use crate::config::Config;
use crate::env::{Instant, PeerIdentity, Transport};
use crate::error::{GroupError, ProposeError, ReadError};
use crate::events::Event;
use crate::group_map::GroupMap;
use crate::ids::{BatchSeq, GroupId, Incarnation, NodeId, PollerId, ReplicaId, Tick};
use crate::inbox::Inbox;
use crate::log_writer::SharedLog;
use crate::proposal::{Proposal, ReadRequest};
use crate::replica::{Letter, Limits, Replica, Work, WriteTime};
use crate::router::{Route, Router};
use crate::task::{Fetched, PollerMsg, WriteOrigin, WriterMsg};
use crate::ticker::Ticker;
use crate::turn::{Active, Turn};
use crowd::Crowd;
use late::Late;
use report::Report;
use standing::Standing;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Letters that one turn takes at most.
const TURN_LETTERS: usize = 4096;
/// Bytes of commands and frames after which a turn takes no further letter.
const TURN_BYTES: u64 = 4 << 20;

/// Word of a commit waits so long for the next append after the last write: as long as a caller needs who writes again as soon
/// as it is answered.
const LINGER: Duration = Duration::from_millis(1);

/// Replicas that are looked at together.
const AT_ONCE: usize = 16;

/// What a poller is made of besides its configuration.
pub struct PollerParts {
    /// Which one.
    pub id: PollerId,
    /// Own identity: the incarnation goes into replica maps, the boot's nonce into read contexts.
    pub me: PeerIdentity,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// Set: batches are synced inline (`Config::inline_sync`).
    pub inline: Option<Arc<SharedLog>>,
    /// Everybody else.
    pub router: Arc<Router>,
    /// Its letters.
    pub inbox: Inbox<PollerMsg>,
    /// Now.
    pub now: Instant,
}

/// A batch on its way to the disk.
struct Batch {
    seq: BatchSeq,
    /// When it was handed over.
    since: Instant,
    /// Places of the replicas with a write in it.
    places: Vec<u32>,
}

/// A poller.
pub struct Poller {
    parts: PollerParts,
    /// Bounds and times for replicas.
    limits: Arc<Limits>,
    /// Length of a tick.
    tick: Duration,
    /// See `Config`.
    disk_stall: Duration,
    /// The slab of replicas.
    replicas: Vec<Option<Box<Replica>>>,
    /// Empty places of the slab.
    free: Vec<u32>,
    /// Place of each group.
    places: GroupMap<u32>,
    /// Places in which something happened in this turn, in that order. Invariant: each once (`Replica::touched`).
    touched: Vec<u32>,
    /// Places whose turn ended before the others', with more to do in the next one.
    later: Vec<u32>,
    /// Places that hold word of a commit back. Invariant: each once (`Replica::listed`).
    holding: Vec<u32>,
    /// Places that keep commands back, and until when. Invariant: each once (`Replica::queued`).
    gathering: VecDeque<(Instant, u32)>,
    /// How long they may.
    crowd: Crowd,
    /// Does a queue of commands stand on the node?
    standing: Standing,
    /// Deadlines.
    ticker: Ticker,
    /// What the turn collects.
    work: Work,
    /// Batches on their way, in order.
    in_flight: VecDeque<Batch>,
    /// The oldest batch has been on its way for too long.
    stalled: bool,
    /// Was a write reported durable in this turn?
    synced: bool,
    /// When one was last.
    synced_at: Instant,
    /// Disks of the nodes heard of, own included.
    disks: BTreeMap<NodeId, Incarnation>,
    /// Why nobody is served any more.
    closed: Option<GroupError>,
    /// It has stopped for good.
    stopped: bool,
    /// Gauges and their upkeep.
    report: Report,
    /// Notices turns that come late.
    late: Late,
}

impl Poller {
    /// A poller without groups.
    #[must_use]
    pub fn new(config: &Config, parts: PollerParts) -> Poller {
        let tick = tick_of(parts.now, config.tick);
        let limits = Limits::new(config);
        let standing = Standing::new(limits.pace_ticks);
        let window = config.tick * u32::try_from(limits.pace_ticks).unwrap_or(u32::MAX);
        let work = Work::new(tick, WriteTime::new(window), parts.router.budget().clone());
        let disks = BTreeMap::from([(parts.me.node, parts.me.incarnation)]);
        Poller {
            limits: Arc::new(limits),
            tick: config.tick,
            disk_stall: config.disk_stall,
            replicas: Vec::new(),
            free: Vec::new(),
            places: GroupMap::default(),
            touched: Vec::new(),
            later: Vec::new(),
            holding: Vec::new(),
            gathering: VecDeque::new(),
            crowd: Crowd::new(config.gather_from, config.tick),
            standing,
            ticker: Ticker::new(tick),
            work,
            in_flight: VecDeque::new(),
            stalled: false,
            synced: false,
            synced_at: parts.now,
            disks,
            closed: None,
            stopped: false,
            report: Report::default(),
            late: Late::new(config.tick * u32::try_from(config.heartbeat_ticks).unwrap_or(u32::MAX)),
            parts,
        }
    }

    /// One turn: events in, one batch and one outbox out.
    pub fn turn(&mut self, now: Instant) -> Turn {
        if self.stopped {
            return Turn::IDLE;
        }
        self.work.now = self.work.now.max(tick_of(now, self.tick));
        self.work.clock = now;
        // Commands that are kept back stand at the door, and would shut it.
        let hurry = self.work.budget.has_long_line();
        self.work.patience = if hurry { Duration::ZERO } else { self.crowd.patience() };
        let drained = self.drain_inbox();
        let (on_its_way, limit) = (self.work.budget.on_its_way(), self.work.budget.limit());
        self.work.busy = self.standing.is_busy(on_its_way, limit, self.work.now);
        self.release_gathered(now);
        self.fire_deadlines();
        self.late.judge(now).into_iter().for_each(|e| self.parts.router.events().tell(e));
        self.watch_disk(now);
        self.settle_touched();
        self.release_commits(now);
        self.send();
        self.hand_to_writer(now);
        self.deliver_letters();
        self.report.turn(&mut self.work, self.replicas.iter().flatten().map(|r| &**r));
        Turn { worked: drained || !self.touched.is_empty(), next: self.next_wake() }
    }

    /// Takes a bounded bite of the inbox.
    fn drain_inbox(&mut self) -> bool {
        let mut bytes = 0;
        for taken in 0..TURN_LETTERS {
            if bytes >= TURN_BYTES || self.stopped {
                return true;
            }
            let Some(letter) = self.parts.inbox.take() else { return taken > 0 };
            bytes += weight(&letter);
            self.on_letter(letter);
        }
        true
    }

    fn on_letter(&mut self, letter: PollerMsg) {
        match letter {
            PollerMsg::Propose(proposal) => self.on_propose(proposal),
            PollerMsg::ProposeAll(proposals) => proposals.into_iter().for_each(|p| self.on_propose(p)),
            PollerMsg::Read(read) => match self.touch(read.group) {
                Some(place) => self.with(place, |r, work| r.on_read(read, work)),
                None => {
                    self.work.budget.give_back(ReadRequest::COST);
                    read.slot.fail(ReadError::Group(self.why_not_here(read.group)));
                }
            },
            PollerMsg::Peer { from, messages, bytes } => {
                self.on_peer(from, messages);
                self.work.budget.give_back(bytes);
            }
            PollerMsg::Unreachable(node) => self.on_unreachable(node),
            PollerMsg::Linked(peer) => self.on_linked(peer),
            PollerMsg::Persisted(seq) => self.on_persisted(seq),
            PollerMsg::Poisoned(why) => self.abandon(&why),
            PollerMsg::Applied(all) => {
                for applied in all {
                    self.crowd.on_applied(&applied, self.work.clock);
                    self.at(applied.group(), |r, work| r.on_applied(applied, work));
                }
            }
            PollerMsg::Fetched(fetched) => self.at(fetched.group, |r, work| r.on_fetched(fetched, work)),
            PollerMsg::Snapshot(event) => self.on_snapshot(event),
            PollerMsg::Durable(positions) => self.on_durable(positions),
            PollerMsg::Control(control) => self.on_control(control),
        }
    }

    fn on_propose(&mut self, proposal: Proposal) {
        match self.touch(proposal.group) {
            Some(place) => self.with(place, |r, work| r.on_propose(proposal, work)),
            None => {
                self.work.budget.leave_door(proposal.cost());
                let why = self.why_not_here(proposal.group);
                proposal.refuse(ProposeError::Group(why));
            }
        }
    }

    fn on_persisted(&mut self, upto: BatchSeq) {
        while self.in_flight.front().is_some_and(|b| b.seq <= upto) {
            let batch = self.in_flight.pop_front().expect("looked at it");
            self.late.on_synced(batch.since);
            self.work.writes.on_written(self.parts.router.health().last_write());
            self.synced = true;
            for place in batch.places {
                let mut any = false;
                self.with(place, |r, work| any = r.on_persisted(batch.seq, work));
                if any {
                    self.touch_place(place);
                }
            }
        }
    }

    /// Fires what is due; nothing is scanned.
    fn fire_deadlines(&mut self) {
        let mut due = Vec::new();
        self.ticker.due(self.work.now, &mut due);
        for some in due.chunks(AT_ONCE) {
            self.look_at(some.iter().map(|(_, place)| *place));
            some.iter().for_each(|(deadline, place)| self.fire(*deadline, *place));
        }
    }

    fn fire(&mut self, deadline: Tick, place: u32) {
        let now = self.work.now;
        let Some(replica) = self.replicas[place as usize].as_mut().filter(|r| r.armed == deadline) else { return };
        replica.armed = Tick::MAX;
        let due = replica.next_deadline();
        if due > now {
            replica.armed = self.ticker.arm(due, place);
            return;
        }
        self.late.on_served(instant_of(due, self.tick));
        replica.on_tick(&mut self.work);
        // Its turn ends while it is at hand, and once: what a write leaves out must not show before the next turn.
        if !replica.touched && self.settle(place) {
            self.with(place, |r, _| r.touched = true);
            self.later.push(place);
        }
    }

    /// Looks at replicas whose turn comes, so that their memory is fetched side by side and not one after the other: with
    /// many groups none is at hand.
    fn look_at(&self, places: impl Iterator<Item = u32>) {
        let replicas = places.filter_map(|place| self.replicas[place as usize].as_ref());
        std::hint::black_box(replicas.map(|r| r.look()).fold(0, u64::wrapping_add));
    }

    /// A sync that hangs: leaders are handed over and say nothing that would keep them leading. Writes that wait for others
    /// in front of them do not hang as long as those come through.
    fn watch_disk(&mut self, now: Instant) {
        if std::mem::take(&mut self.synced) {
            self.synced_at = now;
        }
        let stalled = self.stalls_at().is_some_and(|at| at <= now);
        if stalled == self.stalled {
            return;
        }
        self.stalled = stalled;
        self.parts.router.events().tell(if stalled { Event::DiskStalled } else { Event::DiskRecovered });
        if stalled {
            for place in 0..self.replicas.len() as u32 {
                if self.replicas[place as usize].as_ref().is_some_and(|r| r.is_leader()) {
                    self.with(place, |r, work| r.hand_over(work));
                    self.touch_place(place);
                }
            }
        }
        self.work.silent = stalled;
    }

    /// Every touched replica's turn ends.
    fn settle_touched(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        for place in touched {
            if self.settle(place) {
                self.touch_place(place);
            }
        }
        self.touched.append(&mut self.later);
    }

    /// A replica's turn ends: one `Ready`. Returns whether it has more.
    fn settle(&mut self, place: u32) -> bool {
        let Some(replica) = self.replicas[place as usize].as_mut() else { return false };
        replica.touched = false;
        let more = replica.settle(&self.disks, &mut self.work);
        if replica.holds_commits() && !std::mem::replace(&mut replica.listed, true) {
            self.holding.push(place);
        }
        if let Some(until) = replica.keeps_back_until().filter(|_| !std::mem::replace(&mut replica.queued, true)) {
            self.gathering.push_back((until, place));
        }
        let deadline = replica.next_deadline();
        if deadline < replica.armed {
            replica.armed = self.ticker.arm(deadline, place);
        }
        more
    }

    /// What was kept back for long enough, or is not to be kept back any more, is looked at again.
    fn release_gathered(&mut self, now: Instant) {
        let all = self.work.patience.is_zero();
        while let Some((_, place)) = self.gathering.front().copied().filter(|g| all || g.0 <= now) {
            self.gathering.pop_front();
            self.with(place, |r, _| r.queued = false);
            self.touch_place(place);
        }
    }

    /// Nothing has been written for a while and nobody has asked for anything: no append will come that could tell what is
    /// committed.
    fn release_commits(&mut self, now: Instant) {
        if now < self.commits_leave_at() || !self.parts.inbox.is_empty() {
            return;
        }
        for place in std::mem::take(&mut self.holding) {
            self.with(place, |r, work| {
                r.listed = false;
                r.release_commits(work);
            });
        }
    }

    /// Messages leave before the batch is written: none of them promises what is in it (thesis 10.2.1).
    fn send(&mut self) {
        if self.parts.router.health().is_poisoned() {
            return self.work.outbox.clear();
        }
        let mut failed: Vec<(GroupId, ReplicaId)> = Vec::new();
        let sent = self.work.outbox.flush(&*self.parts.transport, &mut failed);
        self.report.sent(sent);
        for (group, peer) in failed {
            self.at(group, |r, work| r.on_unreachable(peer, work));
        }
    }

    /// The turn's one batch goes to the log writer, or to the disk at once if syncs are inline.
    fn hand_to_writer(&mut self, now: Instant) {
        if self.work.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.work.batch);
        let seq = self.work.seq;
        self.work.seq = BatchSeq(seq.0 + 1);
        let mut places: Vec<u32> = batch.writes.iter().filter_map(|w| self.places.get(&w.group).copied()).collect();
        places.dedup();
        self.crowd.on_batch(batch.writes.len());
        self.in_flight.push_back(Batch { seq, since: now, places });
        match &self.parts.inline {
            None => {
                let origin = WriteOrigin::Poller(self.parts.id);
                self.parts.router.mail().writer(WriterMsg::Write { origin, seq, batch });
            }
            Some(log) => {
                let (written, took) = log.timed_write(&batch);
                self.late.on_wrote(took);
                if written {
                    self.on_persisted(seq);
                    self.send();
                }
            }
        }
    }

    fn deliver_letters(&mut self) {
        let router = self.parts.router.clone();
        let mut tasks = Vec::new();
        for letter in std::mem::take(&mut self.work.letters) {
            if let Letter::Apply(task) = letter {
                self.crowd.on_handed(&task, self.work.clock);
                tasks.push(task);
                continue;
            }
            // Others stay behind what came before them.
            router.mail().apply(&mut tasks);
            match letter {
                Letter::Apply(_) => unreachable!("taken above"),
                Letter::Applier(group, letter) => router.mail().applier(group, letter),
                Letter::Snapshotter(letter) => router.mail().snapshotter(letter),
                Letter::LogReader(letter) => router.mail().log_reader(letter),
                Letter::Lifecycle(letter) => router.mail().lifecycle(letter),
                Letter::Gone(group) => self.remove(group),
            }
        }
        router.mail().apply(&mut tasks);
        self.work.events.drain(..).for_each(|e| router.events().tell(e));
    }

    /// The tombstone is durable: the route ends. Lifecycle sees to the rest.
    fn remove(&mut self, group: GroupId) {
        if let Some(place) = self.places.remove(&group) {
            self.replicas[place as usize] = None;
            self.free.push(place);
        }
        self.parts.router.mark_destroyed(group);
        self.parts.router.events().tell(Event::Destroyed(group));
    }

    /// When word of commits leaves that is held back.
    fn commits_leave_at(&self) -> Instant {
        let quiet = self.in_flight.is_empty() && self.work.batch.is_empty();
        if quiet && !self.holding.is_empty() { self.synced_at.after(LINGER) } else { Instant::NEVER }
    }

    fn next_wake(&self) -> Instant {
        let tick = match self.ticker.next() {
            Tick::MAX => Instant::NEVER,
            tick => instant_of(tick, self.tick),
        };
        let tick = self.gathering.front().map_or(tick, |(until, _)| tick.min(*until));
        let tick = tick.min(self.commits_leave_at());
        match self.stalls_at() {
            Some(at) if !self.stalled => tick.min(at),
            _ => tick,
        }
    }

    /// When the disk counts as stalled unless a write comes through.
    fn stalls_at(&self) -> Option<Instant> {
        let oldest = self.in_flight.front()?;
        Some(oldest.since.max(self.synced_at).after(self.disk_stall))
    }

    /// Runs `f` on a group's replica, if it is here, and lets it end the turn.
    fn at(&mut self, group: GroupId, f: impl FnOnce(&mut Replica, &mut Work)) {
        if let Some(place) = self.touch(group) {
            self.with(place, f);
        }
    }

    fn with(&mut self, place: u32, f: impl FnOnce(&mut Replica, &mut Work)) {
        if let Some(replica) = self.replicas[place as usize].as_mut() {
            f(replica, &mut self.work);
        }
    }

    fn touch(&mut self, group: GroupId) -> Option<u32> {
        let place = *self.places.get(&group)?;
        self.touch_place(place);
        Some(place)
    }

    fn touch_place(&mut self, place: u32) {
        let Some(replica) = self.replicas[place as usize].as_mut() else { return };
        if !std::mem::replace(&mut replica.touched, true) {
            self.touched.push(place);
        }
    }

    fn why_not_here(&self, group: GroupId) -> GroupError {
        match (&self.closed, self.parts.router.route(group)) {
            (Some(closed), _) => closed.clone(),
            (None, Some(Route::Destroyed)) => GroupError::Destroyed(group),
            (None, _) => GroupError::NotFound(group),
        }
    }
}

impl Active for Poller {
    fn turn(&mut self, now: Instant) -> Turn {
        Poller::turn(self, now)
    }

    fn on_end(&mut self, now: Instant) {
        self.late.on_end(now);
    }

    fn wait(&mut self, at_most: Duration) {
        self.parts.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        format!("poller-{}", self.parts.id.0)
    }

    fn on_panic(&mut self) {
        self.abandon("a poller panicked");
    }
}

/// What a letter weighs in a turn's bite.
fn weight(letter: &PollerMsg) -> u64 {
    match letter {
        PollerMsg::Propose(p) => p.cost(),
        PollerMsg::ProposeAll(all) => all.iter().map(Proposal::cost).sum(),
        PollerMsg::Peer { bytes, .. } => *bytes,
        PollerMsg::Fetched(Fetched { entries: Ok(page), .. }) => page.weight(),
        _ => 0,
    }
}

fn tick_of(now: Instant, tick: Duration) -> Tick {
    now.0 / (tick.as_nanos() as u64).max(1)
}

fn instant_of(at: Tick, tick: Duration) -> Instant {
    Instant(at.saturating_mul(tick.as_nanos() as u64))
}
