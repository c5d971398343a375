//! The only file that holds a RocksDB handle, and the latch that closes for good at its first failed write.
//!
//! Leaves to others: what is written. RocksDB recovers by itself from some errors (a full disk) and goes on taking
//! writes; after a failed write nobody knows what is on disk, so here nothing is tried again (law 7).
//! Invariant: after an `Err` from `write` or `sync`, or a `poison`, every later call of those fails.

use crate::error::OpenError;
use parking_lot::Mutex;
use pontoon_raftstore::env::WriteFailed;
use rocksdb::properties::MIN_LOG_NUMBER_TO_KEEP;
use rocksdb::{DB, DBRawIterator, Options, ReadOptions, Snapshot, WriteBatch, WriteOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is in the tables, by the MANIFEST alone.
pub(crate) struct Flushed {
    /// Highest sequence number that was flushed.
    pub(crate) sequence: u64,
    /// Number of the first WAL file that holds more: older ones are not replayed.
    pub(crate) first_wal: u64,
}

/// A RocksDB behind its latch.
pub(crate) struct Latch {
    /// The database.
    db: DB,
    /// Options of a write that returns when it is on disk.
    durable: WriteOptions,
    /// Fast answer to "is it closed?". Invariant: set before `why` is first read as `Some`.
    closed: AtomicBool,
    /// What closed it.
    why: Mutex<Option<String>>,
}

impl Latch {
    /// Opens for writing. Recovers, flushes what was recovered and deletes its WAL files.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Latch, rocksdb::Error> {
        DB::open(options, path).map(Latch::around)
    }

    /// Recovers into memory; changes no file.
    pub(crate) fn open_read_only(path: &Path, options: &Options) -> Result<Latch, rocksdb::Error> {
        DB::open_for_read_only(options, path, false).map(Latch::around)
    }

    /// What is in the tables. Opens read-only with `elsewhere` as the folder of WAL files, which must hold none.
    pub(crate) fn flushed(path: &Path, elsewhere: &Path, options: &Options) -> Result<Flushed, OpenError> {
        let mut tables_only = options.clone();
        tables_only.set_wal_dir(elsewhere);
        let db = DB::open_for_read_only(&tables_only, path, false).map_err(|e| OpenError::of_database(&e))?;
        let first_wal = db.property_int_value(MIN_LOG_NUMBER_TO_KEEP).map_err(|e| OpenError::of_database(&e))?;
        let first_wal = first_wal.ok_or_else(|| OpenError::Damaged("the first WAL file is not known".into()))?;
        Ok(Flushed { sequence: db.latest_sequence_number(), first_wal })
    }

    fn around(db: DB) -> Latch {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Latch { db, durable, closed: AtomicBool::new(false), why: Mutex::new(None) }
    }

    /// One atomic write; on disk on return if `sync`. The sequence number after it.
    pub(crate) fn write(&self, batch: WriteBatch, sync: bool) -> Result<u64, WriteFailed> {
        self.check()?;
        let result = if sync { self.db.write_opt(batch, &self.durable) } else { self.db.write(batch) };
        self.settle(result)
    }

    /// Makes all earlier writes durable. The sequence number after them.
    pub(crate) fn sync(&self) -> Result<u64, WriteFailed> {
        self.check()?;
        self.settle(self.db.flush_wal(true))
    }

    fn settle(&self, result: Result<(), rocksdb::Error>) -> Result<u64, WriteFailed> {
        match result {
            Ok(()) => Ok(self.db.latest_sequence_number()),
            Err(e) => Err(self.poison(e.to_string())),
        }
    }

    /// Closes the latch; the first reason stays.
    pub(crate) fn poison(&self, why: String) -> WriteFailed {
        let mut slot = self.why.lock();
        let why = slot.get_or_insert(why).clone();
        self.closed.store(true, Ordering::Release);
        WriteFailed(why)
    }

    /// Fails once the latch is closed.
    pub(crate) fn check(&self) -> Result<(), WriteFailed> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(WriteFailed(self.why.lock().clone().unwrap_or_default()))
    }

    /// Sets the database's gauges.
    pub(crate) fn set_gauges(&self) {
        crate::database::set_gauges("log", &self.db);
    }

    /// Sequence number of the last write, synced or not.
    pub(crate) fn latest_sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// A consistent view.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.db.snapshot()
    }

    /// Walks the newest state.
    pub(crate) fn iter(&self, options: ReadOptions) -> DBRawIterator<'_> {
        self.db.raw_iterator_opt(options)
    }

    /// Names of the table files that may hold `key`; none: it comes from the WAL.
    pub(crate) fn files_of(&self, key: &[u8]) -> Vec<String> {
        let covers = |f: &rocksdb::LiveFile| {
            f.start_key.as_deref().is_some_and(|s| s <= key) && f.end_key.as_deref().is_some_and(|e| key <= e)
        };
        let files = self.db.live_files().unwrap_or_default();
        files.iter().filter(|f| covers(f)).map(|f| f.name.trim_start_matches('/').to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rocksdb::statistics::Ticker;

    /// `pontoon_wal_bytes_total` stands for RocksDB's ticker of WAL bytes, for which every store would have to keep
    /// statistics. Both leave out the headers of the WAL's records.
    #[test]
    fn what_is_counted_as_written_is_what_rocksdb_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.enable_statistics();
        let latch = Latch::open(dir.path(), &options).unwrap();
        let mut written = 0;
        for len in [0, 100, 100_000] {
            let mut batch = WriteBatch::default();
            batch.put(b"k", vec![7; len]);
            written += batch.size_in_bytes() as u64;
            latch.write(batch, len > 50).unwrap();
        }
        assert_eq!(options.get_ticker_count(Ticker::WalFileBytes), written);
    }

    #[test]
    fn the_first_failed_write_closes_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        let put = || {
            let mut batch = WriteBatch::default();
            batch.put(b"k", b"v");
            batch
        };
        let latch = Latch::open(dir.path(), &options).unwrap();
        latch.write(put(), true).unwrap();
        latch.check().unwrap();
        drop(latch);
        let latch = Latch::open_read_only(dir.path(), &options).unwrap(); // its writes fail
        latch.check().unwrap();
        let first = latch.write(put(), true).unwrap_err().to_string();
        assert_eq!(latch.check().unwrap_err().to_string(), first);
        assert_eq!(latch.sync().unwrap_err().to_string(), first);
        assert_eq!(latch.poison("later".into()).to_string(), first, "the first reason stays");
    }
}
