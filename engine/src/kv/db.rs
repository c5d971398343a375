//! The RocksDB without a WAL that all groups of a kind share, and what is asked of it.
//!
//! Leaves to others: keys (`keys`), what is written (`machine`), when it is flushed (`durable`).
//! Invariant: one column family, so that position and data never part; no write goes to RocksDB's own WAL.

use super::keys::{HEAD, Owner, suffix};
use crate::state_machine::{Meta, SmError};
use bytes::Bytes;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, Options, ReadOptions, WriteBatch};
use std::io;
use std::path::Path;

/// Settings of a `KvStore`.
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// Bytes of a memtable. Default 64 MiB. Larger: fewer flushes, more log kept for replay.
    pub memtable: usize,
    /// Memtables that may wait for their flush, the active one included. Default 4.
    pub memtables: usize,
    /// Bytes of the block cache. Default 64 MiB. Raise it when reads go to disk.
    pub block_cache: usize,
    /// Threads for flushes and compactions. Default 2.
    pub background_jobs: usize,
}

impl Default for KvOptions {
    fn default() -> KvOptions {
        KvOptions { memtable: 64 << 20, memtables: 4, block_cache: 64 << 20, background_jobs: 2 }
    }
}

/// See the file's head.
pub(super) struct Db {
    inner: DB,
}

impl Db {
    pub(super) fn open(dir: &Path, options: &KvOptions) -> Result<Db, SmError> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(options.block_cache));
        table.set_bloom_filter(10.0, false);
        // The memtable remembers per group and section where the last key went: the next search begins there, not at the top of
        // a list that all groups share. The crate has no setter.
        let hint = format!("memtable_insert_with_hint_prefix_extractor=fixed:{HEAD}");
        let mut opts = Options::default().get_options_from_string(hint).map_err(failed)?;
        opts.create_if_missing(true);
        opts.set_block_based_table_factory(&table);
        opts.set_compression_type(DBCompressionType::Lz4);
        opts.set_write_buffer_size(options.memtable);
        opts.set_max_write_buffer_number(i32::try_from(options.memtables.clamp(2, 64)).unwrap_or(4));
        opts.set_max_background_jobs(i32::try_from(options.background_jobs.clamp(1, 64)).unwrap_or(2));
        opts.set_keep_log_file_num(4);
        opts.set_avoid_unnecessary_blocking_io(true);
        Ok(Db { inner: DB::open(&opts, dir).map_err(failed)? })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SmError> {
        let found = self.inner.get_pinned(key).map_err(failed)?;
        Ok(found.map(|v| Bytes::copy_from_slice(&v)))
    }

    pub(super) fn value_len(&self, key: &[u8]) -> Result<Option<usize>, SmError> {
        Ok(self.inner.get_pinned(key).map_err(failed)?.map(|v| v.len()))
    }

    /// All from one state.
    pub(super) fn multi_get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Bytes>>, SmError> {
        let snapshot = self.inner.snapshot();
        let found = snapshot.multi_get(keys);
        found.into_iter().map(|v| v.map(|v| v.map(Bytes::from)).map_err(failed)).collect()
    }

    /// One atomic write, not durable before a flush.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), SmError> {
        self.inner.write_without_wal(batch).map_err(failed)
    }

    /// Everything written before is durable on return.
    pub(super) fn flush(&self) -> Result<(), SmError> {
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        self.inner.flush_opt(&wait).map_err(failed)
    }

    /// Sets the database's gauges.
    pub(super) fn set_gauges(&self) {
        crate::wiring::database::set_gauges("kv", &self.inner);
    }

    /// Deletes everything of an owner; like every write durable only after a flush.
    pub(super) fn erase(&self, owner: Owner) -> Result<(), SmError> {
        let (from, to) = owner.range();
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        self.write(batch)
    }

    pub(super) fn meta(&self, owner: Owner) -> Result<Meta, SmError> {
        let mut found = Meta::new();
        scan(&self.inner.snapshot(), owner.meta_range(), |key, value| {
            found.push((Bytes::copy_from_slice(suffix(key)), Bytes::copy_from_slice(value)));
            true
        })?;
        Ok(found)
    }

    /// The owner of the first key at or behind `from`.
    pub(super) fn owner_from(&self, from: &[u8]) -> Result<Option<Owner>, SmError> {
        let mut iter = self.inner.raw_iterator();
        iter.seek(from);
        let owner = iter.key().map(Owner::of).transpose()?;
        iter.status().map_err(failed)?;
        Ok(owner)
    }

    pub(super) fn snapshot(&self) -> View<'_> {
        self.inner.snapshot()
    }
}

/// One state of the database.
pub(super) type View<'db> = rocksdb::Snapshot<'db>;

/// Visits the pairs in `[from, to)` of one state until `visit` says false.
pub(super) fn scan(
    view: &View<'_>,
    (from, to): (Vec<u8>, Vec<u8>),
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), SmError> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_iterate_upper_bound(to);
    let mut iter = view.raw_iterator_opt(options);
    iter.seek(from);
    while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
        if !visit(key, value) {
            return Ok(());
        }
        iter.next();
    }
    iter.status().map_err(failed)
}

/// RocksDB's errors as a machine's: corruption is told apart.
fn failed(error: rocksdb::Error) -> SmError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => SmError::Corruption(error.into_string()),
        _ => SmError::Io(io::Error::other(error.into_string())),
    }
}
