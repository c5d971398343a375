//! The contestants: the store, the record units it chose from, the bare RocksDB WAL writer, the raw file.
//!
//! Leaves to others: foreign log stores (`peers`).
//! Invariant: all RocksDB contestants use the same options, those of a log.

use crate::append::Contestant;
use bytes::BufMut;
use pontoon_raft::HardState;
use pontoon_raftstore::env::{GroupOp, GroupWrite, LogBatch, LogStore};
use pontoon_raftstore::ids::GroupId;
use pontoon_wal::{WalConfig, WalStore};
use rocksdb::{DB, DBCompressionType, DBRecoveryMode, Options, WriteBatch, WriteOptions};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The options that all RocksDB contestants share.
#[must_use]
pub fn log_options() -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    o.set_recycle_log_file_num(4);
    o.set_write_buffer_size(64 << 20);
    o.set_max_write_buffer_number(16);
    o.set_compression_type(DBCompressionType::None);
    o.set_level_zero_slowdown_writes_trigger(1 << 20);
    o.set_level_zero_stop_writes_trigger(1 << 20);
    o.set_max_background_jobs(2);
    o.set_writable_file_max_buffer_size(128 << 10);
    o.set_min_write_buffer_number_to_merge(2);
    o
}

fn put_entries(out: &mut Vec<u8>, write: &GroupWrite) -> u64 {
    let GroupOp::Append { entries, .. } = &write.op else { return 0 };
    for e in entries {
        out.put_u64_le(e.term.0);
        out.put_u32_le(e.data.len() as u32);
        out.put_slice(&e.data);
    }
    entries.first().map_or(0, |e| e.index.0)
}

fn key(group: u64, index: u64) -> [u8; 16] {
    let mut k = [0; 16];
    k[..8].copy_from_slice(&group.to_be_bytes());
    k[8..].copy_from_slice(&index.to_be_bytes());
    k
}

/// How entries become keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One key an entry.
    Entry,
    /// One key for all that one Ready of one group appended.
    Block,
    /// One key for the batch of all groups (the index in memory is not even counted).
    Batch,
    /// One put of the batch's bytes without any structure: the ceiling.
    Bare,
}

impl Unit {
    /// Its line in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::Entry => "key per entry",
            Unit::Block => "block (a)",
            Unit::Batch => "batch record (b)",
            Unit::Bare => "bare RocksDB WAL",
        }
    }
}

/// A RocksDB with one record unit.
pub struct Rocks {
    db: DB,
    unit: Unit,
    seq: u64,
    dropped: u64,
    scratch: Vec<u8>,
}

impl Rocks {
    /// Opens a new database under `dir`.
    #[must_use]
    pub fn new(dir: &Path, unit: Unit) -> Rocks {
        Rocks::with(dir, unit, &log_options())
    }

    /// Same with other options.
    #[must_use]
    pub fn with(dir: &Path, unit: Unit, options: &Options) -> Rocks {
        let db = DB::open(options, dir).expect("a new directory");
        Rocks { db, unit, seq: 0, dropped: 0, scratch: Vec::new() }
    }

    fn encode(&mut self, batch: &LogBatch) -> WriteBatch {
        let mut wb = WriteBatch::default();
        let buf = &mut self.scratch;
        match self.unit {
            Unit::Entry => put_each(&mut wb, buf, batch),
            Unit::Block => {
                for w in &batch.writes {
                    buf.clear();
                    buf.put_slice(&[0; 40]);
                    let first = put_entries(buf, w);
                    let crc = crc32c::crc32c(buf);
                    buf[..4].copy_from_slice(&crc.to_le_bytes());
                    wb.put(key(w.group.0, first), &buf[..]);
                }
            }
            Unit::Batch => {
                buf.clear();
                for w in &batch.writes {
                    buf.put_slice(&[0; 40]);
                    put_entries(buf, w);
                }
                let crc = crc32c::crc32c(buf);
                buf[..4].copy_from_slice(&crc.to_le_bytes());
                wb.put(self.seq.to_be_bytes(), &buf[..]);
            }
            Unit::Bare => {
                buf.clear();
                let bytes: usize = batch.writes.iter().map(total_bytes).sum();
                buf.resize(bytes, 0x5A);
                wb.put(self.seq.to_be_bytes(), &buf[..]);
            }
        }
        wb
    }
}

fn put_each(wb: &mut WriteBatch, buf: &mut Vec<u8>, batch: &LogBatch) {
    for w in &batch.writes {
        let GroupOp::Append { entries, .. } = &w.op else { continue };
        for e in entries {
            buf.clear();
            buf.put_u64_le(e.term.0);
            buf.put_u32_le(crc32c::crc32c(&e.data));
            buf.put_slice(&e.data);
            wb.put(key(w.group.0, e.index.0), &buf[..]);
        }
    }
}

fn total_bytes(w: &GroupWrite) -> usize {
    let GroupOp::Append { entries, .. } = &w.op else { return 0 };
    40 + entries.iter().map(|e| e.data.len() + 12).sum::<usize>()
}

impl Contestant for Rocks {
    fn name(&self) -> &'static str {
        self.unit.name()
    }

    fn append(&mut self, batch: &LogBatch) {
        let wb = self.encode(batch);
        let mut wo = WriteOptions::default();
        wo.set_sync(true);
        self.db.write_opt(wb, &wo).expect("disk has room");
        self.seq += 1;
    }

    fn truncate(&mut self, batch: &LogBatch) {
        let mut wb = WriteBatch::default();
        if matches!(self.unit, Unit::Entry | Unit::Block) {
            for w in &batch.writes {
                let GroupOp::Truncate(t) = &w.op else { continue };
                wb.delete_range(key(w.group.0, 0), key(w.group.0, t.pos.index.0 + 1));
            }
        } else {
            let upto = std::mem::replace(&mut self.dropped, self.seq);
            wb.delete_range(0_u64.to_be_bytes(), upto.to_be_bytes());
        }
        self.db.write(wb).expect("disk has room");
    }
}

/// The store itself.
pub struct OwnStore {
    store: WalStore,
    born: HashSet<GroupId>,
}

impl OwnStore {
    /// Opens a new store under `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> OwnStore {
        let store = WalStore::open(dir, &WalConfig::default()).expect("a new directory");
        OwnStore { store, born: HashSet::new() }
    }

    /// Groups are created when they are first written to.
    fn create_missing(&mut self, batch: &LogBatch) {
        let new = batch.writes.iter().filter(|w| self.born.insert(w.group));
        let create = |w: &GroupWrite| {
            let op = GroupOp::Create { creation: Box::default(), hard_state: HardState::default() };
            GroupWrite { group: w.group, replica: w.replica, op }
        };
        let writes: Vec<GroupWrite> = new.map(create).collect();
        if !writes.is_empty() {
            let _proof = self.store.write(&LogBatch { writes, ..LogBatch::default() }).expect("disk has room");
        }
    }
}

impl Contestant for OwnStore {
    fn name(&self) -> &'static str {
        "pontoon-wal"
    }

    fn append(&mut self, batch: &LogBatch) {
        self.create_missing(batch);
        let _proof = self.store.write(batch).expect("disk has room");
    }

    fn truncate(&mut self, batch: &LogBatch) {
        let _proof = self.store.write(batch).expect("disk has room");
    }
}

/// Appends the batch's bytes to a growing file, one fdatasync each.
pub struct RawFile {
    file: File,
    at: u64,
    preallocated: bool,
    scratch: Vec<u8>,
}

const RAW_LIMIT: u64 = 64 << 20;

impl RawFile {
    /// A growing file, or one that is written once in advance and then overwritten.
    #[must_use]
    pub fn new(dir: &Path, preallocated: bool) -> RawFile {
        let path = dir.join(if preallocated { "pre" } else { "grow" });
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a new file");
        if preallocated {
            let zeros = vec![0; 1 << 20];
            (0..RAW_LIMIT >> 20).for_each(|i| file.write_all_at(&zeros, i << 20).expect("disk has room"));
            file.sync_all().expect("disk has room");
        }
        RawFile { file, at: 0, preallocated, scratch: Vec::new() }
    }
}

impl Contestant for RawFile {
    fn name(&self) -> &'static str {
        if self.preallocated { "raw preallocated" } else { "raw growing file" }
    }

    fn append(&mut self, batch: &LogBatch) {
        self.scratch.clear();
        for w in &batch.writes {
            self.scratch.put_slice(&[0; 40]);
            put_entries(&mut self.scratch, w);
        }
        let len = self.scratch.len() as u64;
        if self.preallocated && self.at + len > RAW_LIMIT {
            self.at = 0;
        }
        self.file.write_all_at(&self.scratch, self.at).expect("disk has room");
        self.file.sync_data().expect("disk has room");
        self.at += len;
    }

    fn truncate(&mut self, _: &LogBatch) {}
}
