//! The configurations of one group, one after the other, read from the membership entries of its log (Raft 6).
//!
//! A reading of its own: what a replica says of the members is compared with it, never taken for it.
//! Leaves to others: whose log an entry stands in and whether it is committed (`facts_log`, `facts`).
//! Invariant: configurations ascend by index; a replica id grows with each new one and has one node for ever.

use super::facts_log::{Food, Past};
use crate::codec::{ConfContext, Member, Order};
use crate::group_spec::GroupSpec;
use crate::ids::{Index, LogPos, NodeId, ReplicaId, Term};
use crate::reconfigure::{Goal, Target, WhyAborted};
use pontoon_raft::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryKind, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// Names of the counts of changes that came to an end; a world with changes must not be without both.
pub(super) const CHANGES_DONE: &str = "changes done";
pub(super) const CHANGES_ABORTED: &str = "changes aborted";

type Ids = BTreeSet<ReplicaId>;

/// Who is asked from an index on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// The entry that made it.
    since: Index,
    voters: Ids,
    /// The other half, while it is joint.
    outgoing: Ids,
    learners: Ids,
    /// Outgoing voters that are learners once the joint one is left.
    next_learners: Ids,
}

impl Config {
    fn born(spec: &GroupSpec) -> Config {
        let creation = spec.creation();
        let (voters, learners) = (creation.conf_state.voters, creation.conf_state.learners);
        let (voters, learners) = (voters.into_iter().collect(), learners.into_iter().collect());
        Config { since: creation.birth.index, voters, learners, ..Config::default() }
    }

    pub(super) fn since(&self) -> Index {
        self.since
    }

    pub(super) fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody with a copy.
    pub(super) fn members(&self) -> Ids {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Is it a majority that has it, of both halves if there are two?
    fn agrees(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        let half = |ids: &Ids| 2 * ids.iter().filter(|id| has(**id)).count() > ids.len();
        half(&self.voters) && (!self.is_joint() || half(&self.outgoing))
    }

    /// Does a replica mean this one?
    pub(super) fn is(&self, state: &ConfState) -> bool {
        let same = |ids: &Ids, list: &[ReplicaId]| *ids == list.iter().copied().collect();
        same(&self.voters, &state.voters)
            && same(&self.outgoing, &state.voters_outgoing)
            && same(&self.learners, &state.learners)
            && same(&self.next_learners, &state.learners_next)
    }

    /// The one after this change.
    fn changed(&self, at: Index, change: &ConfChangeV2) -> Result<Config, String> {
        let mut new = Config { since: at, ..self.clone() };
        match change.protocol() {
            Protocol::LeaveJoint if self.is_joint() => {
                new.outgoing.clear();
                new.learners.append(&mut new.next_learners);
                return Ok(new);
            }
            Protocol::EnterJoint { .. } if !self.is_joint() => new.outgoing.clone_from(&self.voters),
            Protocol::Simple if !self.is_joint() => {}
            other => return Err(format!("{other:?} at {at}, where the members are {self:?}")),
        }
        change.changes.iter().try_for_each(|op| new.take(op))?;
        let others = self.voters.symmetric_difference(&new.voters).count();
        if new.voters.is_empty() || (others > 1 && !new.is_joint()) {
            return Err(format!("the change at {at} leads from {self:?} to {new:?}"));
        }
        let same = Config { since: self.since, ..new.clone() } == *self;
        Ok(if same { self.clone() } else { new })
    }

    fn take(&mut self, op: &ConfChangeSingle) -> Result<(), String> {
        let id = op.id;
        if op.kind == ConfChangeType::UpdateNode {
            return Ok(());
        }
        [&mut self.voters, &mut self.learners, &mut self.next_learners].into_iter().for_each(|ids| {
            ids.remove(&id);
        });
        match op.kind {
            ConfChangeType::AddNode => self.voters.insert(id),
            ConfChangeType::AddLearnerNode if self.outgoing.contains(&id) => self.next_learners.insert(id),
            ConfChangeType::AddLearnerNode => self.learners.insert(id),
            ConfChangeType::RemoveNode => true,
            other => return Err(format!("a membership operation {other:?}")),
        };
        Ok(())
    }
}

/// All configurations of a group.
#[derive(Debug, Default)]
pub(super) struct Configs {
    /// Those of the committed log; the first is the one of the birth.
    known: Vec<Config>,
    /// Where each replica is, those that are gone too.
    nodes: BTreeMap<ReplicaId, NodeId>,
    /// Every membership entry that was ever seen, committed or not.
    entries: BTreeMap<(Index, Term), ConfChangeV2>,
    /// Those of the committed log, be it that they changed nothing but the context.
    changes: BTreeSet<Index>,
    /// So far the committed log was read.
    read: Index,
    /// The change under way.
    goal: Option<Goal>,
    /// The first replica id that was not given at birth.
    first_new: ReplicaId,
    /// Where a creation record of each replica was written.
    born: BTreeMap<ReplicaId, NodeId>,
    /// What happened, by name.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Configs {
    pub(super) fn born(spec: &GroupSpec) -> Configs {
        let creation = spec.creation();
        let nodes = creation.members.iter().map(|m| (m.0, m.1)).collect();
        let (read, first_new) = (creation.birth.index, spec.next_replica());
        Configs { known: vec![Config::born(spec)], nodes, read, first_new, ..Configs::default() }
    }

    fn count(&mut self, name: &'static str, n: usize) {
        if n > 0 {
            *self.counts.entry(name).or_default() += n as u64;
        }
    }

    /// A creation record became durable.
    pub(super) fn on_born(&mut self, replica: ReplicaId, node: NodeId) -> Result<(), String> {
        if let Some(before) = self.born.insert(replica, node) {
            return Err(format!("replica {replica} is born on node {node}, and was born on node {before} before"));
        }
        match self.nodes.get(&replica) {
            Some(known) if *known != node => Err(format!("replica {replica} of node {known} is born on node {node}")),
            _ => Ok(()),
        }
    }

    /// A newborn replica got something.
    pub(super) fn on_fed(&mut self, replica: ReplicaId, food: Food) {
        if replica >= self.first_new {
            let name = match food {
                Food::Entries => "new replicas fed from the log",
                Food::Snapshot => "new replicas fed by a snapshot",
            };
            self.count(name, 1);
        }
    }

    /// Nodes of the voters to come, and of the learners.
    pub(super) fn nodes(&self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        self.last().map(|config| self.nodes_in(config)).unwrap_or_default()
    }

    fn nodes_in(&self, config: &Config) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let nodes = |ids: &Ids| ids.iter().filter_map(|id| self.node_of(*id)).collect();
        (nodes(&config.voters), nodes(&config.learners))
    }

    /// Were these the members at some time up to `at`?
    pub(super) fn had(&self, at: Index, target: &Target) -> bool {
        let mut until = self.known.iter().filter(|c| c.since <= at && !c.is_joint());
        until.any(|c| self.nodes_in(c) == (target.voters.clone(), target.learners.clone()))
    }

    /// The one that stands, as far as the committed log was read.
    pub(super) fn last(&self) -> Option<&Config> {
        self.known.last()
    }

    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.nodes.get(&replica).copied()
    }

    /// An entry was seen.
    pub(super) fn on_entry(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.kind != EntryKind::Normal {
            let change = ConfChangeV2::from_entry(entry).map_err(|e| e.to_string())?;
            self.entries.insert((entry.index, entry.term), change.unwrap_or_default());
        }
        Ok(())
    }

    /// This log is committed up to `upto`. Leaders by term are for counting.
    pub(super) fn read(&mut self, past: &Past, upto: Index, leaders: &BTreeMap<Term, ReplicaId>) -> Result<(), String> {
        if upto <= self.read {
            return Ok(());
        }
        let range = (self.read.next(), Term::NONE)..=(upto, Term(u64::MAX));
        let here = self.entries.range(range).filter(|((index, term), _)| past.term(*index) == Some(*term));
        let new: Vec<_> = here.map(|((index, term), c)| (LogPos::new(*term, *index), c.clone())).collect();
        self.read = upto;
        new.into_iter().try_for_each(|(at, change)| self.on_change(at, &change, leaders.get(&at.term).copied()))
    }

    /// The next membership entry of the committed log.
    fn on_change(&mut self, at: LogPos, change: &ConfChangeV2, leader: Option<ReplicaId>) -> Result<(), String> {
        let before = self.known.last().cloned().unwrap_or_default();
        let context = ConfContext::decode(change.context.clone()).map_err(|e| e.to_string())?;
        context.named.iter().try_for_each(|named| self.on_named(&before, named))?;
        let now = before.changed(at.index, change)?;
        if let Some(stranger) = now.members().into_iter().find(|id| !self.nodes.contains_key(id)) {
            return Err(format!("replica {stranger} becomes a member at {at:?}, and no entry says where it is"));
        }
        let fresh = |id: &ReplicaId| context.named.iter().any(|named| named.0 == *id);
        if let Some(old) = now.members().difference(&before.members()).find(|id| !fresh(id)) {
            return Err(format!("replica {old} becomes a member at {at:?} once more"));
        }
        self.changes.insert(at.index);
        context.order.into_iter().for_each(|order| self.on_order(order));
        if now != before {
            self.count_change(&before, &now, leader);
            self.known.push(now);
        }
        Ok(())
    }

    fn on_order(&mut self, order: Order) {
        let name = match (order, self.goal.as_mut()) {
            (Order::Begin(goal), None) => {
                self.goal = Some(goal);
                "changes begun"
            }
            (Order::Abort(why), Some(goal)) if goal.aborted.is_none() => {
                goal.aborted = Some(why);
                match why {
                    WhyAborted::Asked => "changes given up by a caller",
                    WhyAborted::NoProgress(_) => "changes given up without progress",
                }
            }
            (Order::Seal, Some(goal)) => {
                let name = if goal.aborted.is_some() { CHANGES_ABORTED } else { CHANGES_DONE };
                self.goal = None;
                name
            }
            _ => "orders about members that came too late",
        };
        self.count(name, 1);
    }

    fn count_change(&mut self, before: &Config, now: &Config, leader: Option<ReplicaId>) {
        let goes = |id: ReplicaId| before.voters.contains(&id) && !now.voters.contains(&id);
        let (was, is) = (before.members(), now.members());
        let counts = [
            ("joint configurations entered", usize::from(now.is_joint() && !before.is_joint())),
            ("joint configurations left", usize::from(before.is_joint() && !now.is_joint())),
            ("learners added", is.difference(&was).count()),
            ("learners promoted", before.learners.intersection(&now.voters).count()),
            ("voters demoted", now.next_learners.difference(&before.next_learners).count()),
            ("members removed", was.difference(&is).count()),
            ("leaders that lose their vote", usize::from(leader.is_some_and(goes))),
        ];
        counts.into_iter().for_each(|(name, n)| self.count(name, n));
    }

    /// An entry says where a replica is: a new one, or one whose disk was not known.
    fn on_named(&mut self, members: &Config, (replica, node, _): &Member) -> Result<(), String> {
        let highest = self.nodes.last_key_value().map(|(id, _)| *id).unwrap_or_default();
        match self.nodes.get(replica) {
            None if *replica > highest => {}
            Some(known) if known == node && members.members().contains(replica) => {}
            known => return Err(format!("replica id {replica} is used again, on node {node}; it was on {known:?}")),
        }
        self.nodes.insert(*replica, *node);
        Ok(())
    }

    /// The one that an entry there was committed under at the latest, if the log was read so far.
    pub(super) fn at(&self, index: Index) -> Option<&Config> {
        let known = self.known.iter().rev().find(|c| c.since <= index);
        known.filter(|_| index <= self.read)
    }

    /// Is the entry durable on a quorum, as `has` knows it of each replica?
    ///
    /// A change takes effect on a leader when that applies it, not when it is in its log. So an entry is committed under
    /// the last configuration before it, or, where a leader may not have applied that, the one before; whoever has the
    /// entry knows what its first leader had applied (`applied`), and by the time of the next membership entry that is
    /// the one before. Later configurations do as well: their quorums have the whole log up to them, and when the
    /// replicas of earlier ones are gone, only they have.
    pub(super) fn agrees(&self, pos: LogPos, applied: Index, has: impl Fn(ReplicaId) -> bool) -> bool {
        let n = self.known.partition_point(|c| c.since < pos.index);
        let mut changes = self.changes.range(..pos.index).rev();
        let last_change = changes.next().copied().unwrap_or_default();
        let known_applied = match self.entries.contains_key(&(pos.index, pos.term)) {
            true => last_change,
            false => changes.next().copied().unwrap_or_default().max(applied),
        };
        let first = n.saturating_sub(1);
        let pending = self.known.get(first).is_some_and(|c| c.since > known_applied);
        let first = if pending { first.saturating_sub(1) } else { first };
        self.known.iter().skip(first).any(|c| c.agrees(&has))
    }
}
