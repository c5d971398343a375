//! Where node records are written: directly before the node's writer runs, through the writer afterwards.
//!
//! Leaves to others: what is written. Invariant: `put` returns when the records are durable, or not at all well.

use crate::env::{LogBatch, LogStore, MetaWrite, WriteFailed};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

/// A durable place for node records. Blocks; never called from a turn.
pub trait MetaSink: Send + Sync {
    /// One atomic synced write.
    fn put(&self, writes: Vec<MetaWrite>) -> Result<(), WriteFailed>;
}

/// Writes to the log store itself, while nothing else does.
pub struct DirectSink {
    /// The store.
    log: Arc<dyn LogStore>,
    /// A store takes one write at a time.
    one_at_a_time: Mutex<()>,
}

impl DirectSink {
    /// A sink on a store that no writer uses yet.
    #[must_use]
    pub fn new(log: Arc<dyn LogStore>) -> DirectSink {
        DirectSink { log, one_at_a_time: Mutex::new(()) }
    }
}

impl MetaSink for DirectSink {
    fn put(&self, meta: Vec<MetaWrite>) -> Result<(), WriteFailed> {
        let _guard = self.one_at_a_time.lock();
        let _durable = self.log.write(&LogBatch { writes: Vec::new(), meta, sync: true })?;
        Ok(())
    }
}

/// The sink of the moment; exchanged once, when the node's writer takes over.
pub(super) struct Outlet(RwLock<Arc<dyn MetaSink>>);

impl Outlet {
    pub(super) fn new(sink: Arc<dyn MetaSink>) -> Outlet {
        Outlet(RwLock::new(sink))
    }

    /// Waits until a write under way through the old sink has ended.
    pub(super) fn exchange(&self, sink: Arc<dyn MetaSink>) {
        *self.0.write() = sink;
    }

    pub(super) fn put(&self, writes: Vec<MetaWrite>) -> Result<(), WriteFailed> {
        self.0.read().put(writes)
    }
}
