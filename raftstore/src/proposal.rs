//! A command on its way: what the caller waits on, and what travels with it.
//!
//! Leaves to others: typed responses (the engine's slots), admission (the router's budgets).
//! Invariant: every proposal is answered exactly once: by its machine after the commit, or by `fail`.

use crate::error::{ProposeError, ReadError};
use crate::ids::{GroupId, Index, LogPos, NodeId, Term};
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an entry, message or read weighs beside its payload. Bytes.
pub const ITEM_OVERHEAD: u64 = 128;

/// What so many items with so much payload weigh together. Bytes.
#[must_use]
pub const fn weigh(payload: u64, items: u64) -> u64 {
    payload + ITEM_OVERHEAD * items
}

/// Where answers of proposals go: of one, or of many that are told apart by their tags. The machine's adapter downcasts
/// it to its typed form.
pub trait ReplySlot: Send + Sync {
    /// No response to this proposal: the reason says whether it may have been appended.
    fn fail(&self, tag: u64, error: ProposeError);

    /// Same, of several commands: takes them out of the list.
    fn fail_all(&self, failed: &mut Vec<(u64, ProposeError)>) {
        failed.drain(..).for_each(|(tag, error)| self.fail(tag, error));
    }
    /// The typed slot.
    fn as_any(&self) -> &dyn Any;
}

/// Commands that were refused behind the door one after the other, told together where they have one slot.
#[derive(Default)]
pub(crate) struct Refused {
    slot: Option<Arc<dyn ReplySlot>>,
    commands: Vec<(u64, ProposeError)>,
}

impl Refused {
    /// One more; see `ReplyTo::refuse`.
    pub(crate) fn add(&mut self, reply: ReplyTo, fence: Option<&Fence>, error: ProposeError) {
        fence.iter().for_each(|fence| fence.break_off());
        if !self.slot.as_ref().is_some_and(|slot| Arc::ptr_eq(slot, &reply.slot)) {
            self.tell();
            self.slot = Some(reply.slot);
        }
        self.commands.push((reply.tag, error));
    }

    /// Tells those who wait.
    pub(crate) fn tell(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.fail_all(&mut self.commands);
        }
    }
}

/// Who waits for the answer of one command.
#[derive(Clone)]
pub struct ReplyTo {
    /// Where it goes.
    pub slot: Arc<dyn ReplySlot>,
    /// Which of the slot's answers it is.
    pub tag: u64,
}

impl ReplyTo {
    /// The only answer of a slot.
    #[must_use]
    pub fn only(slot: Arc<dyn ReplySlot>) -> ReplyTo {
        ReplyTo { slot, tag: 0 }
    }

    /// No response.
    pub fn fail(&self, error: ProposeError) {
        self.slot.fail(self.tag, error);
    }

    /// No response from behind the door: nothing was appended, nor will be what is in line behind it.
    pub(crate) fn refuse(&self, fence: Option<&Fence>, error: ProposeError) {
        fence.iter().for_each(|fence| fence.break_off());
        self.fail(error);
    }
}

/// Where the confirmation of one read goes: the caller then reads on its own thread.
pub trait ReadSlot: Send + Sync {
    /// The state machine has applied at least this index, and it was current after the call began.
    fn ready(&self, at: Index);
    /// Not served.
    fn fail(&self, error: ReadError);
}

/// Where the result of an administrative call goes.
pub trait AdminSlot: Send + Sync {
    /// Done or refused.
    fn done(&self, result: Result<AdminDone, crate::error::AdminError>);
}

/// Results of administrative calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminDone {
    /// The leader is now at this node.
    Leader(NodeId),
    /// A snapshot stands at this position.
    Snapshot(LogPos),
    /// The tombstone is durable: no lower replica id is born here again.
    Buried(crate::ids::ReplicaId),
    /// The members are as asked for; the configuration's index.
    Reconfigured(Index),
    /// The change of members was given up, and what was added for it is gone again.
    Aborted,
}

/// Keeps commands of one group in line: what is handed in with the same fence is appended in one term and in that order, or
/// refused from some command on. A term alone does not do it: within one, a command may be refused (overload, a transfer)
/// and the next one not.
#[derive(Clone, Debug)]
pub struct Fence(Arc<FenceState>);

#[derive(Debug)]
struct FenceState {
    /// Appended under no other.
    term: Term,
    /// One was refused at the door. (What is behind the door was handed in before it.)
    shut: AtomicBool,
    /// One was refused behind it.
    broken: AtomicBool,
}

impl PartialEq for Fence {
    fn eq(&self, other: &Fence) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Fence {
    /// For commands that are to be appended in this term.
    #[must_use]
    pub fn new(term: Term) -> Fence {
        Fence(Arc::new(FenceState { term, shut: AtomicBool::new(false), broken: AtomicBool::new(false) }))
    }

    /// Is there a reason to refuse at the door?
    pub(crate) fn at_door(&self, now: Term) -> Result<(), ProposeError> {
        if self.0.shut.load(Ordering::Relaxed) { Err(ProposeError::Behind) } else { self.behind_door(now) }
    }

    /// Nothing more is taken at the door.
    pub fn shut(&self) {
        self.0.shut.store(true, Ordering::Relaxed);
    }

    /// Nothing more is taken behind it.
    fn break_off(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }

    /// Is there a reason to refuse at the poller? (Which meets the commands in order, and is the only one to break it.)
    pub(crate) fn behind_door(&self, now: Term) -> Result<(), ProposeError> {
        if self.0.broken.load(Ordering::Relaxed) {
            return Err(ProposeError::Behind);
        }
        if self.0.term == now { Ok(()) } else { Err(ProposeError::Fenced { now }) }
    }
}

/// One command.
pub struct Proposal {
    /// The group.
    pub group: GroupId,
    /// The command; one `Bytes` from here to socket, log and machine.
    pub command: Bytes,
    /// What it must stay in line with.
    pub fence: Option<Fence>,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// One read.
pub struct ReadRequest {
    /// The group.
    pub group: GroupId,
    /// Where the confirmation goes.
    pub slot: Arc<dyn ReadSlot>,
}

impl Proposal {
    /// See `ReplyTo::refuse`.
    pub(crate) fn refuse(self, error: ProposeError) {
        self.reply.refuse(self.fence.as_ref(), error);
    }

    /// What it weighs in the node's budget, from the door until it is appended or refused.
    #[must_use]
    pub fn cost(&self) -> u64 {
        weigh(self.command.len() as u64, 1)
    }
}

impl ReadRequest {
    /// What a read weighs in the node's budget until it is answered.
    pub const COST: u64 = ITEM_OVERHEAD;
}
