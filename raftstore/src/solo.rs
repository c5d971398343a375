//! The node that its host drives: one group behind channels, for hosts with a storage and a network of their own.
//!
//! [`start`] gives a [`Node`], the handle for any thread, and a [`Runner`], which the host runs on a thread of its own
//! until [`Node::stop`]. The host's part, for each [`Ready`] that it takes from [`Node::ready`]:
//!
//! 1. Persist `snapshot`, `entries`, `hard_state`, atomically; sync if `must_sync`. Only then:
//! 2. send `messages`; what gets lost is sent again. The receiver's host calls [`Node::step`].
//! 3. Apply `committed_entries` in order, each membership change also by [`Node::apply_conf_change`]; serve
//!    `read_states` once their index is applied.
//! 4. Call [`Node::advance`]. The next `Ready` is made when it is asked for, so it holds all that came meanwhile.
//!
//! Time is the number of [`Node::tick`]s. After a failed write: no `advance`; stop, and restart from storage.
//! Leaves to others: disk and network (the host); many groups, batches, snapshots as streams (the rest of this crate).
//! Invariant: every line is bounded, and whoever waits here is answered: by the core, or by the node's end. At most one
//! `Ready` is out, and while it has membership changes to apply no peer's message is stepped (the core's point 5).

use crate::error::{Halted, ReadyError, SoloError, Stopped};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Select, SendTimeoutError, Sender, after, bounded, never, select};
use pontoon_raft::{BootstrapError, ConfChangeV2, ConfState, Config, Entry, EntryKind, LogPos, Message, Peer};
use pontoon_raft::{RawNode, Ready, ReplicaId, StartError, Status, Storage, Tick};
use std::time::{Duration, Instant};

/// Letters that wait in each line at most.
const LINE: usize = 256;

/// Proposals while no leader is known: wait as long as their caller has patience, or fail at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "said above")]
pub enum WithoutLeader {
    #[default]
    Wait,
    Fail,
}

/// The handle. Cheap to clone; the node stops with the last one. Calls are answered at once unless it is said otherwise.
#[derive(Clone)]
pub struct Node {
    calls: Sender<Letter>,
    messages: Sender<Letter>,
    proposals: Sender<Letter>,
    ready: Receiver<Ready>,
    /// Disconnected once the node has stopped: what still lies in a line then was not done, and nobody answers.
    ended: Receiver<()>,
}

/// Drives the core. When it is dropped, by a panic of the storage too, the node has stopped.
pub struct Runner {
    raft: RawNode<Box<dyn Storage + Send>>,
    without_leader: WithoutLeader,
    now: Tick,
    /// A `Ready` is with the host, with so many membership changes still to be applied.
    out: Option<usize>,
    calls: Receiver<Letter>,
    messages: Receiver<Letter>,
    proposals: Receiver<Letter>,
    ready: Sender<Ready>,
    _running: Sender<()>,
}

/// What a handle says; whoever asks gets an answer.
enum Letter {
    Tick,
    Step(Message),
    Propose(Entry, Answer<Option<LogPos>>),
    Read(Bytes, Answer<()>),
    Apply(ConfChangeV2, Answer<ConfState, ReadyError>),
    Advance(Answer<(), ReadyError>),
    Status(Answer<Status, Stopped>),
    Campaign,
    ForgetLeader,
    Transfer(ReplicaId),
    Unreachable(ReplicaId),
    SnapshotSent(ReplicaId, bool),
    Stop,
}

type Answer<T, E = SoloError> = Sender<Result<T, E>>;

/// Starts from `storage`, a handle on what the host writes to: it never answers `Uncached`, and gives no peer a snapshot
/// that does not name it. Empty, it waits for a leader that adds it, or founds a group by [`Runner::bootstrap`].
/// `config.applied` is what the host's state machine has; `strict` is switched on, `async_storage_writes` off.
pub fn start(
    config: Config,
    storage: Box<dyn Storage + Send>,
    without_leader: WithoutLeader,
) -> Result<(Node, Runner), StartError> {
    let config = Config { strict: true, async_storage_writes: false, ..config };
    let raft = RawNode::new(&config, storage, 0)?;
    let ((to_calls, calls), (to_messages, messages)) = (bounded(LINE), bounded(LINE));
    let ((to_proposals, proposals), (ready, from_ready)) = (bounded(LINE), bounded(0));
    let (_running, ended) = bounded(0);
    let node = Node { calls: to_calls, messages: to_messages, proposals: to_proposals, ready: from_ready, ended };
    Ok((node, Runner { raft, without_leader, now: 0, out: None, calls, messages, proposals, ready, _running }))
}

impl Node {
    /// Work for the host; taking is accepting. Disconnected: the node has stopped.
    #[must_use]
    pub fn ready(&self) -> &Receiver<Ready> {
        &self.ready
    }

    /// One tick of time has passed. Never blocks.
    pub fn tick(&self) -> Result<(), SoloError> {
        offer(&self.calls, Letter::Tick)
    }

    /// A peer's message. Never blocks. One that makes no sense is dropped; one that proves lost data ends the node.
    pub fn step(&self, message: Message) -> Result<(), SoloError> {
        offer(&self.messages, Letter::Step(message))
    }

    /// Proposes a command (`Entry::normal`) or a membership change (`to_entry`; one that may not be made now is appended
    /// as an empty entry). `Some`: appended here, and committed iff the entry applied at that index has that term.
    /// `None`: forwarded to the leader. Waits for room, then for a leader, `patience` each at most.
    pub fn propose(&self, entry: Entry, patience: Duration) -> Result<Option<LogPos>, SoloError> {
        let (answer, answered) = bounded(1);
        self.proposals.send_timeout(Letter::Propose(entry, answer), patience).map_err(|e| match e {
            SendTimeoutError::Timeout(_) => SoloError::Full,
            SendTimeoutError::Disconnected(_) => SoloError::from(Stopped),
        })?;
        self.answer(&answered, after(patience)).unwrap_or(Err(SoloError::OutcomeUnknown))
    }

    /// A membership change of the `Ready` takes effect. To veto it, clear its operations' ids.
    pub fn apply_conf_change(&self, change: ConfChangeV2) -> Result<ConfState, ReadyError> {
        self.ask(|answer| Letter::Apply(change, answer))
    }

    /// The `Ready` is persisted, sent and applied.
    pub fn advance(&self) -> Result<(), ReadyError> {
        self.ask(Letter::Advance)
    }

    /// Asks for a linearizable read position (thesis 6.4): `context` comes back in `Ready::read_states` or
    /// `dropped_reads`, or is lost on the way to the leader: keep a deadline.
    pub fn read_index(&self, context: Bytes) -> Result<(), SoloError> {
        self.ask(|answer| Letter::Read(context, answer))
    }

    /// Role, positions, membership, and on a leader every member's progress.
    pub fn status(&self) -> Result<Status, Stopped> {
        self.ask(Letter::Status)
    }

    /// Starts an election.
    pub fn campaign(&self) -> Result<(), Stopped> {
        self.tell(Letter::Campaign)
    }

    /// A follower forgets its leader and may vote again at once.
    pub fn forget_leader(&self) -> Result<(), Stopped> {
        self.tell(Letter::ForgetLeader)
    }

    /// Hands the leadership to `to` (thesis 3.10); `Ready::soft_state` shows whether it went.
    pub fn transfer_leader(&self, to: ReplicaId) -> Result<(), Stopped> {
        self.tell(Letter::Transfer(to))
    }

    /// A message to `peer` could not be delivered.
    pub fn report_unreachable(&self, peer: ReplicaId) -> Result<(), Stopped> {
        self.tell(Letter::Unreachable(peer))
    }

    /// Sending a snapshot to `peer` ended: before this, or the peer's answer, nothing else is sent there.
    pub fn report_snapshot(&self, peer: ReplicaId, ok: bool) -> Result<(), Stopped> {
        self.tell(Letter::SnapshotSent(peer, ok))
    }

    /// Ends the node, if it has not ended: whoever waits gets `Stopped`, `Runner::run` returns.
    pub fn stop(&self) {
        let _ended = self.tell(Letter::Stop);
    }

    fn tell(&self, letter: Letter) -> Result<(), Stopped> {
        self.calls.send(letter).map_err(|_| Stopped)
    }

    fn ask<T, E: From<Stopped>>(&self, letter: impl FnOnce(Answer<T, E>) -> Letter) -> Result<T, E> {
        let (answer, answered) = bounded(1);
        self.tell(letter(answer))?;
        self.answer(&answered, never()).unwrap_or(Err(E::from(Stopped)))
    }

    /// `None`: the time is over.
    fn answer<T, E: From<Stopped>>(
        &self,
        given: &Receiver<Result<T, E>>,
        limit: Receiver<Instant>,
    ) -> Option<Result<T, E>> {
        select! {
            recv(given) -> answer => Some(answer.unwrap_or(Err(E::from(Stopped)))),
            recv(self.ended) -> _ => Some(given.try_recv().unwrap_or(Err(E::from(Stopped)))),
            recv(limit) -> _ => None,
        }
    }
}

fn offer(line: &Sender<Letter>, letter: Letter) -> Result<(), SoloError> {
    line.try_send(letter).map_err(|e| if e.is_full() { SoloError::Full } else { SoloError::from(Stopped) })
}

impl Runner {
    /// Founds a group, before `run`: all founders are given the same peers.
    pub fn bootstrap(&mut self, peers: &[Peer]) -> Result<(), BootstrapError> {
        self.raft.bootstrap(peers)
    }

    /// Runs until the node is stopped or its last handle dropped.
    pub fn run(mut self) -> Result<(), Halted> {
        while let Some(letter) = self.next() {
            self.on_letter(letter)?;
        }
        Ok(())
    }

    /// Waits for a letter on the lines that may speak now; meanwhile the host may take a `Ready`. `None`: the end.
    fn next(&mut self) -> Option<Letter> {
        loop {
            let mut lines = vec![&self.calls];
            lines.extend((self.out.unwrap_or(0) == 0).then_some(&self.messages));
            lines.extend((self.has_leader() || self.without_leader == WithoutLeader::Fail).then_some(&self.proposals));
            let mut select = Select::new();
            for line in &lines {
                select.recv(line);
            }
            if self.out.is_none() && self.raft.has_ready() {
                select.send(&self.ready);
            }
            let chosen = select.select();
            if let Some(line) = lines.get(chosen.index()) {
                return chosen.recv(line).ok().filter(|letter| !matches!(letter, Letter::Stop));
            }
            let ready = self.raft.ready();
            self.out = Some(ready.committed_entries.iter().filter(|e| e.kind != EntryKind::Normal).count());
            chosen.send(&self.ready, ready).ok()?;
        }
    }

    fn on_letter(&mut self, letter: Letter) -> Result<(), Halted> {
        let now = self.now;
        match letter {
            Letter::Tick => {
                self.now += 1;
                self.raft.tick(self.now);
            }
            Letter::Step(message) => match self.raft.step(now, message) {
                Err(lost) if lost.is_corruption() => return Err(Halted::LostData(lost)),
                Ok(()) | Err(_) => {}
            },
            Letter::Propose(entry, answer) => reply(&answer, self.propose(entry)),
            Letter::Read(context, answer) => {
                reply(&answer, self.raft.read_index(now, context).map_err(SoloError::from));
            }
            Letter::Apply(change, answer) => reply(&answer, self.apply(&change)),
            Letter::Advance(answer) => reply(&answer, self.advance()),
            Letter::Status(answer) => reply(&answer, Ok(self.raft.status())),
            Letter::Campaign => self.raft.campaign(now),
            Letter::ForgetLeader => self.raft.forget_leader(now),
            Letter::Transfer(to) => self.raft.transfer_leader(now, to),
            Letter::Unreachable(peer) => self.raft.report_unreachable(now, peer),
            Letter::SnapshotSent(peer, ok) => self.raft.report_snapshot(now, peer, ok),
            Letter::Stop => {}
        }
        self.raft.take_fetches().pop().map_or(Ok(()), |fetch| Err(Halted::Uncached(fetch)))
    }

    fn has_leader(&self) -> bool {
        !self.raft.basic_status().lead.is_none()
    }

    fn propose(&mut self, entry: Entry) -> Result<Option<LogPos>, SoloError> {
        let led = if self.has_leader() { Ok(()) } else { Err(SoloError::NoLeader) };
        led.and_then(|()| Ok(self.raft.propose_entries(self.now, vec![entry])?))
    }

    fn apply(&mut self, change: &ConfChangeV2) -> Result<ConfState, ReadyError> {
        let left = self.out.unwrap_or(0).checked_sub(1).ok_or(ReadyError::NotDue)?;
        let conf = self.raft.apply_conf_change(self.now, change)?;
        self.out = Some(left);
        Ok(conf)
    }

    fn advance(&mut self) -> Result<(), ReadyError> {
        match self.out.ok_or(ReadyError::NotDue)? {
            0 => self.raft.advance(self.now),
            changes => return Err(ReadyError::Unapplied(changes)),
        }
        self.out = None;
        Ok(())
    }
}

/// Who asked may have lost patience: then nobody minds.
fn reply<T, E>(answer: &Answer<T, E>, outcome: Result<T, E>) {
    let _gone = answer.send(outcome);
}
