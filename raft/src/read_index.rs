//! Linearizable reads (thesis 6.4): which index must be applied before a read may be served.
//!
//! Leaves to others: serving the read (the driver). A request is known by its position in this leadership,
//! never by the caller's context (S24). The lease is the thesis' one (6.4.1): it runs from when a round of heartbeats
//! was *sent* that a quorum answered; the original's runs from its last check, up to an election timeout too long.
//! Invariant: positions rise along `open` and `rounds`, none above `newest`; reads are bounded by `MAX_READS`.

use crate::config::ReadMode;
use crate::entry::Entry;
use crate::error::StepError;
use crate::ids::{Index, ReplicaId, Tick};
use crate::message::Body;
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::ready::ReadState;
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::VecDeque;

/// Reads that a leader lets wait; more are refused.
pub(crate) const MAX_READS: usize = 4096;

/// Rounds of heartbeats that may be unanswered; older ones are forgotten.
const MAX_ROUNDS: usize = 64;

/// A leader's reads.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct ReadQueue {
    /// Position of the last request or round; counts from 1.
    newest: u64,
    /// Wait for a quorum to confirm the leadership, oldest first.
    open: VecDeque<(u64, Read, Index)>,
    /// Wait for the first commit of the own term (S23).
    waiting: Vec<Read>,
    /// Lease mode: rounds of heartbeats that no quorum has answered yet, and when they were sent.
    rounds: VecDeque<(u64, Tick)>,
    /// Lease mode: when the youngest round was sent that a quorum has answered.
    confirmed_at: Option<Tick>,
    /// Somebody was told to take over in this term: his votes pass leases, so none holds any more.
    lease_broken: bool,
}

/// One request.
#[derive(Clone, Debug, Hash)]
struct Read {
    /// Who asked; `NONE` or the own id for the own driver.
    from: ReplicaId,
    /// The caller's context.
    context: Bytes,
}

impl ReadQueue {
    /// What a heartbeat carries: the youngest position if anything is open, or nothing.
    pub(crate) fn heartbeat_context(&self) -> Bytes {
        if self.open.is_empty() && self.rounds.is_empty() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(&self.newest.to_le_bytes())
        }
    }

    /// Lease mode: a round of heartbeats leaves now.
    fn begin_round(&mut self, now: Tick) {
        self.newest += 1;
        if self.rounds.len() == MAX_ROUNDS {
            self.rounds.pop_front();
        }
        self.rounds.push_back((self.newest, now));
    }

    /// Position of the last request or round.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// No lease any more in this leadership.
    pub(crate) fn break_lease(&mut self) {
        self.lease_broken = !mutant::is(Mutant::LeaseKeptInTransfer);
    }

    fn is_full(&self) -> bool {
        self.open.len() + self.waiting.len() >= MAX_READS
    }

    /// The oldest open request, if its position is confirmed.
    fn pop_confirmed(&mut self, confirmed: u64) -> Option<(Read, Index)> {
        let is_confirmed = self.open.front().is_some_and(|(position, ..)| *position <= confirmed);
        if is_confirmed { self.open.pop_front().map(|(_, read, index)| (read, index)) } else { None }
    }

    fn confirm_rounds(&mut self, confirmed: u64, now: Tick) {
        while let Some((_, sent)) = self.rounds.front().copied().filter(|(position, _)| *position <= confirmed) {
            self.confirmed_at = Some(if mutant::is(Mutant::LeaseFromAnswer) { now } else { sent });
            self.rounds.pop_front();
        }
    }
}

impl<S: Storage> Raft<S> {
    /// A request at the leader.
    pub(crate) fn on_read_request(&mut self, from: ReplicaId, mut entries: Vec<Entry>) -> Result<(), StepError> {
        let context = entries.pop().map(|e| e.data).unwrap_or_default();
        let read = Read { from, context };
        let own = self.is_own(from);
        let committed_own = self.log.term(self.log.committed()) == Ok(self.term);
        let Some(leader) = self.leader_mut() else { return Err(StepError::ReadDropped) };
        if leader.reads.is_full() {
            return if own { Err(StepError::ReadDropped) } else { Ok(()) };
        }
        if !committed_own && !mutant::is(Mutant::ReadBeforeOwnCommit) {
            leader.reads.waiting.push(read);
        } else if self.admit(read) {
            self.broadcast_heartbeat();
        }
        Ok(())
    }

    /// Answers a read at once if the leadership needs no proof; else true: a round of heartbeats is due.
    fn admit(&mut self, read: Read) -> bool {
        let index = self.log.committed();
        if self.tracker.is_only_voter(self.id) || self.has_read_lease() || mutant::is(Mutant::ReadUnconfirmed) {
            self.answer_read(read, index);
            return false;
        }
        let Some(leader) = self.leader_mut() else { return false };
        leader.reads.newest += 1;
        let position = leader.reads.newest;
        leader.reads.open.push_back((position, read, index));
        self.tracker.ack_read(self.id, position);
        true
    }

    /// What the next heartbeats carry. In lease mode each broadcast is a round that may renew the lease.
    pub(crate) fn heartbeat_context(&mut self) -> Bytes {
        let (now, own, leases) = (self.now, self.id, self.config.read_mode == ReadMode::Lease);
        let Some(leader) = self.leader_mut() else { return Bytes::new() };
        if leases {
            leader.reads.begin_round(now);
        }
        let (context, newest) = (leader.reads.heartbeat_context(), leader.reads.newest);
        if leases {
            self.tracker.ack_read(own, newest);
        }
        context
    }

    /// Who answered a round votes for nobody else within an election tick of it. Two ticks go to the clocks'
    /// grain at both ends, a fifth to their drift.
    fn has_read_lease(&self) -> bool {
        let election_tick = self.config.election_tick;
        let length = election_tick.saturating_sub(2.max(election_tick / 5));
        let sent = self.leader().filter(|l| !l.reads.lease_broken).and_then(|l| l.reads.confirmed_at);
        self.config.read_mode == ReadMode::Lease && sent.is_some_and(|at| self.now < at.saturating_add(length))
    }

    /// The first entry of the own term is committed: nothing that an earlier leader acked can be missed now.
    pub(crate) fn release_waiting_reads(&mut self) {
        let Some(leader) = self.leader_mut() else { return };
        let waiting = std::mem::take(&mut leader.reads.waiting);
        let mut round_due = false;
        for read in waiting {
            round_due |= self.admit(read);
        }
        if round_due {
            self.broadcast_heartbeat();
        }
    }

    /// A heartbeat's answer confirms all positions up to its context. What it cannot know is not believed.
    pub(crate) fn on_read_ack(&mut self, from: ReplicaId, context: &[u8]) {
        let Ok(bytes) = <[u8; 8]>::try_from(context) else { return };
        let newest = self.leader().filter(|_| mutant::is(Mutant::ReadAckAnyPosition)).map(|l| l.reads.newest);
        let position = newest.unwrap_or(u64::from_le_bytes(bytes));
        if self.leader().is_some_and(|l| position <= l.reads.newest) {
            self.tracker.ack_read(from, position);
            self.release_confirmed_reads();
        }
    }

    /// Answers, in order, what a quorum of both halves has confirmed.
    pub(crate) fn release_confirmed_reads(&mut self) {
        let (confirmed, now) = (self.tracker.confirmed_read(), self.now);
        if let Some(leader) = self.leader_mut() {
            leader.reads.confirm_rounds(confirmed, now);
        }
        while let Some((read, index)) = self.leader_mut().and_then(|l| l.reads.pop_confirmed(confirmed)) {
            self.answer_read(read, index);
        }
    }

    fn answer_read(&mut self, read: Read, index: Index) {
        if self.is_own(read.from) {
            self.read_states.push(ReadState { index, context: read.context });
        } else {
            let entries = vec![Entry::normal(read.context)];
            self.send(read.from, Body::ReadIndexResp { index, entries });
        }
    }

    /// The leadership ended: own readers are told, others ask again.
    pub(crate) fn drop_reads(&mut self, reads: ReadQueue) {
        let open = reads.open.into_iter().map(|(_, read, _)| read);
        for read in open.chain(reads.waiting) {
            if self.is_own(read.from) {
                self.dropped_reads.push(read.context);
            }
        }
    }

    fn is_own(&self, from: ReplicaId) -> bool {
        from.is_none() || from == self.id
    }
}
