//! What a replica handed out and waits for: the basis of `RawNode::ready` and of the reports that follow.
//!
//! Leaves to others: what the reports change (`raft`), the messages themselves: they stay at the front of
//! `Raft::after_append` until they are released. One ticket per `Ready` takes the place of the original's responses
//! nested in messages (raft-core 14.3, 19).
//! Invariant: numbers rise from front to back; `held` is the sum over the tickets, and so many messages are queued;
//! bounded by what the driver has not reported.

use crate::ids::{Index, LogPos, ReplicaId, Term};
use crate::message::{Body, Message};
use crate::ready::ReadyNumber;
use crate::state::{HardState, Snapshot, SoftState};
use std::collections::VecDeque;

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    /// The latest `Ready`'s.
    pub(crate) number: ReadyNumber,
    /// As the driver knows it.
    pub(crate) soft_state: SoftState,
    /// As the driver knows it.
    pub(crate) hard_state: HardState,
    /// Messages that wait for a report: the first so many of `Raft::after_append`.
    pub(crate) held: usize,
    /// What each `Ready` that is waited for holds.
    pub(crate) tickets: VecDeque<Ticket>,
    /// Synchronous mode: the latest `Ready` asks for `advance`.
    pub(crate) advance_due: bool,
    /// Synchronous mode: last index that it gave to the state machine.
    pub(crate) applying: Option<Index>,
}

/// What rests on one `Ready`: the messages that may leave once it is durable, then what its write proves
/// (raft-core 14.3).
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket {
    pub(crate) number: ReadyNumber,
    /// How many messages it holds.
    pub(crate) messages: usize,
    /// The completion counts in this term only (ABA, 14.4).
    pub(crate) term: Term,
    /// Last position of the log, if anything was unstable; else none.
    pub(crate) last: LogPos,
    /// The snapshot that is installed with it.
    pub(crate) snapshot: Option<Box<Snapshot>>,
}

impl InFlight {
    /// Waits for the `Ready` that this belongs to.
    #[inline]
    pub(crate) fn hold(&mut self, ticket: Ticket) {
        self.held += ticket.messages;
        self.tickets.push_back(ticket);
    }

    /// The oldest ticket, if it is one of a `Ready` up to `number`.
    #[inline]
    pub(crate) fn release(&mut self, number: ReadyNumber) -> Option<Ticket> {
        self.tickets.front().filter(|t| t.number <= number)?;
        let ticket = self.tickets.pop_front()?;
        self.held -= ticket.messages;
        Some(ticket)
    }

    /// The ticket of this very number, and how many messages are queued before its own.
    pub(crate) fn take(&mut self, number: ReadyNumber) -> Option<(usize, Ticket)> {
        let at = self.tickets.iter().position(|t| t.number == number)?;
        let before = self.tickets.range(..at).map(|t| t.messages).sum();
        let ticket = self.tickets.remove(at)?;
        self.held -= ticket.messages;
        Some((before, ticket))
    }
}

impl Ticket {
    /// Was anything to be written, beyond the hard state?
    #[inline]
    pub(crate) fn is_write(&self) -> bool {
        self.last != LogPos::NONE || self.snapshot.is_some()
    }

    /// The completion of the write, as a message to `own`.
    pub(crate) fn into_message(self, own: ReplicaId) -> Message {
        let body = Body::StorageAppendResp { last: self.last, snapshot: self.snapshot };
        Message { from: ReplicaId::APPEND_THREAD, to: own, term: self.term, body }
    }
}
