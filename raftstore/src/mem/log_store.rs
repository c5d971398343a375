//! The log store's twin: a durable image, the batches written since the last sync, and faults.
//!
//! A crash keeps any prefix of the unsynced batches, each whole or not at all (the real store's write batches are
//! atomic). Leaves to others: what a batch means (`image`), how long a write takes (the simulator lets the writer turn
//! later). Invariant: what was synced is in `durable`; after a failed write every call fails until it is opened anew.

use super::image::Image;
use super::power::{CrashPoint, Power};
use crate::env::{Durable, Fetch, LoadError, LogBatch, LogStore, ReadLogError, Recovered, WriteFailed};
use crate::ids::StoreSeq;
use crate::testing::Rng;
use parking_lot::Mutex;
use pontoon_raft::Entry;
use std::sync::Arc;

/// How the next write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// It fails, and a crash may keep or lose it.
    Failed,
    /// It fails, but is there after the restart.
    FailedButDurable,
}

/// The medium: survives crashes of its node.
#[derive(Debug, Default)]
pub struct MemDisk {
    /// All state.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Survives every crash.
    durable: Image,
    /// What the running store shows.
    live: Image,
    /// Between the two, in order.
    unsynced: Vec<(StoreSeq, LogBatch)>,
    /// Of the running store.
    recovered: StoreSeq,
    /// Of the running store: why nothing works any more.
    poisoned: Option<String>,
    /// Meets the next write.
    fault: Option<WriteFault>,
    /// Completed syncs.
    syncs: u64,
    /// Writes that a fault met.
    failed: u64,
    /// What became durable since somebody looked, if somebody does.
    journal: Option<Vec<LogBatch>>,
}

impl Inner {
    fn sync(&mut self) {
        for (seq, batch) in self.unsynced.drain(..) {
            self.durable.apply(seq, &batch);
            if let Some(journal) = &mut self.journal {
                journal.push(batch);
            }
        }
        self.syncs += 1;
    }
}

impl MemDisk {
    /// Opens the store; a second handle on the same disk takes over from the first.
    #[must_use]
    pub fn open(self: &Arc<MemDisk>, power: Arc<Power>) -> MemLogStore {
        let mut inner = self.inner.lock();
        inner.poisoned = None;
        inner.recovered = inner.live.seq;
        drop(inner);
        MemLogStore { disk: self.clone(), power }
    }

    /// The power fails: any prefix of what was not synced survives.
    pub fn crash(&self, rng: &mut Rng) {
        let mut inner = self.inner.lock();
        let keep = rng.below(inner.unsynced.len() as u64 + 1) as usize;
        inner.unsynced.truncate(keep);
        inner.sync();
        inner.live = inner.durable.clone();
        inner.fault = None;
    }

    /// The process dies, the system lives on: everything written survives.
    pub fn kill(&self) {
        let mut inner = self.inner.lock();
        inner.sync();
        inner.live = inner.durable.clone();
        inner.fault = None;
    }

    /// The next write fails.
    pub fn fail_next_write(&self, fault: WriteFault) {
        self.inner.lock().fault = Some(fault);
    }

    /// Looks at what every crash keeps.
    pub fn durable<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.inner.lock().durable)
    }

    /// Looks at what the running store shows.
    pub fn live<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.inner.lock().live)
    }

    /// From now on, or since the last call: the batches that became durable, in order.
    #[must_use]
    pub fn take_journal(&self) -> Vec<LogBatch> {
        self.inner.lock().journal.replace(Vec::new()).unwrap_or_default()
    }

    /// Does every call fail until it is opened anew?
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner.lock().poisoned.is_some()
    }

    /// Completed syncs since the disk was made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// Writes that failed since the disk was made.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.inner.lock().failed
    }

    /// A copy of the durable part, as somebody might take of a directory.
    #[must_use]
    pub fn copy(&self) -> Arc<MemDisk> {
        let durable = self.inner.lock().durable.clone();
        let inner = Inner { live: durable.clone(), durable, ..Inner::default() };
        Arc::new(MemDisk { inner: Mutex::new(inner) })
    }
}

/// The handle of one start of one node.
#[derive(Debug)]
pub struct MemLogStore {
    /// What survives.
    disk: Arc<MemDisk>,
    /// Of this start.
    power: Arc<Power>,
}

impl MemLogStore {
    fn fail(inner: &mut Inner, fault: WriteFault, seq: StoreSeq, batch: &LogBatch) -> WriteFailed {
        inner.failed += 1;
        inner.unsynced.push((seq, batch.clone()));
        if fault == WriteFault::FailedButDurable {
            inner.sync();
        }
        let why = "injected".to_owned();
        inner.poisoned = Some(why.clone());
        WriteFailed(why)
    }
}

impl LogStore for MemLogStore {
    fn write(&self, batch: &LogBatch) -> Result<Durable, WriteFailed> {
        let off = || WriteFailed("the power is off".into());
        if !self.power.pass(CrashPoint::BeforeWrite) {
            return Err(off());
        }
        let mut inner = self.disk.inner.lock();
        if let Some(why) = &inner.poisoned {
            return Err(WriteFailed(why.clone()));
        }
        let seq = StoreSeq(inner.live.seq.0 + 1);
        if let Some(fault) = inner.fault.take() {
            return Err(MemLogStore::fail(&mut inner, fault, seq, batch));
        }
        inner.live.apply(seq, batch);
        inner.unsynced.push((seq, batch.clone()));
        if !self.power.pass(CrashPoint::DuringWrite) {
            return Err(off());
        }
        if batch.sync {
            inner.sync();
        }
        drop(inner);
        if self.power.pass(CrashPoint::AfterWrite) { Ok(Durable::attest(seq)) } else { Err(off()) }
    }

    fn read(&self, fetches: &[Fetch]) -> Vec<Result<Vec<Entry>, ReadLogError>> {
        let inner = self.disk.inner.lock();
        let dead = inner.poisoned.is_some() || !self.power.is_on();
        fetches.iter().map(|f| if dead { Err(ReadLogError::Poisoned) } else { inner.live.read(f) }).collect()
    }

    fn load(&self) -> Result<Recovered, LoadError> {
        let inner = self.disk.inner.lock();
        match &inner.poisoned {
            Some(why) => Err(LoadError::Io(why.clone())),
            None => Ok(inner.live.recovered()),
        }
    }

    fn recovered_seq(&self) -> StoreSeq {
        self.disk.inner.lock().recovered
    }

    fn synced_seq(&self) -> StoreSeq {
        self.disk.inner.lock().durable.seq
    }

    fn live_bytes(&self) -> u64 {
        self.disk.inner.lock().live.groups.values().map(super::image::GroupImage::bytes).sum()
    }
}
