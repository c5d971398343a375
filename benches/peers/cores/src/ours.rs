//! Our core in the harness, in both modes.

use crate::group::{COMMAND, Queues, Replica};
use bytes::Bytes;
use pontoon_raft::{
    ConfState, Config, Entries, Index, MemStorage, Message, RawNode, Ready, ReplicaId, Snapshot, SnapshotMeta, Term,
};

/// A replica whose driver reports writes and applies later (the engine's mode), or, `SYNC`, at once by `advance`.
pub struct Ours<const SYNC: bool> {
    raft: RawNode<MemStorage>,
    /// Used again and again.
    ready: Ready,
    released: Vec<Message>,
    machine: Machine,
    now: u64,
}

/// What is applied: a count and a sum, so that every entry is looked at.
#[derive(Default)]
struct Machine {
    applied: u64,
    bytes: usize,
}

impl Machine {
    fn apply(&mut self, entries: &Entries) {
        for run in entries.runs() {
            self.applied += run.iter().filter(|e| !e.data.is_empty()).count() as u64;
            self.bytes += run.iter().map(|e| e.data.len()).sum::<usize>();
        }
    }
}

/// The mode that the engine uses.
pub type Asynchronous = Ours<false>;
/// The mode of tests.
pub type Synchronous = Ours<true>;

/// A storage of a group of three that begins at index 1.
#[must_use]
pub fn storage() -> MemStorage {
    let conf_state = ConfState::new((1..=3).map(ReplicaId).collect(), Vec::new());
    let meta = SnapshotMeta { index: Index(1), term: Term(1), conf_state };
    let mut storage = MemStorage::new();
    storage.install_snapshot(Snapshot { meta, ..Snapshot::default() }).expect("it is empty");
    storage
}

/// What the engine sets, with deadlines that the harness never reaches.
#[must_use]
pub fn config(id: u64, asynchronous: bool) -> Config {
    Config {
        id: ReplicaId(id),
        election_tick: 1 << 31,
        heartbeat_tick: 1 << 30,
        check_quorum: true,
        pre_vote: true,
        step_down_on_removal: true,
        disable_proposal_forwarding: true,
        strict: true,
        async_storage_writes: asynchronous,
        seed: 7,
        ..Config::default()
    }
}

fn send(messages: &mut Vec<Message>, queues: &mut Queues<Message>) {
    let Some(to) = messages.first().map(|m| m.to) else { return };
    if messages.iter().all(|m| m.to == to) {
        return queues[to.0 as usize - 1].append(messages);
    }
    for m in messages.drain(..) {
        queues[m.to.0 as usize - 1].push(m);
    }
}

impl<const SYNC: bool> Ours<SYNC> {
    /// The core alone.
    #[must_use]
    pub fn into_core(self) -> RawNode<MemStorage> {
        self.raft
    }
}

impl<const SYNC: bool> Replica for Ours<SYNC> {
    type Message = Message;

    fn group() -> [Self; 3] {
        let replica = |id| {
            let raft = RawNode::new(&config(id, !SYNC), storage(), 0).expect("a good configuration");
            Ours { raft, ready: Ready::default(), released: Vec::new(), machine: Machine::default(), now: 0 }
        };
        let mut group = [replica(1), replica(2), replica(3)];
        group[0].raft.campaign(0);
        group
    }

    fn propose(&mut self, batch: usize) {
        let commands = (0..batch).map(|_| Bytes::from(vec![7; COMMAND]));
        self.raft.propose_batch(self.now, commands).expect("it leads");
    }

    fn step(&mut self, message: Message) {
        self.raft.step(self.now, message).expect("a good message");
    }

    fn work(&mut self, queues: &mut Queues<Message>) {
        while self.raft.has_ready() {
            self.raft.ready_into(&mut self.ready);
            let ready = &mut self.ready;
            let storage = self.raft.storage_mut();
            if !ready.entries.is_empty() {
                storage.append(&ready.entries);
            }
            if let Some(hard_state) = ready.hard_state {
                storage.set_hard_state(hard_state);
            }
            send(&mut ready.messages, queues);
            let last = ready.committed_entries.last_index();
            if last.is_some() {
                self.machine.apply(&ready.committed_entries);
            }
            if SYNC {
                self.raft.advance(self.now);
                continue;
            }
            if ready.awaits_persist {
                self.raft.on_persisted(self.now, ready.number, &mut self.released);
                send(&mut self.released, queues);
            }
            if let Some(last) = last {
                self.raft.on_applied(self.now, last);
            }
        }
    }

    fn applied(&self) -> u64 {
        self.machine.applied
    }

    fn compact(&mut self) {
        let upto = self.raft.basic_status().applied.prev();
        self.raft.storage_mut().compact(upto).expect("applied and not compacted yet");
    }

    fn idle(&mut self, ticks: u64) {
        self.now += ticks;
        self.raft.tick(self.now);
    }
}
