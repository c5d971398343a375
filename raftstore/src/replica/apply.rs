//! Committed entries on their way to the state machine, and what it reports back.
//!
//! Leaves to others: applying (the applier), which entries may go (the core offers only those durable here).
//! Invariant: entries are handed over in order, each once, with those who wait for them and the replica record
//! after the last one. `durable <= applied <= handed`.

use super::backlog::{Backlog, Load};
use super::{Letter, LogRoom, Phase, Replica, Work};
use crate::budget::Budget;
use crate::codec::ReplicaRecord;
use crate::env::{Install, Reader, Truncation};
use crate::events::Event;
use crate::ids::{Generation, Index, LogPos, Term};
use crate::proposal::weigh;
use crate::task::{Applied, ApplyTask};
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::{ConfState, Entries, Entry, EntryKind, StateRole};
use std::sync::Arc;

/// What the machine has and will get.
pub(super) struct Applying {
    /// After the last entry handed over, but for `applied`: shared with what was sent until it changes, which is rare.
    pub(super) record: Arc<ReplicaRecord>,
    /// The last entry handed over.
    pub(super) handed: LogPos,
    /// Highest index that the machine reported.
    applied: Index,
    /// Survives a crash in the machine.
    pub(super) durable: LogPos,
    /// Configurations, each from its index on, ascending; the first is the one of the truncation point.
    confs: Vec<(Index, ConfState)>,
    /// Between the truncation point and here the configuration changed before this start, at an index not known any
    /// more: no truncation point may lie there.
    conf_gap: Option<Index>,
    /// Handed over, not reported.
    pub(super) backlog: Backlog,
}

impl Applying {
    pub(super) fn new(record: ReplicaRecord, truncated: &Truncation, budget: Arc<Budget>) -> Applying {
        let mut confs = vec![(truncated.pos.index, truncated.conf_state.clone())];
        let changed = !record.conf_state.equivalent(&truncated.conf_state);
        if changed {
            confs.push((record.applied.index, record.conf_state.clone()));
        }
        let conf_gap = changed.then_some(record.applied.index);
        // Durable is what a machine reports in this life; what was recovered survived the last one.
        let (handed, backlog) = (record.applied, Backlog::new(budget));
        Applying { applied: handed.index, durable: handed, handed, record: Arc::new(record), confs, conf_gap, backlog }
    }

    /// Highest index that the machine reported.
    pub(super) fn applied(&self) -> Index {
        self.applied
    }

    /// The configuration after the entry at `index`, if it is known.
    pub(super) fn conf_at(&self, index: Index) -> Option<&ConfState> {
        if self.conf_gap.is_some_and(|gap| index < gap) {
            return None;
        }
        let n = self.confs.partition_point(|c| c.0 <= index);
        n.checked_sub(1).map(|at| &self.confs[at].1)
    }

    /// The log begins behind `index` now.
    pub(super) fn forget_confs(&mut self, index: Index) {
        let n = self.confs.partition_point(|c| c.0 <= index);
        self.confs.drain(..n.saturating_sub(1));
        self.conf_gap = self.conf_gap.filter(|gap| *gap > index);
    }

    /// An entry changed the configuration.
    pub(super) fn note_conf(&mut self, index: Index, conf: ConfState) {
        self.confs.push((index, conf.clone()));
        Arc::make_mut(&mut self.record).conf_state = conf;
    }
}

impl Replica {
    /// Hands committed entries over. Membership changes take effect here, in order.
    pub(super) fn hand_to_machine(&mut self, mut entries: Entries, work: &mut Work) {
        let Some(last) = entries.last().map(Entry::pos) else { return };
        for entry in entries.iter().filter(|e| e.kind != EntryKind::Normal) {
            if let Err(why) = self.apply_membership(entry, work) {
                return self.quarantine(why, work);
            }
        }
        self.machine.handed = last;
        work.tally.applying += entries.len() as u64;
        if self.machine.backlog.is_long() {
            // Else each would keep a whole frame, with other groups' entries, until the machine gets to it.
            entries.detach(Index::NONE, Index(u64::MAX));
        }
        let payload = entries.payload_size();
        work.tally.applying_bytes += payload;
        let waiting = self.proposals.take_for(&entries);
        let run = Load { bytes: weigh(payload, entries.len() as u64), callers: waiting.len() };
        self.machine.backlog.push(last.index, run);
        let task = ApplyTask {
            group: self.group,
            replica: self.id,
            generation: self.machine.record.generation,
            waiting,
            entries,
            record: self.machine.record.clone(),
        };
        work.letters.push(Letter::Apply(task));
    }

    /// The applier did something for this group.
    pub fn on_applied(&mut self, applied: Applied, work: &mut Work) {
        if self.closed().is_some() {
            return;
        }
        match applied {
            Applied::Upto { replica, index, .. } if replica == self.id => self.on_applied_upto(index, work),
            Applied::Restored { replica, install, reader, .. } if replica == self.id => {
                self.on_restored(*install, reader, work);
            }
            Applied::Failed { replica, why, .. } if replica == self.id => self.quarantine(why, work),
            _ => {}
        }
    }

    fn on_applied_upto(&mut self, index: Index, work: &mut Work) {
        if index <= self.machine.applied {
            return;
        }
        self.machine.applied = index;
        let done = self.machine.backlog.on_applied(index);
        self.gather.on_answered(done.callers);
        self.pace.on_done(done.bytes, work.now, self.limits.pace_ticks);
        self.raft.on_applied(work.now, index);
        self.reads.on_applied(index);
        let needed = self.needed_in_memory();
        self.raft.storage_mut().on_applied(index, needed);
        if mutant::is(Mutant::TruncateAheadOfDurable) {
            self.truncate(LogRoom { groups: 1, crowded: false }, work);
        }
    }

    /// What followers still get from memory. Laggards are served from disk.
    pub(super) fn needed_in_memory(&self) -> Index {
        if self.raft.basic_status().role != StateRole::Leader {
            return Index(u64::MAX);
        }
        self.leading.slowest_active()
    }

    /// The machine's contents are a snapshot's now, durable under the new generation.
    pub(super) fn reset_machine(&mut self, install: &Install, record: ReplicaRecord, reader: Reader, work: &mut Work) {
        self.machine = Applying {
            applied: install.pos.index,
            durable: install.pos,
            confs: vec![(install.pos.index, install.conf_state.clone())],
            conf_gap: None,
            handed: record.applied,
            record: Arc::new(record),
            backlog: Backlog::new(self.raft.storage().budget().clone()),
        };
        self.cell.set_reader(reader);
        self.proposals.skip_upto(install.pos.index);
        self.reads.on_applied(install.pos.index);
        self.publish_shape();
        work.events.push(Event::SnapshotInstalled { group: self.group, at: install.pos });
    }

    /// What survives a crash in the machine.
    pub fn on_durable(&mut self, generation: Generation, pos: LogPos) {
        let known = self.machine.durable.index < pos.index && pos.index <= self.machine.applied;
        if matches!(self.phase, Phase::Running) && generation == self.machine.record.generation && known {
            self.machine.durable = pos;
        }
    }

    /// The term of a position in the log, as far as stored here.
    pub(super) fn stored_term(&self, index: Index) -> Option<Term> {
        use pontoon_raft::Storage;
        self.raft.storage().term(index).ok()
    }
}
