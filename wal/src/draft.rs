//! All operations of one batch on one group, folded: what is stored dies or stays, one run of entries is new.
//!
//! Leaves to others: bytes (`batch`). Invariant: `run` begins behind `run_prev`, which is the last stored entry that
//! stays (or the truncation point), so that stored blocks, `run_prev` and `run` are one consecutive log.

use crate::block::Block;
use crate::envelope::{Owner, StoreId};
use crate::error::CorruptRecord;
use crate::latch::Latch;
use crate::reader;
use crate::seats::{Living, Marks, Seat};
use pontoon_raft::{Entries, EntryRun, HardState};
use pontoon_raftstore::env::{Creation, GroupOp, GroupWrite, Install, Truncation};
use pontoon_raftstore::ids::{Generation, GroupId, Index, LogPos, ReplicaId};

/// Stored entries from `from` on die in a conflict.
pub(crate) struct Cut {
    /// First index that dies.
    pub(crate) from: Index,
    /// What is left of the block that straddles `from`.
    pub(crate) rest: Option<Block>,
}

/// What one batch does to one group.
pub(crate) struct Draft<'a> {
    /// The group.
    pub(crate) group: GroupId,
    /// Who lives or lived here.
    pub(crate) owner: Owner,
    /// All stored blocks die.
    pub(crate) wipe: bool,
    /// Some stored blocks die.
    pub(crate) cut: Option<Cut>,
    /// Position before the run.
    pub(crate) run_prev: LogPos,
    /// New entries.
    pub(crate) run: Entries,
    /// Born in this batch.
    pub(crate) creation: Option<&'a Creation>,
    /// New truncation point (or generation).
    pub(crate) begin: Option<Truncation>,
    /// The intent changed.
    pub(crate) intent: bool,
    /// The hard state changed.
    pub(crate) hard_state: bool,
}

impl<'a> Draft<'a> {
    /// Nothing happened yet.
    pub(crate) fn new(group: GroupId, seat: Option<&Seat>) -> Draft<'a> {
        let (owner, run_prev) = match seat {
            Some(Seat::Living(living)) => (living.owner, living.last),
            _ => (Owner::default(), LogPos::NONE),
        };
        Draft {
            group,
            owner,
            wipe: false,
            cut: None,
            run_prev,
            run: Entries::new(),
            creation: None,
            begin: None,
            intent: false,
            hard_state: false,
        }
    }

    /// One operation more. Leaves something in `seat`.
    pub(crate) fn fold(
        &mut self,
        write: &'a GroupWrite,
        seat: &mut Option<Seat>,
        store: StoreId,
        latch: &Latch,
    ) -> Result<(), CorruptRecord> {
        match &write.op {
            GroupOp::Create { creation, hard_state } => {
                *seat = Some(Seat::Living(self.create(write.replica, creation, *hard_state, seat.as_ref())));
                return Ok(());
            }
            GroupOp::Destroy { next_replica } => {
                living(seat, write);
                assert!(*next_replica > write.replica, "a tombstone that lets the destroyed replica back in");
                self.forget_stored(LogPos::NONE);
                self.creation = None;
                *seat = Some(Seat::Tombstone(*next_replica));
                return Ok(());
            }
            _ => {}
        }
        let living = living(seat, write);
        match &write.op {
            GroupOp::Append { entries, hard_state } => {
                self.append(entries, living, store, latch)?;
                if let Some(hard_state) = hard_state {
                    self.set_hard_state(living, *hard_state);
                }
            }
            GroupOp::Truncate(upto) => self.truncate(upto, living),
            GroupOp::Intent(install) => self.set_intent(living, Some(install.clone())),
            GroupOp::DropIntent => self.set_intent(living, None),
            GroupOp::Install { install, hard_state } => self.install(install, *hard_state, living),
            GroupOp::Create { .. } | GroupOp::Destroy { .. } => unreachable!("handled above"),
        }
        Ok(())
    }

    fn create(
        &mut self,
        replica: ReplicaId,
        creation: &'a Creation,
        hard_state: HardState,
        seat: Option<&Seat>,
    ) -> Box<Living> {
        match seat {
            Some(Seat::Living(_)) => panic!("group {} lives here already", self.group),
            Some(Seat::Tombstone(next)) => {
                assert!(replica >= *next, "replica {replica} of group {} is below its tombstone {next}", self.group);
            }
            None => {}
        }
        self.owner = Owner { replica, generation: Generation(0) };
        self.run_prev = creation.birth;
        self.creation = Some(creation);
        self.begin = Some(Truncation { pos: creation.birth, conf_state: creation.conf_state.clone() });
        let mut living = Living {
            owner: self.owner,
            last: creation.birth,
            truncated: creation.birth,
            cleared: creation.birth.index.next(),
            ..Living::default()
        };
        self.set_hard_state(&mut living, hard_state);
        Box::new(living)
    }

    fn append(
        &mut self,
        entries: &EntryRun,
        living: &mut Living,
        store: StoreId,
        latch: &Latch,
    ) -> Result<(), CorruptRecord> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let first = first.index;
        assert!(
            first > living.truncated.index && first <= living.last.index.next(),
            "append at {first} to a log of ({}, {}] of group {}",
            living.truncated.index,
            living.last.index,
            self.group
        );
        if first <= self.run_prev.index {
            self.cut_stored(first, living, store, latch)?;
        }
        self.run.cut_from(first);
        self.run.push(entries.clone());
        living.last = last.pos();
        Ok(())
    }

    /// Stored entries from `first` on are overwritten: reads the block that holds the entry before.
    fn cut_stored(
        &mut self,
        first: Index,
        living: &mut Living,
        store: StoreId,
        latch: &Latch,
    ) -> Result<(), CorruptRecord> {
        let holding = reader::block_holding(latch, store, self.group, first.prev())?;
        let mut rest = holding.filter(|b| b.last().index >= first.prev());
        self.run_prev = match &rest {
            Some(b) => b.entries[(first.0 - b.prev.index.0 - 2) as usize].pos(),
            None if living.truncated.index == first.prev() => living.truncated,
            None => return Err(CorruptRecord::hole(self.group, first.prev())),
        };
        // A block that ends before the conflict stays as it is.
        rest = rest.filter(|b| b.last().index >= first);
        if let Some(block) = &mut rest {
            block.entries = block.entries.between(Index::NONE, first);
        }
        living.marks.on_cut(first);
        self.run.clear();
        self.cut = Some(Cut { from: first, rest });
        Ok(())
    }

    fn truncate(&mut self, upto: &Truncation, living: &mut Living) {
        if upto.pos.index <= living.truncated.index {
            return;
        }
        assert!(upto.pos.index <= living.last.index, "truncation at {:?} behind {:?}", upto.pos, living.last);
        assert!(upto.pos.index != living.last.index || upto.pos == living.last, "truncation at a term never stored");
        living.truncated = upto.pos;
        self.begin = Some(upto.clone());
    }

    fn install(&mut self, install: &Install, hard_state: HardState, living: &mut Living) {
        assert_eq!(living.intent.as_deref(), Some(install), "an install without its intent");
        assert!(hard_state.commit >= install.pos.index, "an install whose hard state does not commit it");
        self.forget_stored(install.pos);
        living.owner.generation = install.generation;
        living.last = install.pos;
        living.truncated = install.pos;
        living.cleared = install.pos.index.next();
        living.marks = Marks::default();
        self.owner = living.owner;
        self.begin = Some(Truncation { pos: install.pos, conf_state: install.conf_state.clone() });
        self.set_intent(living, None);
        self.set_hard_state(living, hard_state);
    }

    fn set_intent(&mut self, living: &mut Living, intent: Option<Box<Install>>) {
        living.intent = intent;
        self.intent = true;
    }

    fn set_hard_state(&mut self, living: &mut Living, hard_state: HardState) {
        living.hard_state.version += 1;
        living.hard_state.hard_state = hard_state;
        self.hard_state = true;
    }

    fn forget_stored(&mut self, prev: LogPos) {
        self.wipe = true;
        self.cut = None;
        self.run_prev = prev;
        self.run.clear();
        self.intent = true; // a destroyed replica's intent goes even if another is born in the same batch
    }
}

fn living<'s>(seat: &'s mut Option<Seat>, write: &GroupWrite) -> &'s mut Living {
    let lives = matches!(seat, Some(Seat::Living(living)) if living.owner.replica == write.replica);
    assert!(lives, "group {}: replica {} does not live here: {seat:?}", write.group, write.replica);
    match seat {
        Some(Seat::Living(living)) => living,
        _ => unreachable!("asserted above"),
    }
}
