//! `WalStore`: the one log store of a node.
//!
//! Leaves to others: encoding (`batch`), the handle (`latch`), opening (`opening`), reading (`reader`).
//! Invariant: `write` answers `Ok` to a synced batch after exactly one synced RocksDB write and the watermark behind it;
//! after an `Err` every later call fails.

use crate::batch::Encoder;
use crate::config::WalConfig;
use crate::envelope::StoreId;
use crate::error::OpenError;
use crate::latch::Latch;
use crate::metrics::{self, Meters, Written};
use crate::opening::{self, Opened};
use crate::seats::Seats;
use crate::watermark::Watermark;
use crate::{reader, recover};
use parking_lot::Mutex;
use pontoon_raft::Entry;
use pontoon_raftstore::env::{Durable, Fetch, LoadError, LogBatch, LogStore, ReadLogError, Recovered, WriteFailed};
use pontoon_raftstore::ids::StoreSeq;
use rocksdb::WriteBatch;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The log store on a RocksDB of its own.
pub struct WalStore {
    /// The database; closed before the lock is released (order of the fields).
    latch: Latch,
    /// The store's name.
    store: StoreId,
    /// What only writing changes. Invariant: held while a write and its sync run.
    writer: Mutex<Writer>,
    /// What open found, until `load` takes it or a write outdates it.
    found: Mutex<Option<Recovered>>,
    /// Sequence number that open recovered.
    recovered: StoreSeq,
    /// Sequence number of the last completed synced write.
    synced: AtomicU64,
    /// Payload bytes of live log, estimated.
    live_bytes: AtomicU64,
    /// Keeps other processes out.
    _lock: File,
}

struct Writer {
    encoder: Encoder,
    seats: Seats,
    watermark: Watermark,
    meters: Meters,
}

impl WalStore {
    /// Opens the store in `dir`, or founds it there. Refuses where acknowledged log is missing or damaged; then nothing
    /// in the directory was changed.
    pub fn open(dir: &Path, config: &WalConfig) -> Result<WalStore, OpenError> {
        let Opened { latch, store, found, watermark, recovered, lock } = opening::open(dir, config)?;
        let live_bytes = AtomicU64::new(found.seats.live_bytes());
        let writer = Writer { encoder: Encoder::new(store), seats: found.seats, watermark, meters: Meters::default() };
        Ok(WalStore {
            latch,
            store,
            writer: Mutex::new(writer),
            found: Mutex::new(Some(found.recovered)),
            recovered: StoreSeq(recovered),
            synced: AtomicU64::new(recovered),
            live_bytes,
            _lock: lock,
        })
    }

    /// Syncs the watermark if it was written since. Call about once a second, on a thread that may wait for the disk; no
    /// write waits for it. Sets RocksDB's gauges.
    pub fn tick(&self) -> Result<(), WriteFailed> {
        self.latch.check()?;
        self.latch.set_gauges();
        let unsynced = self.writer.lock().watermark.take_unsynced();
        unsynced.map_or(Ok(()), |file| file.sync_data()).map_err(|e| self.latch.poison(format!("watermark: {e}")))
    }

    fn commit(&self, batch: WriteBatch, sync: bool) -> Result<u64, WriteFailed> {
        match (batch.is_empty(), sync) {
            (false, _) => self.latch.write(batch, sync),
            (true, true) => self.latch.sync(),
            (true, false) => Ok(self.latch.latest_sequence()),
        }
    }
}

impl LogStore for WalStore {
    fn write(&self, batch: &LogBatch) -> Result<Durable, WriteFailed> {
        let mut writer = self.writer.lock();
        self.latch.check()?;
        let _unwinding = PoisonOnUnwind(&self.latch);
        self.found.lock().take(); // stale from here on
        let Writer { encoder, seats, watermark, meters } = &mut *writer;
        let encoded = encoder.encode(batch, seats, &self.latch).map_err(|e| self.latch.poison(e.to_string()))?;
        meters.on_write(&Written::from(&encoded));
        let start = Instant::now();
        let seq = self.commit(encoded.batch, batch.sync)?;
        if batch.sync {
            meters.on_sync(start.elapsed());
            watermark.record(seq).map_err(|e| self.latch.poison(format!("watermark: {e}")))?;
            self.synced.store(seq, Ordering::Release);
        }
        self.live_bytes.store(seats.live_bytes(), Ordering::Relaxed);
        metrics::live_bytes(seats.live_bytes());
        Ok(Durable::attest(StoreSeq(seq)))
    }

    fn read(&self, fetches: &[Fetch]) -> Vec<Result<Vec<Entry>, ReadLogError>> {
        fetches.iter().map(|fetch| reader::read(&self.latch, self.store, fetch)).collect()
    }

    fn load(&self) -> Result<Recovered, LoadError> {
        self.latch.check().map_err(|e| LoadError::Io(e.to_string()))?;
        if let Some(found) = self.found.lock().take() {
            return Ok(found);
        }
        match recover::pass(&self.latch, self.store) {
            Ok(found) => Ok(found.recovered),
            Err(e @ OpenError::Corrupt(_)) => Err(LoadError::Corrupt(e.to_string())),
            Err(e) => Err(LoadError::Io(e.to_string())),
        }
    }

    fn recovered_seq(&self) -> StoreSeq {
        self.recovered
    }

    fn synced_seq(&self) -> StoreSeq {
        StoreSeq(self.synced.load(Ordering::Acquire))
    }

    fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }
}

/// A bug found half-way through a batch leaves the writer's view behind the truth: nothing may be written after it.
struct PoisonOnUnwind<'a>(&'a Latch);

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the writer panicked".into());
        }
    }
}
