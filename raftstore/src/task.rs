//! What the active objects say to each other: plain values, one enum per inbox.
//!
//! Poller <-> log writer, applier, log reader, snapshotter. Nothing here decides anything.
//! Invariant: work goes out as a value and comes back as an event that names group, replica and generation.

use crate::codec::ReplicaRecord;
use crate::env::{
    Creation, Destination, Install, LogBatch, Machine, PeerIdentity, ReadLogError, Reader, SnapshotSource, StoredGroup,
};
use crate::error::LifecycleError;
use crate::group_spec::GroupSpec;
use crate::ids::{BatchSeq, Generation, GroupId, Incarnation, Index, LogPos, NodeId, PollerId, ReplicaId, SpoolId};
use crate::page::Page;
use crate::proposal::{AdminSlot, Proposal, ReadRequest, ReplyTo};
use crate::reconfigure::Target;
use bytes::Bytes;
use pontoon_raft::{Body, Entries, Entry, Message};
use std::sync::Arc;

/// A raft message with its address: group and both replica ids are in `message`, the epoch is reserved for
/// split and merge (0 for now).
#[derive(Clone, Debug, PartialEq)]
pub struct GroupMessage {
    /// The group.
    pub group: GroupId,
    /// The group's epoch; 0 until split and merge exist.
    pub epoch: u64,
    /// Digest of the birth spec, while the group's first entry is not applied at the sender (boot.md 3); else 0. Always
    /// with `Aside::Removed`.
    pub birth: u64,
    /// What the envelope says beside the message.
    pub aside: Aside,
    /// The message.
    pub message: Message,
}

impl GroupMessage {
    /// Is it a heartbeat or the answer to one, and nothing else?
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        let beats = matches!(self.message.body, Body::Heartbeat { .. } | Body::HeartbeatResp { .. });
        beats && matches!(self.aside, Aside::Nothing)
    }
}

/// What an envelope says beside its message.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Aside {
    /// Nothing.
    #[default]
    Nothing,
    /// From a leader to a replica that it has not heard of in this term: it may not be born yet.
    Invitation(Box<Invitation>),
    /// The receiver's removal was applied at the sender, and nobody needs it any more: it may be destroyed. The message
    /// itself says nothing.
    Removed {
        /// Index of the sender's configuration.
        conf: Index,
    },
    /// From a replica that was removed or hears of no leader: may it go? And this entry is committed, which perhaps nobody
    /// who may lead knows. The message itself says nothing.
    Committed(LogPos),
}

/// All that a replica needs to be born by a message (boot.md 3).
#[derive(Clone, Debug, PartialEq)]
pub struct Invitation {
    /// The group's creation record, the same on each of its replicas.
    pub creation: Arc<Creation>,
    /// The disk on which the sender's configuration has the receiver; 0: not named yet.
    pub disk: Incarnation,
}

/// What a poller's inbox takes.
pub enum PollerMsg {
    /// A caller's command.
    Propose(Proposal),
    /// Commands of one caller, for any groups of this poller, in the order in which they were handed in.
    ProposeAll(Vec<Proposal>),
    /// A caller's linearizable read.
    Read(ReadRequest),
    /// Messages of one frame for groups of this poller.
    Peer {
        /// Proven by the handshake.
        from: PeerIdentity,
        /// In order.
        messages: Vec<GroupMessage>,
        /// What they weigh in the node's budget; given back after the step.
        bytes: u64,
    },
    /// A peer cannot be reached: raft is told for each group that talks to it.
    Unreachable(NodeId),
    /// A link to this disk of a node came up.
    Linked(PeerIdentity),
    /// The log writer is done with this poller's batch (and all before).
    Persisted(BatchSeq),
    /// The log store is poisoned: nothing is promised any more.
    Poisoned(String),
    /// An applier is done.
    Applied(Vec<Applied>),
    /// The log reader is done.
    Fetched(Fetched),
    /// What a snapshot did.
    Snapshot(SnapshotEvent),
    /// What survives a crash in the machines, per replica of this poller.
    Durable(Vec<(GroupId, ReplicaId, Generation, LogPos)>),
    /// Lifecycle and administration.
    Control(Control),
}

/// Lifecycle and administration of one group.
pub enum Control {
    /// Take over a replica that boot or creation prepared.
    Adopt(Box<Newborn>),
    /// Destroy the replica; the tombstone says which ids may follow.
    Destroy {
        /// The group.
        group: GroupId,
        /// Called when the tombstone is durable.
        done: Arc<dyn AdminSlot>,
    },
    /// Hand the leadership over; `None`: to whoever is most up to date.
    Transfer {
        /// The group.
        group: GroupId,
        /// To which node.
        to: Option<NodeId>,
        /// Result.
        done: Arc<dyn AdminSlot>,
    },
    /// Campaign now (preferred first candidate of a new group).
    Campaign(GroupId),
    /// Take a snapshot (volatile machines keep it; others spool nothing).
    SnapshotNow {
        /// The group.
        group: GroupId,
        /// Result.
        done: Arc<dyn AdminSlot>,
    },
    /// Change the members; answered with `AdminDone::Reconfigured` once the new configuration stands.
    Reconfigure {
        /// The group.
        group: GroupId,
        /// Who the members are to be.
        target: Target,
        /// Result.
        done: Arc<dyn AdminSlot>,
    },
    /// Give the change of members up that is under way.
    AbortReconfigure {
        /// The group.
        group: GroupId,
        /// Result.
        done: Arc<dyn AdminSlot>,
    },
    /// Refuse new work, fail what waits, stop.
    Stop,
}

/// A replica with everything that boot found out, ready to be stepped.
pub struct Newborn {
    /// The log as recovered.
    pub stored: StoredGroup,
    /// The machine's record: applied position, configuration, replica map.
    pub record: ReplicaRecord,
    /// Entries at the tail, for the cache; may be empty.
    pub tail: Vec<Entry>,
    /// Seed of the election jitter.
    pub seed: u64,
    /// Campaign at once?
    pub campaign: bool,
}

/// Committed entries of one group for its machine, with the slots that wait for them.
pub struct ApplyTask {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// The machine's generation.
    pub generation: Generation,
    /// Consecutive committed entries, durable here.
    pub entries: Entries,
    /// Who waits: ascending by index.
    pub waiting: Vec<(Index, ReplyTo)>,
    /// The replica record after the last entry, but for `applied`, which is that entry: written with the data.
    pub record: Arc<ReplicaRecord>,
}

/// What an applier's inbox takes.
pub enum ApplierMsg {
    /// Take over a machine.
    Open {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// Its generation.
        generation: Generation,
        /// Kind's name.
        kind: String,
        /// The machine.
        machine: Box<dyn Machine>,
        /// Owner of the replica.
        poller: PollerId,
        /// Applied position and configuration of the machine's contents.
        record: Box<ReplicaRecord>,
    },
    /// Apply, in this order.
    Apply(Vec<ApplyTask>),
    /// Take an O(1) handle and hand it to the snapshotter.
    Snapshot {
        /// The group.
        group: GroupId,
        /// Why.
        purpose: SnapshotPurpose,
    },
    /// Restore a spooled snapshot.
    Restore(RestoreTask),
    /// Take a `Keep` snapshot of each volatile machine that has applied something since its last one.
    KeepDirty,
    /// The `Keep` snapshot of this group was not made: it stays dirty.
    StillDirty(GroupId),
    /// `commit` or `durable` of this kind failed: all its replicas here are quarantined (boot.md 7).
    FailKind {
        /// Kind's name.
        kind: String,
        /// What it said.
        why: String,
    },
    /// A replica that does not run from the start: what is left of it goes when it is destroyed.
    Stopped {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// Kind's name.
        kind: String,
        /// Whose contents may be there.
        generations: Vec<Generation>,
    },
    /// The replica's tombstone is durable: delete its contents, then what is spooled for it.
    Destroy {
        /// The group.
        group: GroupId,
        /// Lowest id that may follow.
        next_replica: ReplicaId,
    },
    /// Stop after what is queued.
    Stop,
}

/// What an applier did.
pub enum Applied {
    /// Everything up to `index` is committed in the machine and answered.
    Upto {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// Last applied index.
        index: Index,
    },
    /// A restore ended: durable under the new generation.
    Restored {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// What was installed.
        install: Box<Install>,
        /// The new contents' read view.
        reader: Reader,
    },
    /// The replica is quarantined: its machine failed. Its waiters were answered `OutcomeUnknown`.
    Failed {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// What the machine said.
        why: String,
    },
}

impl Applied {
    /// The group that it is about.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Applied::Upto { group, .. } | Applied::Restored { group, .. } | Applied::Failed { group, .. } => *group,
        }
    }
}

/// A catch-up read, off the pollers.
pub struct FetchTask {
    /// Where the answer goes.
    pub poller: PollerId,
    /// The range.
    pub fetch: crate::env::Fetch,
    /// For which follower.
    pub follower: ReplicaId,
}

/// What the log reader's inbox takes.
pub enum LogReaderMsg {
    /// Read.
    Fetch(FetchTask),
    /// Stop. What waits is not read.
    Stop,
}

/// A catch-up read's result.
pub struct Fetched {
    /// The group.
    pub group: GroupId,
    /// For which follower.
    pub follower: ReplicaId,
    /// Entries from the asked index on, or why not.
    pub entries: Result<Page, ReadLogError>,
}

/// A spooled snapshot that takes the place of a machine's contents, under `install.generation`; its intent is durable.
pub struct RestoreTask {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// What is installed.
    pub install: Box<Install>,
    /// The verified spool.
    pub spool: SpoolId,
    /// Its bytes.
    pub size: u64,
}

/// Why a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPurpose {
    /// A follower needs it: spooled, sent, removed after the last send.
    Send,
    /// A volatile machine's own: synced and published, the log may be truncated behind it.
    Keep,
}

/// A spooled snapshot that stands ready on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Spooled {
    /// The file.
    pub spool: SpoolId,
    /// Bytes.
    pub size: u64,
    /// Position and configuration.
    pub meta: pontoon_raft::SnapshotMeta,
    /// The replica record at that position, encoded.
    pub record: Bytes,
}

/// What the snapshotter's inbox takes.
pub enum SnapshotTask {
    /// Write a handle to a spool.
    Build {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// Owner of the replica.
        poller: PollerId,
        /// Why.
        purpose: SnapshotPurpose,
        /// Record at the handle's position.
        record: ReplicaRecord,
        /// The handle.
        source: Box<dyn SnapshotSource>,
    },
    /// The machine could not give a handle.
    BuildFailed {
        /// The group.
        group: GroupId,
        /// Owner of the replica.
        poller: PollerId,
        /// Why it was asked.
        purpose: SnapshotPurpose,
        /// What it said.
        why: String,
    },
    /// Stream a spool to a node, then the raft message with it.
    Send {
        /// Owner of the sending replica.
        poller: PollerId,
        /// To which node and disk.
        to: Destination,
        /// The MsgSnap.
        message: Box<GroupMessage>,
        /// The spool.
        spooled: Box<Spooled>,
    },
    /// A chunk or an ack from a peer.
    Frame {
        /// Proven by the handshake.
        from: PeerIdentity,
        /// `codec::SnapshotFrame`.
        body: Bytes,
    },
    /// The applier has published a received spool as a volatile machine's own snapshot (boot.md 5, step 3).
    Kept {
        /// The file.
        spool: SpoolId,
        /// The restored replica's record: group, replica, generation, position.
        record: Box<ReplicaRecord>,
        /// Owner of the replica.
        poller: PollerId,
    },
    /// A replica was destroyed: remove what is kept of it.
    Forget {
        /// The group.
        group: GroupId,
        /// Lowest id that may follow. What arrives for it stays.
        next_replica: ReplicaId,
    },
    /// A spool is no longer needed here.
    Drop(SpoolId),
    /// Stop.
    Stop,
}

/// How a stream of a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendEnd {
    /// Delivered whole.
    Done,
    /// There is no room for it now, here or there: the same snapshot may be sent later.
    Refused,
    /// It did not arrive, or not as it was: another one is needed.
    Failed,
}

/// What a snapshot did, for the poller that owns the replica.
pub enum SnapshotEvent {
    /// Built, or not.
    Built {
        /// The group.
        group: GroupId,
        /// Why it was asked.
        purpose: SnapshotPurpose,
        /// The spool, or what went wrong.
        result: Result<Box<Spooled>, String>,
    },
    /// Nothing was built: the kind keeps its contents by itself, and is asked to make them durable now.
    KeepsItself {
        /// The group.
        group: GroupId,
        /// The replica that was asked.
        replica: ReplicaId,
        /// Applied when it was asked.
        upto: LogPos,
    },
    /// A stream ended: the core's report_snapshot.
    Sent {
        /// The group.
        group: GroupId,
        /// To which replica.
        to: ReplicaId,
        /// How.
        end: SendEnd,
    },
    /// A snapshot arrived whole and verified; step its message. The spool belongs to the replica now.
    Received {
        /// Proven by the handshake.
        from: PeerIdentity,
        /// The MsgSnap.
        message: Box<GroupMessage>,
        /// The spool.
        spooled: Box<Spooled>,
    },
}

impl SnapshotEvent {
    /// The group that it is about.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            SnapshotEvent::Built { group, .. }
            | SnapshotEvent::KeepsItself { group, .. }
            | SnapshotEvent::Sent { group, .. } => *group,
            SnapshotEvent::Received { message, .. } => message.group,
        }
    }

    /// The spool that comes with it and is nobody else's: dropped if the replica is gone.
    #[must_use]
    pub fn spool(&self) -> Option<SpoolId> {
        match self {
            SnapshotEvent::Built { purpose: SnapshotPurpose::Send, result: Ok(spooled), .. } => Some(spooled.spool),
            SnapshotEvent::Received { spooled, .. } => Some(spooled.spool),
            SnapshotEvent::Built { .. } | SnapshotEvent::KeepsItself { .. } | SnapshotEvent::Sent { .. } => None,
        }
    }
}

/// Who hands batches to the log writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteOrigin {
    /// A poller's turn.
    Poller(PollerId),
    /// Creation of groups, and node records.
    Lifecycle,
}

/// What the log writer's inbox takes.
pub enum WriterMsg {
    /// One turn's batch of one poller.
    Write {
        /// Who is told when it is durable.
        origin: WriteOrigin,
        /// Its number, ascending per origin.
        seq: BatchSeq,
        /// What to write.
        batch: LogBatch,
    },
    /// Stop after what is queued.
    Stop,
}

/// Where the result of a creation or destruction goes.
pub trait LifecycleSlot: Send + Sync {
    /// The group stands (or is gone) durably on this node, or why not.
    fn done(&self, result: Result<(), LifecycleError>);
}

/// What lifecycle's inbox takes.
pub enum LifecycleMsg {
    /// Create this node's replica of a group. Idempotent: the same spec again is `Ok`.
    Create {
        /// Equal on all initial voters.
        spec: GroupSpec,
        /// Result.
        done: Arc<dyn LifecycleSlot>,
    },
    /// Destroy this node's replica.
    Destroy {
        /// The group.
        group: GroupId,
        /// Result.
        done: Arc<dyn LifecycleSlot>,
    },
    /// The owner has made the tombstone durable (or could not).
    Buried {
        /// The group.
        group: GroupId,
        /// Lowest replica id that may be born here later, or what went wrong.
        result: Result<ReplicaId, crate::error::AdminError>,
    },
    /// This replica was removed from its group and nobody needs it any more: destroy it.
    Dismissed {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// A batch of `WriteOrigin::Lifecycle` is durable, and all before it.
    Persisted(BatchSeq),
    /// The log store is poisoned.
    Poisoned(String),
    /// Messages for a group without a replica here.
    Unknown {
        /// Proven by the handshake.
        from: PeerIdentity,
        /// The message that found nobody.
        message: Box<GroupMessage>,
    },
    /// Refuse new work, stop.
    Stop,
}

/// What durability's inbox takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityMsg {
    /// Enough was applied since the last report, or somebody waits for it: ask the machines now.
    Ask,
    /// Stop.
    Stop,
}
