//! Batches for tests of log stores: short names for single changes, and a writer of random ones that make sense.
//!
//! Invariant: what `Writer` writes is legal for the image it is shown, as a core's writes are.

use super::Rng;
use crate::env::{Creation, GroupOp, GroupWrite, Install, LogBatch, MetaWrite, Truncation};
use crate::ids::{Generation, GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use crate::mem::{GroupImage, Image};
use bytes::Bytes;
use pontoon_raft::{ConfState, Entry, HardState};
use std::ops::Range;

/// A position.
#[must_use]
pub fn pos(term: u64, index: u64) -> LogPos {
    LogPos::new(Term(term), Index(index))
}

/// A hard state.
#[must_use]
pub fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: ReplicaId(vote), commit: Index(commit) }
}

/// An entry whose payload tells its position.
#[must_use]
pub fn entry(term: u64, index: u64) -> Entry {
    Entry { term: Term(term), index: Index(index), ..Entry::normal(format!("{index}@{term}").into()) }
}

/// Entries of one term.
#[must_use]
pub fn entries(term: u64, indexes: Range<u64>) -> Vec<Entry> {
    indexes.map(|i| entry(term, i)).collect()
}

/// A birth at (1, 1) with `n` voters.
#[must_use]
pub fn creation(n: u64) -> Creation {
    Creation {
        kind: "kv".into(),
        digest: 77,
        members: (1..=n).map(|i| (ReplicaId(i), NodeId(10 * i))).collect(),
        conf_state: ConfState::new((1..=n).map(ReplicaId).collect(), Vec::new()),
        birth: pos(1, 1),
    }
}

/// An install.
#[must_use]
pub fn install(term: u64, index: u64, generation: u64) -> Install {
    Install {
        pos: pos(term, index),
        conf_state: ConfState::new(vec![ReplicaId(1), ReplicaId(index)], Vec::new()),
        record: Bytes::from_static(b"record"),
        generation: Generation(generation),
    }
}

/// A change of a group's replica.
#[must_use]
pub fn on(group: GroupId, replica: u64, op: GroupOp) -> GroupWrite {
    GroupWrite { group, replica: ReplicaId(replica), op }
}

/// An append.
#[must_use]
pub fn append(group: GroupId, replica: u64, entries: Vec<Entry>, hard_state: Option<HardState>) -> GroupWrite {
    on(group, replica, GroupOp::Append { entries: entries.into(), hard_state })
}

/// Writes random batches.
#[derive(Debug, Default)]
pub struct Writer {
    /// Terms only grow.
    term: u64,
}

impl Writer {
    /// A synced batch of a few changes that are legal one after the other on `image`.
    pub fn batch(&mut self, rng: &mut Rng, image: &Image) -> LogBatch {
        let mut after = image.clone();
        let mut batch = LogBatch { sync: true, ..LogBatch::default() };
        for _ in 0..=rng.below(6) {
            let write = self.write(rng, &after);
            after.apply(after.seq, &LogBatch { writes: vec![write.clone()], ..LogBatch::default() });
            batch.writes.push(write);
        }
        if rng.chance(200) {
            let value = rng.chance(700).then(|| Bytes::from(rng.bytes(5)));
            batch.meta.push(MetaWrite { key: format!("key{}", rng.below(4)).into(), value });
        }
        batch
    }

    fn write(&mut self, rng: &mut Rng, image: &Image) -> GroupWrite {
        let group = GroupId(1 + rng.below(5));
        let Some(now) = image.groups.get(&group) else {
            let lowest = image.tombstones.get(&group).map_or(1, |r| r.0);
            let op = GroupOp::Create { creation: Box::new(creation(3)), hard_state: hard_state(1, 0, 1) };
            return on(group, lowest + rng.below(2), op);
        };
        on(group, now.replica.0, self.op(rng, now))
    }

    fn op(&mut self, rng: &mut Rng, now: &GroupImage) -> GroupOp {
        let (first, last) = (now.truncated.pos.index.0 + 1, now.last());
        if let Some(intent) = &now.intent
            && rng.chance(500)
        {
            let commit = HardState { commit: intent.pos.index, ..now.hard_state };
            return match rng.chance(600) {
                true => GroupOp::Install { install: Box::new(intent.clone()), hard_state: commit },
                false => GroupOp::DropIntent,
            };
        }
        match rng.below(20) {
            0 => GroupOp::Destroy { next_replica: ReplicaId(now.replica.0 + 1 + rng.below(3)) },
            1 => {
                let upto = last.index.0.saturating_sub(2) + rng.below(6);
                let ahead = install(self.term.max(last.term.0), upto.max(first), now.generation.0 + 1);
                GroupOp::Intent(Box::new(ahead))
            }
            2..=4 if last.index.0 >= first => {
                let at = Index(rng.range(first..last.index.0 + 1));
                let term = now.term(at).unwrap_or_default();
                GroupOp::Truncate(Truncation { pos: LogPos::new(term, at), ..Truncation::default() })
            }
            _ => self.append(rng, now, first, last),
        }
    }

    fn append(&mut self, rng: &mut Rng, now: &GroupImage, first: u64, last: LogPos) -> GroupOp {
        let begin = if rng.chance(250) { rng.range(first..last.index.0 + 2) } else { last.index.0 + 1 };
        let before = now.term(Index(begin - 1)).unwrap_or_default();
        if rng.chance(300) || begin <= last.index.0 {
            self.term = self.term.max(last.term.0) + 1;
        }
        self.term = self.term.max(before.0).max(last.term.0).max(2);
        let hard_state = rng.chance(500).then(|| hard_state(self.term, rng.below(4), now.hard_state.commit.0));
        GroupOp::Append { entries: entries(self.term, begin..begin + rng.below(5)).into(), hard_state }
    }
}
