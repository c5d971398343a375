//! Leadership as the outside sees it: hints, the status copy, transfers and their answers; candidates that try again.
//!
//! Leaves to others: elections and transfers themselves (the core).
//! Invariant: the cell's status is what the core said at the end of the replica's last turn, the commit what its last
//! `Ready` told, so that the write of that turn contains it.

use super::{Replica, Work};
use crate::error::{AdminError, LeaderHint};
use crate::events::Event;
use crate::group_status::FollowerStatus;
use crate::ids::{Incarnation, Index, NodeId, Tick};
use crate::proposal::{AdminDone, AdminSlot};
use pontoon_raft::{BasicStatus, HardState, ReplicaId, SoftState, StateRole, Storage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ticks between refreshes of what a leader shows of its followers. CheckQuorum forgets who was active once per election
/// timeout (10 ticks): the two must not fall together, or nobody would ever look active.
const FOLLOWERS_EVERY: Tick = 7;

/// Doublings of a candidate's patience after which it is far beyond any election timeout.
const MAX_DOUBLINGS: u32 = 8;

/// Leadership of one group.
#[derive(Default)]
pub(super) struct Leading {
    /// As told by the core last.
    soft: SoftState,
    /// On a candidate: when it tries again.
    retry_at: Option<Tick>,
    /// How often it did since a leader was known.
    retries: u32,
    /// Stood in the last term before this start, and most likely led: stands first now.
    first: bool,
    /// Who waits for a transfer: to whom, until when.
    transfer: Option<(NodeId, Tick, Arc<dyn AdminSlot>)>,
    /// On a leader: how the others stand; refreshed every `FOLLOWERS_EVERY` ticks.
    followers: Vec<FollowerStatus>,
    /// Who was active at the refresh before: CheckQuorum may have forgotten it since.
    seen: Vec<ReplicaId>,
    /// When to refresh them.
    refresh_at: Tick,
    /// On a leader: followers that have less than this get a snapshot, no log is kept for them any more.
    given_up: Index,
    /// What the outside's copy shows, while no change of members is under way.
    shown: Option<Shown>,
}

/// The part of a status that every turn may change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown {
    core: BasicStatus,
    applied: Index,
    first: Index,
    log_bytes: u64,
    leader: Option<LeaderHint>,
    transferring: Option<NodeId>,
}

impl Leading {
    /// Of a replica that starts with this hard state.
    pub(super) fn new(id: ReplicaId, started_with: HardState) -> Leading {
        Leading { first: started_with.vote == id, ..Leading::default() }
    }

    /// What all followers that were heard of lately have, as far as looked at.
    pub(super) fn slowest_active(&self) -> Index {
        let active = self.followers.iter().filter(|f| f.active).map(|f| f.matched);
        active.min().unwrap_or(Index(u64::MAX))
    }

    /// Log up to there was dropped though a follower may have needed it.
    pub(super) fn give_up_below(&mut self, index: Index) {
        self.given_up = self.given_up.max(index);
    }

    pub(super) fn given_up(&self) -> Index {
        self.given_up
    }
}

impl Replica {
    /// The leader as far as known, with its node.
    pub(super) fn leader_hint(&self) -> Option<LeaderHint> {
        let status = self.raft.basic_status();
        let node = self.node_of(status.lead)?;
        Some(LeaderHint { node, term: status.term })
    }

    /// Does this replica lead?
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.closed().is_none() && self.leading.soft.role == StateRole::Leader
    }

    /// Role and leader as told last: for gauges.
    #[must_use]
    pub fn soft_state(&self) -> SoftState {
        self.leading.soft
    }

    pub(super) fn on_soft_state(&mut self, soft: SoftState, work: &mut Work) {
        let before = std::mem::replace(&mut self.leading.soft, soft);
        let stands = soft.role == StateRole::Candidate;
        self.leading.retry_at = stands.then(|| work.now + self.patience());
        let led = before.role == StateRole::Leader;
        if led != (soft.role == StateRole::Leader) {
            self.changing.on_role(!led, work.now, self.limits.election_ticks);
            self.peers.forget_heard();
        }
        if led && soft.role != StateRole::Leader {
            self.proposals.set_give_up(Some(work.now + 2 * self.limits.election_ticks));
            self.leading.followers.clear();
            self.leading.seen.clear();
            self.leading.given_up = Index::NONE;
            self.snapshots.feeding.clear();
            self.drop_idle_shelf(work);
        }
        if soft.role == StateRole::Leader {
            self.proposals.set_give_up(None);
            self.leading.refresh_at = work.now;
        }
        if before.lead == soft.lead {
            return;
        }
        if soft.lead != ReplicaId::NONE {
            self.leading.retries = 0;
            work.tally.leader_changes += 1;
            self.reads.ask_again();
        }
        let node = self.node_of(soft.lead);
        work.events.push(Event::Leader { group: self.group, node, term: self.raft.basic_status().term });
        if let (Some(node), true) = (node, soft.lead != self.id) {
            self.end_transfer(Ok(AdminDone::Leader(node)));
        }
    }

    /// How long a candidate waits for votes. A vote that is split shows within a round; the core would let a whole election
    /// timeout pass before the next try, and two of three voters split it whenever they draw the same timeout. Here the
    /// voters take turns by id, so that they do not split it again. Each time twice as long: where a round takes longer than
    /// that (votes are synced on both sides), no votes would ever be waited for; soon the core's timeout is the shorter one.
    fn patience(&self) -> Tick {
        let before = self.machine.record.conf_state.voters.iter().filter(|voter| **voter < self.id).count();
        let first = (self.limits.election_ticks / 5).max(1) * (1 + before as u64);
        first << self.leading.retries.min(MAX_DOUBLINGS)
    }

    pub(super) fn retry_deadline(&self) -> Tick {
        self.leading.retry_at.unwrap_or(Tick::MAX)
    }

    /// After a start of all nodes somebody has to wait for an election timeout, with many groups so many at a time that
    /// candidates meet. Whoever led before need not: it stands as soon as it can reach a quorum, and leaders stay where they
    /// were. Where somebody leads already nobody grants it a pre-vote. Returns whether it stands.
    pub fn stand_first(&mut self, disks: &BTreeMap<NodeId, Incarnation>, work: &Work) -> bool {
        if !self.leading.first || self.closed().is_some() {
            return false;
        }
        let record = &self.machine.record;
        let there = |voter: &ReplicaId| record.node_of(*voter).is_some_and(|node| disks.contains_key(&node));
        let quorum = |voters: &[ReplicaId]| voters.iter().filter(|v| there(v)).count() > voters.len() / 2;
        let conf = &record.conf_state;
        if !quorum(&conf.voters) || (conf.is_joint() && !quorum(&conf.voters_outgoing)) {
            return false;
        }
        self.leading.first = false;
        let leaderless = self.raft.basic_status().lead == ReplicaId::NONE;
        if leaderless {
            self.raft.campaign(work.now);
        }
        leaderless
    }

    /// The vote is split: another try.
    pub(super) fn stand_again(&mut self, now: Tick) {
        if self.retry_deadline() <= now {
            self.leading.retry_at = None;
            self.leading.retries = self.leading.retries.saturating_add(1);
            self.raft.campaign(now);
        }
    }

    /// Brings the outside's copy up to date.
    pub(super) fn publish(&mut self, now: Tick) {
        let status = BasicStatus { commit: self.raft.told_hard_state().commit, ..self.raft.basic_status() };
        let refreshed = status.role == StateRole::Leader && now >= self.leading.refresh_at;
        if refreshed {
            self.leading.refresh_at = now + FOLLOWERS_EVERY;
            self.leading.followers = self.look_at_followers();
            let progress = self.raft.status().progress.into_iter();
            self.leading.seen = progress.filter(|(_, p)| p.active).map(|(replica, _)| replica).collect();
        }
        let leader = self.leader_hint();
        let record = &self.machine.record;
        let transferring = record.node_of(status.transferee);
        let change = self.change_status();
        let (storage, applied) = (self.raft.storage(), self.machine.applied());
        let (first, log_bytes) = (storage.first_index(), storage.log_bytes());
        let shown = Shown { core: status, applied, first, log_bytes, leader, transferring };
        if !refreshed && change.is_none() && self.leading.shown == Some(shown) {
            return;
        }
        self.leading.shown = change.is_none().then_some(shown);
        let followers = &self.leading.followers;
        self.cell.with_status(|s| {
            let BasicStatus { role, term, commit, last_index, .. } = status;
            (s.role, s.term, s.commit, s.last, s.applied) = (role, term, commit, last_index, applied);
            (s.leader, s.transferring, s.reconfigure) = (leader, transferring, change);
            (s.first, s.log_bytes) = (first, log_bytes);
            if refreshed || (role != StateRole::Leader && !s.followers.is_empty()) {
                s.followers.clone_from(followers);
            }
        });
    }

    /// The rarely changing half of the copy: configuration, replica map, generation.
    pub(super) fn publish_shape(&mut self) {
        let record = &self.machine.record;
        self.cell.with_status(|s| {
            s.conf_state.clone_from(&record.conf_state);
            s.members.clone_from(&record.members);
            s.generation = record.generation;
            s.conf_index = record.conf_index;
        });
    }

    pub(super) fn look_at_followers(&self) -> Vec<FollowerStatus> {
        let look = |(replica, p): (ReplicaId, pontoon_raft::ProgressStatus)| FollowerStatus {
            replica,
            node: self.machine.record.node_of(replica),
            matched: p.matched,
            flow: p.state,
            active: p.active || self.leading.seen.contains(&replica),
            learner: p.learner,
        };
        self.raft.status().progress.into_iter().filter(|p| p.0 != self.id).map(look).collect()
    }

    /// The voter that a leader would hand over to.
    fn best_successor(&self) -> Option<ReplicaId> {
        let fit = self.look_at_followers().into_iter().filter(|f| f.active && !f.learner && f.node.is_some());
        fit.max_by_key(|f| (f.matched, std::cmp::Reverse(f.replica))).map(|f| f.replica)
    }

    /// Hands the leadership over, to whoever is most up to date if `to` is `None`.
    pub fn transfer(&mut self, to: Option<NodeId>, done: Arc<dyn AdminSlot>, work: &Work) {
        match self.transfer_target(to) {
            Ok((target, node)) if target == self.id => done.done(Ok(AdminDone::Leader(node))),
            Ok((target, node)) => {
                self.end_transfer(Err(AdminError::Refused("another transfer took its place".into())));
                self.raft.transfer_leader(work.now, target);
                self.leading.transfer = Some((node, work.now + 2 * self.limits.election_ticks, done));
            }
            Err(e) => done.done(Err(e)),
        }
    }

    fn transfer_target(&self, to: Option<NodeId>) -> Result<(ReplicaId, NodeId), AdminError> {
        if let Some(closed) = self.closed() {
            return Err(AdminError::Group(closed));
        }
        if self.raft.basic_status().role != StateRole::Leader {
            return Err(AdminError::NotLeader { leader: self.leader_hint() });
        }
        let members = &self.machine.record.members;
        let target = match to {
            Some(node) => members.iter().find(|m| m.1 == node).map(|m| m.0),
            None => self.best_successor(),
        };
        let target = target.filter(|t| self.machine.record.conf_state.is_voter(*t));
        let node = target.and_then(|t| self.machine.record.node_of(t));
        target.zip(node).ok_or_else(|| AdminError::Refused("no voter to hand over to".into()))
    }

    /// Offers the leadership to whoever is most up to date, without an answer to anybody (stalls, quarantine).
    pub fn hand_over(&mut self, work: &Work) {
        if self.raft.basic_status().role != StateRole::Leader {
            return;
        }
        if let Some(target) = self.best_successor() {
            self.raft.transfer_leader(work.now, target);
        }
    }

    pub(super) fn transfer_deadline(&self) -> Tick {
        self.leading.transfer.as_ref().map_or(Tick::MAX, |t| t.1)
    }

    pub(super) fn expire_transfer(&mut self, now: Tick) {
        if self.transfer_deadline() <= now {
            self.end_transfer(Err(AdminError::TimedOut));
        }
    }

    pub(super) fn end_transfer(&mut self, result: Result<AdminDone, AdminError>) {
        if let Some((_, _, done)) = self.leading.transfer.take() {
            done.done(result);
        }
    }
}
