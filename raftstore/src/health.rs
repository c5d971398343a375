//! What the outside must learn even when everything hangs: poisoned or not, the age of the write in flight, and
//! when each active part was last seen turning.
//!
//! Leaves to others: what to do about it (the engine's endpoint, the embedder).
//! Invariant: once poisoned, poisoned for good (law 7); the first reason stays.

use crate::env::Instant;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Shared by all parts of a node.
#[derive(Debug, Default)]
pub struct Health {
    /// Fast answer to "poisoned?". Invariant: true iff `why` is set.
    poisoned: AtomicBool,
    /// Why nothing is promised any more.
    why: Mutex<Option<String>>,
    /// When the write in flight began, nanoseconds + 1; 0 if none is.
    write_began: AtomicU64,
    /// How long the last write took, nanoseconds.
    last_write: AtomicU64,
    /// The embedder says that the disk reserve is reached.
    disk_full: AtomicBool,
    /// The embedder says that the live log is over its bound.
    log_full: AtomicBool,
    /// The live log is at half of it.
    log_crowded: AtomicBool,
    /// No new work is taken.
    stopping: AtomicBool,
    /// Per active part: name and the moment of its last turn or wait (nanoseconds).
    parts: Mutex<Vec<(String, std::sync::Arc<AtomicU64>)>>,
}

/// Owned copy for the embedder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Why the node promises nothing any more.
    pub poisoned: Option<String>,
    /// How long the write to the log store has been running.
    pub write_age: Option<Duration>,
    /// Parts that did not turn for a while, with how long.
    pub stuck: Vec<(String, Duration)>,
    /// Is the disk reserve reached?
    pub disk_full: bool,
    /// Bytes of the node-wide budget in use.
    pub budget_used: u64,
    /// The budget's limit.
    pub budget_limit: u64,
}

impl Health {
    /// Nothing is promised from now on. Returns true for the first call.
    pub fn poison(&self, why: &str) -> bool {
        let mut slot = self.why.lock();
        let first = slot.is_none();
        if first {
            *slot = Some(why.to_owned());
            self.poisoned.store(true, Ordering::Release);
        }
        first
    }

    /// Is nothing promised any more?
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Why.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.why.lock().clone()
    }

    /// A write to the log store begins.
    pub fn begin_write(&self, at: Instant) {
        self.write_began.store(at.0.saturating_add(1), Ordering::Relaxed);
    }

    /// It has ended.
    pub fn end_write(&self, at: Instant) {
        let took = self.write_age(at).unwrap_or_default();
        self.last_write.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.write_began.store(0, Ordering::Relaxed);
    }

    /// How long the last write that ended took.
    #[must_use]
    pub fn last_write(&self) -> Duration {
        Duration::from_nanos(self.last_write.load(Ordering::Relaxed))
    }

    /// Age of the write in flight.
    #[must_use]
    pub fn write_age(&self, now: Instant) -> Option<Duration> {
        match self.write_began.load(Ordering::Relaxed) {
            0 => None,
            began => Some(now.since(Instant(began - 1))),
        }
    }

    /// The disk reserve is reached, or free again.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    /// Is the disk reserve reached?
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// The live log is over its bound, or below it again.
    pub fn set_log_full(&self, full: bool) {
        self.log_full.store(full, Ordering::Relaxed);
    }

    /// Is the live log over its bound?
    #[must_use]
    pub fn is_log_full(&self) -> bool {
        self.log_full.load(Ordering::Relaxed)
    }

    /// The live log is at half of its bound: it holds nothing for followers any more that live on snapshots.
    pub fn set_log_crowded(&self, crowded: bool) {
        self.log_crowded.store(crowded, Ordering::Relaxed);
    }

    /// Is it?
    #[must_use]
    pub fn is_log_crowded(&self) -> bool {
        self.log_crowded.load(Ordering::Relaxed)
    }

    /// No new work is taken from now on.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Is no new work taken?
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Registers an active part; its driver stores the time of each turn in what is returned.
    #[must_use]
    pub fn part(&self, name: String, now: Instant) -> std::sync::Arc<AtomicU64> {
        let seen = std::sync::Arc::new(AtomicU64::new(now.0));
        self.parts.lock().push((name, seen.clone()));
        seen
    }

    /// A copy of everything; parts not seen for longer than `patience` count as stuck.
    #[must_use]
    pub fn report(&self, now: Instant, patience: Duration) -> HealthReport {
        let parts = self.parts.lock();
        let age = |seen: &AtomicU64| now.since(Instant(seen.load(Ordering::Relaxed)));
        let stuck = parts.iter().map(|(name, seen)| (name.clone(), age(seen))).filter(|p| p.1 > patience);
        HealthReport {
            poisoned: self.poisoned(),
            write_age: self.write_age(now),
            stuck: stuck.collect(),
            disk_full: self.is_disk_full(),
            ..HealthReport::default()
        }
    }
}
