//! The face of the core: events in, work out.
//!
//! Leaves to others: everything that Raft says (`raft`); clocks, disks and sockets (the driver).
//! Invariant: every call that learns the time takes it as `now`, and time never runs backwards here; what rests
//! on unstable state leaves only through `on_persisted` or `advance`.

use crate::check::check;
use crate::conf_change::{ConfChange, ConfChangeV2};
use crate::confchange::ConfChangeError;
use crate::config::Config;
use crate::entry::Entry;
use crate::entry_run::EntryRun;
use crate::error::{StartError, StepError};
use crate::ids::{Index, LogPos, ReplicaId, Term, Tick};
use crate::in_flight::{InFlight, Ticket};
use crate::message::{Body, Message};
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::ready::{Fetch, Ready, ReadyNumber};
use crate::state::{ConfState, HardState};
use crate::status::{BasicStatus, FlowState, Status};
use crate::storage::Storage;
use crate::trace::Trace;
use bytes::Bytes;

/// One replica. See the crate's page for the order of calls.
#[derive(Clone, Debug)]
pub struct RawNode<S: Storage> {
    /// The state machine of the paper.
    pub(crate) raft: Raft<S>,
    /// What was handed out.
    pub(crate) in_flight: InFlight,
}

impl<S: Storage> RawNode<S> {
    /// Starts from what `storage` holds. The first election is at least an election tick after `now`.
    pub fn new(config: &Config, storage: S, now: Tick) -> Result<RawNode<S>, StartError> {
        let raft = Raft::new(config, storage, now)?;
        let (soft_state, hard_state) = (raft.soft_state(), raft.hard_state());
        Ok(RawNode { raft, in_flight: InFlight { soft_state, hard_state, ..InFlight::default() } })
    }

    /// The stable log.
    #[must_use]
    pub fn storage(&self) -> &S {
        self.raft.log.storage()
    }

    /// The stable log, to append what a `Ready` named.
    pub fn storage_mut(&mut self) -> &mut S {
        self.raft.log.storage_mut()
    }

    /// Role, positions, membership, and on a leader the progress of every member.
    #[must_use]
    pub fn status(&self) -> Status {
        let progress = match self.raft.is_leader() {
            true => self.raft.tracker.iter().map(|m| (m.id, m.status())).collect(),
            false => Vec::new(),
        };
        Status { basic: self.basic_status(), conf: self.raft.tracker.conf_state(), progress }
    }

    /// On a leader: is this member fed by a stream of appends, ahead of its answers?
    #[must_use]
    pub fn is_streaming_to(&self, to: ReplicaId) -> bool {
        self.raft.is_leader() && self.raft.tracker.progress(to).is_some_and(|p| p.state() == FlowState::Replicate)
    }

    /// Role and positions.
    #[must_use]
    pub fn basic_status(&self) -> BasicStatus {
        self.raft.basic_status()
    }

    /// What happened since the last call; empty unless `Config::trace`.
    pub fn take_trace(&mut self) -> Vec<Trace> {
        self.raft.trace.take()
    }

    /// Panics if the state contradicts itself (raft-core 18): for tests and simulators.
    pub fn assert_invariants(&self) {
        self.raft.assert_invariants();
    }
}

/// Events.
impl<S: Storage> RawNode<S> {
    /// Fires what is due by `now`. Any number of idle ticks are one call.
    pub fn tick(&mut self, now: Tick) {
        self.raft.tick(now);
    }

    /// When `tick` must be called next; `Tick::MAX` = never. May change with every other call.
    #[must_use]
    pub fn next_deadline(&self) -> Tick {
        self.raft.next_deadline()
    }

    /// Overrides the drawn election timeout (ticks since the last sign of a leader) until it is drawn again.
    pub fn set_election_timeout(&mut self, ticks: u64) {
        self.raft.election_timeout = ticks;
    }

    /// Takes a message in. Fires no deadline.
    pub fn step(&mut self, now: Tick, m: Message) -> Result<(), StepError> {
        let strict = self.raft.config.strict;
        self.raft.set_now(now);
        let from_thread = m.from.is_local_target() && !strict;
        if m.body.is_local() && !from_thread {
            return Err(StepError::LocalMessage);
        }
        if m.body.is_response() && !from_thread && !self.raft.tracker.contains(m.from) {
            return Err(StepError::PeerNotFound);
        }
        check(&m, self.raft.id, strict)?;
        self.raft.step(m)
    }

    /// Proposes one command. `Some`: appended here, by this leader, at that position; `None`: forwarded.
    pub fn propose(&mut self, now: Tick, data: Bytes) -> Result<Option<LogPos>, StepError> {
        self.propose_run(now, EntryRun::commands([data].into_iter()))
    }

    /// Proposes several, all or none: the position of the first, the others follow it. One allocation if
    /// `data` knows its length, as lists and ranges do: nothing has to be collected first.
    pub fn propose_batch(
        &mut self,
        now: Tick,
        data: impl IntoIterator<Item = Bytes>,
    ) -> Result<Option<LogPos>, StepError> {
        self.propose_run(now, EntryRun::commands(data.into_iter()))
    }

    /// Same, with the commands as a run (`EntryRun::commands`), which may know its byte form.
    pub fn propose_run(&mut self, now: Tick, run: EntryRun) -> Result<Option<LogPos>, StepError> {
        self.raft.set_now(now);
        if run.is_empty() {
            return Err(StepError::Malformed("a proposal without entries"));
        }
        if self.raft.is_leader() {
            return self.raft.lead_proposal(run).map(Some);
        }
        self.step_own(self.raft.id, Body::Propose { entries: run.to_vec() }).map(|()| None)
    }

    /// Proposes a membership change. One that may not be made now is appended as an empty entry instead
    /// (`Trace::ConfChangeIgnored`): the caller learns its fate when the position is applied.
    pub fn propose_conf_change(&mut self, now: Tick, cc: impl Into<ConfChange>) -> Result<Option<LogPos>, StepError> {
        let cc: ConfChange = cc.into();
        self.propose_run(now, [cc.to_entry()].into_iter().collect())
    }

    /// Proposes commands and membership changes, all or none, whatever position they carry.
    pub fn propose_entries(&mut self, now: Tick, entries: Vec<Entry>) -> Result<Option<LogPos>, StepError> {
        self.propose_run(now, entries.into())
    }

    /// On a leader: do so many bytes of payload fit below the limit of uncommitted bytes? `propose_batch` refuses otherwise.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.raft.has_room_for(bytes)
    }

    /// The hard state as the last `Ready` told it. The core may know more by now (a change of members can raise the commit when
    /// it is applied), which goes with the next one.
    #[must_use]
    pub fn told_hard_state(&self) -> HardState {
        self.in_flight.hard_state
    }

    /// Lets a committed membership change take effect here, in log order. To veto it, clear its operations' ids.
    /// On an error nothing changed; a committed change that fails means: quarantine.
    pub fn apply_conf_change(&mut self, now: Tick, cc: &ConfChangeV2) -> Result<ConfState, ConfChangeError> {
        self.raft.set_now(now);
        self.raft.apply_conf_change(cc)
    }

    /// Starts an election. Ignored while this replica supports a leader's read lease (`strict`): it would vote for itself.
    pub fn campaign(&mut self, now: Tick) {
        self.raft.set_now(now);
        if self.raft.config.strict && self.raft.supports_lease() {
            return;
        }
        self.local_event(now, ReplicaId::NONE, Body::Hup);
    }

    /// Hands the leadership to `target` (thesis 3.10). A follower asks its leader to.
    pub fn transfer_leader(&mut self, now: Tick, target: ReplicaId) {
        self.local_event(now, target, Body::TransferLeader);
    }

    /// A follower forgets its leader and may vote again at once.
    pub fn forget_leader(&mut self, now: Tick) {
        self.local_event(now, ReplicaId::NONE, Body::ForgetLeader);
    }

    /// Asks for a read position (thesis 6.4): answered in `Ready::read_states` or `Ready::dropped_reads`. A
    /// follower's request or its answer may also get lost on the way: the caller needs a deadline of its own.
    pub fn read_index(&mut self, now: Tick, context: Bytes) -> Result<(), StepError> {
        self.raft.set_now(now);
        self.step_own(ReplicaId::NONE, Body::ReadIndex { entries: vec![Entry::normal(context)] })
    }

    /// Another replica knows that the entry at `pos` is committed. If this log holds that very entry, it is committed here,
    /// too (log matching). For a group whose only knowers have no vote any more, and so cannot lead (divergences.md). A
    /// leader is told nothing: it counts for itself.
    pub fn learn_commit(&mut self, now: Tick, pos: LogPos) {
        self.raft.set_now(now);
        self.raft.learn_commit(pos);
    }

    /// The transport could not deliver to `peer`.
    pub fn report_unreachable(&mut self, now: Tick, peer: ReplicaId) {
        if !(self.raft.config.strict && peer == self.raft.id) {
            self.local_event(now, peer, Body::Unreachable);
        }
    }

    /// Sending a snapshot to `peer` ended.
    pub fn report_snapshot(&mut self, now: Tick, peer: ReplicaId, ok: bool) {
        self.local_event(now, peer, Body::SnapStatus { reject: !ok });
    }

    /// What `take_fetches` named for `peer` (the own id: for applying) is in memory now.
    pub fn resume_append(&mut self, now: Tick, peer: ReplicaId) {
        self.raft.set_now(now);
        self.raft.on_fetched(peer);
    }

    /// An event that has no answer: these kinds never fail.
    fn local_event(&mut self, now: Tick, from: ReplicaId, body: Body) {
        self.raft.set_now(now);
        let outcome = self.step_own(from, body);
        debug_assert!(outcome.is_ok(), "{outcome:?}");
    }

    fn step_own(&mut self, from: ReplicaId, body: Body) -> Result<(), StepError> {
        self.raft.step(Message { from, to: self.raft.id, term: Term::NONE, body })
    }
}

/// Work.
impl<S: Storage> RawNode<S> {
    /// Reads of the log that the storage answered with `Uncached`. Nothing was sent for them. The same read is
    /// named again when it is tried again before the storage has it.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        std::mem::take(&mut self.raft.fetches)
    }

    /// Does `take_fetches` name any?
    #[must_use]
    pub fn has_fetches(&self) -> bool {
        !self.raft.fetches.is_empty()
    }

    /// Is there work?
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let (raft, known) = (&self.raft, &self.in_flight);
        let hard_state = raft.hard_state();
        !raft.outbox.is_empty()
            || self.has_fresh_after_append()
            || raft.log.unstable().has_next_entries()
            || raft.log.unstable().next_snapshot().is_some()
            || raft.log.has_page(self.is_synchronous())
            || raft.soft_state() != known.soft_state
            || (hard_state != known.hard_state && !hard_state.is_empty())
            || !raft.read_states.is_empty()
            || !raft.dropped_reads.is_empty()
    }

    /// Takes and accepts the work.
    pub fn ready(&mut self) -> Ready {
        let mut ready = Ready::default();
        self.ready_into(&mut ready);
        ready
    }

    /// Same, into a `Ready` whose lists keep their memory.
    pub fn ready_into(&mut self, ready: &mut Ready) {
        assert!(!self.in_flight.advance_due, "the last Ready waits for advance");
        ready.clear();
        self.in_flight.number = self.in_flight.number.next();
        ready.number = self.in_flight.number;
        self.take_state(ready);
        self.take_log(ready);
        self.take_committed(ready);
        std::mem::swap(&mut ready.messages, &mut self.raft.outbox);
        self.take_reads(ready);
        self.hold_back(ready);
    }

    fn is_synchronous(&self) -> bool {
        !self.raft.config.async_storage_writes
    }

    fn take_state(&mut self, ready: &mut Ready) {
        let (soft, hard, known) = (self.raft.soft_state(), self.raft.hard_state(), &mut self.in_flight);
        if soft != known.soft_state {
            known.soft_state = soft;
            ready.soft_state = Some(soft);
        }
        if hard != known.hard_state && !hard.is_empty() {
            ready.must_sync = (hard.term, hard.vote) != (known.hard_state.term, known.hard_state.vote);
            known.hard_state = hard;
            ready.hard_state = Some(hard);
        }
    }

    fn take_log(&mut self, ready: &mut Ready) {
        let unstable = self.raft.log.unstable();
        unstable.read_next(&mut ready.entries);
        if let Some(snapshot) = unstable.next_snapshot() {
            ready.snapshot = Some(snapshot.clone());
        }
        ready.must_sync |= !ready.entries.is_empty();
        self.raft.log.accept_unstable();
    }

    fn take_committed(&mut self, ready: &mut Ready) {
        let with_unstable = self.is_synchronous();
        if !self.raft.log.has_page(with_unstable) {
            return;
        }
        let (low, high, max_bytes) = self.raft.log.next_page(with_unstable);
        let page = &mut ready.committed_entries;
        match self.raft.log.read(low, high, max_bytes, page) {
            Ok(()) => {
                self.raft.log.accept_page(page, with_unstable);
                self.in_flight.applying = page.last_index();
            }
            // Whatever else the storage says will be said to the driver's fetch again.
            Err(_) => {
                self.raft.log.set_page_uncached(true);
                self.raft.fetch(Fetch { to: self.raft.id, low, high, max_bytes });
            }
        }
    }

    /// Rarely there is any.
    fn take_reads(&mut self, ready: &mut Ready) {
        if !self.raft.read_states.is_empty() {
            std::mem::swap(&mut ready.read_states, &mut self.raft.read_states);
        }
        if !self.raft.dropped_reads.is_empty() {
            std::mem::swap(&mut ready.dropped_reads, &mut self.raft.dropped_reads);
        }
    }

    /// Keeps what rests on this `Ready`'s write, or on one that is still under way (S7).
    fn hold_back(&mut self, ready: &mut Ready) {
        let synchronous = self.is_synchronous();
        let writes = ready.hard_state.is_some() || !ready.entries.is_empty() || ready.snapshot.is_some();
        let any = writes || self.has_fresh_after_append();
        if synchronous || (mutant::is(Mutant::AnswerOvertakesWrites) && !writes) {
            self.pass_on(&mut ready.messages);
        }
        let messages = self.raft.after_append.len() - self.in_flight.held;
        let mut ticket = Ticket { number: ready.number, messages, ..Ticket::default() };
        if synchronous || any {
            ticket.term = self.raft.term;
            ticket.last = self.raft.log.last_unstable();
            ticket.snapshot = ready.snapshot.as_ref().map(|s| Box::new(s.clone()));
        }
        let held = messages > 0 || ticket.is_write();
        if held {
            self.in_flight.hold(ticket);
        }
        if synchronous {
            self.in_flight.advance_due = held || !ready.committed_entries.is_empty();
        } else {
            ready.awaits_persist = held;
        }
    }

    /// Is there an answer that no `Ready` has seen yet?
    fn has_fresh_after_append(&self) -> bool {
        self.raft.after_append.len() > self.in_flight.held
    }

    /// Lets fresh answers to others leave with the `Ready`.
    fn pass_on(&mut self, messages: &mut Vec<Message>) {
        let queue = &mut self.raft.after_append;
        for at in 0..queue.len() {
            let Some(m) = queue.pop_front() else { return };
            if at >= self.in_flight.held && m.to != self.raft.id {
                messages.push(m);
            } else {
                queue.push_back(m);
            }
        }
    }
}

/// Reports.
impl<S: Storage> RawNode<S> {
    /// Synchronous mode: the last `Ready` is persisted, sent and applied.
    pub fn advance(&mut self, now: Tick) {
        assert!(self.is_synchronous(), "advance belongs to the synchronous mode");
        self.raft.set_now(now);
        while let Some(ticket) = self.in_flight.release(self.in_flight.number) {
            for _ in 0..ticket.messages {
                // The own answer; if the role changed meanwhile, it is ignored like anybody's.
                let own = self.pop_held();
                let _ = self.raft.step(own);
            }
            if ticket.is_write() {
                self.on_written(ticket);
            }
        }
        self.in_flight.advance_due = false;
        if let Some(upto) = self.in_flight.applying.take() {
            self.raft.on_applied(upto);
        }
    }

    /// Asynchronous mode: all `Ready`s up to `number` are durable. Pushes what may leave now into `out`.
    pub fn on_persisted(&mut self, now: Tick, number: ReadyNumber, out: &mut Vec<Message>) {
        assert!(number <= self.in_flight.number, "{number:?} was not handed out yet");
        self.raft.set_now(now);
        while let Some(ticket) = self.in_flight.release(number) {
            for _ in 0..ticket.messages {
                let m = self.pop_held();
                if m.to == self.raft.id {
                    self.step_own_answer(m);
                } else {
                    out.push(m);
                }
            }
            if ticket.is_write() {
                self.on_written(ticket);
            }
        }
    }

    /// A removed replica's own answer is refused like any stranger's (raft-core 4.1); else nothing is to be judged.
    fn step_own_answer(&mut self, m: Message) {
        if self.raft.tracker.contains(m.from) {
            let _ = self.raft.step(m);
        }
    }

    fn pop_held(&mut self) -> Message {
        self.raft.after_append.pop_front().expect("a ticket counts what is queued")
    }

    fn on_written(&mut self, ticket: Ticket) {
        self.raft.on_append_done(ticket.term, ticket.last, ticket.snapshot.map(|s| s.meta.index));
    }

    /// Takes what `on_persisted` would step or release for this one `Ready`, as messages: what is addressed to
    /// this replica, the write's completion included, is to be stepped when durable, the rest to be sent.
    pub fn take_held(&mut self, number: ReadyNumber) -> Vec<Message> {
        let Some((before, ticket)) = self.in_flight.take(number) else { return Vec::new() };
        let mut taken: Vec<Message> = self.raft.after_append.drain(before..before + ticket.messages).collect();
        if ticket.is_write() {
            taken.push(ticket.into_message(self.raft.id));
        }
        taken
    }

    /// Asynchronous mode: everything handed out up to `upto` is applied.
    pub fn on_applied(&mut self, now: Tick, upto: Index) {
        self.raft.set_now(now);
        self.raft.on_applied(upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem_storage::MemStorage;

    /// An idle replica must stay small: a node hosts many thousands.
    #[test]
    fn a_replica_is_small() {
        let own = size_of::<RawNode<MemStorage>>() - size_of::<MemStorage>();
        assert!(own <= 1024, "{own} bytes without storage");
    }
}
