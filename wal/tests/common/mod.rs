//! What the store's tests share: batches, an image of a directory as a killed process leaves it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use pontoon_raft::{ConfState, Entry, HardState, LogPos, ReplicaId, Term};
use pontoon_raftstore::env::{Creation, GroupOp, GroupWrite, LogBatch, Truncation};
use pontoon_raftstore::ids::{GroupId, Index, NodeId};
use pontoon_wal::{WalConfig, WalStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Small memtables: flushes, rotations and recycled WAL files within a test.
pub fn small() -> WalConfig {
    WalConfig { memtable_bytes: 64 << 10, ..WalConfig::default() }
}

pub fn open(dir: &Path) -> WalStore {
    WalStore::open(dir, &small()).unwrap()
}

/// A copy of a directory, taken while it is open: what a killed process leaves. Taken again until no background flush
/// changed a file meanwhile, because a kill stops all threads at one moment and a copy does not.
pub fn image(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        let _ = std::fs::remove_dir_all(to);
        let copied = copy(from, to);
        if copied.is_ok() && before.is_ok() && before.ok() == listing(from).ok() {
            return;
        }
    }
}

type Listing = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn listing(dir: &Path) -> std::io::Result<Listing> {
    let mut all = Listing::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = path.metadata()?;
        if meta.is_dir() {
            all.extend(listing(&path)?);
        } else {
            all.insert(path, (meta.len(), meta.modified().ok()));
        }
    }
    Ok(all)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
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
    write(group, 1, GroupOp::Append { entries: entries.into(), hard_state })
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
