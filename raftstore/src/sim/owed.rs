//! What a world owes: each kind of fault that its swarm drew hits at least once, or the world proves nothing about it.
//!
//! A kind is struck at a moment of its own, and again until its effect is seen: a write that failed, a turn that was held, a
//! frame that a cut swallowed. Leaves to others: how a fault is done (`faults`), the verdict (`judge`).
//! Invariant: `effect` counts what a fault did, never that it was ordered.

use super::configs::{CHANGES_ABORTED, CHANGES_DONE};
use super::swarm::Fault;
use super::world::{What, World};
use crate::env::Instant;
use crate::mem::MachineFault;
use std::time::Duration;

impl World {
    /// Every drawn kind gets its moment.
    pub(super) fn owe_faults(&mut self) {
        let kinds: Vec<Fault> = self.swarm.faults.iter().map(|f| f.0).collect();
        for fault in kinds {
            let at = self.soon(self.swarm.fault_phase / 4).after(Duration::from_secs(3));
            self.put(at, What::Owed(fault));
        }
    }

    pub(super) fn on_owed(&mut self, fault: Fault) {
        if self.healed || self.effect(fault) > 0 {
            return;
        }
        let again = if fault == Fault::DestroyGroup {
            // It must be told to all nodes, and be there: one that is destroyed unborn counts for nothing.
            let is_there = !self.destroyable().is_empty();
            self.strike(if is_there { fault } else { Fault::CreateGroup });
            self.soon(Duration::from_secs(2)).after(Duration::from_secs(6))
        } else {
            // A cluster that lies still meets no fault, and more of them would keep it so.
            if self.is_awake() {
                self.strike(fault);
            }
            // Each strike draws its node, group and point anew, and many a draw meets nothing.
            self.soon(Duration::from_millis(500)).after(Duration::from_millis(100))
        };
        self.put(again, What::Owed(fault));
    }

    /// A majority of the nodes runs unhindered, and some have met.
    fn is_awake(&self) -> bool {
        let calm = self.nodes.keys().filter(|id| self.is_calm(**id)).count();
        calm * 2 > self.nodes.len() && self.links.any()
    }

    /// Late in the phase what is owed comes first: nothing else happens until it was seen.
    pub(super) fn debts_come_first(&self) -> bool {
        self.now > Instant(1).after(self.swarm.fault_phase / 2) && self.still_owed().is_some()
    }

    /// The first drawn kind without an effect.
    pub(super) fn still_owed(&self) -> Option<Fault> {
        self.swarm.faults.iter().map(|f| f.0).find(|fault| self.effect(*fault) == 0)
    }

    /// Puts the effects that the media saw beside the counts.
    pub(super) fn count_effects(&mut self) {
        let by_media =
            [Fault::WriteFails, Fault::FilesFull, Fault::ApplyFails, Fault::CommitFails, Fault::DurableFails];
        for fault in by_media {
            let n = self.effect(fault);
            self.counts.insert(format!("effect {fault:?}").into(), n);
        }
    }

    fn effect(&self, fault: Fault) -> u64 {
        let counted = |name: &str| self.counts.get(name).copied().unwrap_or_default();
        match fault {
            Fault::CrashAtPoint => counted("crashes at a point"),
            Fault::SlowDisk => counted("writes slowed"),
            Fault::HungDisk => counted("turns held by a hung disk"),
            Fault::Pause => counted("turns held by a pause"),
            Fault::Isolate | Fault::Split | Fault::OneWay | Fault::CutLink => {
                counted(&format!("fault {fault:?}")).min(counted("frames cut off"))
            }
            Fault::DestroyGroup => counted("replicas destroyed"),
            Fault::Reconfigure => self.facts.change_count(CHANGES_DONE) + self.facts.change_count(CHANGES_ABORTED),
            Fault::OldDisk | Fault::WipedDisk => counted(&format!("refused {fault:?}")),
            Fault::WriteFails => self.nodes.values().map(|n| n.media.disk.failed()).sum(),
            Fault::FilesFull => self.nodes.values().map(|n| n.media.files.refused()).sum(),
            Fault::ApplyFails => self.met(|f| matches!(f, MachineFault::Apply(_) | MachineFault::ApplyPanics(_))),
            Fault::CommitFails => self.met(|f| *f == MachineFault::Commit),
            Fault::DurableFails => self.met(|f| *f == MachineFault::Durable),
            Fault::CrashNow
            | Fault::CrashAll
            | Fault::Transfer
            | Fault::SnapshotNow
            | Fault::Flush
            | Fault::CreateGroup => counted(&format!("fault {fault:?}")),
        }
    }

    fn met(&self, which: impl Fn(&MachineFault) -> bool) -> u64 {
        let machines = self.nodes.values().flat_map(|n| n.media.machines.values());
        machines.flat_map(|m| m.met()).filter(|(f, _)| which(f)).map(|(_, n)| n).sum()
    }
}
