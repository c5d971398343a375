//! What the store's tests share: batches, an image of a directory as a killed process leaves it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use pontoon_raft::{ConfState, Entry, HardState, LogPos, ReplicaId, Term};
use pontoon_raftstore::env::{Creation, GroupOp, GroupWrite, LogBatch, Truncation};
use pontoon_raftstore::ids::{GroupId, Index, NodeId};
use pontoon_wal::{WalConfig, WalStore};
use std::path::Path;

/// Small memtables: flushes, rotations and recycled WAL files within a test.
pub fn small() -> WalConfig {
    WalConfig { memtable_bytes: 64 << 10, ..WalConfig::default() }
}

pub fn open(dir: &Path) -> WalStore {
    WalStore::open(dir, &small()).unwrap()
}

/// A copy of a directory, taken while it is open: what a killed process leaves.
pub fn image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            image(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn creation() -> Creation {
    Creation {
        kind: "kv".into(),
        digest: 7,
        members: vec![(ReplicaId(1), NodeId(1))],
        conf_state: ConfState::new(vec![ReplicaId(1)], vec![]),
        birth: LogPos::NONE,
    }
}

pub fn write(group: u64, replica: u64, op: GroupOp) -> GroupWrite {
    GroupWrite { group: GroupId(group), replica: ReplicaId(replica), op }
}

pub fn create(group: u64, replica: u64) -> GroupWrite {
    write(group, replica, GroupOp::Create { creation: Box::new(creation()), hard_state: HardState::default() })
}

pub fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), data: data.to_vec().into(), ..Entry::default() }
}

pub fn entries(range: std::ops::Range<u64>, term: u64, len: usize) -> Vec<Entry> {
    range.map(|i| entry(i, term, &vec![i as u8; len])).collect()
}

pub fn append(group: u64, entries: Vec<Entry>, hard_state: Option<HardState>) -> GroupWrite {
    write(group, 1, GroupOp::Append { entries, hard_state })
}

pub fn truncate(group: u64, index: u64, term: u64) -> GroupWrite {
    let pos = LogPos::new(Term(term), Index(index));
    write(group, 1, GroupOp::Truncate(Truncation { pos, conf_state: creation().conf_state }))
}

pub fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: ReplicaId(vote), commit: Index(commit) }
}

pub fn synced(writes: Vec<GroupWrite>) -> LogBatch {
    LogBatch { writes, meta: Vec::new(), sync: true }
}
