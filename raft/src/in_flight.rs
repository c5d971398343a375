//! What a replica handed out and waits for: the basis of `RawNode::ready` and of the reports that follow.
//!
//! Leaves to others: what the reports change (`raft`). One ticket per write takes the place of the original's
//! responses nested in messages (raft-core 14.3, 19).
//! Invariant: numbers rise from front to back in both queues; bounded by what the driver has not reported.

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
    /// Messages that rest on a write, each with the `Ready` that carries it.
    pub(crate) held: VecDeque<(ReadyNumber, Message)>,
    /// What each write covers.
    pub(crate) tickets: VecDeque<Ticket>,
    /// Synchronous mode: the latest `Ready` asks for `advance`.
    pub(crate) advance_due: bool,
    /// Synchronous mode: last index that it gave to the state machine.
    pub(crate) applying: Option<Index>,
}

/// A write that was handed out: what its completion proves (raft-core 14.3).
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) number: ReadyNumber,
    /// The completion counts in this term only (ABA, 14.4).
    pub(crate) term: Term,
    /// Last position of the log, if anything was unstable; else none.
    pub(crate) last: LogPos,
    /// The snapshot that is installed with it.
    pub(crate) snapshot: Option<Box<Snapshot>>,
}

/// The next step of a report.
#[derive(Debug)]
pub(crate) enum Released {
    /// This may leave, or be stepped here if it is addressed to the replica itself.
    Message(Message),
    /// This write is complete.
    Write(Ticket),
}

impl InFlight {
    /// What is released next if everything up to `number` is durable: per `Ready` the messages, then the write.
    pub(crate) fn release(&mut self, number: ReadyNumber) -> Option<Released> {
        let message = self.held.front().map(|(n, _)| *n).filter(|n| *n <= number);
        let ticket = self.tickets.front().map(|t| t.number).filter(|n| *n <= number);
        match (message, ticket) {
            (Some(m), t) if t.is_none_or(|t| m <= t) => self.held.pop_front().map(|(_, m)| Released::Message(m)),
            _ if ticket.is_some() => self.tickets.pop_front().map(Released::Write),
            _ => None,
        }
    }

    /// Takes everything that `number` alone holds, the write's completion as a message to `own`.
    pub(crate) fn take(&mut self, number: ReadyNumber, own: ReplicaId) -> Vec<Message> {
        let mut taken = Vec::new();
        let mut others = VecDeque::with_capacity(self.held.len());
        for (n, m) in self.held.drain(..) {
            if n == number {
                taken.push(m);
            } else {
                others.push_back((n, m));
            }
        }
        self.held = others;
        if let Some(at) = self.tickets.iter().position(|t| t.number == number) {
            taken.extend(self.tickets.remove(at).map(|t| t.into_message(own)));
        }
        taken
    }
}

impl Ticket {
    fn into_message(self, own: ReplicaId) -> Message {
        let body = Body::StorageAppendResp { last: self.last, snapshot: self.snapshot };
        Message { from: ReplicaId::APPEND_THREAD, to: own, term: self.term, body }
    }
}
