//! What a log store holds: one sequential pass, every record checked. What was found -> what is done, as a table.
//!
//! Leaves to others: whether the pass may run at all (`store`), what a replica does with it (raftstore, boot.md 4).
//! Invariant: a log record is never skipped unless its owner is older than who lives here now (garbage of a destroyed
//! replica or generation); everything else that does not fit refuses, with group, index and file.

use crate::block::{self, Block, VersionedHardState};
use crate::envelope::{Owner, StoreId};
use crate::error::{CorruptRecord, OpenError};
use crate::group_record::{self, GroupRecord, Life};
use crate::keys::{self, Key};
use crate::latch::Latch;
use crate::seats::{Living, Marks, Seat, Seats};
use bytes::Bytes;
use pontoon_raftstore::env::{Creation, Install, Recovered, StoredGroup, Tombstone, Truncation};
use pontoon_raftstore::ids::{GroupId, Index, LogPos, ReplicaId};
use rocksdb::ReadOptions;
use std::collections::BTreeMap;

/// Bytes that RocksDB reads ahead of the pass.
const READAHEAD: usize = 2 << 20;

/// What the pass found: for raftstore, and for the writer.
pub(crate) struct Found {
    /// For raftstore.
    pub(crate) recovered: Recovered,
    /// For the writer.
    pub(crate) seats: Seats,
}

/// Reads everything.
pub(crate) fn pass(latch: &Latch, store: StoreId) -> Result<Found, OpenError> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_verify_checksums(true);
    options.set_readahead_size(READAHEAD);
    let mut iter = latch.iter(options);
    let mut pass = Pass { store, ..Pass::default() };
    iter.seek_to_first();
    while let Some((key, value)) = iter.item() {
        pass.on_record(key, Bytes::copy_from_slice(value)).map_err(|mut e| {
            e.files = latch.files_of(key);
            OpenError::Corrupt(e)
        })?;
        iter.next();
    }
    iter.status().map_err(|e| OpenError::Damaged(e.to_string()))?;
    pass.finish().map_err(OpenError::Corrupt)
}

/// State of the pass: records first, then blocks (key order).
struct Pass {
    /// Every value must be of this store.
    store: StoreId,
    /// Node records.
    meta: Vec<(Bytes, Bytes)>,
    /// Records of each group, not judged before its first block or the end.
    records: BTreeMap<GroupId, Records>,
    /// Judged groups whose blocks are being read.
    groups: BTreeMap<GroupId, Judged>,
}

impl Default for Pass {
    fn default() -> Pass {
        Pass { store: StoreId(0), meta: Vec::new(), records: BTreeMap::new(), groups: BTreeMap::new() }
    }
}

impl Pass {
    fn on_record(&mut self, key: &[u8], value: Bytes) -> Result<(), CorruptRecord> {
        match keys::split(key) {
            Some(Key::Meta(name)) => {
                let body = group_record::decode_meta(key, value, self.store);
                let body = body.map_err(|fault| refuse(None, None, format!("{:?}: {fault}", name.escape_ascii())))?;
                self.meta.push((Bytes::copy_from_slice(name), body));
                Ok(())
            }
            Some(Key::Record(group, kind)) => {
                let (owner, record) = group_record::decode(group, kind, value, self.store)
                    .map_err(|fault| refuse(Some(group), None, format!("{kind:?} record: {fault}")))?;
                self.records.entry(group).or_default().take(owner, record);
                Ok(())
            }
            Some(Key::Block(group, first)) => {
                self.judge_all()?;
                let block = block::decode(group, first, value, self.store)
                    .map_err(|fault| refuse(Some(group), Some(first), fault.to_string()))?;
                match self.groups.get_mut(&group) {
                    Some(judged) => judged.on_block(group, block),
                    None => Err(refuse(Some(group), Some(first), "entries of a group without records".into())),
                }
            }
            None => Err(refuse(None, None, format!("strange key {key:02x?}"))),
        }
    }

    fn judge_all(&mut self) -> Result<(), CorruptRecord> {
        for (group, records) in std::mem::take(&mut self.records) {
            let judged = records.judge().map_err(|what| refuse(Some(group), None, what))?;
            self.groups.insert(group, judged);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Found, CorruptRecord> {
        self.judge_all()?;
        let mut recovered = Recovered { meta: self.meta, ..Recovered::default() };
        let mut seats = Seats::default();
        for (group, judged) in self.groups {
            match judged {
                Judged::Gone(next_replica) => {
                    seats.put(group, Some(Seat::Tombstone(next_replica)));
                    recovered.tombstones.push(Tombstone { group, next_replica });
                }
                Judged::Lives(log) => {
                    let (stored, living) = log.finish(group)?;
                    seats.put(group, Some(Seat::Living(Box::new(living))));
                    recovered.groups.push(stored);
                }
            }
        }
        Ok(Found { recovered, seats })
    }
}

fn refuse(group: Option<GroupId>, index: Option<Index>, what: String) -> CorruptRecord {
    CorruptRecord { group, index, files: Vec::new(), what }
}

/// The records of one group as found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    /// Who lives here, and who wrote that.
    pub(crate) life: Option<(Owner, Life)>,
    /// Where the log begins.
    pub(crate) begin: Option<(Owner, Truncation)>,
    /// A begun install.
    pub(crate) intent: Option<(Owner, Box<Install>)>,
    /// Hard state.
    pub(crate) hard_state: Option<(Owner, VersionedHardState)>,
}

/// A group after its records were judged.
#[derive(Debug)]
pub(crate) enum Judged {
    /// A tombstone: what is below this replica id is garbage.
    Gone(ReplicaId),
    /// A replica; its blocks follow.
    Lives(Box<Log>),
}

impl Records {
    fn take(&mut self, owner: Owner, record: GroupRecord) {
        match record {
            GroupRecord::Life(life) => self.life = Some((owner, life)),
            GroupRecord::Begin(begin) => self.begin = Some((owner, begin)),
            GroupRecord::Intent(intent) => self.intent = Some((owner, intent)),
            GroupRecord::HardState(hard_state) => self.hard_state = Some((owner, hard_state)),
        }
    }

    /// The table. An owner is *older* than the living one: garbage, ignored; *newer*: nobody wrote that, refused.
    ///
    /// | life | begin | hard state | intent | verdict |
    /// |---|---|---|---|---|
    /// | none | any | any | any | refused |
    /// | tombstone | none or below it | same | same | gone |
    /// | tombstone | not below it | | | refused |
    /// | living | of this replica (sets the generation) | of this owner | none, older | lives, no intent |
    /// | living | same | same | of this owner | lives, with the intent |
    /// | living | none, of another replica | | | refused |
    /// | living | | none, older, newer | | refused |
    /// | living | | | newer | refused |
    pub(crate) fn judge(self) -> Result<Judged, String> {
        match self.life {
            None => Err("records of a group without a life record".into()),
            Some((_, Life::Tombstone(next))) => self.judge_gone(next),
            Some((owner, Life::Living(ref creation))) => {
                let creation = (**creation).clone();
                self.judge_living(owner.replica, creation)
            }
        }
    }

    fn judge_gone(self, next: ReplicaId) -> Result<Judged, String> {
        let owners = [self.begin.map(|r| r.0), self.intent.map(|r| r.0), self.hard_state.map(|r| r.0)];
        match owners.into_iter().flatten().find(|owner| owner.replica >= next) {
            None => Ok(Judged::Gone(next)),
            Some(owner) => Err(format!("record of {owner:?}, but the tombstone says that {next} was never born")),
        }
    }

    fn judge_living(self, replica: ReplicaId, creation: Creation) -> Result<Judged, String> {
        let (owner, begin) = self.begin.ok_or("no begin record")?;
        if owner.replica != replica {
            return Err(format!("begin record of replica {}, {replica} lives here", owner.replica));
        }
        let (of, hard_state) = self.hard_state.ok_or("no hard state")?;
        if of != owner {
            return Err(format!("hard state of {of:?}, {owner:?} lives here"));
        }
        let intent = match self.intent {
            Some((of, _)) if of > owner => return Err(format!("intent of {of:?}, {owner:?} lives here")),
            Some((of, intent)) if of == owner => Some(*intent),
            _ => None,
        };
        Ok(Judged::Lives(Box::new(Log::new(owner, creation, begin, hard_state, intent))))
    }
}

impl Judged {
    fn on_block(&mut self, group: GroupId, block: Block) -> Result<(), CorruptRecord> {
        let first = block.prev.index.next();
        match self {
            Judged::Gone(next) if block.owner.replica < *next => Ok(()),
            Judged::Lives(log) if block.owner < log.owner => Ok(()),
            Judged::Lives(log) if block.owner == log.owner => {
                log.on_block(&block).map_err(|(index, what)| refuse(Some(group), Some(index), what))
            }
            _ => Err(refuse(Some(group), Some(first), format!("block of {:?}, which never lived here", block.owner))),
        }
    }
}

/// The log of a living replica, while its blocks are read.
#[derive(Debug)]
pub(crate) struct Log {
    owner: Owner,
    creation: Creation,
    begin: Truncation,
    intent: Option<Install>,
    /// The newest one so far.
    hard_state: VersionedHardState,
    /// First index of the first block.
    first_block: Option<Index>,
    /// End of the blocks so far.
    end: Option<LogPos>,
    /// Term runs of entries behind the truncation point.
    terms: Vec<(Index, pontoon_raft::Term)>,
    /// Payload bytes behind the truncation point.
    bytes: u64,
    marks: Marks,
}

impl Log {
    fn new(
        owner: Owner,
        creation: Creation,
        begin: Truncation,
        hard_state: VersionedHardState,
        intent: Option<Install>,
    ) -> Log {
        Log {
            owner,
            creation,
            begin,
            intent,
            hard_state,
            first_block: None,
            end: None,
            terms: Vec::new(),
            bytes: 0,
            marks: Marks::default(),
        }
    }

    /// One block more: it must follow the one before, or the truncation point.
    fn on_block(&mut self, block: &Block) -> Result<(), (Index, String)> {
        let first = block.prev.index.next();
        match self.end {
            Some(end) if end != block.prev => {
                return Err((end.index.next(), format!("the log goes on behind {:?}, not behind {end:?}", block.prev)));
            }
            None if block.prev.index > self.begin.pos.index => {
                let what = format!("the log begins at {first}, its truncation point is {:?}", self.begin.pos);
                return Err((self.begin.pos.index.next(), what));
            }
            _ => {}
        }
        self.check_term(block.prev)?;
        for entry in &block.entries {
            self.check_term(entry.pos())?;
            if entry.index > self.begin.pos.index {
                if self.terms.last().is_none_or(|run| run.1 != entry.term) {
                    self.terms.push((entry.index, entry.term));
                }
                self.bytes += entry.payload_size();
            }
        }
        if let Some(carried) = block.hard_state.filter(|c| c.version > self.hard_state.version) {
            self.hard_state = carried;
        }
        self.marks.on_block(first, block.entries.iter().map(|e| e.payload_size()).sum());
        self.first_block.get_or_insert(first);
        self.end = Some(block.last());
        Ok(())
    }

    /// Terms never fall, seen from the truncation point, which an entry at its index must equal.
    fn check_term(&self, pos: LogPos) -> Result<(), (Index, String)> {
        let begin = self.begin.pos;
        let fits = match pos.index.cmp(&begin.index) {
            std::cmp::Ordering::Less => pos.term <= begin.term,
            std::cmp::Ordering::Equal => pos.term == begin.term,
            std::cmp::Ordering::Greater => pos.term >= begin.term,
        };
        if fits { Ok(()) } else { Err((pos.index, format!("{pos:?} does not fit the truncation point {begin:?}"))) }
    }

    fn finish(self, group: GroupId) -> Result<(StoredGroup, Living), CorruptRecord> {
        let begin = self.begin.pos;
        let last = match self.end {
            Some(end) if end.index < begin.index => {
                let what = format!("the stored entries end at {end:?}, before the truncation point {begin:?}");
                return Err(refuse(Some(group), Some(end.index.next()), what));
            }
            end => end.unwrap_or(begin),
        };
        let hard_state = self.hard_state.hard_state;
        if hard_state.commit > last.index {
            let what = format!("commit {} is behind the last entry {}", hard_state.commit, last.index);
            return Err(refuse(Some(group), Some(last.index.next()), what));
        }
        let living = Living {
            owner: self.owner,
            last,
            truncated: begin,
            hard_state: self.hard_state,
            intent: self.intent.clone().map(Box::new),
            cleared: self.first_block.unwrap_or(last.index.next()),
            marks: self.marks,
        };
        let stored = StoredGroup {
            group,
            replica: self.owner.replica,
            generation: self.owner.generation,
            creation: self.creation,
            hard_state,
            truncated: self.begin,
            last,
            terms: self.terms,
            intent: self.intent,
            bytes: self.bytes,
        };
        Ok((stored, living))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Seen::{Absent, Newer, Older, Same};
    use pontoon_raftstore::ids::Generation;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Seen {
        Absent,
        Older,
        Same,
        Newer,
    }

    const ALL: [Seen; 4] = [Absent, Older, Same, Newer];

    fn owner(found: Seen) -> Option<Owner> {
        let of = |replica, generation| Owner { replica: ReplicaId(replica), generation: Generation(generation) };
        match found {
            Absent => None,
            Older => Some(of(4, 9)),
            Same => Some(of(5, 0)),
            Newer => Some(of(6, 0)),
        }
    }

    fn records(life: Option<Life>, begin: Seen, hard_state: Seen, intent: Seen) -> Records {
        Records {
            life: life.map(|life| (owner(Same).unwrap(), life)),
            begin: owner(begin).map(|o| (o, Truncation::default())),
            hard_state: owner(hard_state).map(|o| (o, VersionedHardState::default())),
            intent: owner(intent).map(|o| (o, Box::default())),
        }
    }

    fn for_all(mut check: impl FnMut(Seen, Seen, Seen)) {
        for begin in ALL {
            for hard_state in ALL {
                ALL.into_iter().for_each(|intent| check(begin, hard_state, intent));
            }
        }
    }

    #[test]
    fn no_life_record_refuses_always() {
        for_all(|b, h, i| drop(records(None, b, h, i).judge().unwrap_err()));
    }

    #[test]
    fn a_tombstone_ignores_what_is_below_it_and_refuses_the_rest() {
        for_all(|b, h, i| {
            let gone = records(Some(Life::Tombstone(ReplicaId(6))), b, h, i).judge();
            let fits = [b, h, i].iter().all(|f| *f != Newer);
            assert_eq!(matches!(gone, Ok(Judged::Gone(ReplicaId(6)))), fits, "{b:?} {h:?} {i:?}");
            assert_eq!(gone.is_err(), !fits);
        });
    }

    #[test]
    fn a_living_replica_needs_its_own_begin_and_hard_state() {
        for_all(|b, h, i| {
            let judged = records(Some(Life::Living(Box::default())), b, h, i).judge();
            let lives = b == Same && h == Same && i != Newer;
            match judged {
                Ok(Judged::Lives(log)) => {
                    assert!(lives, "{b:?} {h:?} {i:?}");
                    assert_eq!(log.intent.is_some(), i == Same);
                }
                Ok(Judged::Gone(_)) => panic!("not a tombstone"),
                Err(_) => assert!(!lives, "{b:?} {h:?} {i:?}"),
            }
        });
    }

    #[test]
    fn an_older_generation_is_garbage_too() {
        let mut r = records(Some(Life::Living(Box::default())), Same, Same, Same);
        r.begin.as_mut().unwrap().0.generation = Generation(1);
        assert!(r.clone().judge().is_err(), "the hard state is of generation 0");
        r.hard_state.as_mut().unwrap().0.generation = Generation(1);
        let Judged::Lives(log) = r.judge().unwrap() else { panic!("lives") };
        assert!(log.intent.is_none(), "the intent is of generation 0");
    }

    fn log(truncated: (u64, u64), commit: u64) -> Log {
        let begin = Truncation { pos: pos(truncated), ..Truncation::default() };
        let mut hard_state = VersionedHardState::default();
        hard_state.hard_state.commit = Index(commit);
        Log::new(owner(Same).unwrap(), Creation::default(), begin, hard_state, None)
    }

    fn pos((term, index): (u64, u64)) -> LogPos {
        LogPos::new(pontoon_raft::Term(term), Index(index))
    }

    fn block(prev: (u64, u64), terms: &[u64]) -> Block {
        let at = |(i, term): (usize, &u64)| pontoon_raft::Entry {
            term: pontoon_raft::Term(*term),
            index: Index(prev.1 + 1 + i as u64),
            ..Default::default()
        };
        let entries = terms.iter().enumerate().map(at).collect();
        Block { owner: owner(Same).unwrap(), hard_state: None, prev: pos(prev), entries }
    }

    /// Feeds blocks; the first bad index, or the last position.
    fn recover(mut log: Log, blocks: &[Block]) -> Result<(u64, u64), u64> {
        for block in blocks {
            log.on_block(block).map_err(|(index, _)| index.0)?;
        }
        let (stored, _) = log.finish(GroupId(1)).map_err(|e| e.index.unwrap().0)?;
        Ok((stored.last.term.0, stored.last.index.0))
    }

    #[test]
    fn blocks_must_be_one_log_from_the_truncation_point_on() {
        let four = block((1, 3), &[1, 2, 2]); // entries 4 to 6
        let whole = [four.clone(), block((2, 6), &[2, 3])];
        assert_eq!(recover(log((1, 3), 8), &whole), Ok((3, 8)));
        assert_eq!(recover(log((2, 5), 8), &whole), Ok((3, 8)), "dead entries at the front");
        assert_eq!(recover(log((1, 3), 3), &[]), Ok((1, 3)));
        assert_eq!(recover(log((1, 2), 0), &whole), Err(3), "a hole behind the truncation point");
        assert_eq!(recover(log((2, 4), 0), &whole), Err(4), "another term at the truncation point");
        assert_eq!(recover(log((2, 3), 0), &whole), Err(3), "terms fall behind the truncation point");
        assert_eq!(recover(log((1, 3), 0), &[four.clone(), block((2, 7), &[2])]), Err(7), "a hole");
        assert_eq!(recover(log((1, 3), 0), &[four.clone(), block((1, 6), &[2])]), Err(7), "another term before it");
        assert_eq!(recover(log((1, 3), 0), &[four.clone(), block((2, 5), &[2])]), Err(7), "an overlap");
        assert_eq!(recover(log((2, 9), 0), std::slice::from_ref(&four)), Err(7), "ends before the truncation point");
        assert_eq!(recover(log((1, 3), 7), &[four]), Err(7), "commit behind the last entry");
    }
}
