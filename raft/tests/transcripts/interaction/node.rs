//! One node of an environment: the core, its storage with the history of snapshots, its storage threads.
//!
//! Invariant: the history is never empty; its newest element is what the core gets to send (README 3.9).

use super::{ELECTION_TICK, Env, HEARTBEAT_TICK, Outcome};
use crate::datadriven::Directive;
use bytes::Bytes;
use pontoon_raft::*;
use std::collections::VecDeque;

/// One node.
pub struct Node {
    pub raw: RawNode<EnvStorage>,
    pub config: Config,
    pub now: Tick,
    pub append_work: VecDeque<Message>,
    pub apply_work: VecDeque<Message>,
    /// No write was lost. After one, a storage is not what the core was told (raft-core 18).
    pub is_sound: bool,
}

/// The log in memory, and what the state machine was after each entry.
#[derive(Debug, Clone)]
pub struct EnvStorage {
    pub mem: MemStorage,
    pub history: Vec<Snapshot>,
    /// Entries are not in memory: every read says `Uncached`.
    pub cold: bool,
}

impl EnvStorage {
    pub fn newest_snapshot(&self) -> &Snapshot {
        self.history.last().expect("the history starts with one")
    }

    /// The state machine after one more entry.
    pub fn extend_history(&mut self, entry: &Entry, payload: &[u8], conf_state: Option<ConfState>) {
        let previous = self.newest_snapshot();
        let data = Bytes::from([&previous.data, payload].concat());
        let conf_state = conf_state.unwrap_or_else(|| previous.meta.conf_state.clone());
        let meta = SnapshotMeta { index: entry.index, term: entry.term, conf_state };
        self.history.push(Snapshot { meta, data });
    }

    /// What the append thread does.
    pub fn persist(&mut self, hs: Option<HardState>, entries: &[Entry], snapshot: Option<&Snapshot>) -> Outcome {
        if let Some(hs) = hs.filter(|hs| !hs.is_empty()) {
            self.mem.set_hard_state(hs);
        }
        match snapshot.filter(|s| !s.is_empty()) {
            Some(_) if !entries.is_empty() => Err("can't apply snapshot and entries at the same time".to_owned()),
            Some(snapshot) => self.mem.install_snapshot(snapshot.clone()).map_err(|e| e.to_string()),
            None => {
                self.mem.append(&entries.to_vec().into());
                Ok(())
            }
        }
    }
}

impl Storage for EnvStorage {
    fn initial_state(&self) -> InitialState {
        self.mem.initial_state()
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        let held = self.mem.first_index() <= low && high <= self.mem.last_index().next();
        assert!(held, "the core asks for [{low}, {high}), which it knows not to be there");
        if self.cold {
            return Err(StorageError::Uncached);
        }
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

    fn snapshot(&self, _to: ReplicaId) -> Result<Snapshot, StorageError> {
        Ok(self.newest_snapshot().clone())
    }
}

impl Env {
    pub(super) fn add_nodes(&mut self, d: &Directive) -> Outcome {
        let mut config = default_config();
        let mut snapshot = None;
        for arg in d.args[1..].iter().filter(|a| !a.values.is_empty()) {
            if matches!(arg.key.as_str(), "voters" | "learners" | "index") {
                set_snapshot(snapshot.get_or_insert_with(Snapshot::default), &mut config, arg);
            } else {
                set_config(&mut config, arg)?;
            }
        }
        let mut mem = MemStorage::new();
        if let Some(snapshot) = &mut snapshot {
            if snapshot.meta.index <= Index(1) {
                return Err("index must be specified as > 1 due to bootstrap".to_owned());
            }
            snapshot.meta.term = Term(1);
            mem.install_snapshot(snapshot.clone()).map_err(|e| e.to_string())?;
        }
        let storage = EnvStorage { mem, history: vec![snapshot.unwrap_or_default()], cold: false };
        for _ in 0..d.key::<usize>(0) {
            let id = self.nodes.len() as u64 + 1;
            config.id = ReplicaId(id);
            config.seed = id;
            let raw = RawNode::new(&config, storage.clone(), 0).unwrap();
            let (append_work, apply_work) = Default::default();
            self.nodes.push(Node { raw, config: config.clone(), now: 0, append_work, apply_work, is_sound: true });
            self.call(id, |_, _| ());
        }
        Ok(())
    }
}

fn default_config() -> Config {
    Config {
        election_tick: ELECTION_TICK,
        heartbeat_tick: HEARTBEAT_TICK,
        max_size_per_msg: u64::MAX,
        max_inflight_msgs: usize::try_from(i32::MAX).unwrap(),
        trace: true,
        ..Config::default()
    }
}

fn set_snapshot(snapshot: &mut Snapshot, config: &mut Config, arg: &crate::datadriven::Arg) {
    let ids = || arg.scan_all().into_iter().map(ReplicaId).collect();
    match arg.key.as_str() {
        "voters" => snapshot.meta.conf_state.voters = ids(),
        "learners" => snapshot.meta.conf_state.learners = ids(),
        _ => {
            snapshot.meta.index = Index(arg.scan());
            config.applied = snapshot.meta.index;
        }
    }
}

fn set_config(config: &mut Config, arg: &crate::datadriven::Arg) -> Outcome {
    match arg.key.as_str() {
        "inflight" => config.max_inflight_msgs = arg.scan(),
        "async-storage-writes" => config.async_storage_writes = arg.scan_bool(),
        "prevote" => config.pre_vote = arg.scan_bool(),
        "checkquorum" => config.check_quorum = arg.scan_bool(),
        "step-down-on-removal" => config.step_down_on_removal = arg.scan_bool(),
        "disable-conf-change-validation" => config.disable_conf_change_validation = arg.scan_bool(),
        "max-committed-size-per-ready" => config.max_committed_size_per_ready = arg.scan(),
        "read-only" => {
            config.read_mode = match arg.values[0].as_str() {
                "safe" => ReadMode::Safe,
                "lease-based" => ReadMode::Lease,
                other => return Err(format!("invalid read-only option {other:?}")),
            }
        }
        _ => super::own::set_config(config, arg),
    }
    Ok(())
}
