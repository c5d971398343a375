//! Merges what pollers and lifecycle want written into one write, one sync; tells each when its part is durable.
//!
//! Leaves to others: the bytes (the log store), what durability releases (pollers, lifecycle).
//! Invariant: batches are written in the order in which they came in; after the first failure nothing is written and
//! nothing is reported as durable any more (law 7).

use crate::env::{Clock, Instant, LogBatch, LogStore};
use crate::ids::BatchSeq;
use crate::inbox::Inbox;
use crate::router::Router;
use crate::task::{LifecycleMsg, PollerMsg, WriteOrigin, WriterMsg};
use crate::turn::{Active, Turn};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Payload after which no further batch is merged. Bytes.
const MERGE_BYTES: u64 = 16 << 20;
/// Group writes after which no further batch is merged.
const MERGE_WRITES: usize = 1 << 16;

/// The log store with the rule that one thread writes at a time: for the writer, and for pollers that sync inline.
pub struct SharedLog {
    /// The seam.
    log: Arc<dyn LogStore>,
    /// Held across a write.
    exclusive: Mutex<()>,
    /// For the age of the write in flight.
    clock: Arc<dyn Clock>,
    /// Poison, age of the write in flight.
    router: Arc<Router>,
}

impl SharedLog {
    /// Around a log store.
    #[must_use]
    pub fn new(log: Arc<dyn LogStore>, clock: Arc<dyn Clock>, router: Arc<Router>) -> Arc<SharedLog> {
        Arc::new(SharedLog { log, exclusive: Mutex::new(()), clock, router })
    }

    /// The same, and how long it took, the wait for others included.
    #[must_use]
    pub fn timed_write(&self, batch: &LogBatch) -> (bool, Duration) {
        let began = self.clock.now();
        let written = self.write(batch);
        (written, self.clock.now().since(began))
    }

    /// Writes a batch. False: the node is poisoned, now or before; nothing may be promised.
    #[must_use]
    pub fn write(&self, batch: &LogBatch) -> bool {
        let _one_at_a_time = self.exclusive.lock();
        let health = self.router.health();
        if health.is_poisoned() {
            return false;
        }
        health.begin_write(self.clock.now());
        let result = self.log.write(batch);
        health.end_write(self.clock.now());
        match result {
            Ok(_durable) => true,
            Err(failed) => {
                metrics::counter!("pontoon_wal_errors_total", "op" => "append").increment(1);
                self.router.poison(&failed.to_string());
                false
            }
        }
    }
}

/// The writer.
pub struct LogWriter {
    /// The log store.
    log: Arc<SharedLog>,
    /// Batches to write.
    inbox: Inbox<WriterMsg>,
    /// Whom to tell.
    router: Arc<Router>,
    /// `Stop` was read, or the node is poisoned and everybody knows.
    stopped: bool,
}

impl LogWriter {
    /// A writer that has written nothing yet.
    #[must_use]
    pub fn new(log: Arc<SharedLog>, inbox: Inbox<WriterMsg>, router: Arc<Router>) -> LogWriter {
        LogWriter { log, inbox, router, stopped: false }
    }

    /// What waits, merged, and the last batch of each origin in it.
    fn merge(&mut self) -> (LogBatch, BTreeMap<WriteOrigin, BatchSeq>) {
        let mut merged = LogBatch::default();
        let mut last = BTreeMap::new();
        let mut bytes = 0;
        while bytes < MERGE_BYTES && merged.writes.len() < MERGE_WRITES {
            match self.inbox.take() {
                Some(WriterMsg::Write { origin, seq, mut batch }) => {
                    bytes += batch.payload_bytes();
                    merged.writes.append(&mut batch.writes);
                    merged.meta.append(&mut batch.meta);
                    merged.sync |= batch.sync;
                    last.insert(origin, seq);
                }
                Some(WriterMsg::Stop) => {
                    self.stopped = true;
                    break;
                }
                None => break,
            }
        }
        (merged, last)
    }

    fn tell(&self, origin: WriteOrigin, seq: BatchSeq) {
        match origin {
            WriteOrigin::Poller(id) => self.router.mail().poller(id, PollerMsg::Persisted(seq)),
            WriteOrigin::Lifecycle => self.router.mail().lifecycle(LifecycleMsg::Persisted(seq)),
        }
    }
}

impl Active for LogWriter {
    fn turn(&mut self, _now: Instant) -> Turn {
        if self.stopped {
            return Turn::IDLE;
        }
        let (batch, last) = self.merge();
        if last.is_empty() {
            return Turn::IDLE;
        }
        metrics::histogram!("pontoon_wal_batch_origins").record(last.len() as f64);
        if self.log.write(&batch) {
            last.into_iter().for_each(|(origin, seq)| self.tell(origin, seq));
        }
        Turn::WORKED
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        "log-writer".into()
    }
}
