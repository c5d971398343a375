//! The seam to state machines, with the user's types forgotten (the engine's `erased` adapter keeps them).
//!
//! Called on applier threads; `SnapshotSource::write_to` on the snapshot thread. One group never on two at once.
//! Invariant: until `MachineKind::commit` returns `Ok`, `apply` has no effect outside the stage (boot.md 7).

use crate::arrivals::Wakeups;
use crate::ids::{Generation, GroupId, LogPos, ReplicaId};
use crate::proposal::ReplyTo;
use bytes::Bytes;
use pontoon_raft::Entry;
use std::any::Any;
use std::io;
use std::sync::Arc;

/// Opaque pairs that ride in the machine's own atomic write.
pub type Meta = Vec<(Bytes, Bytes)>;

/// What `ApplyRun::finish` hands to the machine: to be written with the data, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyMeta {
    /// Pairs to put; the replica record is one of them.
    pub puts: Meta,
    /// Keys to delete.
    pub deletes: Vec<Bytes>,
}

/// Why a state machine failed. Any variant quarantines the replica, never the process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmError {
    /// A snapshot was cancelled by the engine.
    #[error("cancelled")]
    Cancelled,
    /// The data contradicts itself.
    #[error("corruption: {0}")]
    Corruption(String),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What one applier turn collects over all groups of a kind.
pub type Stage = Box<dyn Any + Send>;
/// Typed responses of one `apply`, until the commit releases them.
pub type Answers = Box<dyn Any + Send>;
/// A concurrent read view, used off the apply thread.
pub type Reader = Arc<dyn Any + Send + Sync>;

/// A committed run of one group: normal entries with a payload, in order, as they lie in the log.
pub struct ApplyRun<'a> {
    /// Each is a position and a command.
    pub entries: &'a [&'a Entry],
    /// What to write beside the data (known before the run: the position after it).
    pub meta: &'a ApplyMeta,
}

/// One replica's state machine.
pub trait Machine: Send {
    /// The meta pairs found in the data; empty = new.
    fn recover(&mut self) -> Result<Meta, SmError>;
    /// Stages a run and its meta; returns the typed answers, one per entry.
    fn apply(&mut self, stage: &mut Stage, run: &ApplyRun<'_>) -> Result<Answers, SmError>;
    /// Releases answers after the commit: each waiter with the place of its entry in the run, ascending. Who sleeps until a
    /// batch of answers has come may be woken with those of other groups.
    fn reply(&self, answers: Answers, waiting: Vec<(usize, LogPos, ReplyTo)>, wakeups: &mut Wakeups);
    /// A concurrent read view.
    fn reader(&self) -> Reader;
    /// O(1): a handle on the state after what was committed last.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, SmError>;
    /// Replaces everything by the stream's contents and meta, under the generation the machine was opened with; for durable
    /// kinds durable once `MachineKind::persist` has returned. A crash before that leaves no meta without all that it covers.
    fn restore(&mut self, from: &mut dyn SnapshotInput) -> Result<(), SmError>;
    /// Deletes the contents (may finish in the background). Asked also of one that was only opened, in the place of one that
    /// failed.
    fn destroy(self: Box<Self>) -> Result<(), SmError>;
}

/// One kind of group and the storage that its groups share.
pub trait MachineKind: Send + Sync {
    /// Do its contents survive a restart by themselves? False: the engine keeps snapshots.
    fn is_durable(&self) -> bool;
    /// Opens (or begins) the contents of exactly this generation; everything else of the group is not read. Deletes
    /// nothing: during an install two generations stand side by side (boot.md 5); garbage goes by `retain` and `destroy`.
    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation) -> Result<Box<dyn Machine>, SmError>;
    /// An empty stage.
    fn stage(&self) -> Stage;
    /// Makes what one applier turn staged visible, all groups in one write.
    fn commit(&self, stage: Stage) -> Result<(), SmError>;
    /// Makes durable what machines restored since the last call, for many at once. On an applier thread.
    fn persist(&self) -> Result<(), SmError>;
    /// Positions that survive a crash now, per replica, after a background flush. On a thread of its own.
    fn durable(&self, since: &mut DurablePositions) -> Result<(), SmError>;
    /// After all groups were opened at boot: the replicas that exist; everything else of the kind is garbage.
    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError>;
}

/// Filled by `durable`: replica and the meta pairs that survive a crash for it.
#[derive(Debug, Default)]
pub struct DurablePositions {
    /// Per replica, the durable meta pairs (the replica record among them).
    pub found: Vec<(GroupId, ReplicaId, Generation, Meta)>,
}

/// A handle on a state, written beside further applies.
pub trait SnapshotSource: Send {
    /// Writes all contents; blocks for back-pressure, `Err(Cancelled)` ends it.
    fn write_to(self: Box<Self>, out: &mut dyn SnapshotOutput) -> Result<(), SmError>;
}

/// Where a snapshot goes.
pub trait SnapshotOutput {
    /// One logical chunk of any size up to 16 MiB.
    fn chunk(&mut self, data: Bytes) -> Result<(), SmError>;
}

/// One part of a snapshot. Files come later; their room in the format is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotPart {
    /// As written by `SnapshotOutput::chunk`.
    Chunk(Bytes),
}

/// Where a snapshot comes from.
pub trait SnapshotInput {
    /// Meta pairs to write with the contents.
    fn meta(&self) -> &Meta;
    /// The next part; `None` at the end.
    fn next(&mut self) -> Result<Option<SnapshotPart>, SmError>;
}

const _: fn(&dyn Machine, &dyn MachineKind) = |_, _| {};
