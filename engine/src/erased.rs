//! The one place where user types are forgotten: a `Kind` as raftstore's `MachineKind`.
//!
//! Leaves to others: the types themselves (`state_machine`), when anything is called (raftstore's applier).
//! Invariant: a stage, answer or slot that comes back is of the type that went out; another one is a bug of the
//! engine and fails that replica, never the process.

use crate::proposal::{Applied, Slot};
use crate::state_machine::{Batch, Durable, Kind, Meta, SmError, SnapshotStream, Source, StateMachine};
use pontoon_raftstore::arrivals::Wakeups;
use pontoon_raftstore::bulk::Together;
use pontoon_raftstore::env::{
    Answers, ApplyRun, DurablePositions, Machine, MachineKind, Reader, SnapshotInput, SnapshotSource, Stage,
};
use pontoon_raftstore::error::{Lost, ProposeError};
use pontoon_raftstore::ids::{Generation, GroupId, LogPos, ReplicaId};
use pontoon_raftstore::proposal::ReplyTo;
use std::any::TypeId;
use std::path::PathBuf;
use std::sync::Arc;

/// A registered kind.
pub(crate) struct ErasedKind<F> {
    /// The user's.
    kind: Arc<F>,
    /// The kind's own directory.
    dir: PathBuf,
}

impl<F: Kind> ErasedKind<F> {
    pub(crate) fn new(kind: Arc<F>, dir: PathBuf) -> ErasedKind<F> {
        ErasedKind { kind, dir }
    }
}

impl<F: Kind> MachineKind for ErasedKind<F> {
    fn is_durable(&self) -> bool {
        F::Sm::DURABLE
    }

    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation) -> Result<Box<dyn Machine>, SmError> {
        Ok(Box::new(ErasedMachine { machine: self.kind.open(group, replica, generation, &self.dir)? }))
    }

    fn stage(&self) -> Stage {
        Box::new(<F::Sm as StateMachine>::Stage::default())
    }

    fn commit(&self, stage: Stage) -> Result<(), SmError> {
        self.kind.commit(*stage.downcast::<<F::Sm as StateMachine>::Stage>().map_err(|_| foreign("stage"))?)
    }

    fn persist(&self) -> Result<(), SmError> {
        self.kind.persist()
    }

    fn durable(&self, since: &mut DurablePositions) -> Result<(), SmError> {
        self.kind.durable(&mut Durable::new(since))
    }

    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        self.kind.retain(living)
    }
}

/// One replica's machine.
struct ErasedMachine<S> {
    machine: S,
}

impl<S: StateMachine> Machine for ErasedMachine<S> {
    fn recover(&mut self) -> Result<Meta, SmError> {
        self.machine.recover()
    }

    fn apply(&mut self, stage: &mut Stage, run: &ApplyRun<'_>) -> Result<Answers, SmError> {
        let stage = stage.downcast_mut::<S::Stage>().ok_or_else(|| foreign("stage"))?;
        let mut batch = Batch::new(run);
        self.machine.apply(stage, &mut batch)?;
        Ok(Box::new(batch.into_replies()?))
    }

    fn reply(&self, answers: Answers, waiting: Vec<(usize, LogPos, ReplyTo)>, wakeups: &mut Wakeups) {
        // Waiters ascend, so the answers between them are skipped in one pass; most entries of a follower have none.
        let mut answers = answers.downcast::<Vec<S::Response>>().map(|a| a.into_iter().enumerate()).ok();
        let mut together = Together::new(wakeups);
        for (place, at, reply) in waiting {
            let answer = answers.as_mut().and_then(|a| a.find(|(i, _)| *i == place));
            match answer {
                Some((_, response)) if Together::<Applied<S::Response>>::takes(&reply) => {
                    together.add(reply, Applied { at, response });
                }
                Some((_, response)) => match reply.slot.as_any().downcast_ref::<Slot<S::Response>>() {
                    Some(slot) => slot.complete(at, response),
                    None => reply.fail(stopped(at)),
                },
                None => reply.fail(stopped(at)),
            }
        }
        together.deliver();
    }

    fn reader(&self) -> Reader {
        Arc::new(self.machine.reader())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, SmError> {
        Ok(Box::new(Source(self.machine.snapshot()?)))
    }

    fn restore(&mut self, from: &mut dyn SnapshotInput) -> Result<(), SmError> {
        self.machine.restore(&mut SnapshotStream::new(from))
    }

    fn destroy(self: Box<Self>) -> Result<(), SmError> {
        self.machine.destroy()
    }
}

fn stopped(at: LogPos) -> ProposeError {
    ProposeError::OutcomeUnknown { why: Lost::ReplicaStopped, at: Some(at) }
}

fn foreign(what: &str) -> SmError {
    SmError::Corruption(format!("engine bug: a {what} of another kind"))
}

/// What the engine itself asks of a kind, besides what raftstore does.
pub(crate) trait KindHooks: Send + Sync {
    /// `Kind::start`.
    fn start(&self, dir: &std::path::Path) -> Result<(), SmError>;
    /// `Kind::stop`.
    fn stop(&self);
    /// The kind as raftstore sees it.
    fn machine_kind(&self, dir: PathBuf) -> Arc<dyn MachineKind>;
    /// The machine's type, and its name for messages.
    fn machine_type(&self) -> (TypeId, &'static str);
}

/// A kind as the builder holds it.
pub(crate) struct Registered<F>(pub(crate) Arc<F>);

impl<F: Kind> KindHooks for Registered<F> {
    fn start(&self, dir: &std::path::Path) -> Result<(), SmError> {
        self.0.start(dir)
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn machine_kind(&self, dir: PathBuf) -> Arc<dyn MachineKind> {
        Arc::new(ErasedKind::new(Arc::clone(&self.0), dir))
    }

    fn machine_type(&self) -> (TypeId, &'static str) {
        (TypeId::of::<F::Sm>(), std::any::type_name::<F::Sm>())
    }
}
