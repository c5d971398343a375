//! A group of replicas in memory: a bag of messages, one clock, disks that can stall.
//!
//! Leaves to others: what is expected. Everything runs in the asynchronous mode, as in production.
//! Invariant: after every step each replica's own invariants hold.

use bytes::Bytes;
use pontoon_raft::*;
use std::collections::VecDeque;

pub(crate) struct Node {
    pub(crate) raw: RawNode<MemStorage>,
    pub(crate) config: Config,
    /// Writes that a stalled disk did not do yet.
    pub(crate) writes: VecDeque<Ready>,
    pub(crate) stalled: bool,
    pub(crate) applied: Vec<Entry>,
    pub(crate) conf: ConfState,
    pub(crate) reads: Vec<ReadState>,
    pub(crate) dropped_reads: Vec<Bytes>,
    pub(crate) quarantined: Option<StepError>,
}

pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    pub(crate) soup: VecDeque<Message>,
    pub(crate) now: Tick,
    /// Directed links that lose everything.
    pub(crate) cut: Vec<(u64, u64)>,
}

pub(crate) fn id(n: u64) -> ReplicaId {
    ReplicaId(n)
}

pub(crate) fn ids(list: &[u64]) -> Vec<ReplicaId> {
    list.iter().map(|n| id(*n)).collect()
}

pub(crate) fn voters(list: &[u64]) -> ConfState {
    ConfState::new(ids(list), Vec::new())
}

pub(crate) fn config(n: u64) -> Config {
    Config {
        id: id(n),
        applied: Index(1),
        async_storage_writes: true,
        strict: true,
        trace: true,
        seed: n,
        ..Config::default()
    }
}

/// A log that starts behind index 1 of term 1, where `conf` was decided.
pub(crate) fn storage(conf: &ConfState) -> MemStorage {
    let mut storage = MemStorage::new();
    let meta = SnapshotMeta { index: Index(1), term: Term(1), conf_state: conf.clone() };
    storage.install_snapshot(Snapshot { meta, ..Snapshot::default() }).unwrap();
    storage
}

pub(crate) fn entry(term: u64, index: u64, data: &'static str) -> Entry {
    Entry { term: Term(term), index: Index(index), data: Bytes::from_static(data.as_bytes()), ..Entry::default() }
}

pub(crate) fn pos(term: u64, index: u64) -> LogPos {
    LogPos::new(Term(term), Index(index))
}

pub(crate) fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { from: id(from), to: id(to), term: Term(term), body }
}

pub(crate) fn change(kind: ConfChangeType, n: u64) -> ConfChangeSingle {
    ConfChangeSingle::new(kind, id(n))
}

pub(crate) fn changes(list: Vec<ConfChangeSingle>) -> ConfChangeV2 {
    ConfChangeV2 { changes: list, ..ConfChangeV2::default() }
}

impl Group {
    /// `members` of a fresh group with the given settings on top of `config`.
    pub(crate) fn new(conf: &ConfState, members: &[u64], set: impl Fn(&mut Config)) -> Group {
        let nodes = members.iter().map(|n| {
            let mut config = config(*n);
            set(&mut config);
            Node::new(config, storage(conf), 0)
        });
        Group { nodes: nodes.collect(), soup: VecDeque::new(), now: 0, cut: Vec::new() }
    }

    pub(crate) fn of(n: u64) -> Group {
        let members: Vec<u64> = (1..=n).collect();
        Group::new(&voters(&members), &members, |_| {})
    }

    pub(crate) fn node(&mut self, n: u64) -> &mut Node {
        self.nodes.iter_mut().find(|x| x.config.id == id(n)).unwrap()
    }

    pub(crate) fn raw(&mut self, n: u64) -> &mut RawNode<MemStorage> {
        &mut self.node(n).raw
    }

    pub(crate) fn status(&mut self, n: u64) -> BasicStatus {
        self.raw(n).basic_status()
    }

    pub(crate) fn progress(&mut self, of: u64, at: u64) -> ProgressStatus {
        self.raw(at).status().progress.into_iter().find(|(i, _)| *i == id(of)).unwrap().1
    }

    /// Starts an election at `n` and lets everything settle.
    pub(crate) fn elect(&mut self, n: u64) {
        let now = self.now;
        self.raw(n).campaign(now);
        self.settle();
        assert_eq!(self.status(n).role, StateRole::Leader);
    }

    pub(crate) fn propose(&mut self, n: u64, data: &'static str) -> Result<Option<LogPos>, StepError> {
        let now = self.now;
        self.raw(n).propose(now, Bytes::from_static(data.as_bytes()))
    }

    pub(crate) fn tick(&mut self, n: u64) {
        self.now += 1;
        let now = self.now;
        self.raw(n).tick(now);
    }

    /// All clocks go on by one, then everything settles.
    pub(crate) fn tick_all(&mut self, times: u64) {
        for _ in 0..times {
            self.now += 1;
            for node in &mut self.nodes {
                node.raw.tick(self.now);
            }
            self.settle();
        }
    }

    /// No link of `n` works any more.
    pub(crate) fn isolate(&mut self, n: u64) {
        let others: Vec<u64> = self.nodes.iter().map(|x| x.config.id.0).filter(|x| *x != n).collect();
        for other in others {
            self.cut.extend([(n, other), (other, n)]);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Handles one replica's work; messages go into the soup.
    pub(crate) fn work(&mut self, n: u64) {
        let now = self.now;
        let at = self.nodes.iter().position(|x| x.config.id == id(n)).unwrap();
        let out = self.nodes[at].work(now);
        self.soup.extend(out);
    }

    /// Delivers the oldest message, if there is one.
    pub(crate) fn deliver_one(&mut self) -> bool {
        let Some(m) = self.soup.pop_front() else { return false };
        let lost = self.cut.contains(&(m.from.0, m.to.0));
        let now = self.now;
        if let Some(node) = self.nodes.iter_mut().find(|x| x.config.id == m.to)
            && !lost
        {
            node.step(now, m);
        }
        true
    }

    /// Until nobody has work and no message is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let busy: Vec<u64> = self.nodes.iter().filter(|x| x.raw.has_ready()).map(|x| x.config.id.0).collect();
            let idle = busy.is_empty();
            busy.into_iter().for_each(|n| self.work(n));
            if !self.deliver_one() && idle {
                return;
            }
        }
        panic!("does not settle");
    }

    /// The stalled disk of `n` does everything at once.
    pub(crate) fn flush(&mut self, n: u64) {
        let now = self.now;
        let node = self.node(n);
        node.stalled = false;
        let out = node.flush(now);
        self.soup.extend(out);
    }

    /// `n` crashes, loses what its disk did not do, and starts again.
    pub(crate) fn restart(&mut self, n: u64) {
        let now = self.now;
        let node = self.node(n);
        let (config, mut storage) = (node.config.clone(), node.raw.storage().clone());
        let applied = storage.first_index().prev();
        let conf = storage.initial_state().conf_state;
        let mut hard_state = storage.hard_state();
        hard_state.commit = hard_state.commit.max(applied);
        storage.set_hard_state(hard_state);
        let config = Config { applied, ..config };
        *node = Node::new(config, storage, now);
        node.conf = conf;
    }

    /// Takes a snapshot at the applied index of `n` and drops the log before it.
    pub(crate) fn compact(&mut self, n: u64) {
        let node = self.node(n);
        let index = node.raw.basic_status().applied;
        let term = node.raw.storage().term(index).unwrap();
        let meta = SnapshotMeta { index, term, conf_state: node.conf.clone() };
        let storage = node.raw.storage_mut();
        if storage.set_snapshot(Snapshot { meta, ..Snapshot::default() }).is_ok() {
            let _ = storage.compact(index);
        }
    }

    pub(crate) fn data(&mut self, n: u64) -> Vec<String> {
        let entries = self.node(n).applied.iter().filter(|e| e.kind == EntryKind::Normal && !e.data.is_empty());
        entries.map(|e| String::from_utf8_lossy(&e.data).into_owned()).collect()
    }
}

impl Node {
    pub(crate) fn new(config: Config, storage: MemStorage, now: Tick) -> Node {
        let conf = storage.initial_state().conf_state;
        let raw = RawNode::new(&config, storage, now).unwrap();
        Node {
            raw,
            config,
            writes: VecDeque::new(),
            stalled: false,
            applied: Vec::new(),
            conf,
            reads: Vec::new(),
            dropped_reads: Vec::new(),
            quarantined: None,
        }
    }

    pub(crate) fn step(&mut self, now: Tick, m: Message) {
        match self.raw.step(now, m) {
            Err(e) if e.is_corruption() => self.quarantined = Some(e),
            Err(StepError::Malformed(what)) => panic!("{what}"),
            _ => {}
        }
        self.raw.assert_invariants();
    }

    pub(crate) fn work(&mut self, now: Tick) -> Vec<Message> {
        let mut out = Vec::new();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            assert!(!ready.is_empty(), "a Ready was announced and is empty");
            out.append(&mut ready.messages);
            self.reads.append(&mut ready.read_states);
            self.dropped_reads.append(&mut ready.dropped_reads);
            self.apply(now, &ready);
            self.writes.push_back(ready);
            if !self.stalled {
                out.extend(self.flush(now));
            }
            self.raw.assert_invariants();
        }
        out
    }

    pub(crate) fn flush(&mut self, now: Tick) -> Vec<Message> {
        let mut out = Vec::new();
        for ready in self.writes.drain(..) {
            let storage = self.raw.storage_mut();
            if let Some(snapshot) = ready.snapshot {
                self.conf = snapshot.meta.conf_state.clone();
                storage.install_snapshot(snapshot).unwrap();
            }
            storage.append(&ready.entries);
            if let Some(hard_state) = ready.hard_state {
                storage.set_hard_state(hard_state);
            }
            self.raw.on_persisted(now, ready.number, &mut out);
        }
        self.raw.assert_invariants();
        out
    }

    fn apply(&mut self, now: Tick, ready: &Ready) {
        for entry in ready.committed_entries.iter() {
            if let Some(change) = ConfChangeV2::from_entry(entry).unwrap() {
                self.conf = self.raw.apply_conf_change(now, &change).unwrap();
            }
            self.applied.push(entry.clone());
            self.raw.on_applied(now, entry.index);
        }
    }
}
