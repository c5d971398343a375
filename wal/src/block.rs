//! The record unit: consecutive entries of one group, all that one batch appended (docs/adr/0001).
//!
//! Body: `flag u8 [| version varint | hard state] | position before the first entry | run of entries`. The hard state
//! rides along so that a Ready is one key; its version tells which copy of a group's hard state is the newest.
//! Invariant: the key's index is the one after `prev`; the run is consecutive, terms never fall.

use crate::envelope::{self, Fault, Owner, StoreId};
use crate::keys;
use bytes::{BufMut, Bytes};
use pontoon_raft::{Entry, HardState};
use pontoon_raftstore::codec::{
    Reader, put_hard_state, put_pos, put_run, put_varint, take_hard_state, take_pos, take_run,
};
use pontoon_raftstore::ids::{GroupId, Index, LogPos};

/// A run of entries longer than this many payload bytes is cut into several blocks, so that a catch-up page reads
/// little more than it asked for.
pub(crate) const BLOCK_BYTES: u64 = 128 << 10;

/// A hard state and the number of its version within the group's life: the highest is the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionedHardState {
    /// Grows with every hard state that the group stores.
    pub(crate) version: u64,
    /// The hard state.
    pub(crate) hard_state: HardState,
}

/// A block, decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    /// Whose.
    pub(crate) owner: Owner,
    /// Carried along.
    pub(crate) hard_state: Option<VersionedHardState>,
    /// Position before the first entry.
    pub(crate) prev: LogPos,
    /// At least one.
    pub(crate) entries: Vec<Entry>,
}

impl Block {
    /// Position of the last entry.
    pub(crate) fn last(&self) -> LogPos {
        self.entries.last().map_or(self.prev, Entry::pos)
    }
}

/// Appends a hard state and its version.
pub(crate) fn put_versioned(out: &mut Vec<u8>, hard_state: &VersionedHardState) {
    put_varint(out, hard_state.version);
    put_hard_state(out, &hard_state.hard_state);
}

/// Takes a hard state and its version.
pub(crate) fn take_versioned(r: &mut Reader) -> Result<VersionedHardState, Fault> {
    Ok(VersionedHardState { version: r.varint()?, hard_state: take_hard_state(r)? })
}

/// Builds a block's value in `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    key: &[u8],
    store: StoreId,
    owner: Owner,
    hard_state: Option<&VersionedHardState>,
    prev: LogPos,
    entries: &[Entry],
) {
    envelope::seal(out, key, store, owner, |out| {
        out.put_u8(u8::from(hard_state.is_some()));
        if let Some(hard_state) = hard_state {
            put_versioned(out, hard_state);
        }
        put_pos(out, prev);
        put_run(out, prev, entries);
    });
}

/// Decodes the value of the block at (`group`, `first`).
pub(crate) fn decode(group: GroupId, first: Index, value: Bytes, store: StoreId) -> Result<Block, Fault> {
    let key = keys::block(group, first);
    let (owner, mut r) = envelope::open("block", &key, value, store)?;
    let hard_state = if r.flag()? { Some(take_versioned(&mut r)?) } else { None };
    let prev = take_pos(&mut r)?;
    r.ensure(prev.index.next() == first, "key and contents name different indexes")?;
    let entries = take_run(&mut r, prev)?;
    r.ensure(!entries.is_empty(), "block without entries")?;
    r.finish()?;
    Ok(Block { owner, hard_state, prev, entries })
}

/// Cuts a run into pieces of about `BLOCK_BYTES`.
pub(crate) fn pieces(mut entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let over = entries.iter().position(|e| {
            bytes += e.payload_size();
            bytes > BLOCK_BYTES
        });
        let (piece, rest) = entries.split_at(over.map_or(entries.len(), |at| at.max(1)));
        entries = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon_raftstore::ids::Term;

    fn entry(index: u64, len: usize) -> Entry {
        Entry { term: Term(1), index: Index(index), data: vec![0; len].into(), ..Entry::default() }
    }

    #[test]
    fn pieces_cover_the_run_and_hold_at_least_one_entry() {
        let big = BLOCK_BYTES as usize;
        let run = [entry(1, big), entry(2, 1), entry(3, big + 1), entry(4, big + 1), entry(5, 0)];
        let cut: Vec<Vec<u64>> = pieces(&run).map(|p| p.iter().map(|e| e.index.0).collect()).collect();
        assert_eq!(cut, [vec![1], vec![2], vec![3], vec![4], vec![5]]);
        assert_eq!(pieces(&[]).count(), 0);
    }
}
