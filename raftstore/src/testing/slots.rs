//! Where the twins' answers arrive: a slot that a test looks into.
//!
//! Invariant: a slot keeps its first answer; a second one is a bug and panics.

use super::kv::KvRet;
use crate::error::{AdminError, LifecycleError, ProposeError, ReadError};
use crate::ids::{Index, LogPos};
use crate::mem::Power;
use crate::proposal::{AdminDone, AdminSlot, ReadSlot, ReplySlot};
use crate::task::LifecycleSlot;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;

#[derive(Debug)]
enum Answer<T> {
    Awaited,
    Arrived(T),
    Taken,
}

/// A place for one answer. What a dead node says does not arrive.
#[derive(Debug)]
pub struct Cell<T> {
    /// The first answer: waited for, there, or taken.
    answer: Mutex<Answer<T>>,
    /// Of the node that answers.
    power: Arc<Power>,
}

impl<T: std::fmt::Debug> Cell<T> {
    /// A place that a node with this power may fill.
    #[must_use]
    pub fn new(power: Arc<Power>) -> Arc<Cell<T>> {
        Arc::new(Cell { answer: Mutex::new(Answer::Awaited), power })
    }

    /// Takes the answer, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        let mut answer = self.answer.lock();
        match std::mem::replace(&mut *answer, Answer::Taken) {
            Answer::Arrived(value) => Some(value),
            other => {
                *answer = other;
                None
            }
        }
    }

    fn put(&self, value: T) {
        if !self.power.is_on() {
            return;
        }
        let old = std::mem::replace(&mut *self.answer.lock(), Answer::Arrived(value));
        assert!(matches!(old, Answer::Awaited), "answered twice, first with {old:?}");
    }
}

/// What the twin machine answers to a command, and where its entry stands.
pub type KvAnswer = (LogPos, KvRet);
/// Where that goes.
pub type KvSlot = Cell<Result<KvAnswer, ProposeError>>;
/// Where the confirmation of a read goes.
pub type ReadCell = Cell<Result<Index, ReadError>>;
/// Where the result of an administrative call goes.
pub type AdminCell = Cell<Result<AdminDone, AdminError>>;
/// Where the result of a creation or destruction goes.
pub type LifecycleCell = Cell<Result<(), LifecycleError>>;

impl KvSlot {
    /// The machine's answer.
    pub fn answer(&self, at: LogPos, ret: KvRet) {
        self.put(Ok((at, ret)));
    }
}

impl ReplySlot for KvSlot {
    fn fail(&self, _tag: u64, error: ProposeError) {
        self.put(Err(error));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ReadSlot for ReadCell {
    fn ready(&self, at: Index) {
        self.put(Ok(at));
    }

    fn fail(&self, error: ReadError) {
        self.put(Err(error));
    }
}

impl AdminSlot for AdminCell {
    fn done(&self, result: Result<AdminDone, AdminError>) {
        self.put(result);
    }
}

impl LifecycleSlot for LifecycleCell {
    fn done(&self, result: Result<(), LifecycleError>) {
        self.put(result);
    }
}
