//! Pontoon's consensus core, after etcd raft: pure.
//!
//! There is no clock, thread, socket, file, log line, global or hash order in this crate, and nothing
//! here knows what a group or a node is. A [`RawNode`] is one replica: events go in, work comes out, and a
//! driver does the work. Errors leave the replica as it was; [`StepError::is_corruption`] and [`StartError`]
//! prove lost data: quarantine the replica, repair nothing.
//!
//! # The driver's contract
//!
//! 1. **Events in.** [`RawNode::step`] for messages, `propose*`, `campaign`, `transfer_leader`, `read_index`,
//!    `report_*`. Each takes `now`, a count of ticks that the driver derives from its clock. None fires a deadline.
//! 2. **Time.** Call [`RawNode::tick`] at [`RawNode::next_deadline`], asked again after every batch of events.
//!    Any number of idle ticks are one call; a late call fires once.
//! 3. **Work out.** While [`RawNode::has_ready`]: take a [`Ready`]. Taking is accepting: it will not be offered again.
//! 4. **Persist** `snapshot` (it empties the log behind it), then `entries` (they replace everything from the first
//!    one's index on), then `hard_state`, atomically. `must_sync`: and sync. Until then [`Storage`] may or may not
//!    show them; it must when they are reported.
//! 5. **Apply** `committed_entries` in order. Each membership change among them goes to
//!    [`RawNode::apply_conf_change`] when it is applied, in log order, with the group's other replicas doing the same,
//!    before the next [`RawNode::step`]: a snapshot that came between would replace the membership it belongs to.
//! 6. **Reads**: serve a `read_states` item once its index is applied.
//!
//! *Asynchronous mode* (`Config::async_storage_writes`), for drivers that write many groups at once:
//!
//! - Send `messages` at once, before the write: nothing in them rests on it. Acks, votes and vote requests are held back.
//! - Any number of `Ready`s may be under way. When all up to `number` are durable, in order, call
//!   [`RawNode::on_persisted`] with the latest number that `awaits_persist` (a later one covers it): the core steps its
//!   own acks and pushes what may leave now. A `Ready` may await earlier writes without writing anything itself.
//! - When entries handed out are applied, call [`RawNode::on_applied`]; pages stay within
//!   `Config::max_committed_size_per_ready` over all unreported ones. Committed entries are offered once stable here.
//!   What was handed out before a snapshot is reported, too, with the snapshot's index at the latest.
//! - After a failed write call nothing more: drop the replica.
//!
//! *Synchronous mode*, for tests: persist, send, apply, then [`RawNode::advance`], before the next `Ready`.
//!
//! **Entries not in memory.** If the storage answers [`StorageError::Uncached`], nothing is sent and nothing fails:
//! [`RawNode::take_fetches`] names what is wanted and for whom; fetch it in the background, put it where
//! [`Storage::entries`] finds it, call [`RawNode::resume_append`] (the own id stands for the own applying).
//!
//! **Snapshots.** The core decides that one is due, [`Storage::snapshot`] names the newest one, and the contents travel
//! outside; tell [`RawNode::report_snapshot`] how that ended. A received one arrives as `Ready::snapshot`.
//!
//! Given the same configuration (its seed included), storage and calls, a replica does the same to the byte.
//! `Config::strict` refuses what the original accepts and then dies of, and closes a hole of its asynchronous mode (vote
//! requests that leave before the own term is durable); only transcripts of the original switch it off.

mod bootstrap;
mod check;
mod conf_change;
pub mod confchange;
mod config;
mod election;
mod entries;
mod entry;
mod entry_run;
mod error;
mod fingerprint;
mod ids;
mod in_flight;
mod invariants;
mod log;
mod mem_storage;
mod membership;
mod message;
pub mod mutant;
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

pub use bootstrap::{BootstrapError, Peer};
pub use conf_change::{
    BadConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV1, ConfChangeV2,
    Protocol,
};
pub use confchange::ConfChangeError;
pub use config::{Config, ReadMode};
pub use entries::Entries;
pub use entry::{Entry, EntryKind, varint_len};
pub use entry_run::EntryRun;
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
