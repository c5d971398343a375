//! The log store of a node: all groups' logs and hard states in one RocksDB, one synced write per batch.
//!
//! When `WalStore::write` returns `Ok` for a batch with `sync`, the whole batch survives any crash of the process, of
//! the system and of the power; without `sync` it survives a crash of the process only. After an `Err` nothing is
//! promised any more and every later call fails. `WalStore::open` refuses a directory that lost what was synced.
//!
//! Start reading at `WalStore::write`, then `keys`, `block`, docs/on-disk-format.md.

mod batch;
mod block;
mod config;
pub mod database;
mod draft;
mod envelope;
mod error;
#[cfg(test)]
mod golden;
mod group_record;
mod identity;
mod keys;
mod latch;
mod metrics;
mod opening;
mod options;
mod reader;
mod recover;
mod replay;
mod salvage;
mod seats;
mod store;
mod truncate;
mod wal_scan;
mod watermark;

pub use config::WalConfig;
pub use error::{CorruptRecord, LostLog, OpenError};
pub use store::WalStore;
