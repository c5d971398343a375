//! The face of the core: events in, work out.
//!
//! Leaves to others: everything that Raft says (`raft`); clocks, disks and sockets (the driver).
//! Invariant: every call that learns the time takes it as `now`, and time never runs backwards here.
#![allow(unused_variables, clippy::todo)]

use crate::conf_change::{ConfChange, ConfChangeV2};
use crate::confchange::ConfChangeError;
use crate::config::Config;
use crate::error::{StartError, StepError};
use crate::ids::{Index, LogPos, ReplicaId, Tick};
use crate::message::Message;
use crate::ready::{Fetch, Ready, ReadyNumber};
use crate::state::ConfState;
use crate::status::{BasicStatus, Status};
use crate::storage::Storage;
use crate::trace::Trace;
use bytes::Bytes;

/// One replica. See the crate's page for the order of calls.
#[derive(Debug)]
pub struct RawNode<S: Storage> {
    storage: S,
}

impl<S: Storage> RawNode<S> {
    /// Starts from what `storage` holds. The first election is at least an election tick after `now`.
    pub fn new(config: &Config, storage: S, now: Tick) -> Result<RawNode<S>, StartError> {
        todo!()
    }
    /// The stable log.
    pub fn storage(&self) -> &S {
        todo!()
    }
    /// The stable log, to append what a `Ready` named.
    pub fn storage_mut(&mut self) -> &mut S {
        todo!()
    }
    /// Fires what is due by `now`. Any number of idle ticks are one call.
    pub fn tick(&mut self, now: Tick) {
        todo!()
    }
    /// When `tick` must be called next; `Tick::MAX` = never. May change with every other call.
    #[must_use]
    pub fn next_deadline(&self) -> Tick {
        todo!()
    }
    /// Overrides the drawn election timeout (ticks since the last sign of a leader) until it is drawn again.
    pub fn set_election_timeout(&mut self, ticks: u64) {
        todo!()
    }
    /// Takes a message in. Fires no deadline.
    pub fn step(&mut self, now: Tick, m: Message) -> Result<(), StepError> {
        todo!()
    }
    /// Proposes one command. `Some`: appended here, by this leader, at that position; `None`: forwarded.
    pub fn propose(&mut self, now: Tick, data: Bytes) -> Result<Option<LogPos>, StepError> {
        todo!()
    }
    /// Proposes several, all or none: the position of the first, the others follow it.
    pub fn propose_batch(&mut self, now: Tick, data: Vec<Bytes>) -> Result<Option<LogPos>, StepError> {
        todo!()
    }
    /// Proposes a membership change. A refused one is appended as an empty entry; see `Trace::ConfChangeIgnored`.
    pub fn propose_conf_change(&mut self, now: Tick, cc: impl Into<ConfChange>) -> Result<Option<LogPos>, StepError> {
        todo!()
    }
    /// Lets a committed membership change take effect here. To veto it, clear its operations' ids.
    pub fn apply_conf_change(&mut self, now: Tick, cc: &ConfChangeV2) -> Result<ConfState, ConfChangeError> {
        todo!()
    }
    /// Starts an election.
    pub fn campaign(&mut self, now: Tick) {
        todo!()
    }
    /// Hands the leadership to `target` (thesis 3.10).
    pub fn transfer_leader(&mut self, now: Tick, target: ReplicaId) {
        todo!()
    }
    /// A follower forgets its leader and may vote again at once.
    pub fn forget_leader(&mut self, now: Tick) {
        todo!()
    }
    /// Asks for a read position (thesis 6.4); answered in `Ready::read_states` or `Ready::dropped_reads`.
    pub fn read_index(&mut self, now: Tick, context: Bytes) -> Result<(), StepError> {
        todo!()
    }
    /// The transport could not deliver to `peer`.
    pub fn report_unreachable(&mut self, now: Tick, peer: ReplicaId) {
        todo!()
    }
    /// Sending a snapshot to `peer` ended.
    pub fn report_snapshot(&mut self, now: Tick, peer: ReplicaId, ok: bool) {
        todo!()
    }
    /// What `take_fetches` named for `peer` (the own id: for applying) is in memory now.
    pub fn resume_append(&mut self, now: Tick, peer: ReplicaId) {
        todo!()
    }
    /// Reads of the log that the storage answered with `Uncached`, each once until resumed.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        todo!()
    }
    /// Is there work?
    #[must_use]
    pub fn has_ready(&self) -> bool {
        todo!()
    }
    /// Takes and accepts the work.
    pub fn ready(&mut self) -> Ready {
        todo!()
    }
    /// Same, into a `Ready` whose lists keep their memory.
    pub fn ready_into(&mut self, ready: &mut Ready) {
        todo!()
    }
    /// Synchronous mode: the last `Ready` is persisted, sent and applied.
    pub fn advance(&mut self, now: Tick) {
        todo!()
    }
    /// Asynchronous mode: all `Ready`s up to `number` are durable. Pushes what may leave now into `out`.
    pub fn on_persisted(&mut self, now: Tick, number: ReadyNumber, out: &mut Vec<Message>) {
        todo!()
    }
    /// Takes what `on_persisted` would step or release for this one `Ready`, as messages.
    pub fn take_held(&mut self, number: ReadyNumber) -> Vec<Message> {
        todo!()
    }
    /// Asynchronous mode: everything handed out up to `upto` is applied.
    pub fn on_applied(&mut self, now: Tick, upto: Index) {
        todo!()
    }
    /// Role, positions, membership, and on a leader the progress of every member.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Role and positions.
    #[must_use]
    pub fn basic_status(&self) -> BasicStatus {
        todo!()
    }
    /// What happened since the last call; empty unless `Config::trace`.
    pub fn take_trace(&mut self) -> Vec<Trace> {
        todo!()
    }
}
