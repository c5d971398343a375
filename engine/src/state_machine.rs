//! What a user implements: a state machine, the kind that its groups share, and a codec for its answers.
//!
//! Everything here is synchronous and called on threads that the engine owns: `apply` on an applier (one group never
//! on two at once), `write_to` on the snapshot thread, `durable` on a thread of its own.
//! Leaves to others: forgetting the types (`erased`), consensus, when to snapshot and what to truncate (raftstore).
//! Invariant: until `Kind::commit` returns `Ok`, `apply` has no effect outside the stage (boot.md 7).

use bytes::Bytes;
pub use pontoon_raftstore::env::{ApplyMeta, Meta, SmError};
use pontoon_raftstore::env::{
    ApplyRun, DurablePositions, SnapshotInput, SnapshotOutput, SnapshotPart, SnapshotSource as ErasedSource,
};
use pontoon_raftstore::ids::{Generation, GroupId, LogPos, ReplicaId};
use std::path::Path;

/// One replica's state machine.
pub trait StateMachine: Send + Sized + 'static {
    /// What one applier turn collects over all groups of a kind, e.g. a write batch; `()` if there is none.
    type Stage: Default + Send + 'static;
    /// Typed answer to one command.
    type Response: Codec;
    /// Concurrent read view, used on the caller's thread.
    type Reader: Clone + Send + Sync + 'static;
    /// Handle on a state, written out beside further applies.
    type Snapshot: SnapshotSource;
    /// Do the contents survive a restart by themselves? `false`: the engine keeps its own snapshots of this machine,
    /// and boots from the newest and replays.
    const DURABLE: bool = true;

    /// Hands back the meta pairs found in the data; empty = new.
    ///
    /// # Errors
    /// Any error quarantines this replica.
    fn recover(&mut self) -> Result<Meta, SmError>;

    /// A committed run: put changes and what `batch.finish()` returns on the stage, `reply` once to each entry.
    ///
    /// # Errors
    /// Any error, a panic, a missing reply or a missing `finish` quarantines this replica; the stage is dropped and the
    /// other groups' runs are applied again on a fresh one.
    fn apply(&mut self, stage: &mut Self::Stage, batch: &mut Batch<'_, Self::Response>) -> Result<(), SmError>;

    /// A view for readers on other threads; they see what `Kind::commit` has made visible.
    fn reader(&self) -> Self::Reader;

    /// O(1): a handle on the state after what was committed last.
    ///
    /// # Errors
    /// The snapshot is not taken; the replica lives on.
    fn snapshot(&mut self) -> Result<Self::Snapshot, SmError>;

    /// Replaces everything by the stream's contents and `from.meta()`; durable where `DURABLE`: on return, or once
    /// `Kind::persist` has returned. Until then a crash must not leave the meta without all that it covers.
    ///
    /// # Errors
    /// Any error quarantines this replica.
    fn restore(&mut self, from: &mut SnapshotStream<'_>) -> Result<(), SmError>;

    /// Deletes the contents; may finish in the background. Asked also of a machine that was only opened: in the place of one
    /// that failed, whose replica is destroyed.
    ///
    /// # Errors
    /// Reported, no more: what stays is garbage that `Kind::retain` names at the next start.
    fn destroy(self) -> Result<(), SmError> {
        Ok(())
    }
}

/// A handle on a state; runs beside further applies.
pub trait SnapshotSource: Send + 'static {
    /// Writes all contents. Blocks for back-pressure.
    ///
    /// # Errors
    /// `Cancelled` when the engine gave up: pass it on. Any other error fails this snapshot only.
    fn write_to(self, out: &mut SnapshotSink<'_>) -> Result<(), SmError>;
}

/// One kind of group and the storage that its groups share.
pub trait Kind: Send + Sync + 'static {
    /// The machine of its groups.
    type Sm: StateMachine;

    /// Called once by `Builder::open`, when identity and log store are known to be right and before any group is
    /// opened. `dir` is this kind's own and exists.
    ///
    /// # Errors
    /// The node does not start.
    fn start(&self, dir: &Path) -> Result<(), SmError> {
        let _ = dir;
        Ok(())
    }

    /// Opens, or begins, the contents of exactly this generation; everything else of the group is garbage.
    ///
    /// # Errors
    /// Any error quarantines this replica.
    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation, dir: &Path)
    -> Result<Self::Sm, SmError>;

    /// Writes what one applier turn staged, all groups in one write; replies are released after it.
    ///
    /// # Errors
    /// Any error quarantines all replicas of this kind here.
    fn commit(&self, stage: <Self::Sm as StateMachine>::Stage) -> Result<(), SmError>;

    /// Makes durable what `StateMachine::restore` has written and not made durable itself, of all groups at once: a node that
    /// comes back may install thousands of snapshots. Called after each round of them.
    ///
    /// # Errors
    /// Any error quarantines all replicas of this kind here.
    fn persist(&self) -> Result<(), SmError> {
        Ok(())
    }

    /// Reports positions that survive a crash now, after a background flush. Never called on an apply thread.
    ///
    /// # Errors
    /// Any error quarantines all replicas of this kind here.
    fn durable(&self, since: &mut Durable<'_>) -> Result<(), SmError>;

    /// After all groups were opened at boot: these replicas exist, everything else of the kind is garbage.
    ///
    /// # Errors
    /// Logged, no more: garbage is never read.
    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        let _ = living;
        Ok(())
    }

    /// Called once by `Engine::shutdown` after all groups are closed: release files and threads.
    fn stop(&self) {}
}

/// The byte form of a typed answer. Used only where an answer must be remembered (sessions, later).
pub trait Codec: Clone + Send + 'static {
    /// The bytes.
    fn encode(&self) -> Bytes;
    /// The answer again.
    ///
    /// # Errors
    /// `Corruption` if the bytes make no sense.
    fn decode(bytes: Bytes) -> Result<Self, SmError>;
}

impl Codec for () {
    fn encode(&self) -> Bytes {
        Bytes::new()
    }
    fn decode(_: Bytes) -> Result<(), SmError> {
        Ok(())
    }
}

impl Codec for Bytes {
    fn encode(&self) -> Bytes {
        self.clone()
    }
    fn decode(bytes: Bytes) -> Result<Bytes, SmError> {
        Ok(bytes)
    }
}

/// A committed run of one group, in log order.
pub struct Batch<'a, R> {
    /// The run.
    run: &'a ApplyRun<'a>,
    /// One per entry once `apply` returns. Held back until the commit.
    replies: Vec<R>,
    /// Was the meta taken?
    finished: bool,
}

impl<'a, R> Batch<'a, R> {
    pub(crate) fn new(run: &'a ApplyRun<'a>) -> Batch<'a, R> {
        Batch { run, replies: Vec::with_capacity(run.entries.len()), finished: false }
    }

    /// Position and command of each entry.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (LogPos, &'a Bytes)> + use<'a, R> {
        self.run.entries.iter().map(|e| (e.pos(), &e.data))
    }

    /// Answers the next entry. Released to the caller after `Kind::commit`.
    pub fn reply(&mut self, response: R) {
        self.replies.push(response);
    }

    /// What to write beside the data, in the same atomic write. Call it after the replies: session answers will ride
    /// in it.
    pub fn finish(&mut self) -> ApplyMeta {
        self.finished = true;
        self.run.meta.clone()
    }

    /// The replies, if the machine kept its contract.
    pub(crate) fn into_replies(self) -> Result<Vec<R>, SmError> {
        let (want, got) = (self.run.entries.len(), self.replies.len());
        if got != want {
            return Err(SmError::Corruption(format!("apply gave {got} replies to {want} entries")));
        }
        if !self.finished {
            return Err(SmError::Corruption("apply did not call Batch::finish".to_owned()));
        }
        Ok(self.replies)
    }
}

/// Takes what `Kind::durable` reports.
pub struct Durable<'a> {
    positions: &'a mut DurablePositions,
}

impl<'a> Durable<'a> {
    pub(crate) fn new(positions: &'a mut DurablePositions) -> Durable<'a> {
        Durable { positions }
    }

    /// These meta pairs of the replica survive a crash from now on.
    pub fn report(&mut self, group: GroupId, replica: ReplicaId, generation: Generation, meta: Meta) {
        self.positions.found.push((group, replica, generation, meta));
    }
}

/// Where a snapshot goes.
pub struct SnapshotSink<'a> {
    out: &'a mut dyn SnapshotOutput,
}

impl SnapshotSink<'_> {
    /// One logical chunk of any size up to 16 MiB; checksummed on its way.
    ///
    /// # Errors
    /// `Cancelled` or the spool's failure: pass it on.
    pub fn chunk(&mut self, data: Bytes) -> Result<(), SmError> {
        self.out.chunk(data)
    }
}

/// Where a snapshot comes from.
pub struct SnapshotStream<'a> {
    from: &'a mut dyn SnapshotInput,
}

impl<'a> SnapshotStream<'a> {
    pub(crate) fn new(from: &'a mut dyn SnapshotInput) -> SnapshotStream<'a> {
        SnapshotStream { from }
    }

    /// Meta pairs to write with the contents.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        self.from.meta()
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// The spool could not be read or contradicts its checksum: pass it on.
    #[expect(clippy::should_implement_trait, reason = "fallible, and an Iterator of Results invites `flatten`")]
    pub fn next(&mut self) -> Result<Option<Part>, SmError> {
        Ok(match self.from.next()? {
            None => None,
            Some(SnapshotPart::Chunk(data)) => Some(Part::Chunk(data)),
            Some(other) => return Err(SmError::Corruption(format!("unknown snapshot part {other:?}"))),
        })
    }
}

/// One part of a snapshot. Files come later.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// As written by `SnapshotSink::chunk`.
    Chunk(Bytes),
}

/// A typed snapshot handle as raftstore takes it.
pub(crate) struct Source<T>(pub(crate) T);

impl<T: SnapshotSource> ErasedSource for Source<T> {
    fn write_to(self: Box<Self>, out: &mut dyn SnapshotOutput) -> Result<(), SmError> {
        self.0.write_to(&mut SnapshotSink { out })
    }
}
