//! The store's settings: few, each with unit, default and when to touch it.
//!
//! Invariant: a setting that makes no sense refuses to open; none is repaired silently.

use crate::error::OpenError;

/// Settings of the log store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Bytes of a memtable (default 64 MiB). Larger: more of the log dies before it is flushed, longer restarts.
    pub memtable_bytes: usize,
    /// Memtables that may wait for their flush (default 16). Bounds memory at `memtable_bytes` times this; when all are
    /// full RocksDB stops writes. Touch only for disks that flush slower than they sync.
    pub memtables: u32,
    /// WAL files kept to be overwritten (default 4): appends to a recycled file sync faster than to a growing one.
    pub recycled_wals: usize,
    /// Bytes of WAL files kept in `salvage` when an unsynced tail was cut (default 1 GiB, oldest copies go first).
    pub salvage_bytes: u64,
}

impl Default for WalConfig {
    fn default() -> WalConfig {
        WalConfig { memtable_bytes: 64 << 20, memtables: 16, recycled_wals: 4, salvage_bytes: 1 << 30 }
    }
}

impl WalConfig {
    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Result<(), OpenError> {
        let mut wrong = Vec::new();
        if !(64 << 10..=4 << 30).contains(&self.memtable_bytes) {
            wrong.push(format!("memtable_bytes is {}, must be in 64 KiB..=4 GiB", self.memtable_bytes));
        }
        if !(2..=1024).contains(&self.memtables) {
            wrong.push(format!("memtables is {}, must be in 2..=1024", self.memtables));
        }
        if !(1..=1024).contains(&self.recycled_wals) {
            wrong.push(format!("recycled_wals is {}, must be in 1..=1024", self.recycled_wals));
        }
        if wrong.is_empty() { Ok(()) } else { Err(OpenError::Config(wrong)) }
    }
}
