//! One replica as the paper's state machine: its fields, its clock, and how roles change.
//!
//! Leaves to others: what a message means (`step` and `roles`), what roles share (`election`, `replication`,
//! `read_index`, `transfer`, `snapshot`), what may leave when (`raw_node`).
//! Invariant: `term` never falls; `vote` changes once per term; a leader leads itself, a candidate nobody.

use crate::confchange::restore;
use crate::config::Config;
use crate::entry::Entry;
use crate::error::{StartError, StepError};
use crate::ids::{Index, LogPos, ReplicaId, Term, Tick};
use crate::log::{RaftLog, StableOutcome};
use crate::message::{Body, Message};
use crate::mutant::{self, Mutant};
use crate::read_index::ReadQueue;
use crate::ready::{Fetch, ReadState};
use crate::replication::Empty;
use crate::state::{HardState, SoftState, StateRole};
use crate::status::BasicStatus;
use crate::storage::Storage;
use crate::trace::{Trace, Tracer};
use crate::tracker::{Tracker, WindowLimits};
use bytes::Bytes;
use std::collections::VecDeque;

/// See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Raft<S> {
    /// Own id.
    pub(crate) id: ReplicaId,
    /// Highest term seen.
    pub(crate) term: Term,
    /// Whom this replica voted for in `term`.
    pub(crate) vote: ReplicaId,
    /// The leader of `term` as far as known.
    pub(crate) lead: ReplicaId,
    /// What this replica is, with what only that role needs.
    pub(crate) role: Role,
    /// The replicated log.
    pub(crate) log: RaftLog<S>,
    /// Members, progress and votes.
    pub(crate) tracker: Tracker,
    /// As given at start.
    pub(crate) config: Config,
    /// The latest time that a call brought. Never falls.
    pub(crate) now: Tick,
    /// When the election clock started: leader heard of, vote granted, or the leader's last check.
    pub(crate) election_start: Tick,
    /// Ticks on the election clock after which to campaign; drawn anew by each reset.
    pub(crate) election_timeout: u64,
    /// No votes before (see `Config::hold_votes_after_start`); 0 otherwise.
    pub(crate) votes_held_until: Tick,
    /// State of the generator that timeouts are drawn from.
    pub(crate) rng: u64,
    /// To send at once. Invariant: nothing to self, nothing that rests on unstable state.
    pub(crate) outbox: Vec<Message>,
    /// To send, or to step here, once everything unstable now is durable (S6, S7). Those at the front wait for a
    /// report already (`in_flight`).
    pub(crate) after_append: VecDeque<Message>,
    /// Reads that may be served. Bound: the read queue's.
    pub(crate) read_states: Vec<ReadState>,
    /// Own reads that will not be answered. Bound: the read queue's.
    pub(crate) dropped_reads: Vec<Bytes>,
    /// Reads of the log that wait for the driver. Bound: one per member and one for applying.
    pub(crate) fetches: Vec<Fetch>,
    /// What happened.
    pub(crate) trace: Tracer,
}

/// The roles of Raft 5.1 with their data.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader(Box<Leader>),
}

/// What only a leader knows; a step-down forgets it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leader {
    /// When heartbeats were last due.
    pub(crate) heartbeat_start: Tick,
    /// Who is to take over; `NONE` if nobody.
    pub(crate) transferee: ReplicaId,
    /// No membership change is proposed until this index is applied (S29). Invariant: `<= last`.
    pub(crate) pending_conf: Index,
    /// Payload bytes that were appended in this term and not yet reported applied.
    pub(crate) uncommitted: u64,
    /// Reads that wait.
    pub(crate) reads: ReadQueue,
}

fn holds_votes(config: &Config) -> bool {
    config.hold_votes_after_start && !mutant::is(Mutant::LeaseForgottenInRestart)
}

impl<S: Storage> Raft<S> {
    /// Starts as a follower from what `storage` holds.
    pub(crate) fn new(config: &Config, storage: S, now: Tick) -> Result<Raft<S>, StartError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        let initial = storage.initial_state();
        let log = RaftLog::new(storage, config.page_limit());
        let limits = WindowLimits { max_msgs: config.max_inflight_msgs, max_bytes: config.max_inflight_bytes };
        let mut raft = Raft {
            id: config.id,
            term: Term::NONE,
            vote: ReplicaId::NONE,
            lead: ReplicaId::NONE,
            role: Role::Follower,
            log,
            tracker: Tracker::new(limits),
            config: config.clone(),
            now,
            election_start: now,
            election_timeout: config.election_tick,
            votes_held_until: if holds_votes(config) { now + config.election_tick } else { 0 },
            rng: config.seed ^ config.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            outbox: Vec::new(),
            after_append: VecDeque::new(),
            read_states: Vec::new(),
            dropped_reads: Vec::new(),
            fetches: Vec::new(),
            trace: Tracer::new(config.trace),
        };
        let last = raft.log.last_index();
        raft.log.term(last).map_err(|_| StartError::TermUnknown(last))?;
        raft.switch_config(restore(&initial.conf_state, last, limits)?);
        raft.load(initial.hard_state)?;
        raft.become_follower(raft.term, ReplicaId::NONE);
        raft.trace_start();
        Ok(raft)
    }

    /// Takes over the stored state, or proves that it cannot belong to this log (S41).
    fn load(&mut self, hard_state: HardState) -> Result<(), StartError> {
        let (compacted, last) = (self.log.committed(), self.log.last_index());
        if !hard_state.is_empty() {
            let commit = hard_state.commit;
            if commit < compacted || !self.log.commit_to(commit) {
                return Err(StartError::CommitOutsideLog { commit, compacted, last });
            }
            (self.term, self.vote) = (hard_state.term, hard_state.vote);
        }
        let applied = self.config.applied;
        if applied > Index::NONE {
            let commit = self.log.committed();
            if applied < compacted || applied > commit {
                return Err(StartError::AppliedOutsideLog { applied, compacted, commit });
            }
            self.log.applied_to(applied);
        }
        Ok(())
    }

    fn trace_start(&mut self) {
        let (term, commit, applied, last) = (self.term, self.log.committed(), self.log.applied(), self.log.last_pos());
        let tracker = &self.tracker;
        self.trace.note(|| Trace::Started { peers: tracker.voters().collect(), term, commit, applied, last });
    }

    /// The leader's data, if this is one.
    pub(crate) fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// The leader's data, if this is one.
    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub(crate) fn state_role(&self) -> StateRole {
        match self.role {
            Role::Follower => StateRole::Follower,
            Role::PreCandidate => StateRole::PreCandidate,
            Role::Candidate => StateRole::Candidate,
            Role::Leader(_) => StateRole::Leader,
        }
    }

    pub(crate) fn soft_state(&self) -> SoftState {
        SoftState { lead: self.lead, role: self.state_role() }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    pub(crate) fn basic_status(&self) -> BasicStatus {
        BasicStatus {
            id: self.id,
            role: self.state_role(),
            lead: self.lead,
            term: self.term,
            vote: self.vote,
            commit: self.log.committed(),
            applied: self.log.applied(),
            last_index: self.log.last_index(),
            transferee: self.leader().map_or(ReplicaId::NONE, |l| l.transferee),
        }
    }

    /// May this replica win an election? Not while a snapshot is being installed (S38).
    pub(crate) fn is_promotable(&self) -> bool {
        let votes = !self.tracker.is_learner(self.id) || mutant::is(Mutant::LearnerCampaigns);
        let installs = self.log.unstable_snapshot().is_some() && !mutant::is(Mutant::CampaignsInInstall);
        self.tracker.contains(self.id) && votes && !installs
    }
}

/// Time.
impl<S: Storage> Raft<S> {
    /// Moves the clock; it never goes back.
    pub(crate) fn set_now(&mut self, now: Tick) {
        self.now = self.now.max(now);
    }

    /// Ticks on the election clock.
    pub(crate) fn elapsed(&self) -> u64 {
        self.now.saturating_sub(self.election_start)
    }

    /// Fires what is due.
    pub(crate) fn tick(&mut self, now: Tick) {
        self.set_now(now);
        if self.is_leader() {
            self.tick_leader();
        } else if self.elapsed() >= self.election_timeout && self.is_promotable() {
            self.election_start = self.now;
            self.hup();
        }
    }

    fn tick_leader(&mut self) {
        if self.elapsed() >= self.config.election_tick {
            self.election_start = self.now;
            if self.config.check_quorum {
                self.check_quorum();
            }
            if !mutant::is(Mutant::TransferForever) {
                self.abort_transfer();
            }
        }
        let (now, every) = (self.now, self.config.heartbeat_tick);
        let Some(leader) = self.leader_mut() else { return };
        if now.saturating_sub(leader.heartbeat_start) >= every {
            leader.heartbeat_start = now;
            self.broadcast_heartbeat();
        }
    }

    /// When `tick` has something to do.
    pub(crate) fn next_deadline(&self) -> Tick {
        match self.leader() {
            Some(leader) => {
                let heartbeat = leader.heartbeat_start.saturating_add(self.config.heartbeat_tick);
                let checks = self.config.check_quorum || !leader.transferee.is_none();
                let check = self.election_start.saturating_add(self.config.election_tick);
                if checks { heartbeat.min(check) } else { heartbeat }
            }
            None if self.is_promotable() => self.election_start.saturating_add(self.election_timeout),
            None => Tick::MAX,
        }
    }

    /// A timeout of `[n, 2n)` ticks (Raft 5.2), from a generator that the seed determines.
    fn draw_election_timeout(&mut self) {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let election_tick = self.config.election_tick;
        self.election_timeout = election_tick + (z ^ (z >> 31)) % election_tick;
    }
}

/// Changes of role.
impl<S: Storage> Raft<S> {
    /// Forgets everything that belongs to the role and the term so far. The same term keeps its vote (S1).
    fn reset(&mut self, term: Term) {
        if term != self.term || mutant::is(Mutant::ResetForgetsVote) {
            self.term = term;
            self.vote = ReplicaId::NONE;
        }
        self.lead = ReplicaId::NONE;
        self.election_start = self.now;
        self.draw_election_timeout();
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            self.drop_reads(leader.reads);
        }
        self.fetches.retain(|f| f.to == self.id);
        self.tracker.reset_votes();
        self.tracker.reset_reads();
        let last = self.log.last_index();
        self.tracker.reset_progress(last);
        if let Some(own) = self.tracker.progress_mut(self.id) {
            // Harmless before those entries are durable: a new leader counts entries of its own term only (S2).
            let _ = own.acked(last);
        }
    }

    pub(crate) fn become_follower(&mut self, term: Term, lead: ReplicaId) {
        self.reset(term);
        self.lead = lead;
        self.trace.note(|| Trace::BecameFollower { term });
    }

    pub(crate) fn become_candidate(&mut self) {
        assert!(!self.is_leader(), "a leader does not campaign");
        self.reset(self.term.next());
        self.vote = self.id;
        self.role = Role::Candidate;
        let term = self.term;
        self.trace.note(|| Trace::BecameCandidate { term });
    }

    /// Term, vote, clock and progress stay (S25).
    pub(crate) fn become_pre_candidate(&mut self) {
        assert!(!self.is_leader(), "a leader does not campaign");
        self.tracker.reset_votes();
        self.lead = ReplicaId::NONE;
        self.role = Role::PreCandidate;
        let term = self.term;
        self.trace.note(|| Trace::BecamePreCandidate { term });
    }

    pub(crate) fn become_leader(&mut self) {
        assert!(matches!(self.role, Role::Candidate), "only a candidate can win");
        self.reset(self.term);
        self.lead = self.id;
        let limits = self.tracker.limits();
        if let Some(own) = self.tracker.progress_mut(self.id) {
            own.become_replicate(limits);
            own.set_active(true);
        }
        self.role = Role::Leader(Box::new(Leader {
            heartbeat_start: self.now,
            transferee: ReplicaId::NONE,
            pending_conf: if mutant::is(Mutant::PendingForgotten) { Index::NONE } else { self.log.last_index() },
            uncommitted: 0,
            reads: ReadQueue::default(),
        }));
        self.append_own([Entry::default()].into_iter().collect());
        let term = self.term;
        self.trace.note(|| Trace::BecameLeader { term });
    }
}

/// Sending.
impl<S: Storage> Raft<S> {
    /// Sends in the current term.
    pub(crate) fn send(&mut self, to: ReplicaId, body: Body) {
        self.send_in(to, self.term, body);
    }

    /// Sends in a term of the caller's choice: votes, and what is forwarded without one.
    pub(crate) fn send_in(&mut self, to: ReplicaId, term: Term, body: Body) {
        self.post(Message { from: self.id, to, term, body });
    }

    /// Puts a complete message into its box.
    ///
    /// The original lets vote requests leave at once, too. But a candidate that wins by the others' votes before its
    /// own term is durable, and crashes, may win the same term a second time and put other entries at the same
    /// positions. So they wait, unless the original's bytes are wanted.
    #[inline(always)]
    fn post(&mut self, m: Message) {
        let asks = self.config.strict && matches!(m.body, Body::Vote(_)) && !mutant::is(Mutant::AsksBeforeSync);
        if asks || m.body.is_after_append() {
            self.after_append.push_back(m);
        } else {
            assert!(m.to != self.id, "{:?} to self", m.body.kind());
            self.outbox.push(m);
        }
    }

    /// Passes a request on to the leader. What carries a term was forwarded to a wrong leader before: dropped.
    /// False if it was dropped.
    pub(crate) fn forward(&mut self, mut m: Message) -> bool {
        if m.term != Term::NONE || self.lead == self.id {
            return false;
        }
        m.to = self.lead;
        if m.from.is_none() {
            m.from = self.id;
        }
        if !matches!(m.body, Body::Propose { .. } | Body::ReadIndex { .. }) {
            m.term = self.term;
        }
        self.post(m);
        true
    }
}

/// What a driver reports.
impl<S: Storage> Raft<S> {
    /// Everything up to `last` was durable when that write was handed out in `term`, and `snapshot` installed.
    pub(crate) fn on_append_done(&mut self, term: Term, last: LogPos, snapshot: Option<Index>) {
        if last.index != Index::NONE {
            // A write of term 0 (only after a bootstrap by snapshot) counts always, as local messages do.
            let counts = term == self.term || term == Term::NONE || mutant::is(Mutant::CompletionWithoutTerm);
            if counts {
                self.on_stable(last);
            } else {
                let own = self.term;
                self.trace.note(|| Trace::StaleCompletion { own, term });
            }
        }
        let counts = term == self.term || !mutant::is(Mutant::InstallForgotten);
        if let Some(index) = snapshot.filter(|_| counts) {
            self.log.stable_snapshot_to(index);
            self.log.applied_to(index);
            self.auto_leave();
        }
    }

    fn on_stable(&mut self, last: LogPos) {
        match self.log.stable_to(last) {
            StableOutcome::Stable => {}
            StableOutcome::Missing => self.trace.note(|| Trace::StableMissing { index: last.index }),
            StableOutcome::IsSnapshot => self.trace.note(|| Trace::StableIsSnapshot { index: last.index }),
            StableOutcome::Mismatch(found) => self.trace.note(|| Trace::StableMismatch { reported: last, found }),
        }
    }

    /// Everything handed out up to `upto` is applied.
    pub(crate) fn on_applied(&mut self, upto: Index) {
        let payload = self.log.applied_pages(upto);
        self.auto_leave();
        if let Some(leader) = self.leader_mut() {
            let given_back = if mutant::is(Mutant::UncommittedKept) { 0 } else { payload };
            leader.uncommitted = leader.uncommitted.saturating_sub(given_back);
        }
    }

    /// Asks the driver for entries that the storage has not in memory.
    pub(crate) fn fetch(&mut self, wanted: Fetch) {
        match self.fetches.iter_mut().find(|f| f.to == wanted.to) {
            Some(known) => *known = wanted,
            None => self.fetches.push(wanted),
        }
    }

    /// Tries again what `fetch` waited for.
    pub(crate) fn on_fetched(&mut self, to: ReplicaId) {
        if to == self.id {
            self.log.set_page_uncached(false);
        } else if self.is_leader() && self.tracker.contains(to) {
            while self.send_append(to, Empty::Skip) {}
        }
    }

    /// Somebody knows that this is committed.
    pub(crate) fn learn_commit(&mut self, pos: LogPos) {
        if !self.is_leader() && pos.index > self.log.committed() && self.log.has(pos) {
            assert!(self.log.commit_to(pos.index), "the log holds {pos:?}");
        }
    }

    /// A message that proves lost data leaves the replica as it is.
    pub(crate) fn commit_to(&mut self, commit: Index) -> Result<(), StepError> {
        if self.log.commit_to(commit) {
            Ok(())
        } else {
            Err(StepError::CommitOutsideLog { commit, last: self.log.last_index() })
        }
    }
}
