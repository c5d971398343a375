//! From what the disks hold to replicas that can run: the tables of boot.md 4 and 5, carried out for all groups.
//!
//! Called once at open, before any active object runs. Leaves to others: the log store's own recovery (`load`), who this
//! node is (identity), handing the result out (`PreparedReplica::launch`).
//! Invariant: nothing is deleted before the log store durably says that it is garbage; a refusal changes nothing.

mod decide;
mod machines;
mod volatile;

pub use decide::{Verdict, decide};
pub(crate) use machines::record_of;
pub use volatile::{Extent, KeptFiles, KeptSnapshot};

use crate::codec::ReplicaRecord;
use crate::env::{Env, Fetch, GroupOp, GroupWrite, Install, LogBatch, MachineKind, Recovered, StoredGroup, Truncation};
use crate::error::BootError;
use crate::guard::guarded;
use crate::ids::{BootEpoch, Generation, GroupId, Incarnation, ReplicaId};
use crate::log_cache::weight;
use crate::prepared::{PreparedReplica, StoppedReplica, jitter_seed};
use crate::task::Newborn;
use machines::{Found, find};
use pontoon_raft::HardState;
use std::collections::BTreeMap;
use volatile::Published;

/// Most bytes of log read ahead for one group's cache.
const TAIL_BYTES: u64 = 64 << 10;
/// Most bytes of log read ahead for all groups, and the part of the node's budget that they may take.
const ALL_TAILS_BYTES: u64 = 32 << 20;
const ALL_TAILS_PART: u64 = 8;

/// What boot hands to the node.
pub struct Prepared {
    /// Replicas that run.
    pub replicas: Vec<PreparedReplica>,
    /// Replicas that stand still.
    pub stopped: Vec<StoppedReplica>,
    /// Snapshots of volatile machines, for the snapshotter.
    pub kept: KeptFiles,
}

/// Opens all machines, decides about every group, finishes or drops installs, deletes garbage.
pub fn prepare(env: &Env, recovered: Recovered, epoch: BootEpoch, node_bytes: u64) -> Result<Prepared, BootError> {
    let published = Published::scan(&*env.files)?;
    let mut outcome = Outcome::default();
    for stored in recovered.groups {
        let kind = env
            .kinds
            .get(&stored.creation.kind)
            .ok_or_else(|| BootError::UnknownKind { group: stored.group, kind: stored.creation.kind.clone() })?;
        outcome.examine(&**kind, env, stored, &published)?;
    }
    if !outcome.writes.is_empty() {
        let writes = std::mem::take(&mut outcome.writes);
        let durable = env.log.write(&LogBatch { writes, meta: Vec::new(), sync: true })?;
        tracing::info!(seq = %durable.seq(), "installs that a crash interrupted were finished or dropped");
    }
    let kept = outcome.collect_garbage(env, published)?;
    let replicas = with_tails(env, outcome.running, epoch, node_bytes / ALL_TAILS_PART);
    Ok(Prepared { replicas, stopped: outcome.stopped, kept })
}

/// What the decisions so far came to.
#[derive(Default)]
struct Outcome {
    running: Vec<(StoredGroup, Found)>,
    stopped: Vec<StoppedReplica>,
    kept: Vec<KeptSnapshot>,
    writes: Vec<GroupWrite>,
    /// Everything that must survive the deletion of garbage, by kind.
    living: BTreeMap<String, Vec<(GroupId, ReplicaId, Generation)>>,
}

impl Outcome {
    fn examine(
        &mut self,
        kind: &dyn MachineKind,
        env: &Env,
        mut stored: StoredGroup,
        published: &Published,
    ) -> Result<(), BootError> {
        if decide(&stored, None) == Verdict::Refuse {
            return Err(refusal(&stored, None));
        }
        let found = match guarded(|| find(kind, env, &stored, published)) {
            Ok(found) => found,
            Err(why) => return self.stop(stored, format!("state machine: {why}")),
        };
        match decide(&stored, found.record.as_ref()) {
            Verdict::Fresh | Verdict::Go => self.run(stored, found, None),
            Verdict::FinishInstall => {
                let install = stored.intent.take().expect("the verdict names it");
                self.writes.push(finish_install(&mut stored, &install));
                self.run(stored, found, Some(install))
            }
            Verdict::Garbage => unreachable!("find deletes the contents of another replica or generation"),
            Verdict::Quarantine(why) => self.stop(stored, why),
            Verdict::Refuse => Err(refusal(&stored, found.record.as_ref())),
        }
    }

    fn run(&mut self, mut stored: StoredGroup, mut found: Found, finished: Option<Install>) -> Result<(), BootError> {
        if finished.is_none() && stored.intent.take().is_some() {
            let (group, replica) = (stored.group, stored.replica);
            self.writes.push(GroupWrite { group, replica, op: GroupOp::DropIntent });
        }
        let record = found.record.get_or_insert_with(|| birth_record(&stored));
        stored.hard_state.commit = stored.hard_state.commit.max(record.applied.index);
        if let Some((spool, extent)) = found.kept {
            self.kept.push(KeptSnapshot { spool, extent, record: record.clone() });
        }
        self.keep_contents(&stored);
        self.running.push((stored, found));
        Ok(())
    }

    /// A stopped replica keeps everything: it is evidence.
    fn stop(&mut self, stored: StoredGroup, why: String) -> Result<(), BootError> {
        tracing::error!(group = %stored.group, replica = %stored.replica, why, "replica quarantined at open");
        self.keep_contents(&stored);
        self.stopped.push(StoppedReplica { stored, why });
        Ok(())
    }

    fn keep_contents(&mut self, stored: &StoredGroup) {
        let living = self.living.entry(stored.creation.kind.clone()).or_default();
        living.push((stored.group, stored.replica, stored.generation));
        living.extend(stored.intent.as_ref().map(|i| (stored.group, stored.replica, i.generation)));
    }

    /// After the log store's record of it is durable: contents and snapshots that belong to nobody.
    fn collect_garbage(&mut self, env: &Env, published: Published) -> Result<KeptFiles, BootError> {
        for (name, kind) in &env.kinds {
            let living = self.living.get(name).map_or(&[][..], |l| l);
            if let Err(why) = guarded(|| kind.retain(living)) {
                tracing::warn!(kind = name, why, "garbage of a state-machine kind was not deleted");
            }
        }
        let stopped: Vec<GroupId> = self.stopped.iter().map(|s| s.stored.group).collect();
        published.remove_others(&*env.files, std::mem::take(&mut self.kept), &stopped)
    }
}

/// Step 4 of an install, for one that a crash interrupted between the steps 3 and 4 (boot.md 5).
///
/// The hard state of the Ready that carried the snapshot died with the process. Nothing was promised in its name (its
/// Ready was never persisted), so the stored one stands, raised to what the snapshot proves.
fn finish_install(stored: &mut StoredGroup, install: &Install) -> GroupWrite {
    let before = stored.hard_state;
    let vote = if install.pos.term > before.term { ReplicaId::NONE } else { before.vote };
    let hard_state = HardState { term: before.term.max(install.pos.term), vote, commit: install.pos.index };
    stored.hard_state = hard_state;
    stored.generation = install.generation;
    stored.truncated = Truncation { pos: install.pos, conf_state: install.conf_state.clone() };
    stored.last = install.pos;
    stored.terms.clear();
    stored.bytes = 0;
    let op = GroupOp::Install { install: Box::new(install.clone()), hard_state };
    GroupWrite { group: stored.group, replica: stored.replica, op }
}

/// The record of a replica that has applied nothing: its birth.
pub(crate) fn birth_record(stored: &StoredGroup) -> ReplicaRecord {
    let creation = &stored.creation;
    let highest = creation.members.iter().map(|m| m.0.0).max().unwrap_or_default();
    ReplicaRecord {
        group: stored.group,
        replica: stored.replica,
        generation: stored.generation,
        applied: creation.birth,
        conf_state: creation.conf_state.clone(),
        members: creation.members.iter().map(|m| (m.0, m.1, Incarnation(0))).collect(),
        next_replica: ReplicaId(highest + 1),
        conf_index: creation.birth.index,
        leaving: Vec::new(),
        goal: None,
    }
}

fn refusal(stored: &StoredGroup, record: Option<&ReplicaRecord>) -> BootError {
    BootError::LogBehindMachine {
        group: stored.group,
        last: stored.last.index,
        commit: stored.hard_state.commit,
        applied: record.map_or(stored.truncated.pos.index, |r| r.applied.index),
    }
}

/// Reads what follows the applied position, one batch for all groups; what does not fit is fetched when needed.
/// They weigh `most` together: what is behind a commit is let go only by an append, which a node that is full refuses.
fn with_tails(env: &Env, running: Vec<(StoredGroup, Found)>, epoch: BootEpoch, most: u64) -> Vec<PreparedReplica> {
    let share = (ALL_TAILS_BYTES.min(most) / running.len().max(1) as u64).clamp(1 << 10, TAIL_BYTES);
    let wanted = |stored: &StoredGroup, found: &Found| {
        let low = found.record.as_ref().map_or(stored.truncated.pos.index, |r| r.applied.index).next();
        let fetch = Fetch { group: stored.group, low, high: stored.last.index.next(), max_bytes: share };
        (fetch.low < fetch.high).then_some(fetch)
    };
    let fetches: Vec<Fetch> = running.iter().filter_map(|(s, f)| wanted(s, f)).collect();
    let (mut tails, mut left) = (BTreeMap::new(), most);
    for (fetch, answer) in fetches.iter().zip(env.log.read(&fetches)) {
        // Only a whole tail is one; an unreadable log is met again, and judged, by the replica.
        if let Ok(entries) = answer
            && entries.last().is_some_and(|e| e.index.next() == fetch.high)
            && let Some(rest) = left.checked_sub(entries.iter().map(weight).sum())
        {
            left = rest;
            tails.insert(fetch.group, entries);
        }
    }
    let prepare = |(stored, found): (StoredGroup, Found)| {
        let tail = tails.remove(&stored.group).unwrap_or_default();
        let seed = jitter_seed(epoch, stored.group);
        let record = found.record.expect("running replicas have one");
        let newborn = Newborn { stored, record, tail, seed, campaign: false };
        PreparedReplica { newborn, machine: found.machine }
    };
    running.into_iter().map(prepare).collect()
}
