//! Pontoon's consensus core, after etcd raft: pure.
//!
//! There is no clock, thread, socket, file, log line, global or hash order in this crate, and nothing
//! here knows what a group or a node is.

mod config;
mod entry;
mod ids;
mod message;
mod state;
mod storage;

pub use config::{Config, ReadMode};
pub use entry::{Entry, EntryKind, varint_len};
pub use ids::{Index, LogPos, ReplicaId, Term, Tick};
pub use message::{Append, AppendResp, Body, Message, StorageAppend, VoteRequest};
pub use state::{ConfState, HardState, Snapshot, SnapshotMeta, SoftState, StateRole};
pub use storage::{InitialState, Storage, StorageError};
