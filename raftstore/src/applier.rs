//! Runs state machines: committed entries in, answers to callers and `Applied` events out.
//!
//! One turn drains tasks, stages per kind what all its groups got, commits once, then answers, then tells the pollers.
//! Leaves to others: what is committed and durable (pollers), spooling (`snapshotter`), typed answers (the machines).
//! Invariant: a slot is answered only after the commit that covers it; a replica whose machine failed never gets
//! another entry; one group is never on two appliers (`Mail::applier`).

mod cell;
mod remains;
mod restore;
mod run;

use crate::arrivals::Wakeups;
use crate::env::{Env, Instant, MachineKind, SnapshotFiles};
use crate::guard::{drop_guarded, guarded};
use crate::ids::{GroupId, PollerId, ReplicaId};
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::mail::Mail;
use crate::task::{
    Applied, ApplierMsg, ApplyTask, DurabilityMsg, PollerMsg, SnapshotEvent, SnapshotPurpose, SnapshotTask,
};
use crate::turn::{Active, Turn};
use cell::Cell;
use remains::Remains;
use run::{Job, Jobs};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Most tasks of one turn.
const MAX_TASKS: usize = 1024;
/// Payload after which a turn takes no further task. Bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Letters waiting at the snapshotter above which no `Keep` snapshot is begun on our own account. They share a file.
const SNAPSHOT_BACKLOG: usize = 256;
/// When to look again whether the snapshotter has caught up.
const KEEP_AGAIN: Duration = Duration::from_millis(20);

/// One applier: owns the machines of its groups.
pub struct Applier {
    /// For people.
    name: String,
    /// Work.
    inbox: Inbox<ApplierMsg>,
    /// Pollers and the snapshotter.
    mail: Mail,
    /// State-machine kinds by name.
    kinds: BTreeMap<String, Arc<dyn MachineKind>>,
    /// Where received snapshots are spooled.
    files: Arc<dyn SnapshotFiles>,
    /// What is unreported, for durability.
    ledger: Arc<Ledger>,
    /// Machines by group. Invariant: at most one replica per group, here or in `remains`.
    cells: BTreeMap<GroupId, Cell>,
    /// Replicas that stopped, by group.
    remains: BTreeMap<GroupId, Remains>,
    /// Volatile groups whose `Keep` snapshot was asked for; taken as the snapshotter catches up. Invariant: each once.
    to_keep: VecDeque<GroupId>,
    /// `Stop` was taken.
    stopped: bool,
}

impl Applier {
    /// An applier without groups; `number` is for people.
    #[must_use]
    pub fn new(number: usize, inbox: Inbox<ApplierMsg>, mail: Mail, env: &Env, ledger: Arc<Ledger>) -> Applier {
        Applier {
            name: format!("applier-{number}"),
            inbox,
            mail,
            kinds: env.kinds.clone(),
            files: env.files.clone(),
            ledger,
            cells: BTreeMap::new(),
            remains: BTreeMap::new(),
            to_keep: VecDeque::new(),
            stopped: false,
        }
    }

    /// One turn: tasks up to a bound, or up to the first letter that is no task, which ends the turn.
    fn work(&mut self) -> Turn {
        let mut jobs = Jobs::default();
        let mut ends = None;
        let mut taken = 0;
        while taken < MAX_TASKS && jobs.payload() < MAX_BYTES {
            match self.inbox.take() {
                Some(ApplierMsg::Apply(tasks)) => {
                    taken += tasks.len();
                    tasks.into_iter().for_each(|task| self.admit(task, &mut jobs));
                }
                other => {
                    ends = other;
                    break;
                }
            }
        }
        let worked = taken > 0 || ends.is_some();
        for (kind, jobs) in jobs.into_kinds() {
            self.run_kind(&kind, jobs);
        }
        if let Some(letter) = ends {
            self.on_letter(letter);
        }
        self.keep_some();
        if worked { Turn::WORKED } else { Turn::IDLE }
    }

    fn admit(&mut self, task: ApplyTask, jobs: &mut Jobs) {
        match self.cells.get_mut(&task.group) {
            Some(cell) if !self.stopped && cell.accepts(&task) => {
                cell.drop_superseded();
                jobs.push(&cell.kind, task);
            }
            _ => Job::new(task).fail(),
        }
    }

    /// All jobs of one kind: one stage, one commit, then answers, then events (boot.md 7).
    fn run_kind(&mut self, name: &str, jobs: Vec<Job>) {
        let kind = self.kinds.get(name).expect("a cell opens only with a registered kind").clone();
        let staged = run::stage_all(&*kind, jobs, &mut self.cells);
        for (job, why) in staged.failed {
            let group = job.record.group;
            job.fail();
            self.quarantine(group, &why);
        }
        if staged.done.is_empty() {
            return;
        }
        if let Err(why) = guarded(|| kind.commit(staged.stage)) {
            staged.done.into_iter().for_each(|(job, answers)| {
                job.fail();
                drop_guarded(answers);
            });
            return self.fail_kind_everywhere(name, &format!("commit failed: {why}"));
        }
        self.release(kind.is_durable(), staged.done);
    }

    fn release(&mut self, is_durable: bool, done: Vec<(Job, crate::env::Answers)>) {
        let (mut entries, mut payload) = (0, 0);
        let mut events: Vec<(PollerId, Vec<Applied>)> = Vec::new();
        let mut wakeups = Wakeups::default(); // goes last: callers are woken when all has been said
        for (job, answers) in done {
            entries += job.weight;
            payload += job.payload;
            let group = job.record.group;
            let cell = self.cells.get_mut(&group).expect("staged with it in this turn");
            cell.unreported = true;
            match cell.release(job, answers, &mut wakeups) {
                Ok(event) => match events.iter_mut().find(|e| e.0 == cell.poller) {
                    Some(of_poller) => of_poller.1.push(event),
                    None => events.push((cell.poller, vec![event])),
                },
                Err(why) => self.quarantine(group, &why),
            }
        }
        metrics::counter!("pontoon_apply_commits_total").increment(1);
        metrics::counter!("pontoon_apply_entries_total").increment(entries);
        self.ledger.on_applied(is_durable, entries, payload, &self.mail);
        for (poller, events) in events {
            self.mail.poller(poller, PollerMsg::Applied(events));
        }
    }

    fn on_letter(&mut self, letter: ApplierMsg) {
        match letter {
            ApplierMsg::Open { group, replica, generation, kind, machine, poller, record } => {
                assert!(
                    self.kinds.contains_key(&kind),
                    "group {group} opened with kind {kind:?}, which is not registered"
                );
                let cell = Cell::new(group, replica, generation, kind, machine, poller, *record);
                if let Some(old) = self.cells.insert(group, cell) {
                    old.close();
                }
            }
            ApplierMsg::Stopped { group, replica, kind, generations } => {
                let remains = Remains { group, replica, kind, generations, superseded: None };
                self.remains.insert(group, remains);
            }
            ApplierMsg::Apply(_) => unreachable!("tasks are admitted above"),
            ApplierMsg::Snapshot { group, purpose } => self.snapshot(group, purpose),
            ApplierMsg::Restore(task) => self.restore_round(task),
            ApplierMsg::KeepDirty => self.note_dirty(),
            ApplierMsg::StillDirty(group) => {
                if let Some(cell) = self.cells.get_mut(&group) {
                    cell.unreported = true;
                    self.ledger.on_applied(false, 1, 0, &self.mail);
                }
            }
            ApplierMsg::FailKind { kind, why } => self.fail_kind(&kind, &why),
            ApplierMsg::Destroy { group, next_replica } => self.destroy(group, next_replica),
            ApplierMsg::Stop => {
                self.stopped = true;
                self.to_keep.clear();
                std::mem::take(&mut self.cells).into_values().for_each(Cell::close);
                drop_guarded(std::mem::take(&mut self.remains));
            }
        }
    }

    /// The replica is no more. Its spools go behind it: what was sent here before may need one, or make one.
    fn destroy(&mut self, group: GroupId, next_replica: ReplicaId) {
        if let Some(cell) = self.cells.remove(&group) {
            cell.destroy();
        }
        if let Some(remains) = self.remains.remove(&group) {
            let kind = self.kinds.get(&remains.kind).cloned();
            remains.destroy(kind.as_deref());
        }
        self.mail.snapshotter(SnapshotTask::Forget { group, next_replica });
    }

    /// Takes an O(1) handle and sends it to the snapshotter. A replica that stopped is asked by nobody who still waits.
    fn snapshot(&mut self, group: GroupId, purpose: SnapshotPurpose) {
        let Some(cell) = self.cells.get_mut(&group) else { return };
        let (replica, poller, record) = (cell.replica, cell.poller, cell.record());
        // A published file would be told as durable, and the log truncated behind it; but boot reads such a machine's
        // own contents. What it has made durable itself is what `durable` says: the replica waits for that report, so it
        // must hear of the wait before.
        if purpose == SnapshotPurpose::Keep && self.kinds.get(&cell.kind).is_some_and(|k| k.is_durable()) {
            let event = SnapshotEvent::KeepsItself { group, replica, upto: record.applied };
            self.mail.poller(poller, PollerMsg::Snapshot(event));
            self.mail.durability(DurabilityMsg::Ask);
            return;
        }
        match guarded(|| cell.machine.snapshot()) {
            Ok(source) => {
                cell.unreported &= purpose != SnapshotPurpose::Keep;
                self.mail.snapshotter(SnapshotTask::Build { group, replica, poller, purpose, record, source });
            }
            Err(why) => {
                self.mail.snapshotter(SnapshotTask::BuildFailed { group, poller, purpose, why: why.clone() });
                self.quarantine(group, &format!("snapshot: {why}"));
            }
        }
    }

    fn note_dirty(&mut self) {
        let is_dirty = |cell: &Cell| cell.unreported && self.kinds.get(&cell.kind).is_some_and(|k| !k.is_durable());
        // Who waits keeps his place: with many groups the next call comes before all of the last one's had their turn.
        let waiting: BTreeSet<GroupId> = self.to_keep.iter().copied().collect();
        let dirty = self.cells.iter().filter(|(group, cell)| !waiting.contains(group) && is_dirty(cell));
        self.to_keep.extend(dirty.map(|(group, _)| *group));
    }

    /// Some of the `Keep` snapshots asked for, while the snapshotter keeps up.
    fn keep_some(&mut self) {
        while self.mail.snapshotter_backlog() < SNAPSHOT_BACKLOG {
            let Some(group) = self.to_keep.pop_front() else { return };
            self.snapshot(group, SnapshotPurpose::Keep);
        }
    }

    /// The replica's machine is not believed any more; its poller is told, others go on.
    fn quarantine(&mut self, group: GroupId, why: &str) {
        let Some(cell) = self.cells.remove(&group) else { return };
        let (replica, poller) = (cell.replica, cell.poller);
        self.remains.insert(group, cell.stop());
        tracing::error!(%group, %replica, why, "state machine failed, replica quarantined");
        metrics::counter!("pontoon_apply_quarantined_total").increment(1);
        let failed = Applied::Failed { group, replica, why: why.to_owned() };
        self.mail.poller(poller, PollerMsg::Applied(vec![failed]));
    }

    fn fail_kind(&mut self, name: &str, why: &str) {
        let of_kind = |(group, cell): (&GroupId, &Cell)| (cell.kind == name).then_some(*group);
        let groups: Vec<GroupId> = self.cells.iter().filter_map(of_kind).collect();
        groups.into_iter().for_each(|group| self.quarantine(group, why));
    }

    fn fail_kind_everywhere(&mut self, name: &str, why: &str) {
        self.fail_kind(name, why);
        // This one gets it too and finds nothing left to do.
        self.mail.appliers(|| ApplierMsg::FailKind { kind: name.to_owned(), why: why.to_owned() });
    }
}

impl Active for Applier {
    fn turn(&mut self, now: Instant) -> Turn {
        let turn = self.work();
        if self.to_keep.is_empty() { turn } else { turn.by(now.after(KEEP_AGAIN)) }
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn on_panic(&mut self) {
        while let Some(letter) = self.inbox.take() {
            if let ApplierMsg::Apply(tasks) = letter {
                tasks.into_iter().for_each(|task| Job::new(task).fail());
            }
        }
    }
}
