//! The seam to the log store: one atomic, synced write for all groups; reads off the pollers.
//!
//! Leaves to others: consensus (the store writes what it is told), state-machine data, sockets.
//! Invariant: what `write` returned `Ok` for with `sync` set is there after any crash; after an `Err` every
//! later call fails (the store is poisoned, law 7).

use crate::ids::{Generation, GroupId, Index, LogPos, NodeId, ReplicaId, StoreSeq, Term};
use bytes::Bytes;
use pontoon_raft::{ConfState, Entry, EntryRun, HardState};

/// Everything that one turn (or several merged ones) changes, for all groups. Applied in order, atomically.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogBatch {
    /// Changes of groups, in order; one group may occur several times.
    pub writes: Vec<GroupWrite>,
    /// Records of the node itself.
    pub meta: Vec<MetaWrite>,
    /// Return only when durable. False only if nothing here carries a promise (a commit alone, a truncation).
    pub sync: bool,
}

/// One change of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupWrite {
    /// The group.
    pub group: GroupId,
    /// The replica that is meant; a record of another one is garbage of a destroyed replica.
    pub replica: ReplicaId,
    /// What changes.
    pub op: GroupOp,
}

/// A change of a replica's stored state.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupOp {
    /// Birth. Replaces a tombstone of a lower replica id. The log begins behind `creation.birth`, hard state as given.
    Create {
        /// The creation record.
        creation: Box<Creation>,
        /// First hard state.
        hard_state: HardState,
    },
    /// What one Ready asks for. Entries are consecutive; from the first index on they replace what was stored.
    Append {
        /// May be empty.
        entries: EntryRun,
        /// If it changed. Never omitted when the commit known at this append moved (law 1).
        hard_state: Option<HardState>,
    },
    /// Drop entries up to and including `upto.pos.index`; the ConfState there becomes the truncation point's.
    Truncate(Truncation),
    /// A snapshot is about to be restored under the next generation (boot.md 5, step 2).
    Intent(Box<Install>),
    /// The restore is durable: log emptied, truncation point = commit = the install's position, generation taken,
    /// intent gone (boot.md 5, step 4).
    Install {
        /// Same as in the intent.
        install: Box<Install>,
        /// Hard state of the Ready that carried the snapshot.
        hard_state: HardState,
    },
    /// The intent is void (crash before the restore ended).
    DropIntent,
    /// The replica goes; a tombstone stays: ids below `next_replica` are never accepted again.
    Destroy {
        /// Lowest replica id that may be born here later.
        next_replica: ReplicaId,
    },
}

impl GroupOp {
    /// Entries that it appends.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.run().map_or(&[], |run| run)
    }

    fn run(&self) -> Option<&EntryRun> {
        match self {
            GroupOp::Append { entries, .. } => Some(entries),
            _ => None,
        }
    }
}

impl LogBatch {
    /// Nothing to write?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.meta.is_empty()
    }

    /// Payload of all entries. Bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.runs().map(EntryRun::payload_size).sum()
    }

    /// All entries in encoded form. Bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        self.runs().map(EntryRun::encoded_size).sum()
    }

    fn runs(&self) -> impl Iterator<Item = &EntryRun> {
        self.writes.iter().filter_map(|w| w.op.run())
    }
}

/// Truncation point: the last entry dropped and the configuration there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truncation {
    /// Last entry that is gone.
    pub pos: LogPos,
    /// Configuration at that entry.
    pub conf_state: ConfState,
}

/// How a replica came into being (boot.md 3). Survives until the replica is destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// State-machine kind.
    pub kind: String,
    /// Digest of the birth spec (group, kind, voters, learners); equal on all initial voters.
    pub digest: u64,
    /// Initial voters and learners: replica id, node. Ids are 1..n in node-id order, voters first.
    pub members: Vec<(ReplicaId, NodeId)>,
    /// Configuration at birth.
    pub conf_state: ConfState,
    /// Position before the first entry.
    pub birth: LogPos,
}

/// A snapshot install: recorded before the restore begins and again when it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Install {
    /// Position of the snapshot.
    pub pos: LogPos,
    /// Configuration there.
    pub conf_state: ConfState,
    /// Opaque replica record of the machine at that position (`codec::ReplicaRecord`).
    pub record: Bytes,
    /// The generation that the restored contents get.
    pub generation: Generation,
}

/// A record of the node itself: identity, peers' incarnations. Keys are short ASCII names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaWrite {
    /// At most 64 bytes.
    pub key: Bytes,
    /// `None` deletes.
    pub value: Option<Bytes>,
}

/// Proof that a batch is on disk (if it asked for a sync). Only a `LogStore` makes one.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    seq: StoreSeq,
}

impl Durable {
    /// For log stores only: attests that the write and its sync have returned.
    pub fn attest(seq: StoreSeq) -> Durable {
        Durable { seq }
    }

    /// The store's sequence number after the write.
    pub fn seq(&self) -> StoreSeq {
        self.seq
    }
}

/// A range of a group's log to read: `[low, high)`, at most `max_bytes` of encoded size but at least one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The group.
    pub group: GroupId,
    /// First index wanted.
    pub low: Index,
    /// First index not wanted.
    pub high: Index,
    /// Encoded bytes.
    pub max_bytes: u64,
}

/// What `load` finds.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Node records.
    pub meta: Vec<(Bytes, Bytes)>,
    /// Living replicas, ascending by group.
    pub groups: Vec<StoredGroup>,
    /// Destroyed replicas.
    pub tombstones: Vec<Tombstone>,
}

/// One replica as the log store holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredGroup {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Generation of the machine's living contents.
    pub generation: Generation,
    /// Birth record.
    pub creation: Creation,
    /// Hard state as stored last.
    pub hard_state: HardState,
    /// Birth or truncation point: the log's entries begin behind it.
    pub truncated: Truncation,
    /// Last entry; `truncated.pos` if there is none.
    pub last: LogPos,
    /// Term runs of the stored entries: (first index, term), ascending.
    pub terms: Vec<(Index, Term)>,
    /// An install that was begun and not recorded as done.
    pub intent: Option<Install>,
    /// Bytes of payload in the log, roughly: for truncation by size.
    pub bytes: u64,
}

/// A destroyed replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The group.
    pub group: GroupId,
    /// Lowest replica id that may be born here.
    pub next_replica: ReplicaId,
}

/// The write or its sync failed: the store is poisoned and the node must stop promising anything.
#[derive(Debug, Clone, thiserror::Error)]
#[error("log store write failed, nothing is promised any more: {0}")]
pub struct WriteFailed(pub String);

/// Why a read has no entries.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadLogError {
    /// Send a snapshot instead.
    #[error("log starts at {first}")]
    Truncated {
        /// First index that is there.
        first: Index,
    },
    /// Nothing there: a bug of the caller, or a replica destroyed meanwhile.
    #[error("log of group {0} ends before the range")]
    Missing(GroupId),
    /// Quarantine the replica.
    #[error("log of group {group} is corrupt at {index}: {what}")]
    Corrupt {
        /// The group.
        group: GroupId,
        /// The first bad index.
        index: Index,
        /// Expected and found.
        what: String,
    },
    /// The node stops.
    #[error("log store is poisoned")]
    Poisoned,
}

/// Why nothing can be recovered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A record that recovery read is damaged: refuse to start.
    #[error("log store is corrupt: {0}")]
    Corrupt(String),
    /// The disk does not answer.
    #[error("log store cannot be read: {0}")]
    Io(String),
}

/// The one log store of a node.
pub trait LogStore: Send + Sync {
    /// One atomic write of the whole batch; durable on return if `batch.sync`. Called by one thread at a time.
    /// After an `Err` every later call of any method fails with the poisoned variant.
    fn write(&self, batch: &LogBatch) -> Result<Durable, WriteFailed>;
    /// One answer per fetch, in order. Never called from a poller's turn.
    fn read(&self, fetches: &[Fetch]) -> Vec<Result<Vec<Entry>, ReadLogError>>;
    /// Everything that open found, in one pass; called once, before the first write.
    fn load(&self) -> Result<Recovered, LoadError>;
    /// Sequence number that open recovered.
    fn recovered_seq(&self) -> StoreSeq;
    /// Sequence number of the last completed synced write.
    fn synced_seq(&self) -> StoreSeq;
    /// Bytes of log that are live (for throttling proposals); an estimate.
    fn live_bytes(&self) -> u64;
}

const _: fn(&dyn LogStore) = |_| {};

/// Names used by `MetaWrite` keys, in one place.
pub mod meta_keys {
    /// `codec::NodeRecord`: cluster, node, incarnation, admitted, digest.
    pub const NODE: &[u8] = b"node";
    /// Boot epoch counter and nonce.
    pub const EPOCH: &[u8] = b"epoch";
    /// Prefix of what is known of a peer; the node id follows, 8 bytes big-endian.
    pub const PEER: &[u8] = b"peer/";
}
