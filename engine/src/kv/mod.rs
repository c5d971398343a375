//! A key-value store as a kind of groups: one RocksDB without a WAL of its own, shared by all groups of the kind.
//!
//! The raft log is its WAL: after a crash the log is replayed from the position that lies beside the data, in the same
//! atomic write. Start with `store::KvStore`, then `machine`. Keys: `keys`; byte forms: `command`, `snapshot`.
//! Leaves to others: which keys belong to which group (the host). Invariant: position and data never part.

mod command;
#[cfg(test)]
mod contract;
mod db;
mod durable;
mod keys;
mod machine;
mod reader;
mod response;
mod snapshot;
mod store;

pub use command::{BadCommand, KvCommand, KvResponse, When};
pub use db::KvOptions;
pub use machine::{KvMachine, KvStage};
pub use reader::{KvDigest, KvReader};
pub use snapshot::KvSnapshot;
pub use store::KvStore;
