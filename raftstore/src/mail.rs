//! The inboxes of a node: one channel per active object, made together, so that everyone can write to everyone.
//!
//! Leaves to others: what the letters mean (`task`), which poller a group lives on later (`router`).
//! Invariant: sending never blocks and an inbox outlives its readers' peers, so a letter to an object that has
//! stopped is dropped silently: who stops has answered everybody who waits on it.
//! Bounds: the channels have none of their own. What enters from outside is charged to the node's byte budget at the
//! door (router); what goes between objects answers work that was admitted, at most one letter per piece of work.

use crate::group_spec::spread;
use crate::ids::{GroupId, PollerId};
use crate::task::{
    ApplierMsg, ApplyTask, DurabilityMsg, FetchTask, LifecycleMsg, LogReaderMsg, PollerMsg, SnapshotTask, WriterMsg,
};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;

/// Tasks of one letter at most, so that an applier's turn stays bounded.
const LETTER: usize = 128;

/// Ways in to every active object of the node. Cheap to clone.
#[derive(Clone)]
pub struct Mail {
    pollers: Arc<[Sender<PollerMsg>]>,
    appliers: Arc<[Sender<ApplierMsg>]>,
    writer: Sender<WriterMsg>,
    log_reader: Sender<LogReaderMsg>,
    snapshotter: Sender<SnapshotTask>,
    lifecycle: Sender<LifecycleMsg>,
    durability: Sender<DurabilityMsg>,
}

/// The other ends, each for the one object that it belongs to.
pub struct Inboxes {
    /// One per poller.
    pub pollers: Vec<Receiver<PollerMsg>>,
    /// One per applier.
    pub appliers: Vec<Receiver<ApplierMsg>>,
    /// Of the log writer.
    pub writer: Receiver<WriterMsg>,
    /// Of the log reader.
    pub log_reader: Receiver<LogReaderMsg>,
    /// Of the snapshotter.
    pub snapshotter: Receiver<SnapshotTask>,
    /// Of lifecycle.
    pub lifecycle: Receiver<LifecycleMsg>,
    /// Of durability.
    pub durability: Receiver<DurabilityMsg>,
}

impl Mail {
    /// Inboxes for so many pollers and appliers (at least one each).
    #[must_use]
    pub fn new(pollers: usize, appliers: usize) -> (Mail, Inboxes) {
        assert!(pollers > 0 && appliers > 0, "Config::violations refuses 0");
        let (poller_tx, poller_rx): (Vec<_>, Vec<_>) = (0..pollers).map(|_| unbounded()).unzip();
        let (applier_tx, applier_rx): (Vec<_>, Vec<_>) = (0..appliers).map(|_| unbounded()).unzip();
        let (writer, writer_rx) = unbounded();
        let (log_reader, log_reader_rx) = unbounded();
        let (snapshotter, snapshotter_rx) = unbounded();
        let (lifecycle, lifecycle_rx) = unbounded();
        let (durability, durability_rx) = unbounded();
        let mail = Mail {
            pollers: poller_tx.into(),
            appliers: applier_tx.into(),
            writer,
            log_reader,
            snapshotter,
            lifecycle,
            durability,
        };
        let inboxes = Inboxes {
            pollers: poller_rx,
            appliers: applier_rx,
            writer: writer_rx,
            log_reader: log_reader_rx,
            snapshotter: snapshotter_rx,
            lifecycle: lifecycle_rx,
            durability: durability_rx,
        };
        (mail, inboxes)
    }

    /// Number of pollers.
    #[must_use]
    pub fn pollers(&self) -> usize {
        self.pollers.len()
    }

    /// Where a new group goes: spread evenly, the same at every start.
    #[must_use]
    pub fn home_of(&self, group: GroupId) -> PollerId {
        let at = spread(group) % self.pollers.len() as u64;
        PollerId(u32::try_from(at).expect("there are at most 256 pollers"))
    }

    /// To a poller. Dropped if there is no such poller any more.
    pub fn poller(&self, to: PollerId, letter: PollerMsg) {
        if let Some(inbox) = self.pollers.get(to.0 as usize) {
            let _stopped = inbox.send(letter);
        }
    }

    /// To the applier that owns the group's machine: always the same one.
    pub fn applier(&self, group: GroupId, letter: ApplierMsg) {
        let _stopped = self.appliers[self.applier_of(group)].send(letter);
    }

    fn applier_of(&self, group: GroupId) -> usize {
        ((spread(group) >> 32) % self.appliers.len() as u64) as usize
    }

    /// Entries to the appliers that own the groups' machines, in few letters. Empties `tasks`.
    pub fn apply(&self, tasks: &mut Vec<ApplyTask>) {
        if tasks.is_empty() {
            return;
        }
        let mut letters: Vec<Vec<ApplyTask>> = self.appliers.iter().map(|_| Vec::new()).collect();
        for task in tasks.drain(..) {
            let at = self.applier_of(task.group);
            letters[at].push(task);
            if letters[at].len() == LETTER {
                let _stopped = self.appliers[at].send(ApplierMsg::Apply(std::mem::take(&mut letters[at])));
            }
        }
        for (applier, letter) in self.appliers.iter().zip(letters).filter(|l| !l.1.is_empty()) {
            let _stopped = applier.send(ApplierMsg::Apply(letter));
        }
    }

    /// To every applier.
    pub fn appliers(&self, letter: impl Fn() -> ApplierMsg) {
        for inbox in self.appliers.iter() {
            let _stopped = inbox.send(letter());
        }
    }

    /// To the log writer.
    pub fn writer(&self, letter: WriterMsg) {
        let _stopped = self.writer.send(letter);
    }

    /// To the log reader.
    pub fn log_reader(&self, letter: FetchTask) {
        let _stopped = self.log_reader.send(LogReaderMsg::Fetch(letter));
    }

    /// The log reader stops.
    pub fn stop_log_reader(&self) {
        let _stopped = self.log_reader.send(LogReaderMsg::Stop);
    }

    /// To the snapshotter.
    pub fn snapshotter(&self, letter: SnapshotTask) {
        let _stopped = self.snapshotter.send(letter);
    }

    /// Letters that the snapshotter has not taken yet: who makes handles on a whim waits while there are many.
    #[must_use]
    pub fn snapshotter_backlog(&self) -> usize {
        self.snapshotter.len()
    }

    /// Which inboxes hold letters: pollers, appliers, writer, log reader, snapshotter, lifecycle, durability, in that
    /// order. For a schedule that is no thread's (the simulator's).
    pub fn waiting(&self, out: &mut Vec<bool>) {
        out.extend(self.pollers.iter().map(|p| !p.is_empty()));
        out.extend(self.appliers.iter().map(|a| !a.is_empty()));
        let others = [self.writer.is_empty(), self.log_reader.is_empty(), self.snapshotter.is_empty()];
        out.extend(others.map(|empty| !empty));
        out.extend([!self.lifecycle.is_empty(), !self.durability.is_empty()]);
    }

    /// To lifecycle.
    pub fn lifecycle(&self, letter: LifecycleMsg) {
        let _stopped = self.lifecycle.send(letter);
    }

    /// Letters that lifecycle has not taken yet.
    #[must_use]
    pub fn lifecycle_backlog(&self) -> usize {
        self.lifecycle.len()
    }

    /// To durability.
    pub fn durability(&self, letter: DurabilityMsg) {
        let _stopped = self.durability.send(letter);
    }
}
