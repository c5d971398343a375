//! Entries that were read from the log and are not used yet, and how much of that there is on a node.
//!
//! Leaves to others: how much there may be (`log_reader`). Invariant: the shelf's sum is that of all pages alive.

use pontoon_raft::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of one reader.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<AtomicU64>);

/// What one read found.
#[derive(Debug)]
pub struct Page {
    entries: Vec<Entry>,
    /// Bytes.
    weight: u64,
    shelf: Shelf,
}

impl Shelf {
    /// A page that weighs so many bytes until it is used or dropped.
    #[must_use]
    pub fn page(&self, entries: Vec<Entry>, weight: u64) -> Page {
        self.0.fetch_add(weight, Ordering::Relaxed);
        Page { entries, weight, shelf: self.clone() }
    }

    /// What all pages weigh. Bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Page {
    /// Bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Its entries, which their taker accounts for.
    #[must_use]
    pub fn into_entries(mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.shelf.0.fetch_sub(self.weight, Ordering::Relaxed);
    }
}
