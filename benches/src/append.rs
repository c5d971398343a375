//! The append race: the same batches for every contestant, in rounds, so that a neighbour's load hits all alike.
//!
//! Invariant: a contestant's `append` returns when the batch is durable; only its time is counted, truncation
//! (every `TRUNCATE_EVERY` payload bytes, all but that many of the newest) included.

use bytes::Bytes;
use pontoon_raft::{Entry, EntryKind, Index, LogPos, ReplicaId, Term};
use pontoon_raftstore::env::{GroupOp, GroupWrite, LogBatch, Truncation};
use pontoon_raftstore::ids::GroupId;
use std::time::{Duration, Instant};

/// Payload of an entry, bytes.
pub const PAYLOAD: usize = 128;
/// Payload bytes between two truncations.
pub const TRUNCATE_EVERY: usize = 32 << 20;

/// Something that makes batches of entries durable.
pub trait Contestant {
    /// Column of the table.
    fn name(&self) -> &'static str;
    /// Durable on return.
    fn append(&mut self, batch: &LogBatch);
    /// Log up to these positions may go.
    fn truncate(&mut self, batch: &LogBatch);
}

/// One shape of load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Entries in a batch.
    pub entries: usize,
    /// Groups that share the batches.
    pub groups: usize,
}

/// Where the load stands for one contestant; every contestant gets the same sequence.
pub struct Load {
    shape: Shape,
    next_index: Vec<u64>,
    truncated: Vec<u64>,
    next_group: usize,
    since_truncation: usize,
    payload: Bytes,
}

impl Load {
    /// A fresh log in `groups` groups, the first index is 1.
    #[must_use]
    pub fn new(shape: Shape) -> Load {
        let mut x = 0x9E37_79B9_7F4A_7C15_u64;
        let payload: Vec<u8> = (0..PAYLOAD)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect();
        Load {
            shape,
            next_index: vec![1; shape.groups],
            truncated: vec![0; shape.groups],
            next_group: 0,
            since_truncation: 0,
            payload: payload.into(),
        }
    }

    /// The next batch: the entries are spread evenly over the groups, round robin.
    pub fn next_batch(&mut self) -> LogBatch {
        let touched = self.shape.entries.min(self.shape.groups);
        let each = self.shape.entries / touched;
        let writes = (0..touched).map(|_| self.next_write(each)).collect();
        self.since_truncation += touched * each * PAYLOAD;
        LogBatch { writes, meta: Vec::new(), sync: true }
    }

    fn next_write(&mut self, each: usize) -> GroupWrite {
        let g = self.next_group;
        self.next_group = (g + 1) % self.shape.groups;
        let first = self.next_index[g];
        self.next_index[g] += each as u64;
        let entries = (first..first + each as u64)
            .map(|i| Entry {
                term: Term(1),
                index: Index(i),
                kind: EntryKind::Normal,
                data: self.payload.clone(),
                ..Entry::default()
            })
            .collect();
        GroupWrite {
            group: GroupId(g as u64 + 1),
            replica: ReplicaId(1),
            op: GroupOp::Append { entries, hard_state: None },
        }
    }

    /// When enough was written: a truncation of everything that stood at the last one.
    pub fn due_truncation(&mut self) -> Option<LogBatch> {
        if self.since_truncation < TRUNCATE_EVERY {
            return None;
        }
        self.since_truncation = 0;
        let mut writes = Vec::new();
        for g in 0..self.shape.groups {
            let upto = std::mem::replace(&mut self.truncated[g], self.next_index[g] - 1);
            if upto > 0 {
                let pos = LogPos::new(Term(1), Index(upto));
                let op = GroupOp::Truncate(Truncation { pos, ..Truncation::default() });
                writes.push(GroupWrite { group: GroupId(g as u64 + 1), replica: ReplicaId(1), op });
            }
        }
        Some(LogBatch { writes, meta: Vec::new(), sync: false })
    }
}

/// Result of one contestant at one shape.
#[derive(Clone, Debug)]
pub struct Score {
    /// Who.
    pub name: &'static str,
    /// Entries a second of append time.
    pub rate: f64,
    /// Median time of a batch.
    pub p50: Duration,
}

/// Runs every contestant for about `time`, in `rounds` interleaved turns.
pub fn race(shape: Shape, contestants: &mut [Box<dyn Contestant>], time: Duration, rounds: u32) -> Vec<Score> {
    let mut loads: Vec<Load> = contestants.iter().map(|_| Load::new(shape)).collect();
    let mut took: Vec<Vec<Duration>> = vec![Vec::new(); contestants.len()];
    let mut truncating = vec![Duration::ZERO; contestants.len()];
    for _ in 0..rounds {
        for (at, contestant) in contestants.iter_mut().enumerate() {
            let mut spent = Duration::ZERO;
            while spent < time / rounds {
                let batch = loads[at].next_batch();
                let start = Instant::now();
                contestant.append(&batch);
                let one = start.elapsed();
                took[at].push(one);
                spent += one;
                if let Some(truncation) = loads[at].due_truncation() {
                    let start = Instant::now();
                    contestant.truncate(&truncation);
                    truncating[at] += start.elapsed();
                    spent += start.elapsed();
                }
            }
        }
    }
    let scores = contestants.iter().zip(&mut took).zip(&truncating);
    scores.map(|((c, took), truncating)| score(c.name(), shape, took, *truncating)).collect()
}

fn score(name: &'static str, shape: Shape, took: &mut [Duration], truncating: Duration) -> Score {
    let total: Duration = took.iter().sum::<Duration>() + truncating;
    let rate = (took.len() * shape.entries) as f64 / total.as_secs_f64();
    took.sort_unstable();
    Score { name, rate, p50: took[took.len() / 2] }
}
