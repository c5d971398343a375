//! From group to inbox, and from frame to pollers: what callers and connections touch of a node.
//!
//! `GroupCell` is a replica's outside: route, status copy, read view. The router implements `Inbound`.
//! Leaves to others: raft (pollers), judging a sender by the replica map (the replica has it).
//! Invariant: no map guard is held across a send; a frame is refused, never queued, above the byte budget.

use crate::budget::Budget;
use crate::codec::decode_messages;
use crate::config::Config;
use crate::env::{BadFrame, Inbound, Lane, PeerIdentity, Reader};
use crate::events::{Event, Events};
use crate::group_map::GroupHash;
use crate::group_status::GroupStatus;
use crate::health::Health;
use crate::ids::{GroupId, NodeId, PollerId, ReplicaId};
use crate::mail::{Inboxes, Mail};
use crate::proposal::weigh;
use crate::task::{Aside, Control, GroupMessage, LifecycleMsg, PollerMsg, SnapshotTask};
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use pontoon_raft::Body;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Snapshot frames that may wait; the sender's window is far below it.
const SNAPSHOT_BACKLOG: usize = 64;
/// Letters at lifecycle above which messages for unknown groups are dropped.
const STRANGER_BACKLOG: usize = 1024;

/// The outside of one replica.
pub struct GroupCell {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// State-machine kind.
    pub kind: String,
    /// Its owner.
    pub poller: PollerId,
    /// Copy of what the replica knows; written by its poller only.
    status: Mutex<GroupStatus>,
    /// The machine's read view; swapped by a snapshot install. `None` until the machine is open.
    reader: Mutex<Option<Reader>>,
    /// Room for commands behind the door, in bytes: said by its poller, used up by whoever hands many in.
    room: AtomicU64,
}

impl GroupCell {
    /// A replica's outside before its first turn.
    #[must_use]
    pub fn new(group: GroupId, replica: ReplicaId, kind: String, poller: PollerId) -> GroupCell {
        let status = GroupStatus { group, replica, kind: kind.clone(), ..GroupStatus::default() };
        GroupCell {
            group,
            replica,
            kind,
            poller,
            status: Mutex::new(status),
            reader: Mutex::new(None),
            room: AtomicU64::new(u64::MAX),
        }
    }

    /// An owned copy.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        self.status.lock().clone()
    }

    /// Looks at the status, or changes it, without copying. Keep it short: the poller waits.
    pub fn with_status<T>(&self, f: impl FnOnce(&mut GroupStatus) -> T) -> T {
        f(&mut self.status.lock())
    }

    /// About how much the poller would not refuse for what waits already. Bytes, with what commands weigh.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// Says so; without bound while the node is not busy.
    pub fn set_room(&self, room: u64) {
        if self.room() != room {
            self.room.store(room, Ordering::Relaxed);
        }
    }

    /// So much is on its way to the poller, who says soon what is left.
    pub fn use_room(&self, used: u64) {
        let less = |room: u64| (room < u64::MAX).then(|| room.saturating_sub(used));
        let _without_bound = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The machine's read view.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        self.reader.lock().clone()
    }

    /// The machine was opened, or a snapshot replaced its contents.
    pub fn set_reader(&self, reader: Reader) {
        *self.reader.lock() = Some(reader);
    }
}

/// What a group's name leads to.
#[derive(Clone)]
pub enum Route {
    /// A replica lives here.
    Here(Arc<GroupCell>),
    /// One did.
    Destroyed,
}

/// Shared by callers, connections and all parts of a node.
pub struct Router {
    /// Groups by name. Looked up, never iterated to decide anything.
    groups: DashMap<GroupId, Route, GroupHash>,
    /// All inboxes.
    mail: Mail,
    /// The node's byte budget.
    budget: Arc<Budget>,
    /// Poison, stalls, stopping.
    health: Arc<Health>,
    /// Who listens.
    events: Arc<Events>,
    /// Are frames taken? False until the node is admitted and its groups are recovered (boot.md 2).
    open: AtomicBool,
}

impl Router {
    /// A closed router with its inboxes.
    #[must_use]
    pub fn new(config: &Config) -> (Arc<Router>, Inboxes) {
        let (mail, inboxes) = Mail::new(config.pollers, config.appliers);
        let router = Router {
            groups: DashMap::default(),
            mail,
            budget: Arc::new(Budget::new(config.node_bytes)),
            health: Arc::default(),
            events: Arc::default(),
            open: AtomicBool::new(false),
        };
        (Arc::new(router), inboxes)
    }

    /// Frames are taken from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Frames are dropped from now on.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// All inboxes.
    #[must_use]
    pub fn mail(&self) -> &Mail {
        &self.mail
    }

    /// The node's byte budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Poison, stalls, stopping.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Who listens.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// A replica lives here from now on. Register before its `Control::Adopt` is sent.
    pub fn register(&self, cell: Arc<GroupCell>) {
        let group = cell.group;
        self.groups.insert(group, Route::Here(cell));
        self.events.tell(Event::Opened(group));
    }

    /// The replica is gone.
    pub fn mark_destroyed(&self, group: GroupId) {
        self.groups.insert(group, Route::Destroyed);
    }

    /// What a group's name leads to here.
    #[must_use]
    pub fn route(&self, group: GroupId) -> Option<Route> {
        self.groups.get(&group).map(|r| r.value().clone())
    }

    /// The replica of a group here.
    #[must_use]
    pub fn cell(&self, group: GroupId) -> Option<Arc<GroupCell>> {
        match self.route(group) {
            Some(Route::Here(cell)) => Some(cell),
            _ => None,
        }
    }

    /// All replicas here, ascending by group.
    #[must_use]
    pub fn cells(&self) -> Vec<Arc<GroupCell>> {
        let here = |r: &Route| match r {
            Route::Here(cell) => Some(cell.clone()),
            Route::Destroyed => None,
        };
        let mut cells: Vec<_> = self.groups.iter().filter_map(|r| here(r.value())).collect();
        cells.sort_unstable_by_key(|c| c.group);
        cells
    }

    /// The node promises nothing from now on (law 7); every part is told once.
    pub fn poison(&self, why: &str) {
        if !self.health.poison(why) {
            return;
        }
        self.events.tell(Event::Poisoned(why.to_owned()));
        self.tell_pollers(|| PollerMsg::Poisoned(why.to_owned()));
        self.mail.lifecycle(LifecycleMsg::Poisoned(why.to_owned()));
    }

    /// Every poller answers what waits and stops.
    pub fn stop_pollers(&self) {
        self.tell_pollers(|| PollerMsg::Control(Control::Stop));
    }

    fn tell_pollers(&self, letter: impl Fn() -> PollerMsg) {
        for poller in 0..self.mail.pollers() {
            self.mail.poller(PollerId(poller as u32), letter());
        }
    }

    /// Hands each poller its part of a frame's messages, in order. By the group's name alone: looking it up would fetch
    /// what only its poller has at hand.
    fn dispatch(&self, from: PeerIdentity, messages: Vec<GroupMessage>, mut bytes: u64) {
        let pollers = self.mail.pollers();
        if pollers == 1 {
            // Nothing to deal: the frame's messages stay where they are.
            return self.mail.poller(PollerId(0), PollerMsg::Peer { from, messages, bytes });
        }
        let mut parts: Vec<Vec<GroupMessage>> = vec![Vec::new(); pollers];
        for message in messages {
            parts[self.mail.home_of(message.group).0 as usize].push(message);
        }
        for (poller, messages) in (0..).map(PollerId).zip(parts) {
            if !messages.is_empty() {
                // The whole frame is charged to the first part: its buffer lives as long as any of them.
                let bytes = std::mem::take(&mut bytes);
                self.mail.poller(poller, PollerMsg::Peer { from, messages, bytes });
            }
        }
        self.budget.give_back(bytes);
    }

    /// There is no room for a frame. Of its messages those pass that fill nothing: acks and words of commits, which make room
    /// here and elsewhere.
    fn dispatch_small(&self, from: PeerIdentity, mut messages: Vec<GroupMessage>) {
        messages.retain(|message| match &message.message.body {
            Body::AppendResp(_) => true,
            Body::Append(append) => append.entries.is_empty(),
            _ => false,
        });
        dropped("overloaded");
        let bytes = weigh(0, messages.len() as u64);
        if !messages.is_empty() && self.budget.try_squeeze(bytes) {
            self.dispatch(from, messages, bytes);
        }
    }

    /// A message found no running replica at its poller. If one is registered it stands still or is being born, and only
    /// words of lifecycle matter.
    pub fn on_stray(&self, from: PeerIdentity, message: GroupMessage) {
        match self.route(message.group) {
            Some(Route::Here(_)) if message.aside == Aside::Nothing => {}
            _ => self.on_unknown(from, message),
        }
    }

    /// Nobody here runs a replica of the group: one may be born by what a leader says, never by a vote (law 8).
    pub fn on_unknown(&self, from: PeerIdentity, message: GroupMessage) {
        dropped("unknown_group");
        let matters = message.message.body.is_from_leader() || message.aside != Aside::Nothing;
        if matters && self.mail.lifecycle_backlog() < STRANGER_BACKLOG {
            self.mail.lifecycle(LifecycleMsg::Unknown { from, message: Box::new(message) });
        }
    }
}

fn dropped(reason: &'static str) {
    metrics::counter!("pontoon_messages_rejected_total", "reason" => reason).increment(1);
}

impl Inbound for Router {
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame> {
        if !self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        if lane == Lane::Snapshot {
            if self.mail.snapshotter_backlog() < SNAPSHOT_BACKLOG {
                self.mail.snapshotter(SnapshotTask::Frame { from, body });
            } else {
                dropped("snapshot_backlog");
            }
            return Ok(());
        }
        let bytes = weigh(body.len() as u64, 1);
        let messages = decode_messages(body).map_err(|e| BadFrame(e.to_string()))?;
        if lane == Lane::Urgent {
            // What keeps leaders alive is small and never waits behind a full budget.
            self.budget.take(bytes);
            self.dispatch(from, messages, bytes);
        } else if self.budget.try_take(bytes) {
            self.dispatch(from, messages, bytes);
        } else {
            self.dispatch_small(from, messages);
        }
        Ok(())
    }

    fn on_link_up(&self, peer: PeerIdentity) {
        self.tell_pollers(|| PollerMsg::Linked(peer));
    }

    fn on_link_down(&self, peer: NodeId) {
        self.tell_pollers(|| PollerMsg::Unreachable(peer));
    }
}
