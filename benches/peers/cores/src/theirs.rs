//! raft-rs 0.7 in the harness, with its memory storage and its default way of advancing.

use crate::group::{COMMAND, Queues, Replica};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode};
use slog::{Discard, Logger, o};

/// A replica.
pub struct Theirs {
    raft: RawNode<MemStorage>,
    storage: MemStorage,
    applied: u64,
    bytes: usize,
}

/// The same settings as ours.
#[must_use]
pub fn config(id: u64) -> Config {
    Config {
        id,
        election_tick: 1 << 30,
        heartbeat_tick: 1 << 29,
        check_quorum: true,
        pre_vote: true,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        ..Config::default()
    }
}

/// A storage of a group of three.
#[must_use]
pub fn storage() -> MemStorage {
    MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]))
}

/// A logger that drops everything.
pub fn logger() -> Logger {
    Logger::root(Discard, o!())
}

impl Theirs {
    fn store(&self, entries: &[Entry]) {
        if !entries.is_empty() {
            self.storage.wl().append(entries).expect("they follow one another");
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        self.applied += entries.iter().filter(|e| !e.data.is_empty()).count() as u64;
        self.bytes += entries.iter().map(|e| e.data.len()).sum::<usize>();
    }

    /// The core alone, and its storage.
    #[must_use]
    pub fn into_core(self) -> (RawNode<MemStorage>, MemStorage) {
        (self.raft, self.storage)
    }
}

fn send(mut messages: Vec<Message>, queues: &mut Queues<Message>) {
    let Some(to) = messages.first().map(|m| m.to) else { return };
    if messages.iter().all(|m| m.to == to) {
        return queues[to as usize - 1].append(&mut messages);
    }
    for m in messages {
        queues[m.to as usize - 1].push(m);
    }
}

impl Replica for Theirs {
    type Message = Message;

    fn group() -> [Self; 3] {
        let replica = |id| {
            let storage = storage();
            let raft = RawNode::new(&config(id), storage.clone(), &logger()).expect("a good configuration");
            Theirs { raft, storage, applied: 0, bytes: 0 }
        };
        let mut group = [replica(1), replica(2), replica(3)];
        group[0].raft.campaign().expect("it may");
        group
    }

    fn propose(&mut self, batch: usize) {
        let entry = |_| Entry { data: vec![7; COMMAND].into(), ..Entry::default() };
        let mut message = Message { from: 1, entries: (0..batch).map(entry).collect(), ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        self.raft.step(message).expect("it leads");
    }

    fn step(&mut self, message: Message) {
        self.raft.step(message).expect("a good message");
    }

    fn work(&mut self, queues: &mut Queues<Message>) {
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            send(ready.take_messages(), queues);
            self.apply(&ready.take_committed_entries());
            self.store(ready.entries());
            if let Some(hard_state) = ready.hs() {
                self.storage.wl().set_hardstate(hard_state.clone());
            }
            send(ready.take_persisted_messages(), queues);
            let mut light = self.raft.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.storage.wl().mut_hard_state().commit = commit;
            }
            send(light.take_messages(), queues);
            self.apply(&light.take_committed_entries());
            self.raft.advance_apply();
        }
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn compact(&mut self) {
        let upto = self.raft.raft.raft_log.applied;
        self.storage.wl().compact(upto).expect("applied");
    }

    fn idle(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.raft.tick();
        }
    }
}
