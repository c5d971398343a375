//! What the store measures: entries and groups per sync above all, for batches that silently shrink.
//!
//! Names begin with `pontoon_wal_`; no labels.

use crate::batch::Encoded;
use std::time::Duration;

/// Counts since the last sync.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Entries written and not yet synced.
    entries: u64,
    /// Groups written and not yet synced (a group twice if in two batches).
    groups: u64,
}

impl Meters {
    /// A batch was written.
    pub(crate) fn on_write(&mut self, encoded: &Written) {
        self.entries += encoded.entries;
        self.groups += encoded.groups;
        metrics::counter!("pontoon_wal_writes_total").increment(1);
        metrics::counter!("pontoon_wal_entries_total").increment(encoded.entries);
        metrics::counter!("pontoon_wal_bytes_total").increment(encoded.bytes);
    }

    /// The write was synced.
    pub(crate) fn on_sync(&mut self, took: Duration) {
        metrics::counter!("pontoon_wal_syncs_total").increment(1);
        metrics::histogram!("pontoon_wal_fsync_duration_seconds").record(took.as_secs_f64());
        metrics::histogram!("pontoon_wal_entries_per_sync").record(self.entries as f64);
        metrics::histogram!("pontoon_wal_groups_per_sync").record(self.groups as f64);
        *self = Meters::default();
    }
}

/// What a batch held.
pub(crate) struct Written {
    /// Log entries.
    entries: u64,
    /// Groups touched.
    groups: u64,
    /// Bytes of the write batch.
    bytes: u64,
}

impl From<&Encoded> for Written {
    fn from(e: &Encoded) -> Written {
        Written { entries: e.entries, groups: e.groups, bytes: e.batch.size_in_bytes() as u64 }
    }
}

/// The store opened.
pub(crate) fn on_open(cut_tail: bool) {
    if cut_tail {
        metrics::counter!("pontoon_wal_cut_tails_total").increment(1);
    }
}

/// Bytes of live log.
pub(crate) fn live_bytes(bytes: u64) {
    metrics::gauge!("pontoon_wal_live_bytes").set(bytes as f64);
}
