//! The seams: what raftstore asks of disk, network, clock, state machine, and snapshot files.
//!
//! Object-safe traits whose methods take batches, bundled in one `Env`, passed once. Each has an in-memory
//! twin (`mem`) and a contract suite (`testing`) that twin and adapter both pass.
//! Leaves to others: everything that is not a promise between raftstore and its surroundings.

mod clock;
mod gate;
mod log_store;
mod snapshot_files;
mod state_machine;
mod transport;

pub use clock::{Clock, Instant};
pub use gate::{Admission, Beacon, Gatekeeper, Hello, Listing, Refusal};
pub use log_store::{
    Creation, Durable, Fetch, GroupOp, GroupWrite, Install, LoadError, LogBatch, LogStore, MetaWrite, ReadLogError,
    Recovered, StoredGroup, Tombstone, Truncation, WriteFailed, meta_keys,
};
pub use snapshot_files::{SnapshotFiles, SpoolReader, SpoolWriter};
pub use state_machine::{
    Answers, ApplyMeta, ApplyRun, DurablePositions, Machine, MachineKind, Meta, Reader, SmError, SnapshotInput,
    SnapshotOutput, SnapshotPart, SnapshotSource, Stage,
};
pub use transport::{BadFrame, Destination, Inbound, Lane, LinkState, PeerIdentity, SendError, Transport};

use std::collections::BTreeMap;
use std::sync::Arc;

/// All seams of one node.
#[derive(Clone)]
pub struct Env {
    /// The one log store of all groups.
    pub log: Arc<dyn LogStore>,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// State-machine kinds by name.
    pub kinds: BTreeMap<String, Arc<dyn MachineKind>>,
    /// Where snapshots are spooled and kept.
    pub files: Arc<dyn SnapshotFiles>,
}
