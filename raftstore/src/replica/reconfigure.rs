//! A leader carries the group from its members to its goal, step by step; callers wait for the end (docs/membership.md).
//!
//! Leaves to others: the order of steps (`plan`), what an applied entry does (`membership`), rounds (`catch_up`).
//! Invariant: nothing here decides by what only this leader remembers, but how far learners have caught up: any later
//! leader goes on from the replica record. One change is under way at a time; callers are answered exactly once.

use super::catch_up::{CatchUp, Seen, Standing};
use super::plan::{self, Next};
use super::{Replica, Work};
use crate::codec::{ConfContext, Order};
use crate::error::AdminError;
use crate::ids::{Incarnation, Index, NodeId, ReplicaId, Tick};
use crate::proposal::{AdminDone, AdminSlot};
use crate::reconfigure::{Goal, Phase, ReconfigureStatus, Target, WhyAborted};
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, FlowState, ProgressStatus, Status,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Callers of one group that may wait.
const MAX_WAITERS: usize = 64;
/// Election timeouts that a caller waits for the end at a replica that does not lead any more.
const PATIENCE: u64 = 20;

/// Stands for the index of a change that the core did not take.
const REFUSED: Index = Index(u64::MAX);

type Disks = BTreeMap<NodeId, Incarnation>;

/// What a caller waits for.
enum Wish {
    Reach(Target),
    Abort,
}

/// How far a wish is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not looked at yet.
    Asked,
    /// Proposed at this index.
    Proposed(Index),
    /// The goal is the group's.
    Running,
}

/// A caller.
struct Waiter {
    wish: Wish,
    stage: Stage,
    /// When it is told that its time is up.
    until: Tick,
    slot: Arc<dyn AdminSlot>,
}

/// Changes of members of one group, as far as this replica drives or awaits them.
#[derive(Default)]
pub(super) struct Changing {
    /// Callers. At most `MAX_WAITERS`.
    waiters: Vec<Waiter>,
    /// The last change proposed here: its index (`REFUSED`: the core did not take it), and when it is given up.
    proposed: Option<(Index, Tick)>,
    /// Rounds of those that are to get a vote.
    catch_up: CatchUp,
    /// Who lacks most of them, and how much.
    behind: Option<(NodeId, u64)>,
    /// Since when a node is waited for: its disk is not known, or it is needed for a quorum to come and not heard of.
    waiting_since: Option<Tick>,
    /// The goal that was sealed last.
    sealed: Option<Goal>,
}

impl Changing {
    /// What a caller waits for whose change was just proposed. One that was refused is proposed again in a later turn.
    fn stage(&self) -> Stage {
        match self.proposed {
            Some((at, _)) if at != REFUSED => Stage::Proposed(at),
            _ => Stage::Asked,
        }
    }

    /// The leadership was lost or won.
    pub(super) fn on_role(&mut self, leads: bool, now: Tick, timeout: u64) {
        self.proposed = None;
        self.behind = None;
        self.waiting_since = None;
        self.catch_up.clear();
        let until = if leads { Tick::MAX } else { now + PATIENCE * timeout };
        self.waiters.iter_mut().for_each(|w| w.until = until);
    }

    /// A goal is set. What became of the same one before is not what its callers want to hear.
    pub(super) fn on_begun(&mut self, goal: &Goal) {
        self.sealed.take_if(|old| old.voters == goal.voters && old.learners == goal.learners);
    }

    pub(super) fn deadline(&self) -> Tick {
        self.waiters.iter().map(|w| w.until).min().unwrap_or(Tick::MAX)
    }

    pub(super) fn fail_waiters(&mut self, why: &AdminError) {
        self.waiters.drain(..).for_each(|w| w.slot.done(Err(why.clone())));
    }
}

impl Replica {
    /// A caller wants other members.
    pub fn reconfigure(&mut self, target: Target, done: Arc<dyn AdminSlot>) {
        match target.check() {
            Ok(()) => self.await_change(Wish::Reach(target), done),
            Err(wrong) => done.done(Err(AdminError::Refused(wrong))),
        }
    }

    /// A caller gives the change under way up.
    pub fn abort_reconfigure(&mut self, done: Arc<dyn AdminSlot>) {
        self.await_change(Wish::Abort, done);
    }

    fn await_change(&mut self, wish: Wish, slot: Arc<dyn AdminSlot>) {
        if let Some(closed) = self.closed() {
            return slot.done(Err(AdminError::Group(closed)));
        }
        if !self.leading_now() {
            return slot.done(Err(AdminError::NotLeader { leader: self.leader_hint() }));
        }
        if self.changing.waiters.len() >= MAX_WAITERS {
            return slot.done(Err(AdminError::Refused("too many callers wait for a change of members".into())));
        }
        self.changing.waiters.push(Waiter { wish, stage: Stage::Asked, until: Tick::MAX, slot });
    }

    /// The end of a turn: callers hear what is new, and on a leader the next step is taken.
    pub(super) fn drive_change(&mut self, disks: &Disks, work: &mut Work) {
        if self.changing.waiters.is_empty() && self.machine.record.goal.is_none() {
            return;
        }
        let waiters = std::mem::take(&mut self.changing.waiters);
        for mut waiter in waiters {
            match self.look_at(&mut waiter, disks, work) {
                Some(answer) => waiter.slot.done(answer),
                None => self.changing.waiters.push(waiter),
            }
        }
        if let Some(goal) = self.machine.record.goal.clone().filter(|_| self.may_change(work.now)) {
            self.go_on(&goal, disks, work);
        }
    }

    /// Brings a caller's stage up to date; `Some`: its answer.
    fn look_at(&mut self, w: &mut Waiter, disks: &Disks, work: &mut Work) -> Option<Result<AdminDone, AdminError>> {
        if w.until <= work.now {
            return Some(Err(AdminError::TimedOut));
        }
        if let Stage::Proposed(at) = w.stage
            && at <= self.machine.handed.index
        {
            // It is the goal, or another one is, or the core refused it: looked at anew.
            w.stage = Stage::Asked;
        }
        match &w.wish {
            Wish::Reach(target) if self.serves(target) => w.stage = Stage::Running,
            Wish::Abort if self.goal().is_some_and(|g| g.aborted.is_some()) => w.stage = Stage::Running,
            _ => {}
        }
        match (w.stage, &w.wish) {
            (Stage::Proposed(_), _) => None,
            (Stage::Running, wish) => self.outcome(wish),
            (Stage::Asked, _) if !self.leading_now() => Some(Err(AdminError::NotLeader { leader: self.leader_hint() })),
            (Stage::Asked, Wish::Reach(target)) => {
                let target = target.clone();
                self.begin(&target, w, disks, work).err()
            }
            (Stage::Asked, Wish::Abort) => self.begin_abort(w, work).err(),
        }
    }

    fn goal(&self) -> Option<&Goal> {
        self.machine.record.goal.as_deref()
    }

    fn serves(&self, target: &Target) -> bool {
        self.goal().is_some_and(|g| g.serves(target) && g.aborted.is_none())
    }

    /// How a change that was under way ended; `None`: it has not.
    fn outcome(&self, wish: &Wish) -> Option<Result<AdminDone, AdminError>> {
        let sealed = self.changing.sealed.as_ref();
        match wish {
            Wish::Abort => self.goal().is_none().then_some(Ok(AdminDone::Aborted)),
            Wish::Reach(target) if self.goal().is_some_and(|g| g.serves(target)) => None,
            Wish::Reach(target) => Some(match sealed.filter(|g| g.serves(target)).map(|g| g.aborted) {
                Some(Some(WhyAborted::NoProgress(node))) => Err(AdminError::NoProgress(node)),
                Some(Some(WhyAborted::Asked)) => Err(AdminError::Aborted),
                Some(None) => Ok(AdminDone::Reconfigured(self.machine.record.conf_index)),
                // A snapshot took this replica past the end.
                None if self.is_reached(target) => Ok(AdminDone::Reconfigured(self.machine.record.conf_index)),
                None => Err(AdminError::TimedOut),
            }),
        }
    }

    /// Are the members as the target wants them?
    fn is_reached(&self, target: &Target) -> bool {
        let goal = target.goal(self.machine.record.next_replica);
        plan::next(&self.machine.record, &goal, self.id) == Next::Seal
    }

    /// Makes a target the group's goal. `Err`: the answer, which may be that all is as wished.
    fn begin(
        &mut self,
        target: &Target,
        w: &mut Waiter,
        disks: &Disks,
        work: &Work,
    ) -> Result<(), Result<AdminDone, AdminError>> {
        if let Some(other) = self.goal() {
            let (voters, learners) = (other.voters.iter().copied().collect(), other.learners.iter().copied().collect());
            return Err(Err(AdminError::ReconfigureInProgress { voters, learners }));
        }
        if !self.may_change(work.now) {
            return Ok(());
        }
        let record = &self.machine.record;
        if self.is_reached(target) {
            return Err(Ok(AdminDone::Reconfigured(record.conf_index)));
        }
        if target.if_conf.is_some_and(|seen| seen != record.conf_index) {
            return Err(Err(AdminError::ConfChanged { now: record.conf_index }));
        }
        let mut nodes = target.voters.iter().chain(&target.learners);
        if let Some(unknown) = nodes.find(|n| record.replica_on(**n).is_none() && !disks.contains_key(n)) {
            return Err(Err(AdminError::UnknownNode(*unknown)));
        }
        let order = Some(Order::Begin(target.goal(record.next_replica)));
        self.propose_context(ConfContext { named: Vec::new(), order }, work);
        w.stage = self.changing.stage();
        Ok(())
    }

    /// Gives the goal up. `Err`: the answer.
    fn begin_abort(&mut self, w: &mut Waiter, work: &Work) -> Result<(), Result<AdminDone, AdminError>> {
        if !self.may_change(work.now) {
            return Ok(());
        }
        let Some(goal) = self.goal() else { return Err(Err(AdminError::NoReconfigure)) };
        if !matches!(plan::next(&self.machine.record, goal, self.id), Next::Add(_) | Next::Switch { .. }) {
            return Err(Err(AdminError::PastAbort));
        }
        self.give_up(WhyAborted::Asked, work);
        w.stage = self.changing.stage();
        Ok(())
    }

    fn give_up(&mut self, why: WhyAborted, work: &Work) {
        self.propose_context(ConfContext { named: Vec::new(), order: Some(Order::Abort(why)) }, work);
    }

    /// May a membership entry be proposed now? Only once an own entry and the last such entry are applied: until then
    /// what this replica knows of the members may be old.
    pub(super) fn may_change(&self, now: Tick) -> bool {
        let status = self.raft.basic_status();
        let applied = self.machine.applied();
        let waits = self.changing.proposed.is_some_and(|(at, until)| at > applied && now < until);
        self.leading_now()
            && !waits
            && status.transferee == ReplicaId::NONE
            && self.stored_term(applied) == Some(status.term)
    }

    /// Proposes a change of at most one operation, none of them on a voter.
    pub(super) fn propose_simple(&mut self, operation: Option<ConfChangeSingle>, context: ConfContext, work: &Work) {
        self.propose_change(ConfChangeTransition::Auto, operation.into_iter().collect(), context, work);
    }

    /// Proposes a membership entry; one that the core refuses is asked for again later.
    fn propose_change(
        &mut self,
        transition: ConfChangeTransition,
        changes: Vec<ConfChangeSingle>,
        context: ConfContext,
        work: &Work,
    ) {
        let change = ConfChangeV2 { transition, changes, context: context.encode() };
        let retry = work.now + 4 * self.limits.election_ticks;
        self.changing.proposed = match self.raft.propose_conf_change(work.now, change) {
            Ok(Some(pos)) => Some((pos.index, retry)),
            // Too much is uncommitted, or the leadership is moving.
            _ => Some((REFUSED, work.now + 1)),
        };
    }

    /// One step towards the goal.
    fn go_on(&mut self, goal: &Goal, disks: &Disks, work: &mut Work) {
        let nothing = ConfContext::default;
        match plan::next(&self.machine.record, goal, self.id) {
            Next::Leave => self.propose_simple(None, nothing(), work),
            Next::HandOver => self.hand_over_in_joint(work),
            Next::Add(node) => self.add(node, disks, work),
            Next::Drop(learner) => {
                let removal = ConfChangeSingle::new(ConfChangeType::RemoveNode, learner);
                self.propose_simple(Some(removal), nothing(), work);
            }
            Next::Switch { promoted, changes } => {
                let status = self.raft.status();
                if self.caught_up(&promoted, goal, &status, work) && self.has_quorum_to_come(goal, &status, work) {
                    let joint = ConfChangeTransition::JointExplicit;
                    self.propose_change(joint, changes, nothing(), work);
                }
            }
            Next::Seal => self.propose_context(ConfContext { named: Vec::new(), order: Some(Order::Seal) }, work),
        }
    }

    /// A new learner, under the next replica id, on the disk that its node showed.
    fn add(&mut self, node: NodeId, disks: &Disks, work: &Work) {
        let Some(disk) = disks.get(&node) else {
            // This leader has not met it (yet).
            return self.wait_for_node(node, work);
        };
        self.changing.waiting_since = None;
        let replica = match mutant::is(Mutant::ReplicaIdUsedAgain) {
            true => ReplicaId(self.machine.record.members.iter().map(|m| m.0.0).max().unwrap_or_default() + 1),
            false => self.machine.record.next_replica,
        };
        let named = vec![(replica, node, *disk)];
        let learner = ConfChangeSingle::new(ConfChangeType::AddLearnerNode, replica);
        self.propose_simple(Some(learner), ConfContext { named, order: None }, work);
    }

    /// Has everybody caught up who is to get a vote? Gives the goal up if somebody does not.
    fn caught_up(&mut self, promoted: &[ReplicaId], goal: &Goal, status: &Status, work: &Work) -> bool {
        self.changing.behind = None;
        for replica in promoted {
            let progress = status.progress.iter().find(|p| p.0 == *replica).map(|p| p.1).unwrap_or_default();
            let seen = Seen {
                matched: progress.matched,
                last: status.basic.last_index,
                fed_snapshot: progress.state == FlowState::Snapshot && self.feeds_snapshot(*replica),
            };
            let timeout = self.limits.election_ticks;
            let standing = self.changing.catch_up.look(*replica, seen, goal.promote_lag, timeout, work.now);
            let node = self.machine.record.node_of(*replica).unwrap_or_default();
            match standing {
                Standing::Ready => {}
                Standing::Stuck => {
                    self.give_up(WhyAborted::NoProgress(node), work);
                    return false;
                }
                Standing::Behind(behind) => {
                    let most = self.changing.behind.filter(|b| b.1 >= behind).unwrap_or((node, behind));
                    self.changing.behind = Some(most);
                }
            }
        }
        self.changing.behind.is_none()
    }

    /// Is a majority of the voters to come heard of? Behind the switch nothing is committed without them, and there is
    /// no way back.
    fn has_quorum_to_come(&mut self, goal: &Goal, status: &Status, work: &Work) -> bool {
        let record = &self.machine.record;
        let is_heard = |node: &NodeId| {
            let of_node = |p: &&(ReplicaId, ProgressStatus)| record.node_of(p.0) == Some(*node);
            status.progress.iter().find(of_node).is_some_and(|(replica, p)| p.active || *replica == self.id)
        };
        let silent: Vec<NodeId> = goal.voters.iter().copied().filter(|node| !is_heard(node)).collect();
        match silent.first() {
            Some(first) if 2 * silent.len() >= goal.voters.len() => {
                self.wait_for_node(*first, work);
                false
            }
            _ => {
                self.changing.waiting_since = None;
                true
            }
        }
    }

    /// Nothing can go on without this node: waits for it, but not for ever.
    fn wait_for_node(&mut self, node: NodeId, work: &Work) {
        let since = *self.changing.waiting_since.get_or_insert(work.now);
        if work.now >= since + PATIENCE * self.limits.election_ticks {
            self.give_up(WhyAborted::NoProgress(node), work);
        }
    }

    /// This leader loses its vote when the joint configuration is left: a voter of the new one leaves it. Had the leader
    /// left it, it would have stepped down before the others knew that the entry is committed.
    fn hand_over_in_joint(&mut self, work: &Work) {
        let voters = &self.machine.record.conf_state.voters;
        let status = self.raft.status();
        let fit = status.progress.iter().filter(|(replica, p)| voters.contains(replica) && p.active);
        let best = fit.max_by_key(|(replica, p)| (p.matched, std::cmp::Reverse(*replica))).map(|(replica, _)| *replica);
        if let Some(target) = best {
            self.raft.transfer_leader(work.now, target);
        }
    }

    /// A goal has ended.
    pub(super) fn on_sealed(&mut self, goal: Goal) {
        self.changing.catch_up.clear();
        self.changing.behind = None;
        self.changing.waiting_since = None;
        self.changing.sealed = Some(goal);
    }

    /// This replica is let go. Who waits here for a change that was past its point of no return has what he wanted: it
    /// is told, unless this replica does not know which configuration that is. Then the leader does.
    pub(super) fn answer_dismissed(&mut self, conf: Index) {
        let record = &self.machine.record;
        let joint = record.conf_state.is_joint();
        let known = !joint || conf > record.conf_index;
        if joint || record.has_removed(self.id) {
            let leader = self.leader_hint();
            for w in self.changing.waiters.extract_if(.., |w| w.stage == Stage::Running) {
                w.slot.done(match w.wish {
                    Wish::Reach(_) if known => Ok(AdminDone::Reconfigured(conf)),
                    Wish::Reach(_) => Err(AdminError::NotLeader { leader }),
                    Wish::Abort => Err(AdminError::PastAbort),
                });
            }
        }
    }

    /// The change under way, for people.
    pub(super) fn change_status(&self) -> Option<ReconfigureStatus> {
        let goal = self.goal()?;
        let phase = match plan::next(&self.machine.record, goal, self.id) {
            _ if goal.aborted.is_some() => Phase::Aborting,
            Next::Leave | Next::HandOver => Phase::Joint,
            Next::Add(node) => Phase::CatchingUp { node, behind: None },
            Next::Switch { promoted, .. } if !promoted.is_empty() => {
                let first = self.machine.record.node_of(promoted[0]).unwrap_or_default();
                let (node, behind) = self.changing.behind.map_or((first, None), |(node, n)| (node, Some(n)));
                Phase::CatchingUp { node, behind }
            }
            Next::Switch { .. } => Phase::Joint,
            Next::Drop(_) | Next::Seal => Phase::Done,
        };
        Some(ReconfigureStatus { voters: goal.voters.clone(), learners: goal.learners.clone(), phase })
    }
}
