//! One replica with its disk and its state machine, as a driver would keep them.
//!
//! Leaves to others: when something happens (`driver`), whether it was right (`witness`).
//! Invariant: `Disk` holds what is durable, nothing else; a crash keeps it and a prefix of the queued writes.

use bytes::Bytes;
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::*;
use std::collections::{BTreeMap, VecDeque};

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    pub mem: MemStorage,
    /// Configuration at the state machine's position, for a start.
    pub conf: ConfState,
    /// The snapshot for followers. The log is compacted behind it at most.
    pub offered: Option<Snapshot>,
    /// A snapshot is being built: none for now.
    pub building: bool,
    /// Entries are not in memory: every read says `Uncached`.
    pub cold: bool,
}

impl Storage for Disk {
    fn initial_state(&self) -> InitialState {
        InitialState { hard_state: self.mem.hard_state(), conf_state: self.conf.clone() }
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        let held = self.mem.first_index() <= low && high <= self.mem.last_index().next();
        assert!(held, "the core asks for [{low}, {high}), which it knows not to be there");
        self.mem.entries(low, high, max_bytes, page)?;
        if self.cold {
            page.clear();
            return Err(StorageError::Uncached);
        }
        Ok(())
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

    fn snapshot(&self, _to: ReplicaId) -> Result<Snapshot, StorageError> {
        let offered = self.offered.clone().filter(|_| !self.building);
        offered.ok_or(StorageError::SnapshotUnavailable)
    }
}

/// The applied state in two numbers: where it stands and a digest of everything up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub at: Index,
    pub digest: u64,
}

impl Machine {
    pub fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.at.next(), "entries are applied in order");
        let words = [entry.term.0, entry.index.0, u64::from(entry.kind as u8)];
        let mix = |digest: u64, word: u64| (digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        self.digest = words.into_iter().fold(self.digest, mix);
        self.digest = entry.data.iter().fold(self.digest, |digest, byte| mix(digest, u64::from(*byte)));
        self.at = entry.index;
    }

    pub fn snapshot(&self, term: Term, conf_state: ConfState) -> Snapshot {
        let meta = SnapshotMeta { index: self.at, term, conf_state };
        Snapshot { meta, data: Bytes::copy_from_slice(&self.digest.to_le_bytes()) }
    }

    pub fn of(snapshot: &Snapshot) -> Machine {
        let digest = u64::from_le_bytes(snapshot.data[..].try_into().unwrap());
        Machine { at: snapshot.meta.index, digest }
    }
}

/// A `Ready`'s write that is not durable yet.
#[derive(Debug)]
pub struct Write {
    pub number: ReadyNumber,
    pub awaited: bool,
    pub hard_state: Option<HardState>,
    pub entries: Entries,
    pub snapshot: Option<Snapshot>,
}

pub struct Replica {
    pub config: Config,
    pub raw: RawNode<Disk>,
    pub now: Tick,
    pub writes: VecDeque<Write>,
    /// Durable, but the core was not told yet.
    pub unreported: Option<ReadyNumber>,
    /// Committed entries that the state machine did not get yet.
    pub to_apply: VecDeque<Entry>,
    pub machine: Machine,
    /// Up to here the state machine survives a crash in any case.
    pub synced: Index,
    /// Terms of the log as handed out so far, durable or not.
    pub view: BTreeMap<Index, Term>,
    /// Where membership changes stand in `view`.
    pub changes: Vec<Index>,
    /// As of the last look, to see what falls.
    pub last_seen: BasicStatus,
    pub down: bool,
}

/// Where every replica begins: as if index 1 of term 1 had decided the configuration.
pub fn first_snapshot(voters: &[u64]) -> Snapshot {
    let voters = voters.iter().map(|id| ReplicaId(*id)).collect();
    let machine = Machine { at: Index(1), digest: 0xcbf2_9ce4_8422_2325 };
    machine.snapshot(Term(1), ConfState::new(voters, Vec::new()))
}

impl Replica {
    pub fn new(config: Config, first: &Snapshot) -> Replica {
        let mut mem = MemStorage::new();
        mem.install_snapshot(first.clone()).unwrap();
        let conf = first.meta.conf_state.clone();
        let disk = Disk { mem, conf, offered: Some(first.clone()), building: false, cold: false };
        let raw = RawNode::new(&config, disk, 0).unwrap();
        Replica {
            last_seen: raw.basic_status(),
            config,
            raw,
            now: 0,
            writes: VecDeque::new(),
            unreported: None,
            to_apply: VecDeque::new(),
            machine: Machine::of(first),
            synced: Index(1),
            view: BTreeMap::from([(Index(1), Term(1))]),
            changes: Vec::new(),
            down: false,
        }
    }

    pub fn id(&self) -> ReplicaId {
        self.config.id
    }

    /// Keeps what a `Ready` asks for, for later.
    pub fn take_in(&mut self, ready: Ready) {
        if let Some(snapshot) = &ready.snapshot {
            self.view = BTreeMap::from([(snapshot.meta.index, snapshot.meta.term)]);
            self.changes.clear();
        }
        if let Some(first) = ready.entries.first() {
            self.view.split_off(&first.index);
            self.changes.retain(|at| *at < first.index);
            self.view.extend(ready.entries.iter().map(|e| (e.index, e.term)));
            let changes = ready.entries.iter().filter(|e| e.kind != EntryKind::Normal);
            self.changes.extend(changes.map(|e| e.index));
        }
        self.to_apply.extend(ready.committed_entries.to_vec());
        let Ready { number, awaits_persist: awaited, mut hard_state, entries, snapshot, .. } = ready;
        if mutant::is(Mutant::VoteNotPersisted) {
            hard_state.iter_mut().for_each(|hs| hs.vote = ReplicaId::NONE);
        }
        if awaited || hard_state.is_some() || !entries.is_empty() || snapshot.is_some() {
            self.writes.push_back(Write { number, awaited, hard_state, entries, snapshot });
        }
    }

    /// The oldest write becomes durable, as a whole.
    pub fn persist_one(&mut self) -> Option<Write> {
        let write = self.writes.pop_front()?;
        let disk = self.raw.storage_mut();
        if let Some(snapshot) = &write.snapshot {
            disk.mem.install_snapshot(snapshot.clone()).unwrap();
            disk.conf = snapshot.meta.conf_state.clone();
            disk.offered = Some(snapshot.clone());
            self.machine = Machine::of(snapshot);
            self.synced = self.machine.at;
        }
        disk.mem.append(&write.entries);
        if let Some(hard_state) = write.hard_state {
            disk.mem.set_hard_state(hard_state);
        }
        Some(write)
    }

    /// Is this very entry durable here? What was compacted was committed.
    pub fn holds(&self, pos: LogPos) -> bool {
        let mem = &self.raw.storage().mem;
        pos.index < mem.first_index() || mem.term(pos.index) == Ok(pos.term)
    }

    /// Starts again from the disk, with the state machine at `machine` and the configuration there.
    pub fn restart(&mut self, machine: Machine, conf: ConfState, seed: u64) {
        let mut disk = self.raw.storage().clone();
        (disk.conf, disk.cold, disk.building) = (conf, false, false);
        let mut hard_state = disk.mem.hard_state();
        // What the state machine holds is committed, whether or not the last commit index was written.
        hard_state.commit = hard_state.commit.max(machine.at);
        disk.mem.set_hard_state(hard_state);
        let base = disk.first_index().prev();
        self.view = (base.0..=disk.last_index().0).map(|i| (Index(i), disk.term(Index(i)).unwrap())).collect();
        let changes = disk.mem.all_entries().iter().filter(|e| e.kind != EntryKind::Normal);
        self.changes = changes.map(|e| e.index).collect();
        self.config.applied = machine.at;
        self.config.seed = seed;
        self.raw = RawNode::new(&self.config, disk, self.now).unwrap();
        self.writes.clear();
        self.unreported = None;
        self.to_apply.clear();
        (self.machine, self.synced) = (machine, machine.at);
        self.last_seen = self.raw.basic_status();
        self.down = false;
    }
}
