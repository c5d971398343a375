//! What each replica has durably said so far: votes, terms of its log, the commit known at each append.
//!
//! Fed with the batches that became durable, in order. Leaves to others: what follows from it for a group (`facts`).
//! Invariant: `terms` mirrors the durable log behind `base`.

use crate::env::{GroupOp, GroupWrite, Instant, LogBatch};
use crate::ids::{GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use pontoon_raft::{Entry, EntryKind, HardState};
use std::collections::{BTreeMap, BTreeSet};

/// One replica's durable past.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// Who got the vote in which term.
    pub(super) votes: BTreeMap<Term, ReplicaId>,
    /// Last durable hard state.
    pub(super) hard_state: HardState,
    /// A tombstone is, or was, durable: since when, and the lowest id that may follow.
    pub(super) buried: Option<(Instant, ReplicaId)>,
    /// The log begins behind it.
    pub(super) base: LogPos,
    /// Term of each entry.
    pub(super) terms: BTreeMap<Index, Term>,
    /// Membership entries of the log; some that were truncated, too.
    changes: BTreeSet<Index>,
    /// Highest index that the machine was seen to apply since the node started.
    pub(super) applied: Index,
    /// It got entries or a snapshot since its birth.
    fed: bool,
    /// Everything up to here was looked at as committed.
    pub(super) committed: Index,
    /// Commit that was known when an entry was handed to be written; the entry by index and term.
    known_commits: BTreeMap<Index, (Term, Index)>,
}

/// What a write means for the group as a whole.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Entries with the term before each.
    pub(super) entries: Vec<(Term, Entry)>,
    /// The commit moved over these.
    pub(super) committed: Vec<LogPos>,
    /// What a newborn replica got first.
    pub(super) first_food: Option<Food>,
}

/// What a replica is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Food {
    Entries,
    Snapshot,
}

/// All replicas' pasts.
#[derive(Debug, Default)]
pub(super) struct Pasts {
    by_replica: BTreeMap<(NodeId, GroupId), Past>,
}

impl Pasts {
    pub(super) fn of(&self, node: NodeId, group: GroupId) -> Option<&Past> {
        self.by_replica.get(&(node, group))
    }

    /// A write became durable. `Err`: it breaks a promise.
    pub(super) fn on_durable(&mut self, node: NodeId, now: Instant, write: &GroupWrite) -> Result<News, String> {
        let past = self.by_replica.entry((node, write.group)).or_default();
        past.on_durable(now, write).map_err(|why| format!("node {node}, group {}: {why}", write.group))
    }

    /// Same, of a batch that is durable as a whole.
    pub(super) fn check_pending(&self, node: NodeId, batch: &LogBatch) -> Result<(), String> {
        for write in &batch.writes {
            if let Some(past) = self.of(node, write.group) {
                let checked = past.check_pending(write.op.entries());
                checked.map_err(|why| format!("node {node}, group {}: {why}", write.group))?;
            }
        }
        Ok(())
    }

    /// A machine was given this.
    pub(super) fn on_applied(&mut self, node: NodeId, group: GroupId, index: Index) {
        let past = self.by_replica.entry((node, group)).or_default();
        past.applied = past.applied.max(index);
    }

    /// A machine may have lost what it had not flushed, and the replica forgotten a commit that was not worth a write.
    pub(super) fn on_crashed(&mut self, node: NodeId) {
        let of_node = self.by_replica.iter_mut().filter(|(key, _)| key.0 == node);
        of_node.for_each(|(_, past)| past.applied = Index::NONE);
    }

    /// Somebody whose log has this entry.
    pub(super) fn holder_of(&self, group: GroupId, pos: LogPos) -> Option<&Past> {
        let of_group = self.by_replica.iter().filter(|(key, _)| key.1 == group);
        of_group.map(|(_, past)| past).find(|past| past.term(pos.index) == Some(pos.term))
    }

    /// Entries were handed to be written while this commit was known.
    pub(super) fn on_handed(&mut self, node: NodeId, group: GroupId, entries: &[Entry], commit: Index) {
        let past = self.by_replica.entry((node, group)).or_default();
        for e in entries {
            past.known_commits.insert(e.index, (e.term, commit));
        }
    }
}

impl Past {
    /// Term at `index` as far as the log reaches.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.terms.get(&index).copied() }
    }

    pub(super) fn last(&self) -> LogPos {
        self.terms.last_key_value().map_or(self.base, |(index, term)| LogPos::new(*term, *index))
    }

    /// The commit that a restart must not fall behind: the one known when the last entry was handed over.
    pub(super) fn least_commit(&self, last: LogPos) -> Index {
        match self.known_commits.get(&last.index) {
            Some((term, commit)) if *term == last.term => *commit,
            _ => Index::NONE,
        }
    }

    fn on_durable(&mut self, now: Instant, write: &GroupWrite) -> Result<News, String> {
        let mut news = News::default();
        if self.buried.is_some_and(|(_, next)| write.replica < next) {
            return Err(format!("replica {} writes after its tombstone: {:?}", write.replica, write.op));
        }
        match &write.op {
            GroupOp::Create { creation, hard_state } => {
                let (base, buried) = (creation.birth, self.buried);
                *self = Past { base, committed: base.index, buried, ..Past::default() };
                self.on_hard_state(*hard_state)?;
            }
            GroupOp::Append { entries, hard_state } => {
                self.on_entries(entries, &mut news)?;
                if !entries.is_empty() {
                    news.first_food = self.feed(Food::Entries);
                }
                if let Some(hard_state) = hard_state {
                    self.on_hard_state(*hard_state)?;
                }
                self.on_commit(&mut news)?;
            }
            GroupOp::Truncate(upto) => self.truncate(upto.pos)?,
            GroupOp::Install { install, hard_state } => {
                self.terms.clear();
                self.changes.clear();
                self.base = install.pos;
                news.first_food = self.feed(Food::Snapshot);
                self.committed = self.committed.max(install.pos.index);
                self.on_hard_state(*hard_state)?;
            }
            GroupOp::Intent(_) | GroupOp::DropIntent => {}
            GroupOp::Destroy { next_replica } => {
                *self = Past { buried: Some((now, *next_replica)), ..Past::default() };
            }
        }
        Ok(news)
    }

    fn feed(&mut self, food: Food) -> Option<Food> {
        (!std::mem::replace(&mut self.fed, true)).then_some(food)
    }

    fn on_hard_state(&mut self, now: HardState) -> Result<(), String> {
        let before = self.hard_state;
        if now.term < before.term {
            return Err(format!("the durable term fell from {} to {}", before.term, now.term));
        }
        if now.commit < before.commit {
            return Err(format!("the durable commit fell from {} to {}", before.commit, now.commit));
        }
        if now.vote != ReplicaId::NONE {
            let vote = *self.votes.entry(now.term).or_insert(now.vote);
            if vote != now.vote {
                return Err(format!("voted for {vote} and for {} in term {}", now.vote, now.term));
            }
        }
        self.hard_state = now;
        Ok(())
    }

    fn on_entries(&mut self, entries: &[Entry], news: &mut News) -> Result<(), String> {
        let Some(first) = entries.first() else { return Ok(()) };
        for e in entries.iter().filter(|e| e.index <= self.committed) {
            if self.term(e.index).is_some_and(|t| t != e.term) {
                return Err(format!("the committed entry at {} is overwritten", e.index));
            }
        }
        if first.index <= self.committed && entries.last().is_some_and(|l| l.index < self.last().index) {
            let cut = entries[entries.len() - 1].index;
            if cut < self.committed {
                return Err(format!("committed entries behind {cut} are cut off"));
            }
        }
        drop(self.terms.split_off(&first.index));
        drop(self.changes.split_off(&first.index));
        for e in entries {
            let prev = self.term(e.index.prev()).ok_or_else(|| format!("a hole before {}", e.index))?;
            self.terms.insert(e.index, e.term);
            if e.kind != EntryKind::Normal {
                self.changes.insert(e.index);
            }
            news.entries.push((prev, e.clone()));
        }
        Ok(())
    }

    fn on_commit(&mut self, news: &mut News) -> Result<(), String> {
        let commit = self.hard_state.commit;
        if commit > self.last().index {
            return Err(format!("commit {commit} is durable, the log ends at {}", self.last().index));
        }
        let moved = (self.committed.0 + 1..=commit.0).map(Index);
        news.committed.extend(moved.filter_map(|i| Some(LogPos::new(self.term(i)?, i))));
        self.committed = self.committed.max(commit);
        Ok(())
    }

    /// One change at a time: a leader proposes one when it has applied the one before. So whoever has an entry of it
    /// knows, once its batch is whole, that the one before is committed, and elects by it after a crash. What the same batch
    /// overwrites again nobody has.
    fn check_pending(&self, entries: &[Entry]) -> Result<(), String> {
        let stays = |e: &&Entry| e.kind != EntryKind::Normal && self.term(e.index) == Some(e.term);
        for e in entries.iter().filter(stays) {
            let before = self.changes.range(..e.index).next_back().copied().unwrap_or_default();
            if before > self.hard_state.commit.max(self.base.index) {
                return Err(format!("two changes of members in flight, at {before} and {}", e.index));
            }
        }
        Ok(())
    }

    fn truncate(&mut self, upto: LogPos) -> Result<(), String> {
        if upto.index <= self.base.index {
            return Ok(());
        }
        if self.term(upto.index) != Some(upto.term) {
            return Err(format!("truncated at {upto:?}, where the log has {:?}", self.term(upto.index)));
        }
        self.terms = self.terms.split_off(&upto.index.next());
        self.base = upto;
        Ok(())
    }
}
