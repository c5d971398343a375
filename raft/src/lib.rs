//! Pontoon's consensus core, after etcd raft: pure.
//!
//! There is no clock, thread, socket, file, log line, global or hash order in this crate, and nothing
//! here knows what a group or a node is.

mod check;
mod conf_change;
pub mod confchange;
mod config;
mod election;
mod entry;
mod error;
mod ids;
mod in_flight;
mod invariants;
mod log;
mod mem_storage;
mod membership;
mod message;
pub mod quorum;
mod raft;
mod raw_node;
mod read_index;
mod ready;
mod replication;
mod roles;
mod snapshot;
mod state;
mod status;
mod step;
mod storage;
mod trace;
pub mod tracker;
mod transfer;

pub use conf_change::{
    BadConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV1, ConfChangeV2,
    Protocol,
};
pub use confchange::ConfChangeError;
pub use config::{Config, ReadMode};
pub use entry::{Entry, EntryKind, varint_len};
pub use error::{ConfigProblem, StartError, StepError};
pub use ids::{Index, LogPos, ReplicaId, Term, Tick};
pub use mem_storage::{MemStorage, SnapshotOutOfDate};
pub use message::{Append, AppendResp, Body, Message, MessageKind, StorageAppend, VoteRequest};
pub use raw_node::RawNode;
pub use ready::{Fetch, ReadState, Ready, ReadyNumber};
pub use state::{ConfState, HardState, Snapshot, SnapshotMeta, SoftState, StateRole};
pub use status::{BasicStatus, FlowState, ProgressStatus, Status};
pub use storage::{InitialState, Storage, StorageError};
pub use trace::{ConfChangeRefusal, LogPointers, Trace, VoteTrace};
