//! `LogBatch` -> one RocksDB write batch.
//!
//! The operations of one group are folded into a draft first, so that later ones may overwrite earlier ones of the same
//! batch, and each group gets at most one run of new blocks. Order of a group's records in the write batch: deletions,
//! then records, then blocks; a later operation of a write batch wins, so a deletion never hits what the batch writes.
//! Invariant: a range deletion of blocks goes with the hard state as a record of its own, because the blocks may have
//! carried the newest one. Asserts are for bugs of the caller: a group that does not live here, a hole in a log.

use crate::block::{self, Block};
use crate::draft::Draft;
use crate::envelope::{Owner, StoreId};
use crate::error::CorruptRecord;
use crate::group_record::{self, GroupRecord, Life};
use crate::keys::{self, RecordKind};
use crate::latch::Latch;
use crate::seats::{Living, Seat, Seats};
use crate::truncate;
use pontoon_raft::Entry;
use pontoon_raftstore::codec::Stretch;
use pontoon_raftstore::env::{GroupWrite, LogBatch};
use pontoon_raftstore::ids::{GroupId, LogPos};
use rocksdb::WriteBatch;

/// A batch as RocksDB takes it, and what is in it.
pub(crate) struct Encoded {
    /// The records.
    pub(crate) batch: WriteBatch,
    /// Log entries.
    pub(crate) entries: u64,
    /// Groups touched.
    pub(crate) groups: u64,
}

/// Bytes that a group's keys, heads of blocks and records take at the most, mostly.
const PER_GROUP: usize = 256;

/// Bytes of the write batch, rather too many: one that has to grow is copied, each time to memory that nobody touched yet.
fn guess(batch: &LogBatch) -> usize {
    usize::try_from(batch.encoded_bytes()).unwrap_or(0) + batch.writes.len() * PER_GROUP
}

/// Turns batches into write batches; keeps its buffers.
pub(crate) struct Encoder {
    /// Goes into every value.
    store: StoreId,
    /// One value at a time.
    value: Vec<u8>,
    /// Positions in the batch, by group.
    order: Vec<u32>,
}

impl Encoder {
    /// An encoder for this store.
    pub(crate) fn new(store: StoreId) -> Encoder {
        Encoder { store, value: Vec::new(), order: Vec::new() }
    }

    /// Encodes `batch` and moves `seats` to the state after it. Reads `latch` only where a conflict cuts a block.
    pub(crate) fn encode(
        &mut self,
        batch: &LogBatch,
        seats: &mut Seats,
        latch: &Latch,
    ) -> Result<Encoded, CorruptRecord> {
        let mut out = Encoded { batch: WriteBatch::with_capacity_bytes(guess(batch)), entries: 0, groups: 0 };
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..batch.writes.len() as u32);
        let group = |at: &u32| batch.writes[*at as usize].group;
        order.sort_by_key(group); // stable: a group's operations stay in order
        for of_group in order.chunk_by(|a, b| group(a) == group(b)) {
            let writes = of_group.iter().map(|at| &batch.writes[*at as usize]);
            self.encode_group(group(&of_group[0]), writes, seats, latch, &mut out)?;
        }
        self.order = order;
        self.encode_meta(batch, &mut out.batch);
        Ok(out)
    }

    fn encode_meta(&mut self, batch: &LogBatch, out: &mut WriteBatch) {
        for write in &batch.meta {
            let key = keys::meta(&write.key);
            match &write.value {
                Some(value) => {
                    group_record::encode_meta(&mut self.value, &key, self.store, value);
                    out.put(&key, &self.value);
                }
                None => out.delete(&key),
            }
        }
    }

    fn encode_group<'a>(
        &mut self,
        group: GroupId,
        writes: impl Iterator<Item = &'a GroupWrite>,
        seats: &mut Seats,
        latch: &Latch,
        out: &mut Encoded,
    ) -> Result<(), CorruptRecord> {
        let mut seat = seats.take(group);
        let mut draft = Draft::new(group, seat.as_ref());
        for write in writes {
            draft.fold(write, &mut seat, self.store, latch)?;
        }
        out.groups += 1;
        out.entries += draft.run.len() as u64;
        match seat.as_mut().expect("every operation leaves a living replica or a tombstone") {
            Seat::Living(living) => self.emit_living(&draft, living, &mut out.batch),
            Seat::Tombstone(next) => {
                let life = GroupRecord::Life(Life::Tombstone(*next));
                self.put_record(&mut out.batch, group, draft.owner, &life);
                truncate::wipe(&mut out.batch, group);
                for kind in [RecordKind::Begin, RecordKind::Intent, RecordKind::HardState] {
                    out.batch.delete(keys::record(group, kind));
                }
            }
        }
        seats.put(group, seat);
        Ok(())
    }

    fn emit_living(&mut self, draft: &Draft<'_>, living: &mut Living, out: &mut WriteBatch) {
        let group = draft.group;
        let deleted = self.emit_deletions(draft, living, out);
        if let Some(creation) = draft.creation {
            self.put_record(out, group, living.owner, &GroupRecord::Life(Life::Living(Box::new(creation.clone()))));
        }
        if let Some(begin) = &draft.begin {
            self.put_record(out, group, living.owner, &GroupRecord::Begin(begin.clone()));
        }
        if draft.intent {
            match &living.intent {
                Some(install) => self.put_record(out, group, living.owner, &GroupRecord::Intent(install.clone())),
                None => out.delete(keys::record(group, RecordKind::Intent)),
            }
        }
        let alone = deleted || draft.creation.is_some() || (draft.hard_state && draft.run.is_empty());
        if alone {
            self.put_record(out, group, living.owner, &GroupRecord::HardState(living.hard_state));
        }
        self.emit_run(draft, living, draft.hard_state && !alone, out);
    }

    fn emit_deletions(&mut self, draft: &Draft<'_>, living: &mut Living, out: &mut WriteBatch) -> bool {
        if draft.wipe {
            truncate::wipe(out, draft.group);
        }
        if let Some(cut) = &draft.cut {
            truncate::cut(out, draft.group, cut.from);
            if let Some(rest) = &cut.rest {
                self.put_block(out, draft.group, rest);
            }
        }
        let dead = draft.begin.is_some() && truncate::drop_dead(out, draft.group, living, draft.run_prev.index);
        draft.wipe || draft.cut.is_some() || dead
    }

    fn emit_run(&mut self, draft: &Draft<'_>, living: &mut Living, carry: bool, out: &mut WriteBatch) {
        let mut prev = draft.run_prev;
        let mut pieces = block::pieces(&draft.run).peekable();
        while let Some(piece) = pieces.next() {
            let key = keys::block(draft.group, prev.index.next());
            let hard_state = (carry && pieces.peek().is_none()).then_some(&living.hard_state);
            block::encode(&mut self.value, &key, self.store, living.owner, hard_state, prev, &piece);
            out.put(key, &self.value);
            living.marks.on_block(prev.index.next(), piece.iter().map(Stretch::payload).sum());
            prev = piece.last().and_then(|s| s.entries().last()).map_or(prev, Entry::pos);
        }
    }

    fn put_record(&mut self, out: &mut WriteBatch, group: GroupId, owner: Owner, record: &GroupRecord) {
        group_record::encode(&mut self.value, group, self.store, owner, record);
        out.put(keys::record(group, record.kind()), &self.value);
    }

    fn put_block(&mut self, out: &mut WriteBatch, group: GroupId, block: &Block) {
        let LogPos { index, .. } = block.prev;
        let key = keys::block(group, index.next());
        block::encode(&mut self.value, &key, self.store, block.owner, None, block.prev, &[Stretch::of(&block.entries)]);
        out.put(key, &self.value);
    }
}
