//! Snapshots of one replica: wanted, built, sent; received and installed (boot.md 5).
//!
//! Leaves to others: contents (snapshotter), restoring (applier), when a follower needs one (the core).
//! Install: intent durable -> restore -> record durable -> ack. The hard state of the `Ready` that carried the snapshot
//! is written with the record, never earlier; later `Ready`s wait behind it (their immediate messages do not).
//! Invariant: a spool belongs to exactly one of `received`, the install (then, with `Restore`, the applier), the
//! storage's shelf; all else is dropped.

use super::feeding::Feeding;
use super::ready::ToWrite;
use super::{Letter, Phase, Replica, Work};
use crate::codec::ReplicaRecord;
use crate::env::{Destination, GroupOp, Install, PeerIdentity, Reader};
use crate::error::AdminError;
use crate::ids::{Generation, Index, ReplicaId, SpoolId, Tick};
use crate::proposal::{AdminDone, AdminSlot};
use crate::task::{
    ApplierMsg, GroupMessage, RestoreTask, SendEnd, SnapshotEvent, SnapshotPurpose, SnapshotTask, Spooled,
};
use pontoon_raft::{Body, HardState, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Snapshots that one replica takes in within a turn.
const MAX_RECEIVED: usize = 4;

/// Snapshots of one replica, built and received.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Whose log must stay.
    pub(super) feeding: Feeding,
    /// To whom streams are on their way. A set, for a newer stream to a replica takes the place of its older one, which
    /// then ends without a word.
    sends: BTreeSet<ReplicaId>,
    /// Arrived and verified; the core was told in this turn and takes one of them at most.
    received: Vec<Spooled>,
    /// Who asked for one.
    waiters: Vec<Arc<dyn AdminSlot>>,
    /// Who asked where the kind keeps its contents by itself, and what is to be durable in it then.
    flushing: Vec<(Index, Arc<dyn AdminSlot>)>,
    /// Size of the newest that was built to be kept. Bytes.
    kept: Option<u64>,
}

impl Snapshots {
    /// Size of the newest snapshot of a volatile machine; without bound if none is known. Bytes.
    pub(super) fn kept_size(&self) -> u64 {
        self.kept.unwrap_or(u64::MAX)
    }

    pub(super) fn fail_waiters(&mut self, why: &AdminError) {
        let all = self.waiters.drain(..).chain(self.flushing.drain(..).map(|f| f.1));
        all.for_each(|w| w.done(Err(why.clone())));
    }
}

/// An install on its way.
pub(super) struct Installing {
    /// What is installed.
    install: Install,
    /// Its contents, until the applier has them.
    spooled: Option<Spooled>,
    /// Of the `Ready` that carried it.
    hard_state: HardState,
    /// `Ready`s that wait behind it, its own first.
    pub(super) held: Vec<ToWrite>,
}

impl Replica {
    /// The core wants a snapshot for a follower and none stands ready.
    pub(super) fn want_snapshot(&mut self, work: &mut Work) {
        if !self.raft.storage_mut().take_snapshot_wanted() {
            return;
        }
        let applied = self.machine.applied();
        if !self.snapshots.sends.is_empty() || !self.snapshots.feeding.begin_build(applied, work.now) {
            return;
        }
        self.drop_shelf(work);
        self.ask_for_snapshot(SnapshotPurpose::Send, work);
    }

    fn ask_for_snapshot(&self, purpose: SnapshotPurpose, work: &mut Work) {
        let letter = ApplierMsg::Snapshot { group: self.group, purpose };
        work.letters.push(Letter::Applier(self.group, letter));
    }

    /// A caller asks for one. Each is answered by the snapshot, or by what takes its place (`KeepsItself`).
    pub fn snapshot_now(&mut self, done: Arc<dyn AdminSlot>, work: &mut Work) {
        if let Some(closed) = self.closed() {
            return done.done(Err(AdminError::Group(closed)));
        }
        self.snapshots.waiters.push(done);
        self.ask_for_snapshot(SnapshotPurpose::Keep, work);
    }

    /// Something happened to a snapshot of this group.
    pub fn on_snapshot(&mut self, event: SnapshotEvent, work: &mut Work) {
        match event {
            SnapshotEvent::Built { purpose: SnapshotPurpose::Send, result, .. } => self.on_built(result, work),
            SnapshotEvent::Built { result, .. } => {
                self.snapshots.kept = result.as_ref().ok().map(|s| s.size).or(self.snapshots.kept);
                let result = result.map(|s| AdminDone::Snapshot(s.meta.pos())).map_err(AdminError::Refused);
                self.snapshots.waiters.drain(..).for_each(|w| w.done(result.clone()));
            }
            SnapshotEvent::KeepsItself { replica, upto, .. } => self.await_flush(replica, upto.index),
            SnapshotEvent::Sent { to, end, .. } => self.on_sent(to, end, work),
            SnapshotEvent::Received { from, message, spooled } => self.on_received(from, *message, *spooled, work),
        }
    }

    /// The caller who has waited longest is answered once the machine has made durable what it had applied.
    fn await_flush(&mut self, replica: ReplicaId, upto: Index) {
        if replica == self.id && !self.snapshots.waiters.is_empty() {
            self.snapshots.flushing.push((upto, self.snapshots.waiters.remove(0)));
            self.answer_flushed();
        }
    }

    /// The machine may have made more durable.
    pub fn answer_flushed(&mut self) {
        let durable = self.machine.durable;
        let done = self.snapshots.flushing.extract_if(.., |f| f.0 <= durable.index);
        done.for_each(|(_, waiter)| waiter.done(Ok(AdminDone::Snapshot(durable))));
    }

    fn on_built(&mut self, result: Result<Box<Spooled>, String>, work: &mut Work) {
        let Ok(spooled) = result else { return self.snapshots.feeding.fail_build(work.now) };
        self.snapshots.feeding.end_build(work.now);
        if self.closed().is_some() {
            return drop_spool(spooled.spool, work);
        }
        // The core asks again when the follower answers a heartbeat.
        if let Some(old) = self.raft.storage_mut().set_spooled(Some(spooled)) {
            drop_spool(old.spool, work);
        }
        self.drop_idle_shelf(work);
    }

    /// Few snapshots may stand ready on a node: one that nobody takes makes room.
    pub(super) fn drop_idle_shelf(&mut self, work: &mut Work) {
        if self.raft.storage().spooled().is_none() {
            return;
        }
        let awaited = self.is_leader() && self.snapshots.feeding.may_send(work.now);
        if !awaited && self.snapshots.sends.is_empty() {
            self.drop_shelf(work);
        }
    }

    /// Streams the shelf's snapshot, and the core's message with it.
    pub(super) fn send_snapshot(&mut self, to: Destination, message: GroupMessage, work: &mut Work) {
        let Some(spooled) = self.raft.storage().spooled().cloned() else {
            return self.raft.report_snapshot(work.now, message.message.to, false);
        };
        self.snapshots.sends.insert(message.message.to);
        work.letters.push(Letter::Snapshotter(SnapshotTask::Send {
            poller: self.poller,
            to,
            message: Box::new(message),
            spooled: Box::new(spooled),
        }));
    }

    fn on_sent(&mut self, to: ReplicaId, end: SendEnd, work: &mut Work) {
        self.snapshots.sends.remove(&to);
        match (end, self.raft.storage().spooled()) {
            (SendEnd::Done, Some(sent)) => {
                let upto = sent.meta.index;
                self.snapshots.feeding.on_fed(to, upto, work.now);
            }
            // The core asks again when the follower answers a heartbeat.
            (SendEnd::Refused, _) => self.snapshots.feeding.stay_ready(work.now),
            _ => {}
        }
        if self.closed().is_none() {
            self.raft.report_snapshot(work.now, to, end == SendEnd::Done);
        }
        if end == SendEnd::Refused {
            self.drop_idle_shelf(work);
        } else if self.snapshots.sends.is_empty() {
            self.drop_shelf(work);
        }
    }

    /// Is a snapshot on its way to this replica, or being built for whoever needs one?
    pub(super) fn feeds_snapshot(&self, replica: ReplicaId) -> bool {
        self.snapshots.sends.contains(&replica)
    }

    /// The log behind the snapshot that is on its way, or may be soon, stays.
    pub(super) fn needed_by_shelf(&self, now: Tick) -> Index {
        let needed = !self.snapshots.sends.is_empty() || self.snapshots.feeding.may_send(now);
        let shelf = self.raft.storage().spooled().filter(|_| needed);
        shelf.map_or(Index(u64::MAX), |s| s.meta.index)
    }

    fn drop_shelf(&mut self, work: &mut Work) {
        if let Some(old) = self.raft.storage_mut().set_spooled(None) {
            drop_spool(old.spool, work);
        }
    }

    /// The replica stands still: others may need the room that its spools take.
    pub(super) fn drop_spools(&mut self, work: &mut Work) {
        self.drop_shelf(work);
        self.drop_unused_snapshots(work);
        if let Phase::Installing(i) = &mut self.phase {
            i.spooled.take().into_iter().for_each(|spooled| drop_spool(spooled.spool, work));
        }
    }

    /// A snapshot arrived whole and verified: the core judges its message.
    fn on_received(&mut self, from: PeerIdentity, message: GroupMessage, spooled: Spooled, work: &mut Work) {
        let fits = match &message.message.body {
            Body::Snap { snapshot } => snapshot.meta == spooled.meta,
            _ => false,
        };
        let room = self.snapshots.received.len() < MAX_RECEIVED;
        if !fits || !room || !matches!(self.phase, Phase::Running) || self.admits(from, &message).is_err() {
            work.refused("snapshot_not_wanted");
            return drop_spool(spooled.spool, work);
        }
        self.note_sender(from.node, &message.message, work.now);
        self.snapshots.received.push(spooled);
        self.step(message.message, work);
    }

    /// The core did not take what arrived: it has that already, or got a newer one in the same turn.
    pub(super) fn drop_unused_snapshots(&mut self, work: &mut Work) {
        self.snapshots.received.drain(..).for_each(|unused| drop_spool(unused.spool, work));
    }

    /// Step 2: the intent, synced. Nothing of this `Ready` is written before the record.
    pub(super) fn begin_install(&mut self, snapshot: Snapshot, write: ToWrite, work: &mut Work) {
        let taken = self.snapshots.received.iter().position(|r| r.meta == snapshot.meta);
        let received = taken.map(|at| self.snapshots.received.swap_remove(at));
        let (Some(received), Some(hard_state)) = (received, write.hard_state) else {
            return self.quarantine("a snapshot was taken over whose contents never arrived".into(), work);
        };
        let generation = Generation(self.machine.record.generation.0 + 1);
        let record = match self.adopted(&received, generation) {
            Ok(record) => record,
            Err(why) => {
                drop_spool(received.spool, work);
                return self.quarantine(why, work);
            }
        };
        let conf_state = snapshot.meta.conf_state.clone();
        let install = Install { pos: snapshot.meta.pos(), conf_state, record: record.encode(), generation };
        self.write_lazy_commit(work);
        self.put(GroupOp::Intent(Box::new(install.clone())), true, work);
        self.writes.intend(work.seq);
        let held = Vec::new();
        let installing = Installing { install, spooled: Some(received), hard_state, held };
        self.phase = Phase::Installing(Box::new(installing));
        // Its own number and entries wait like those of later ones; its hard state goes into the record.
        self.write(ToWrite { hard_state: None, awaits_persist: true, ..write }, work);
    }

    /// A received snapshot's record as this replica's.
    fn adopted(&self, received: &Spooled, generation: Generation) -> Result<ReplicaRecord, String> {
        match ReplicaRecord::decode(received.record.clone()) {
            Ok(r) if r.group == self.group => Ok(ReplicaRecord { replica: self.id, generation, ..r }),
            Ok(_) => Err("a snapshot's record names another group".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Step 3: the machine takes the contents over.
    pub(super) fn on_intent_durable(&mut self, work: &mut Work) {
        let Phase::Installing(i) = &mut self.phase else { return };
        let Some(Spooled { spool, size, .. }) = i.spooled.take() else { return };
        let install = Box::new(i.install.clone());
        let task = RestoreTask { group: self.group, replica: self.id, install, spool, size };
        work.letters.push(Letter::Applier(self.group, ApplierMsg::Restore(task)));
    }

    /// Step 4: the record, synced, and what waited behind it. The ack leaves when that is durable.
    pub(super) fn on_restored(&mut self, install: Install, reader: Reader, work: &mut Work) {
        let same = matches!(&self.phase, Phase::Installing(i) if i.install == install);
        if !same {
            return;
        }
        let record = match ReplicaRecord::decode(install.record.clone()) {
            Ok(record) => record,
            Err(e) => return self.quarantine(e.to_string(), work),
        };
        let Phase::Installing(done) = std::mem::replace(&mut self.phase, Phase::Running) else { return };
        self.reset_machine(&install, record, reader, work);
        self.answer_flushed();
        self.writes.install(work.seq, install.pos, install.conf_state.clone());
        self.put(GroupOp::Install { install: Box::new(install), hard_state: done.hard_state }, true, work);
        for held in done.held {
            self.write_now(held, work);
        }
    }
}

fn drop_spool(spool: SpoolId, work: &mut Work) {
    work.letters.push(Letter::Snapshotter(SnapshotTask::Drop(spool)));
}
