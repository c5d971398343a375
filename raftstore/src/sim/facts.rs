//! What must hold at each step of a simulated world, checked as it happens (Raft, figure 3, and boot.md 4).
//!
//! Sees what becomes durable, what leaves a node, what machines are given, what callers are told. Leaves to others:
//! what is true at the end only (`clients`, `world`). Invariant: a check looks at facts, never at a node's opinion of
//! itself, except for the commit that a replica says to know.

use super::configs::{Config, Configs};
use super::facts_log::Pasts;
use super::node::SimNode;
use crate::codec::{Digest, ReplicaRecord, SnapshotFrame, decode_messages};
use crate::env::{GroupOp, GroupWrite, Install, Instant, Lane, LogBatch};
use crate::group_spec::GroupSpec;
use crate::ids::{GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use crate::mem::{AppliedCommand, Packet};
use crate::reconfigure::Target;
use crate::task::GroupMessage;
use pontoon_raft::{Append, Body, Entry, EntryKind};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one group over all its replicas.
#[derive(Debug, Default)]
struct Group {
    /// Its members, from entry to entry.
    configs: Configs,
    /// Who led in which term.
    leaders: BTreeMap<Term, ReplicaId>,
    /// Highest commit that the leader of a term has told.
    leader_commits: BTreeMap<Term, Index>,
    /// Every entry ever handed to be written, written or sent.
    entries: BTreeMap<(Index, Term), Seen>,
    /// Committed: at each index the entry's term, and the latest term that had a leader when it was seen as committed.
    committed: BTreeMap<Index, (Term, Term)>,
}

/// An entry.
#[derive(Debug)]
struct Seen {
    contents: u64,
    /// The term before it, if known.
    prev: Option<Term>,
    /// What its leader's machine had been seen to apply when it came up.
    applied: Index,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Facts {
    groups: BTreeMap<GroupId, Group>,
    /// Being destroyed: its replicas go one by one, durable copies with them.
    ended: BTreeSet<GroupId>,
    /// The moment.
    pub(super) now: Instant,
    pub(super) pasts: Pasts,
    /// Checks made, by name.
    pub(super) checks: BTreeMap<&'static str, u64>,
}

/// Nodes by id.
pub(super) type Nodes = BTreeMap<NodeId, SimNode>;

fn contents(kind: EntryKind, data: &[u8]) -> u64 {
    let mut d = Digest::default();
    d.update_u64(kind as u64);
    d.update(data);
    d.finish()
}

fn ensure(ok: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(why()) }
}

impl Facts {
    pub(super) fn add_group(&mut self, spec: &GroupSpec) {
        self.groups.insert(spec.id, Group { configs: Configs::born(spec), ..Group::default() });
    }

    /// The members of a group, as far as its log is known to be committed.
    pub(super) fn config(&self, group: GroupId) -> Option<&Config> {
        self.groups.get(&group).and_then(|g| g.configs.last())
    }

    /// Nodes of its voters to come, and of its learners.
    pub(super) fn nodes_of(&self, group: GroupId) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        self.groups.get(&group).map(|g| g.configs.nodes()).unwrap_or_default()
    }

    /// Were these the members at some time up to `at`?
    pub(super) fn had_members(&self, group: GroupId, at: Index, target: &Target) -> bool {
        self.groups.get(&group).is_some_and(|g| g.configs.had(at, target))
    }

    /// What came of changes of members, by name.
    pub(super) fn change_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (name, n) in self.groups.values().flat_map(|g| &g.configs.counts) {
            *all.entry(*name).or_default() += n;
        }
        all
    }

    pub(super) fn change_count(&self, name: &str) -> u64 {
        self.groups.values().filter_map(|g| g.configs.counts.get(name)).sum()
    }

    pub(super) fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        self.groups.get(&group).and_then(|g| g.configs.node_of(replica))
    }

    pub(super) fn end_group(&mut self, group: GroupId) {
        self.ended.insert(group);
    }

    fn count(&mut self, check: &'static str) {
        *self.checks.entry(check).or_default() += 1;
    }

    /// A batch became durable on a node.
    pub(super) fn on_durable(&mut self, nodes: &Nodes, node: NodeId, batch: &LogBatch) -> Result<(), String> {
        for write in &batch.writes {
            self.before_write(node, write).map_err(|why| format!("group {}: {why}", write.group))?;
            let news = self.pasts.on_durable(node, self.now, write)?;
            if let (Some(food), Some(known)) = (news.first_food, self.groups.get_mut(&write.group)) {
                known.configs.on_fed(write.replica, food);
            }
            for (prev, entry) in &news.entries {
                self.on_entry(node, write.group, entry, Some(*prev))?;
            }
            for pos in news.committed {
                self.on_committed(nodes, node, write.group, pos)?;
            }
        }
        self.pasts.check_pending(node, batch)
    }

    /// What a write is about to take out of a log is committed: its membership entries are read before.
    fn before_write(&mut self, node: NodeId, write: &GroupWrite) -> Result<(), String> {
        match &write.op {
            GroupOp::Truncate(upto) => self.read_configs(node, write.group, upto.pos.index),
            GroupOp::Install { install, .. } => self.on_installed(write.group, install),
            GroupOp::Create { .. } => {
                let known = self.groups.entry(write.group).or_default();
                known.configs.on_born(write.replica, node)
            }
            _ => Ok(()),
        }
    }

    /// This replica's log is committed up to `upto`.
    pub(super) fn read_configs(&mut self, node: NodeId, group: GroupId, upto: Index) -> Result<(), String> {
        let (Some(past), Some(known)) = (self.pasts.of(node, group), self.groups.get_mut(&group)) else {
            return Ok(());
        };
        known.configs.read(past, upto, &known.leaders)
    }

    /// A snapshot names the members that the log has at its position.
    fn on_installed(&mut self, group: GroupId, install: &Install) -> Result<(), String> {
        let Some(known) = self.groups.get_mut(&group) else { return Ok(()) };
        if let Some(past) = self.pasts.holder_of(group, install.pos) {
            known.configs.read(past, install.pos.index, &known.leaders)?;
        }
        let Some(config) = known.configs.at(install.pos.index) else { return Ok(()) };
        ensure(config.is(&install.conf_state), || {
            format!("a snapshot of {:?} names {:?}, the log {config:?}", install.pos, install.conf_state)
        })?;
        self.count("members of a snapshot");
        Ok(())
    }

    /// Log matching: one index and term, one entry and one past.
    fn on_entry(&mut self, node: NodeId, group: GroupId, entry: &Entry, prev: Option<Term>) -> Result<(), String> {
        let applied = self.pasts.of(node, group).map(|p| p.applied).unwrap_or_default();
        let known = self.groups.entry(group).or_default();
        let contents = contents(entry.kind, &entry.data);
        let fresh = || Seen { contents, prev, applied };
        let first = known.entries.entry((entry.index, entry.term)).or_insert_with(fresh);
        let same_past = first.prev.is_none() || prev.is_none() || first.prev == prev;
        let fits = first.contents == contents && same_past;
        first.prev = first.prev.or(prev);
        ensure(fits, || format!("log matching: group {group} has two entries at {:?}", entry.pos()))?;
        known.configs.on_entry(entry)?;
        self.count("log matching");
        Ok(())
    }

    /// State-machine safety and durability on a quorum, once per index.
    fn on_committed(&mut self, nodes: &Nodes, node: NodeId, group: GroupId, pos: LogPos) -> Result<(), String> {
        let known = self.groups.entry(group).or_default();
        match known.committed.get(&pos.index) {
            Some((term, _)) if *term == pos.term => return Ok(()),
            Some((term, _)) => {
                return Err(format!(
                    "state-machine safety: group {group} committed terms {term} and {} at {}",
                    pos.term, pos.index
                ));
            }
            None => {
                let newest = known.leaders.last_key_value().map_or(pos.term, |(term, _)| *term);
                known.committed.insert(pos.index, (pos.term, newest))
            }
        };
        self.read_configs(node, group, pos.index.prev())?;
        self.check_quorum(nodes, group, pos)?;
        self.read_configs(node, group, pos.index)
    }

    /// Committed means durable on a quorum of the configuration in force, of both halves while it is joint.
    pub(super) fn check_quorum(&mut self, nodes: &Nodes, group: GroupId, pos: LogPos) -> Result<(), String> {
        if self.ended.contains(&group) {
            return Ok(());
        }
        self.count("durable on a quorum");
        let Some(known) = self.groups.get(&group) else { return Ok(()) };
        let has = |replica| {
            let holds = |g: &crate::mem::GroupImage| {
                let kept = g.truncated.pos.index >= pos.index || g.term(pos.index) == Some(pos.term);
                g.replica == replica && kept
            };
            let node = known.configs.node_of(replica).and_then(|node| nodes.get(&node));
            node.and_then(|n| n.durable(group, holds)).unwrap_or(false)
        };
        let applied = known.entries.get(&(pos.index, pos.term)).map(|seen| seen.applied).unwrap_or_default();
        ensure(known.configs.agrees(pos, applied, has), || {
            let holders: Vec<ReplicaId> = (1..100).map(ReplicaId).filter(|id| has(*id)).collect();
            format!("group {group}: {pos:?} is committed, but durable on {holders:?} only, of {:?}", known.configs)
        })
    }

    /// A machine was given a command: it is committed, and this replica's own write of it is durable (law 1).
    pub(super) fn on_applied(&mut self, nodes: &Nodes, node: NodeId, applied: &AppliedCommand) -> Result<(), String> {
        let AppliedCommand { group, replica, pos, command } = applied;
        if self.pasts.of(node, *group).and_then(|p| p.buried).is_some_and(|(_, next)| *replica < next) {
            return Ok(()); // what was under way when the tombstone became durable: nobody will look at it
        }
        let own = nodes.get(&node).and_then(|n| n.durable(*group, |g| g.term(pos.index)));
        ensure(own == Some(Some(pos.term)), || {
            format!("node {node} applies {pos:?} of group {group}, which is not durable there")
        })?;
        ensure(nodes.get(&node).is_some_and(|n| !n.is_being_undone(*group, pos.index)), || {
            format!("node {node} applies {pos:?} of group {group}, which a write in flight undoes")
        })?;
        let entry = Entry { term: pos.term, index: pos.index, ..Entry::normal(command.clone()) };
        self.on_entry(node, *group, &entry, None)?;
        self.count("applied is durable");
        self.pasts.on_applied(node, *group, pos.index);
        self.on_committed(nodes, node, *group, *pos)
    }

    /// A frame leaves a node.
    pub(super) fn on_sent(&mut self, nodes: &Nodes, packet: &Packet) -> Result<(), String> {
        let Some(node) = nodes.get(&packet.from.node) else { return Ok(()) };
        if packet.lane == Lane::Snapshot {
            let frame =
                SnapshotFrame::decode(packet.body.clone()).map_err(|e| format!("a node sends nonsense: {e}"))?;
            if let SnapshotFrame::Chunk(chunk) = frame
                && let Some(header) = chunk.header
            {
                self.on_leader(node, &header.message)?;
            }
            return Ok(());
        }
        let messages = decode_messages(packet.body.clone()).map_err(|e| format!("a node sends nonsense: {e}"))?;
        messages.iter().try_for_each(|m| {
            self.on_message(node, m).map_err(|why| format!("node {}, group {}: {why}", node.id, m.group))
        })
    }

    fn on_message(&mut self, node: &SimNode, m: &GroupMessage) -> Result<(), String> {
        let message = &m.message;
        self.on_speaker(node, m.group, message.from)?;
        match &message.body {
            Body::AppendResp(resp) if resp.reject.is_none() => self.on_ack(node, m, resp.index),
            Body::VoteResp { reject: false } => self.on_vote(node, m, message.to),
            Body::Vote(_) => self.on_vote(node, m, message.from),
            Body::Append(append) => {
                self.on_leader(node, m)?;
                self.on_append(node, m, append)
            }
            Body::Heartbeat { .. } => self.on_leader(node, m),
            _ => Ok(()),
        }
    }

    /// Whoever has a tombstone is silent for ever.
    fn on_speaker(&mut self, node: &SimNode, group: GroupId, from: ReplicaId) -> Result<(), String> {
        let buried = self.pasts.of(node.id, group).and_then(|p| p.buried);
        let speaks = buried.is_some_and(|(since, next)| since < self.now && from < next);
        ensure(!speaks, || format!("replica {from} speaks after its tombstone"))
    }

    /// What an ack names is durable here, its term too, and no write in flight undoes it.
    fn on_ack(&mut self, node: &SimNode, m: &GroupMessage, index: Index) -> Result<(), String> {
        self.count("ack is durable");
        let term = m.message.term;
        let found = node.durable(m.group, |g| (g.last().index, g.hard_state.term));
        let (last, durable_term) = found.unwrap_or_default();
        ensure(last >= index, || format!("acks {index} in term {term}, durable is the log up to {last}"))?;
        ensure(durable_term >= term, || format!("acks {index} in term {term}, durable is term {durable_term}"))?;
        ensure(index == Index::NONE || !node.is_being_undone(m.group, index), || {
            format!("acks {index} in term {term}, which a write in flight undoes")
        })
    }

    /// A vote, one's own too, is durable before anybody hears of it.
    fn on_vote(&mut self, node: &SimNode, m: &GroupMessage, to: ReplicaId) -> Result<(), String> {
        self.count("vote is durable");
        let term = m.message.term;
        let past = self.pasts.of(node.id, m.group);
        let durable = past.map(|p| p.hard_state.term).unwrap_or_default();
        let vote = past.and_then(|p| p.votes.get(&term)).copied();
        let kept = vote == Some(to) || (vote.is_none() && durable > term);
        ensure(kept, || format!("votes for {to} in term {term}; durable is term {durable} with the vote {vote:?}"))
    }

    /// Election safety and leader completeness.
    fn on_leader(&mut self, node: &SimNode, m: &GroupMessage) -> Result<(), String> {
        let (term, from) = (m.message.term, m.message.from);
        let known = self.groups.entry(m.group).or_default();
        if let Some(leader) = known.leaders.get(&term) {
            return ensure(*leader == from, || {
                format!("election safety: {leader} and {from} lead group {} in term {term}", m.group)
            });
        }
        known.leaders.insert(term, from);
        let earlier: Vec<LogPos> =
            known.committed.iter().filter(|(_, t)| t.1 < term).map(|(i, t)| LogPos::new(t.0, *i)).collect();
        let base = node.media.disk.live(|i| i.groups.get(&m.group).map_or(Index::NONE, |g| g.truncated.pos.index));
        for pos in earlier.into_iter().filter(|p| p.index > base) {
            let own = node.term_in_sight(m.group, pos.index);
            ensure(own == Some(pos.term), || {
                format!("leader completeness: {from} leads in term {term}, {pos:?} is committed, it has {own:?} there")
            })?;
        }
        self.count("election safety");
        Ok(())
    }

    /// A leader's entries match all others, and its commit moves only onto an entry of its term (Raft 5.4.2).
    fn on_append(&mut self, node: &SimNode, m: &GroupMessage, append: &Append) -> Result<(), String> {
        let mut prev = Some(append.prev.term);
        for entry in &append.entries {
            self.on_entry(node.id, m.group, entry, prev)?;
            prev = Some(entry.term);
        }
        let term = m.message.term;
        let known = self.groups.entry(m.group).or_default();
        let before = known.leader_commits.insert(term, append.commit);
        let Some(before) = before else { return Ok(()) };
        if append.commit < before {
            known.leader_commits.insert(term, before);
            return Ok(());
        }
        if append.commit > before {
            let at = node.term_in_sight(m.group, append.commit);
            ensure(at.is_none() || at == Some(term), || {
                format!("the leader of term {term} commits {} of term {at:?}", append.commit)
            })?;
            self.count("commit of the own term");
        }
        Ok(())
    }

    /// A batch goes to the writer: notes the commit that the replica knew.
    pub(super) fn on_handed(&mut self, node: &SimNode, group: GroupId, op: &GroupOp) {
        if let (GroupOp::Append { entries, .. }, Some(up)) = (op, &node.up)
            && let (false, Ok(status)) = (entries.is_empty(), up.handle.status(group))
        {
            self.pasts.on_handed(node.id, group, entries, status.commit);
            self.note_first(node.id, group, entries);
        }
    }

    /// Entries that nobody has seen before: this node's leader has just made them.
    fn note_first(&mut self, node: NodeId, group: GroupId, entries: &[Entry]) {
        let applied = self.pasts.of(node, group).map(|p| p.applied).unwrap_or_default();
        let known = self.groups.entry(group).or_default();
        for e in entries {
            let fresh = || Seen { contents: contents(e.kind, &e.data), prev: None, applied };
            known.entries.entry((e.index, e.term)).or_insert_with(fresh);
        }
    }

    /// After a crash, before the restart: boot.md 4's invariant. Returns the commits that must not be forgotten.
    pub(super) fn on_crashed(
        &mut self,
        node: &SimNode,
        kind_of: &BTreeMap<GroupId, &'static str>,
    ) -> Result<Vec<(GroupId, Index)>, String> {
        self.pasts.on_crashed(node.id);
        let groups: Vec<_> = node.media.disk.durable(|i| i.groups.iter().map(|(id, g)| (*id, g.clone())).collect());
        let mut least_commits = Vec::new();
        for (group, image) in groups {
            let last = image.last();
            let least = self.pasts.of(node.id, group).map(|p| p.least_commit(last)).unwrap_or_default();
            least_commits.push((group, least));
            self.count("commit is kept");
            let Some(kind) = kind_of.get(&group) else { continue };
            let at = |generation| {
                let meta =
                    node.media.machines[kind].flushed_meta((group, image.replica, generation), ReplicaRecord::META_KEY);
                meta.and_then(|m| ReplicaRecord::decode(m).ok()).map(|r| r.applied.index)
            };
            let applied = at(image.generation).unwrap_or_default();
            ensure(applied <= last.index, || {
                format!("node {}, group {group}: the machine kept {applied}, the log ends at {last:?}", node.id)
            })?;
            let begun = image.intent.as_ref().and_then(|i| Some((at(i.generation)?, i.pos.index)));
            ensure(begun.is_none_or(|(machine, intent)| machine == intent), || {
                format!("node {}, group {group}: contents of another install: {begun:?}", node.id)
            })?;
            self.count("applied within the log");
        }
        Ok(least_commits)
    }

    /// Committed entries of a group so far.
    pub(super) fn committed(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, |g| g.committed.len())
    }
}
