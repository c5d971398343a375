//! From apply tasks to one stage of a kind: what each group gets, and what happens when a machine fails.
//!
//! Leaves to others: the commit and what follows it (`applier`).
//! Invariant: a stage that is handed out holds exactly the runs in `done`; every waiter of a task is in exactly one of
//! `waiting` and `orphans` until it is answered.

use super::cell::Cell;
use crate::codec::ReplicaRecord;
use crate::env::{Answers, ApplyMeta, ApplyRun, MachineKind, Stage};
use crate::error::{Lost, ProposeError};
use crate::guard::{drop_guarded, guarded};
use crate::ids::{GroupId, Index, LogPos};
use crate::proposal::ReplyTo;
use crate::task::ApplyTask;
use bytes::Bytes;
use pontoon_raft::{Entries, Entry, EntryKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Consecutive committed entries of one replica, as its machine gets them.
pub(super) struct Job {
    /// First index.
    pub(super) first: Index,
    /// All entries, in order.
    entries: Vec<Entries>,
    /// How many of them reach the user: normal entries with a payload.
    users: usize,
    /// Who waits: place among those, position, waiter.
    pub(super) waiting: Vec<(usize, LogPos, ReplyTo)>,
    /// Waiters at entries that never reach the user: another entry took the place.
    pub(super) orphans: Vec<(LogPos, ReplyTo)>,
    /// The replica record after the last entry, but for `applied`.
    pub(super) record: Arc<ReplicaRecord>,
    /// The last entry.
    pub(super) applied: LogPos,
    /// Entries, the empty ones too.
    pub(super) weight: u64,
    /// Bytes of the commands.
    pub(super) payload: u64,
}

impl Job {
    /// From a task.
    pub(super) fn new(task: ApplyTask) -> Job {
        let first = task.entries.first().map_or(Index::NONE, |e| e.index);
        let mut job = Job {
            first,
            entries: Vec::new(),
            users: 0,
            waiting: Vec::with_capacity(task.waiting.len()),
            orphans: Vec::new(),
            record: task.record.clone(),
            applied: LogPos::NONE,
            weight: 0,
            payload: 0,
        };
        job.append(task);
        job
    }

    /// Joins a later task of the same replica.
    fn append(&mut self, task: ApplyTask) {
        let mut waiting = task.waiting.into_iter().peekable();
        for entry in &task.entries {
            let reply = waiting.next_if(|(at, _)| *at == entry.index).map(|(_, reply)| reply);
            self.weight += 1;
            self.take(entry, reply);
        }
        assert!(waiting.next().is_none(), "waiters ascend and name entries of their task");
        self.applied = task.entries.last().map_or(self.applied, Entry::pos);
        self.entries.push(task.entries);
        self.record = task.record;
    }

    /// What reaches the user.
    fn users(&self) -> Vec<&Entry> {
        let mut users = Vec::with_capacity(self.users);
        users.extend(self.entries.iter().flatten().filter(|e| is_users(e)));
        users
    }

    fn take(&mut self, entry: &Entry, reply: Option<ReplyTo>) {
        let at = entry.pos();
        if is_users(entry) {
            self.waiting.extend(reply.map(|reply| (self.users, at, reply)));
            self.payload += entry.payload_size();
            self.users += 1;
        } else {
            self.orphans.extend(reply.map(|reply| (at, reply)));
        }
    }

    /// The record as a machine writes it.
    fn meta(&self) -> ApplyMeta {
        ApplyMeta {
            puts: vec![(Bytes::from_static(ReplicaRecord::META_KEY), self.record.encode_at(self.applied))],
            deletes: Vec::new(),
        }
    }

    /// Nobody knows whether these commands took effect: the replica stands still.
    pub(super) fn fail(self) {
        for (at, reply) in self.waiting.into_iter().map(|(_, at, reply)| (at, reply)).chain(self.orphans) {
            reply.fail(ProposeError::OutcomeUnknown { why: Lost::ReplicaStopped, at: Some(at) });
        }
    }
}

/// A leader's first entry is empty, a membership change is the engine's own: both only move the record.
fn is_users(entry: &Entry) -> bool {
    entry.kind == EntryKind::Normal && !entry.data.is_empty()
}

/// The answer to a waiter whose entry is not a command of the user.
pub(super) fn unknown(at: LogPos) -> ProposeError {
    ProposeError::OutcomeUnknown { why: Lost::Overwritten, at: Some(at) }
}

/// The jobs of one turn: one per replica, by kind.
#[derive(Default)]
pub(super) struct Jobs {
    /// In order of group, so that a turn is the same every time.
    by_kind: BTreeMap<String, BTreeMap<GroupId, Job>>,
    /// Bytes of all commands.
    payload: u64,
}

impl Jobs {
    /// Adds a task; joins it to an earlier one of the same group.
    pub(super) fn push(&mut self, kind: &str, task: ApplyTask) {
        self.payload += task.entries.payload_size();
        if !self.by_kind.contains_key(kind) {
            self.by_kind.insert(kind.to_owned(), BTreeMap::new());
        }
        let jobs = self.by_kind.get_mut(kind).expect("it is there now");
        match jobs.entry(task.group) {
            std::collections::btree_map::Entry::Vacant(v) => {
                v.insert(Job::new(task));
            }
            std::collections::btree_map::Entry::Occupied(o) => o.into_mut().append(task),
        }
    }

    /// Bytes of all commands.
    pub(super) fn payload(&self) -> u64 {
        self.payload
    }

    /// All jobs, by kind.
    pub(super) fn into_kinds(self) -> impl Iterator<Item = (String, Vec<Job>)> {
        self.by_kind.into_iter().map(|(kind, jobs)| (kind, jobs.into_values().collect()))
    }
}

/// What staging a kind's jobs came to.
pub(super) struct Staged {
    /// To commit.
    pub(super) stage: Stage,
    /// What is on the stage, with the answers.
    pub(super) done: Vec<(Job, Answers)>,
    /// What failed, and why. Nothing of it is on the stage.
    pub(super) failed: Vec<(Job, String)>,
}

/// Applies every job to one stage. When a machine fails, everything staged with it is dropped and the others are
/// applied again on a fresh stage (boot.md 7); a kind that stages nothing (`()`) has nothing to drop.
pub(super) fn stage_all(kind: &dyn MachineKind, jobs: Vec<Job>, cells: &mut BTreeMap<GroupId, Cell>) -> Staged {
    let mut staged = Staged { stage: kind.stage(), done: Vec::with_capacity(jobs.len()), failed: Vec::new() };
    let is_unstaged = (*staged.stage).is::<()>();
    let mut left: std::collections::VecDeque<Job> = jobs.into();
    while let Some(job) = left.pop_front() {
        let cell = cells.get_mut(&job.record.group).expect("admitted with it in this turn");
        match apply(cell, &mut staged.stage, &job) {
            Ok(answers) => staged.done.push((job, answers)),
            Err(why) => {
                staged.failed.push((job, why));
                if !is_unstaged {
                    drop_guarded(std::mem::replace(&mut staged.stage, kind.stage()));
                    let again = staged.done.drain(..).map(|(job, answers)| {
                        drop_guarded(answers);
                        job
                    });
                    left = again.chain(left).collect();
                }
            }
        }
    }
    staged
}

fn apply(cell: &mut Cell, stage: &mut Stage, job: &Job) -> Result<Answers, String> {
    assert_eq!(job.first, cell.applied.index.next(), "group {}: entries must follow what is applied", cell.group);
    let (users, meta) = (job.users(), job.meta());
    guarded(|| cell.machine.apply(stage, &ApplyRun { entries: &users, meta: &meta }))
}
