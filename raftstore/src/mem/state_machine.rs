//! The twins of state machines: a durable kind (a database without a log of its own) and a volatile one.
//!
//! All replicas of a kind share one medium. What is committed is visible; what was flushed survives. A flush takes
//! everything at once, as a database with one column family does. Destroys are lost with the memtable.
//! Leaves to others: what a command does (`testing::kv`). Invariant: data and meta of a replica change together.

use super::power::{CrashPoint, Power};
use crate::arrivals::Wakeups;
use crate::bulk::Together;
use crate::env::{
    Answers, ApplyRun, DurablePositions, Machine, MachineKind, Meta, Reader, SmError, SnapshotInput, SnapshotOutput,
    SnapshotPart, SnapshotSource, Stage,
};
use crate::ids::{Generation, GroupId, LogPos, ReplicaId};
use crate::proposal::ReplyTo;
use crate::testing::{KvAnswer, KvOp, KvRet, KvSlot, Map};
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raft::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

/// Names the contents of one replica under one generation.
type Key = (GroupId, ReplicaId, Generation);
/// All contents of a kind.
type Contents = BTreeMap<Key, Arc<Content>>;

/// Contents of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    /// User data.
    data: Map,
    /// The engine's pairs.
    meta: Map,
}

/// Does a kind survive a crash by itself?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// What was flushed survives.
    Durable,
    /// Nothing survives.
    Volatile,
}

/// A command that a machine was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Where it stands in the log.
    pub pos: LogPos,
    /// The command.
    pub command: Bytes,
}

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MachineFault {
    /// `apply` of this group.
    Apply(GroupId),
    /// `apply` of this group panics.
    ApplyPanics(GroupId),
    /// `commit` of a stage.
    Commit,
    /// `durable`.
    Durable,
    /// `persist`.
    Persist,
}

/// The medium: survives crashes of its node as far as it was flushed.
#[derive(Debug)]
pub struct MemMachineDisk {
    /// Of all that lies here.
    persistence: Persistence,
    /// All state.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Survives.
    flushed: Contents,
    /// Visible.
    live: Contents,
    /// What fails next, at most one of each kind; each is met once.
    faults: Vec<MachineFault>,
    /// Faults that were met.
    met: BTreeMap<MachineFault, u64>,
    /// Rounds of restores that were made durable.
    persisted: u64,
    /// What was staged since somebody looked, if somebody does.
    applied: Option<Vec<AppliedCommand>>,
}

impl Inner {
    fn take_fault(&mut self, fault: MachineFault) -> bool {
        let at = self.faults.iter().position(|f| *f == fault);
        let met = at.is_some();
        if let Some(at) = at {
            self.faults.swap_remove(at);
            *self.met.entry(fault).or_default() += 1;
        }
        met
    }
}

impl MemMachineDisk {
    /// An empty medium.
    #[must_use]
    pub fn new(persistence: Persistence) -> Arc<MemMachineDisk> {
        Arc::new(MemMachineDisk { persistence, inner: Mutex::default() })
    }

    /// Opens the kind.
    #[must_use]
    pub fn open(self: &Arc<MemMachineDisk>, power: Arc<Power>) -> MemKind {
        MemKind { disk: self.clone(), power }
    }

    /// The power fails, or the process dies: memtables are gone either way.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.live = inner.flushed.clone();
        inner.faults.clear();
    }

    /// A copy of what survives, as somebody might take of a directory.
    #[must_use]
    pub fn copy(&self) -> Arc<MemMachineDisk> {
        let flushed = self.inner.lock().flushed.clone();
        let inner = Inner { live: flushed.clone(), flushed, ..Inner::default() };
        Arc::new(MemMachineDisk { persistence: self.persistence, inner: Mutex::new(inner) })
    }

    /// The database flushes by itself.
    pub fn flush(&self) {
        if self.persistence == Persistence::Durable {
            let mut inner = self.inner.lock();
            inner.flushed = inner.live.clone();
        }
    }

    /// Something fails next. Replaces a fault of the same kind that was not met yet.
    pub fn fail_next(&self, fault: MachineFault) {
        let mut inner = self.inner.lock();
        inner.faults.retain(|f| discriminant(f) != discriminant(&fault));
        inner.faults.push(fault);
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        self.inner.lock().faults.clear();
    }

    /// The faults that machines met since the medium was made, and how often each.
    #[must_use]
    pub fn met(&self) -> BTreeMap<MachineFault, u64> {
        self.inner.lock().met.clone()
    }

    /// Rounds of restores that were made durable, since the medium was made.
    #[must_use]
    pub fn persisted(&self) -> u64 {
        self.inner.lock().persisted
    }

    /// From now on, or since the last call: the commands that machines were given, in order.
    #[must_use]
    pub fn take_applied(&self) -> Vec<AppliedCommand> {
        self.inner.lock().applied.replace(Vec::new()).unwrap_or_default()
    }

    /// Visible user data and meta of a replica.
    #[must_use]
    pub fn contents(&self, group: GroupId, replica: ReplicaId, generation: Generation) -> Option<(Map, Map)> {
        let inner = self.inner.lock();
        inner.live.get(&(group, replica, generation)).map(|c| (c.data.clone(), c.meta.clone()))
    }

    /// Whose contents are visible.
    #[must_use]
    pub fn names(&self) -> Vec<(GroupId, ReplicaId, Generation)> {
        self.inner.lock().live.keys().copied().collect()
    }

    /// A meta value of what would survive a crash now.
    #[must_use]
    pub fn flushed_meta(&self, at: (GroupId, ReplicaId, Generation), key: &[u8]) -> Option<Bytes> {
        self.inner.lock().flushed.get(&at).and_then(|c| c.meta.get(key).cloned())
    }
}

/// The handle of one start of one node.
#[derive(Clone, Debug)]
pub struct MemKind {
    /// What survives.
    disk: Arc<MemMachineDisk>,
    /// Of this start.
    power: Arc<Power>,
}

/// One replica's machine.
#[derive(Debug)]
struct MemMachine {
    /// Its kind.
    kind: MemKind,
    /// Its contents' name.
    key: Key,
}

/// What a reader of the twin offers.
#[derive(Debug)]
pub struct KvView {
    kind: MemKind,
    key: Key,
}

impl KvView {
    /// Answers a read from what is committed now; `None` if the node is dead.
    #[must_use]
    pub fn read(&self, op: &KvOp) -> Option<KvRet> {
        if !self.kind.power.is_on() {
            return None;
        }
        let content = self.kind.content(self.key);
        Some(op.apply(&mut content.data.clone()))
    }
}

fn no_power() -> SmError {
    SmError::Io(std::io::Error::other("the power is off"))
}

impl MemKind {
    fn pass(&self, point: CrashPoint) -> Result<(), SmError> {
        if self.power.pass(point) { Ok(()) } else { Err(no_power()) }
    }

    fn content(&self, key: Key) -> Arc<Content> {
        self.disk.inner.lock().live.get(&key).cloned().unwrap_or_default()
    }
}

impl MachineKind for MemKind {
    fn is_durable(&self) -> bool {
        self.disk.persistence == Persistence::Durable
    }

    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation) -> Result<Box<dyn Machine>, SmError> {
        Ok(Box::new(MemMachine { kind: self.clone(), key: (group, replica, generation) }))
    }

    fn stage(&self) -> Stage {
        Box::new(Contents::new())
    }

    fn commit(&self, stage: Stage) -> Result<(), SmError> {
        self.pass(CrashPoint::BeforeCommit)?;
        let staged = stage.downcast::<Contents>().map_err(|_| SmError::Corruption("foreign stage".into()))?;
        let mut inner = self.disk.inner.lock();
        if inner.take_fault(MachineFault::Commit) {
            return Err(SmError::Io(std::io::Error::other("injected")));
        }
        inner.live.extend(*staged);
        drop(inner);
        self.pass(CrashPoint::AfterCommit)
    }

    fn persist(&self) -> Result<(), SmError> {
        if self.disk.inner.lock().take_fault(MachineFault::Persist) {
            return Err(SmError::Io(std::io::Error::other("injected")));
        }
        self.disk.inner.lock().persisted += 1;
        self.disk.flush();
        self.pass(CrashPoint::AfterRestore)
    }

    fn durable(&self, since: &mut DurablePositions) -> Result<(), SmError> {
        self.pass(CrashPoint::BeforeDurable)?;
        if self.disk.inner.lock().take_fault(MachineFault::Durable) {
            return Err(SmError::Io(std::io::Error::other("injected")));
        }
        self.disk.flush();
        let inner = self.disk.inner.lock();
        since.found = inner.flushed.iter().map(|(k, c)| (k.0, k.1, k.2, meta_of(c))).collect();
        drop(inner);
        self.pass(CrashPoint::AfterDurable)
    }

    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        let keep: BTreeSet<Key> = living.iter().copied().collect();
        if !self.power.is_on() {
            return Err(no_power());
        }
        self.disk.inner.lock().live.retain(|k, _| keep.contains(k));
        Ok(())
    }
}

impl MemMachine {
    fn note(&self, run: &ApplyRun<'_>) {
        let (group, replica, _) = self.key;
        if let Some(applied) = &mut self.kind.disk.inner.lock().applied {
            let command = |e: &&Entry| AppliedCommand { group, replica, pos: e.pos(), command: e.data.clone() };
            applied.extend(run.entries.iter().map(command));
        }
    }
}

fn meta_of(content: &Content) -> Meta {
    content.meta.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl Machine for MemMachine {
    fn recover(&mut self) -> Result<Meta, SmError> {
        Ok(meta_of(&self.kind.content(self.key)))
    }

    fn apply(&mut self, stage: &mut Stage, run: &ApplyRun<'_>) -> Result<Answers, SmError> {
        self.kind.pass(CrashPoint::BeforeApply)?;
        let group = self.key.0;
        let (fails, panics) = {
            let mut inner = self.kind.disk.inner.lock();
            (inner.take_fault(MachineFault::Apply(group)), inner.take_fault(MachineFault::ApplyPanics(group)))
        };
        assert!(!panics, "injected panic in apply");
        self.note(run);
        let staged = stage.downcast_mut::<Contents>().ok_or_else(|| SmError::Corruption("foreign stage".into()))?;
        let content = staged.entry(self.key).or_insert_with(|| self.kind.content(self.key));
        let content = Arc::make_mut(content);
        let mut answers: Vec<KvRet> = Vec::with_capacity(run.entries.len());
        for entry in run.entries {
            let broken = |e| SmError::Corruption(format!("at {:?}: {e}", entry.pos()));
            let op = KvOp::decode(entry.data.clone()).map_err(broken)?;
            answers.push(op.apply(&mut content.data));
        }
        if fails {
            return Err(SmError::Corruption("injected".into()));
        }
        content.meta.extend(run.meta.puts.iter().cloned());
        run.meta.deletes.iter().for_each(|k| drop(content.meta.remove(k)));
        self.kind.pass(CrashPoint::AfterApply)?;
        Ok(Box::new(answers))
    }

    fn reply(&self, answers: Answers, waiting: Vec<(usize, LogPos, ReplyTo)>, wakeups: &mut Wakeups) {
        let Ok(answers) = answers.downcast::<Vec<KvRet>>() else { return };
        let mut together = Together::new(wakeups);
        for (at, pos, reply) in waiting {
            if !self.kind.power.pass(CrashPoint::BeforeReply) {
                return;
            }
            let Some(ret) = answers.get(at).cloned() else { continue };
            if Together::<KvAnswer>::takes(&reply) {
                together.add(reply, (pos, ret));
                continue;
            }
            if let Some(slot) = reply.slot.as_any().downcast_ref::<KvSlot>() {
                slot.answer(pos, ret);
            }
            self.kind.power.pass(CrashPoint::AfterReply);
        }
        if self.kind.power.is_on() {
            together.deliver();
        }
    }

    fn reader(&self) -> Reader {
        Arc::new(KvView { kind: self.kind.clone(), key: self.key })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, SmError> {
        Ok(Box::new(Handle(self.kind.content(self.key))))
    }

    fn restore(&mut self, from: &mut dyn SnapshotInput) -> Result<(), SmError> {
        self.kind.pass(CrashPoint::BeforeRestore)?;
        let mut content = Content { data: Map::new(), meta: from.meta().iter().cloned().collect() };
        while let Some(part) = from.next()? {
            let SnapshotPart::Chunk(chunk) = part;
            match KvOp::decode(chunk) {
                Ok(op @ KvOp::Put(_)) => drop(op.apply(&mut content.data)),
                _ => return Err(SmError::Corruption("snapshot part".into())),
            }
        }
        // Half of it is durable without its meta: a crash here must leave the old generation standing.
        let half = Content { data: content.data.clone(), meta: Map::new() };
        if self.kind.disk.persistence == Persistence::Durable {
            self.kind.disk.inner.lock().flushed.insert(self.key, Arc::new(half));
        }
        self.kind.pass(CrashPoint::DuringRestore)?;
        self.kind.disk.inner.lock().live.insert(self.key, Arc::new(content));
        Ok(())
    }

    fn destroy(self: Box<Self>) -> Result<(), SmError> {
        if !self.kind.power.is_on() {
            return Err(no_power());
        }
        self.kind.disk.inner.lock().live.remove(&self.key);
        Ok(())
    }
}

/// A handle on a state.
struct Handle(Arc<Content>);

impl SnapshotSource for Handle {
    fn write_to(self: Box<Self>, out: &mut dyn SnapshotOutput) -> Result<(), SmError> {
        let pairs: Vec<_> = self.0.data.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        pairs.chunks(3).try_for_each(|some| out.chunk(KvOp::Put(some.to_vec()).encode()))
    }
}
