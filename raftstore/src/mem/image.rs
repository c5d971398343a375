//! What a log store holds, as plain values: batches are applied to it, recovery reads it.
//!
//! Leaves to others: which of two images is durable (`log_store`).
//! Invariant: a group's entries are consecutive behind its truncation point. A write that breaks this, or that is meant
//! for a replica which does not live here, is a bug of the caller: it panics.

use crate::env::{
    Creation, Fetch, GroupOp, GroupWrite, Install, LogBatch, ReadLogError, Recovered, StoredGroup, Tombstone,
    Truncation,
};
use crate::ids::{Generation, GroupId, Index, LogPos, ReplicaId, StoreSeq, Term};
use bytes::Bytes;
use pontoon_raft::{Entry, HardState};
use std::collections::{BTreeMap, VecDeque};

/// All groups and node records at one moment.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Number of the last batch.
    pub seq: StoreSeq,
    /// Node records.
    pub meta: BTreeMap<Bytes, Bytes>,
    /// Living replicas.
    pub groups: BTreeMap<GroupId, GroupImage>,
    /// Destroyed ones: lowest replica id that may follow.
    pub tombstones: BTreeMap<GroupId, ReplicaId>,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct GroupImage {
    /// Its id.
    pub replica: ReplicaId,
    /// Generation of the machine's contents.
    pub generation: Generation,
    /// Birth record.
    pub creation: Creation,
    /// As stored last.
    pub hard_state: HardState,
    /// The entries begin behind it.
    pub truncated: Truncation,
    /// Consecutive.
    pub entries: VecDeque<Entry>,
    /// A begun install.
    pub intent: Option<Install>,
}

impl GroupImage {
    /// Last entry, or the truncation point.
    #[must_use]
    pub fn last(&self) -> LogPos {
        self.entries.back().map_or(self.truncated.pos, Entry::pos)
    }

    /// The entry at `index`, if it is there.
    #[must_use]
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.truncated.pos.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Term at `index`: of an entry or the truncation point.
    #[must_use]
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.truncated.pos.index {
            return Some(self.truncated.pos.term);
        }
        self.entry(index).map(|e| e.term)
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let begin = self.truncated.pos.index;
        assert!(
            first.index > begin && first.index <= self.last().index.next(),
            "append at {} to a log of ({begin}, {}]",
            first.index,
            self.last().index
        );
        self.entries.truncate((first.index.0 - begin.0 - 1) as usize);
        for entry in entries {
            let last = self.last();
            assert!(entry.index == last.index.next() && entry.term >= last.term, "{:?} after {last:?}", entry.pos());
            self.entries.push_back(entry.clone());
        }
    }

    fn truncate(&mut self, upto: &Truncation) {
        if upto.pos.index <= self.truncated.pos.index {
            return;
        }
        assert_eq!(self.term(upto.pos.index), Some(upto.pos.term), "truncation at {:?}", upto.pos);
        self.entries.drain(..(upto.pos.index.0 - self.truncated.pos.index.0) as usize);
        self.truncated = upto.clone();
    }

    fn install(&mut self, install: &Install, hard_state: HardState) {
        assert_eq!(self.intent.as_ref(), Some(install), "an install without its intent");
        assert!(hard_state.commit >= install.pos.index, "an install whose hard state does not commit it");
        self.entries.clear();
        self.truncated = Truncation { pos: install.pos, conf_state: install.conf_state.clone() };
        self.hard_state = hard_state;
        self.generation = install.generation;
        self.intent = None;
    }

    fn stored(&self, group: GroupId) -> StoredGroup {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|run| run.1 != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        StoredGroup {
            group,
            replica: self.replica,
            generation: self.generation,
            creation: self.creation.clone(),
            hard_state: self.hard_state,
            truncated: self.truncated.clone(),
            last: self.last(),
            terms,
            intent: self.intent.clone(),
            bytes: self.bytes(),
        }
    }

    /// Payload bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(Entry::payload_size).sum()
    }
}

impl Image {
    /// Applies a batch, in order.
    pub fn apply(&mut self, seq: StoreSeq, batch: &LogBatch) {
        self.seq = seq;
        for write in &batch.writes {
            self.apply_write(write);
        }
        for write in &batch.meta {
            match &write.value {
                Some(value) => self.meta.insert(write.key.clone(), value.clone()),
                None => self.meta.remove(&write.key),
            };
        }
    }

    fn apply_write(&mut self, write: &GroupWrite) {
        let group = write.group;
        match &write.op {
            GroupOp::Create { creation, hard_state } => self.create(write, creation, *hard_state),
            GroupOp::Append { entries, hard_state } => {
                let image = self.living(write);
                image.append(entries);
                image.hard_state = hard_state.unwrap_or(image.hard_state);
            }
            GroupOp::Truncate(upto) => self.living(write).truncate(upto),
            GroupOp::Intent(install) => self.living(write).intent = Some((**install).clone()),
            GroupOp::Install { install, hard_state } => self.living(write).install(install, *hard_state),
            GroupOp::DropIntent => self.living(write).intent = None,
            GroupOp::Destroy { next_replica } => {
                assert!(*next_replica > write.replica, "a tombstone that lets the destroyed replica back in");
                self.living(write);
                self.groups.remove(&group);
                self.tombstones.insert(group, *next_replica);
            }
        }
    }

    fn create(&mut self, write: &GroupWrite, creation: &Creation, hard_state: HardState) {
        let (group, replica) = (write.group, write.replica);
        assert!(!self.groups.contains_key(&group), "group {group} lives here already");
        let lowest = self.tombstones.remove(&group).unwrap_or(ReplicaId(1));
        assert!(replica >= lowest, "replica {replica} of group {group} is below its tombstone {lowest}");
        let truncated = Truncation { pos: creation.birth, conf_state: creation.conf_state.clone() };
        let image = GroupImage {
            replica,
            generation: Generation(0),
            creation: creation.clone(),
            hard_state,
            truncated,
            entries: VecDeque::new(),
            intent: None,
        };
        self.groups.insert(group, image);
    }

    fn living(&mut self, write: &GroupWrite) -> &mut GroupImage {
        let image = self.groups.get_mut(&write.group);
        let image = image.unwrap_or_else(|| panic!("group {} does not live here: {:?}", write.group, write.op));
        assert_eq!(image.replica, write.replica, "group {}: another replica lives here", write.group);
        image
    }

    /// What recovery finds.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        let tombstones = self.tombstones.iter();
        Recovered {
            meta: self.meta.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            groups: self.groups.iter().map(|(id, image)| image.stored(*id)).collect(),
            tombstones: tombstones.map(|(group, next)| Tombstone { group: *group, next_replica: *next }).collect(),
        }
    }

    /// Answers a read.
    pub fn read(&self, fetch: &Fetch) -> Result<Vec<Entry>, ReadLogError> {
        let image = self.groups.get(&fetch.group).ok_or(ReadLogError::Missing(fetch.group))?;
        let first = image.truncated.pos.index.next();
        if fetch.low < first {
            return Err(ReadLogError::Truncated { first });
        }
        let mut size = 0;
        let wanted = (fetch.low.0..fetch.high.0).map_while(|i| image.entry(Index(i)));
        let entries: Vec<Entry> = wanted
            .take_while(|e| {
                let fits = size == 0 || size + e.encoded_size() <= fetch.max_bytes;
                size += e.encoded_size();
                fits
            })
            .cloned()
            .collect();
        if entries.is_empty() { Err(ReadLogError::Missing(fetch.group)) } else { Ok(entries) }
    }
}
