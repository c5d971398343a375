//! One replica of the search: the real core, its disk, and the writes that are not durable yet.
//!
//! Leaves to others: what happens when (`explore`), what needs several replicas (`judge`).
//! Invariant: what a replica does hangs on the node and the input alone, so that it is computed once per pair.

use super::mix::Mix;
use bytes::Bytes;
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::*;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// What can happen to one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The message with this number arrives.
    Deliver(u32),
    Campaign,
    Propose(u8),
    /// The oldest write becomes durable.
    Persist,
    /// Crash, with this many of the queued writes done, and start.
    Crash(u8),
    /// The scope's membership change of this number is proposed.
    Change(u8),
    Transfer(u8),
    Read(u8),
    Forget,
    /// A snapshot is taken and the log dropped behind it.
    Compact,
    /// How sending a snapshot to that replica ended.
    Report(u8, bool),
}

#[derive(Clone, Debug, Hash)]
pub struct Disk {
    pub mem: MemStorage,
    pub conf: ConfState,
}

impl Storage for Disk {
    fn initial_state(&self) -> InitialState {
        InitialState { hard_state: self.mem.hard_state(), conf_state: self.conf.clone() }
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        self.mem.entries(low, high, max_bytes, page)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.mem.term(index)
    }

    fn first_index(&self) -> Index {
        self.mem.first_index()
    }

    fn last_index(&self) -> Index {
        self.mem.last_index()
    }

    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError> {
        self.mem.snapshot(to)
    }
}

#[derive(Clone, Debug)]
struct Write {
    number: ReadyNumber,
    hard_state: Option<HardState>,
    entries: Entries,
    snapshot: Option<Snapshot>,
}

/// An entry as far as it matters to the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub term: Term,
    pub data: u64,
    pub change: bool,
}

/// The log as handed out: behind `base`.
#[derive(Clone, Debug, Hash)]
pub struct View {
    pub base: Index,
    pub base_term: Term,
    pub entries: Vec<Seen>,
}

impl View {
    pub fn get(&self, index: Index) -> Option<Seen> {
        let at = index.0.checked_sub(self.base.0 + 1)?;
        self.entries.get(at as usize).copied()
    }

    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base { Some(self.base_term) } else { self.get(index).map(|seen| seen.term) }
    }

    pub fn last(&self) -> Index {
        self.base.plus(self.entries.len() as u64)
    }
}

fn seen(entry: &Entry) -> Seen {
    let mut mix = Mix::default();
    entry.data.hash(&mut mix);
    Seen { term: entry.term, data: mix.finish(), change: entry.kind != EntryKind::Normal }
}

#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    pub raw: RawNode<Disk>,
    newest: ReadyNumber,
    writes: VecDeque<Write>,
    pub view: View,
    pub applied: Index,
    /// The configuration there.
    conf: ConfState,
    /// The commit index as of the last look within a step; no part of the state.
    noted: Index,
}

/// What comes out of a step besides the node.
#[derive(Debug, Default)]
pub struct Output {
    pub messages: Vec<Message>,
    /// Reads answered here: their numbers and indexes.
    pub reads: Vec<(u8, Index)>,
    /// Rises of the commit index, each with the configuration that it took place in.
    pub commits: Vec<(Index, ConfState)>,
}

impl Node {
    /// Starts from a log whose `committed` first entries are applied.
    pub fn new(config: Config, base: Snapshot, entries: &[Entry], applied: Index) -> Node {
        let mut mem = MemStorage::new();
        let (base_pos, conf) = (base.meta.pos(), base.meta.conf_state.clone());
        mem.install_snapshot(base).unwrap();
        mem.append(&entries.to_vec().into());
        let last_term = entries.last().map_or(base_pos.term, |e| e.term);
        mem.set_hard_state(HardState { term: last_term, vote: ReplicaId::NONE, commit: applied });
        let config = Config { applied, ..config };
        let raw = RawNode::new(&config, Disk { mem, conf: conf.clone() }, 0).unwrap();
        let entries = entries.iter().map(seen).collect();
        let view = View { base: base_pos.index, base_term: base_pos.term, entries };
        Node { config, raw, newest: ReadyNumber(0), writes: VecDeque::new(), view, applied, conf, noted: applied }
    }

    pub fn fingerprint(&self) -> u64 {
        let mut mix = Mix::default();
        self.config.id.hash(&mut mix);
        self.raw.fingerprint(&mut mix);
        (&self.view, self.applied, &self.conf, self.writes.len()).hash(&mut mix);
        for Write { number, hard_state, entries, snapshot } in &self.writes {
            (self.newest.0 - number.0, hard_state, entries, snapshot).hash(&mut mix);
        }
        mix.finish()
    }

    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// One input, and all work that follows from it at once.
    pub fn take(&mut self, input: Input, message: Option<&Message>, changes: &[ConfChangeV2]) -> Output {
        let mut output = Output::default();
        self.noted = self.raw.basic_status().commit;
        match input {
            Input::Deliver(_) => self.step(message.unwrap().clone()),
            Input::Campaign => self.raw.campaign(0),
            Input::Propose(n) => drop(self.raw.propose(0, Bytes::copy_from_slice(&[n]))),
            Input::Persist => self.persist(true, &mut output),
            Input::Crash(keep) => self.crash(keep),
            Input::Change(n) => drop(self.raw.propose_conf_change(0, changes[usize::from(n)].clone())),
            Input::Transfer(to) => self.raw.transfer_leader(0, ReplicaId(u64::from(to))),
            Input::Read(n) => drop(self.raw.read_index(0, Bytes::copy_from_slice(&[n]))),
            Input::Forget => self.raw.forget_leader(0),
            Input::Compact => self.compact(),
            Input::Report(peer, ok) => self.raw.report_snapshot(0, ReplicaId(u64::from(peer)), ok),
        }
        self.note_commit(&mut output);
        self.work(&mut output);
        output
    }

    fn note_commit(&mut self, output: &mut Output) {
        let commit = self.raw.basic_status().commit;
        if commit > self.noted {
            output.commits.push((commit, self.raw.status().conf));
            self.noted = commit;
        }
    }

    fn step(&mut self, m: Message) {
        match self.raw.step(0, m) {
            Ok(()) | Err(StepError::PeerNotFound | StepError::ProposalDropped | StepError::ReadDropped) => {}
            Err(other) => panic!("a member's message is refused: {other}"),
        }
    }

    fn work(&mut self, output: &mut Output) {
        self.raw.assert_invariants();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.newest = ready.number;
            for m in &ready.messages {
                let rests = m.body.is_after_append() || matches!(m.body, Body::Vote(_));
                assert!(!rests, "{m:?} leaves before the write");
            }
            output.messages.append(&mut ready.messages);
            output.reads.extend(ready.read_states.iter().map(|r| (r.context[0], r.index)));
            self.take_in(&mut ready);
            self.apply(&ready.committed_entries, output);
            let writes = ready.hard_state.is_some() || !ready.entries.is_empty() || ready.snapshot.is_some();
            if writes || ready.awaits_persist {
                let Ready { number, hard_state, entries, snapshot, .. } = ready;
                self.writes.push_back(Write { number, hard_state, entries, snapshot });
                if mutant::is(Mutant::AckBeforeSync) {
                    self.raw.on_persisted(0, number, &mut output.messages);
                }
            }
            self.raw.assert_invariants();
        }
    }

    fn take_in(&mut self, ready: &mut Ready) {
        if mutant::is(Mutant::VoteNotPersisted) {
            ready.hard_state.iter_mut().for_each(|hs| hs.vote = ReplicaId::NONE);
        }
        if let Some(snapshot) = &ready.snapshot {
            let pos = snapshot.meta.pos();
            self.view = View { base: pos.index, base_term: pos.term, entries: Vec::new() };
        }
        if let Some(first) = ready.entries.first() {
            let keep = self.view.base.next().lag_to(first.index) as usize;
            assert!(keep <= self.view.entries.len() && first.index > self.view.base, "a gap in the log");
            self.view.entries.truncate(keep);
            self.view.entries.extend(ready.entries.iter().map(seen));
        }
    }

    /// The state machine survives as it is: applying is durable at once.
    fn apply(&mut self, entries: &Entries, output: &mut Output) {
        for entry in entries {
            assert_eq!(entry.index, self.applied.next(), "entries are applied in order");
            let durable = self.raw.storage().mem.term(entry.index) == Ok(entry.term);
            assert!(durable, "applied, but not durable here: {entry:?}");
            if let Some(change) = ConfChangeV2::from_entry(entry).unwrap() {
                let conf = self.raw.apply_conf_change(0, &change).unwrap();
                assert!(super::judge::overlap(&self.conf, &conf), "no common member: {:?} and {conf:?}", self.conf);
                self.conf = conf;
                self.note_commit(output);
            }
            self.applied = entry.index;
            self.raw.on_applied(0, entry.index);
        }
    }

    fn persist(&mut self, report: bool, output: &mut Output) {
        let write = self.writes.pop_front().unwrap();
        let disk = self.raw.storage_mut();
        if let Some(snapshot) = write.snapshot {
            disk.conf = snapshot.meta.conf_state.clone();
            (self.conf, self.applied) = (disk.conf.clone(), snapshot.meta.index);
            disk.mem.install_snapshot(snapshot).unwrap();
        }
        disk.mem.append(&write.entries);
        if let Some(hard_state) = write.hard_state {
            disk.mem.set_hard_state(hard_state);
        }
        if report {
            let before = output.messages.len();
            self.raw.on_persisted(0, write.number, &mut output.messages);
            output.messages[before..].iter().for_each(|m| self.judge_released(m));
        }
    }

    /// What leaves rests on what is durable.
    fn judge_released(&self, m: &Message) {
        let (durable, last) = (self.durable(), self.raw.storage().mem.last_index());
        match &m.body {
            Body::PreVoteResp { .. } => {}
            Body::VoteResp { reject: false } | Body::Vote(_) => {
                let whom = if matches!(m.body, Body::Vote(_)) { m.from } else { m.to };
                let voted = durable.term > m.term || (durable.term == m.term && durable.vote == whom);
                assert!(voted, "{m:?} leaves, durable is {durable:?}");
            }
            Body::AppendResp(AppendResp { index, reject: None }) => {
                let there = durable.term > m.term || (durable.term == m.term && last >= *index);
                assert!(there, "{m:?} leaves, durable is {durable:?} up to {last}");
            }
            _ => assert!(durable.term >= m.term, "{m:?} leaves, durable is {durable:?}"),
        }
    }

    pub fn durable(&self) -> HardState {
        self.raw.storage().mem.hard_state()
    }

    fn crash(&mut self, keep: u8) {
        for _ in 0..keep {
            self.persist(false, &mut Output::default());
        }
        let mut disk = self.raw.storage().clone();
        disk.conf = self.conf.clone();
        let mut hard_state = disk.mem.hard_state();
        hard_state.commit = hard_state.commit.max(self.applied);
        disk.mem.set_hard_state(hard_state);
        let base = disk.mem.first_index().prev();
        let entries = disk.mem.all_entries().iter().map(seen).collect();
        self.view = View { base, base_term: disk.mem.term(base).unwrap(), entries };
        self.config.applied = self.applied;
        self.raw = RawNode::new(&self.config, disk, 0).unwrap();
        self.newest = ReadyNumber(0);
        self.writes.clear();
    }

    fn compact(&mut self) {
        let (at, conf_state) = (self.applied, self.conf.clone());
        let mem = &mut self.raw.storage_mut().mem;
        let meta = SnapshotMeta { index: at, term: mem.term(at).unwrap(), conf_state };
        let _ = mem.set_snapshot(Snapshot { meta, data: Bytes::new() });
        if mem.compact(at).is_ok() {
            self.view.base_term = self.view.term(at).unwrap();
            self.view.entries.drain(..self.view.base.lag_to(at) as usize);
            self.view.base = at;
        }
    }
}
