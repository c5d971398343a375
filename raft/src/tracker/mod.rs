//! Who is a member, in which role, and what the leader or candidate knows of each.
//!
//! Leaves to others: changing the membership (`confchange`), deciding on what is counted here (`Raft`).
//! Invariant: members are sorted by id and unique; everything that walks them goes in ascending order.
//! There is no hash map in here, and a quorum over up to eight voters takes no memory.

mod inflights;
mod member;
mod progress;

pub use inflights::{Inflights, WindowLimits};
pub use member::{Member, Roles};
pub use progress::Progress;

use crate::ids::{Index, ReplicaId};
use crate::mutant::{self, Mutant};
use crate::quorum::{VoteResult, joint, majority};
use crate::state::ConfState;

/// How an election stands, with the numbers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Tracked members with a vote that said yes.
    pub granted: usize,
    /// Likewise, no.
    pub rejected: usize,
    /// The result over both halves.
    pub result: VoteResult,
}

/// The membership and everything that is kept per member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracker {
    /// Sorted by id, unique. Bound: the members of one group.
    members: Vec<Member>,
    /// The leader leaves the joint state by itself. Invariant: false unless joint.
    pub(crate) auto_leave: bool,
    /// Window of each member that is replicated to.
    limits: WindowLimits,
}

impl Tracker {
    /// No members yet.
    #[must_use]
    pub fn new(limits: WindowLimits) -> Tracker {
        Tracker { members: Vec::new(), auto_leave: false, limits }
    }

    /// Window of each member.
    #[must_use]
    #[inline]
    pub fn limits(&self) -> WindowLimits {
        self.limits
    }

    /// All members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// All members, ascending.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut()
    }

    /// Number of members.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Are there no members?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The `at`-th member's id, ascending: lets a caller walk and send without holding a borrow.
    #[must_use]
    #[inline]
    pub fn id_at(&self, at: usize) -> Option<ReplicaId> {
        self.members.get(at).map(|m| m.id)
    }

    /// The member `id`.
    #[must_use]
    #[inline]
    pub fn get(&self, id: ReplicaId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    /// The member `id`.
    #[inline]
    pub fn get_mut(&mut self, id: ReplicaId) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.id == id)
    }

    /// The progress of `id`.
    #[must_use]
    #[inline]
    pub fn progress(&self, id: ReplicaId) -> Option<&Progress> {
        self.get(id).map(|m| &m.progress)
    }

    /// The progress of `id`.
    #[inline]
    pub fn progress_mut(&mut self, id: ReplicaId) -> Option<&mut Progress> {
        self.get_mut(id).map(|m| &mut m.progress)
    }

    /// Is `id` a member?
    #[must_use]
    #[inline]
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.get(id).is_some()
    }

    /// Does `id` vote in either half?
    #[must_use]
    #[inline]
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.get(id).is_some_and(|m| m.roles.is_voter())
    }

    /// Is `id` a member without a vote?
    #[must_use]
    #[inline]
    pub fn is_learner(&self, id: ReplicaId) -> bool {
        self.get(id).is_some_and(|m| m.roles.is_learner())
    }

    /// Voters of either half, ascending.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.iter().filter(|m| m.roles.is_voter()).map(|m| m.id)
    }

    /// Is `id` the only voter, in both halves?
    #[must_use]
    pub fn is_only_voter(&self, id: ReplicaId) -> bool {
        self.voters().eq([id])
    }

    /// Do two halves overlap?
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|m| m.roles.has(Roles::OUTGOING))
    }

    /// Does the leader leave the joint state by itself?
    #[must_use]
    pub fn auto_leave(&self) -> bool {
        self.auto_leave
    }

    /// The configuration in its stored form, lists sorted.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let with = |role| self.members.iter().filter(|m| m.roles.has(role)).map(|m| m.id).collect();
        ConfState {
            voters: with(Roles::INCOMING),
            voters_outgoing: with(Roles::OUTGOING),
            learners: with(Roles::LEARNER),
            learners_next: with(Roles::LEARNER_NEXT),
            auto_leave: self.auto_leave,
        }
    }

    /// The highest index that is durable on a quorum of both halves; infinite without voters.
    #[must_use]
    pub fn committed(&self) -> Index {
        Index(self.reached(|m| m.progress.matched().0))
    }

    /// The newest read position that a quorum of both halves has confirmed.
    #[must_use]
    pub fn confirmed_read(&self) -> u64 {
        self.reached(|m| m.read_ack)
    }

    /// `id` has confirmed all reads up to `position`.
    pub fn ack_read(&mut self, id: ReplicaId, position: u64) {
        if let Some(member) = self.get_mut(id) {
            member.read_ack = member.read_ack.max(position);
        }
    }

    /// No read is confirmed by anybody.
    pub fn reset_reads(&mut self) {
        if !mutant::is(Mutant::ReadAcksKept) {
            self.members.iter_mut().for_each(|m| m.read_ack = 0);
        }
    }

    /// `id` answered a vote request. Its first answer counts (raft-core S35).
    pub fn record_vote(&mut self, id: ReplicaId, granted: bool) {
        if let Some(member) = self.get_mut(id) {
            member.vote.get_or_insert(granted);
        }
    }

    /// A new election: nobody has answered.
    pub fn reset_votes(&mut self) {
        if !mutant::is(Mutant::VotesKept) {
            self.members.iter_mut().for_each(|m| m.vote = None);
        }
    }

    /// How the election stands. The counts leave learners out.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let count = |answer| self.members.iter().filter(|m| !m.roles.is_learner() && m.vote == Some(answer)).count();
        Tally { granted: count(true), rejected: count(false), result: self.vote(|m| m.vote) }
    }

    /// Has a quorum of both halves been heard of since the last check?
    #[must_use]
    pub fn is_quorum_active(&self) -> bool {
        self.vote(|m| Some(m.progress.is_active())) == VoteResult::Won
    }

    /// A new leadership: every progress starts behind `last`.
    pub fn reset_progress(&mut self, last: Index) {
        self.members.iter_mut().for_each(|m| m.progress.reset(last));
    }

    /// Adds a member, or finds it: a known one keeps its progress.
    pub(crate) fn entry(&mut self, id: ReplicaId, next: Index) -> &mut Member {
        let at = match self.members.binary_search_by_key(&id, |m| m.id) {
            Ok(at) => at,
            Err(at) => {
                self.members.insert(at, Member::new(id, next));
                at
            }
        };
        &mut self.members[at]
    }

    /// Forgets everybody without a role.
    pub(crate) fn drop_roleless(&mut self) {
        self.members.retain(|m| m.roles != Roles::NONE);
    }

    /// What a majority of each half has reached in terms of `value`.
    fn reached(&self, value: impl Fn(&Member) -> u64) -> u64 {
        let half = |role| {
            let (mut stack, mut heap, mut n) = ([0u64; STACK], Vec::new(), 0);
            for member in self.members.iter().filter(|m| counts(m, role)) {
                if n < STACK {
                    stack[n] = value(member);
                } else {
                    heap.push(value(member));
                }
                n += 1;
            }
            if n <= STACK {
                return majority::reached(&mut stack[..n]);
            }
            heap.extend_from_slice(&stack);
            majority::reached(&mut heap)
        };
        if mutant::is(Mutant::OneHalfCommits) && self.is_joint() {
            return half(Roles::INCOMING).max(half(Roles::OUTGOING));
        }
        let incoming = half(Roles::INCOMING);
        if self.is_joint() { incoming.min(half(Roles::OUTGOING)) } else { incoming }
    }

    fn vote(&self, answer: impl Fn(&Member) -> Option<bool>) -> VoteResult {
        let half = |role| {
            let (mut yes, mut no, mut voters) = (0, 0, 0);
            for member in self.members.iter().filter(|m| m.roles.has(role)) {
                voters += 1;
                match answer(member) {
                    Some(true) => yes += 1,
                    Some(false) => no += 1,
                    None => {}
                }
            }
            majority::vote(yes, no, voters)
        };
        joint::vote(half(Roles::INCOMING), half(Roles::OUTGOING))
    }
}

fn counts(member: &Member, role: Roles) -> bool {
    let learns = mutant::is(Mutant::LearnersCount) && role == Roles::INCOMING && member.roles.is_learner();
    member.roles.has(role) || learns
}

/// Voters of one half up to which a quorum is counted on the stack.
const STACK: usize = 8;

#[cfg(test)]
mod tests;
