//! The record unit: consecutive entries of one group, all that one batch appended (docs/adr/0001).
//!
//! Body: `flag u8 [| version varint | hard state] | position before the first entry | run of entries`. The hard state
//! rides along so that a Ready is one key; its version tells which copy of a group's hard state is the newest.
//! Invariant: the key's index is the one after `prev`; the run is consecutive, terms never fall.

use crate::envelope::{self, Fault, Owner, StoreId};
use crate::keys;
use bytes::{BufMut, Bytes};
use pontoon_raft::{Entries, Entry, EntryRun, HardState};
use pontoon_raftstore::codec::{
    Reader, Stretch, put_hard_state, put_pos, put_stretches, put_varint, take_hard_state, take_pos, take_run,
};
use pontoon_raftstore::ids::{GroupId, Index, LogPos};
use std::iter;

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
    pub(crate) entries: EntryRun,
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
    entries: &[Stretch<'_>],
) {
    envelope::seal(out, key, store, owner, |out| {
        out.put_u8(u8::from(hard_state.is_some()));
        if let Some(hard_state) = hard_state {
            put_versioned(out, hard_state);
        }
        put_pos(out, prev);
        put_stretches(out, prev, entries);
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

/// Cuts consecutive runs into pieces of about `BLOCK_BYTES`: mostly all of them are one.
pub(crate) fn pieces(runs: &Entries) -> impl Iterator<Item = Vec<Stretch<'_>>> {
    let mut runs = runs.runs().map(Stretch::of);
    let mut rest = runs.next();
    iter::from_fn(move || {
        let (mut piece, mut room) = (Vec::new(), BLOCK_BYTES);
        while let Some(next) = rest.take() {
            let fit = fitting(&next, room).max(usize::from(piece.is_empty()));
            if fit < next.entries().len() {
                let (front, back) = next.split_at(fit);
                piece.extend((fit > 0).then_some(front));
                rest = Some(back);
                break;
            }
            room = room.saturating_sub(next.payload());
            piece.push(next);
            rest = runs.next();
        }
        (!piece.is_empty()).then_some(piece)
    })
}

/// How many entries have no more than `room` of payload.
fn fitting(stretch: &Stretch<'_>, mut room: u64) -> usize {
    if stretch.payload() <= room {
        return stretch.entries().len();
    }
    let fits = |e: &&Entry| {
        let left = room.checked_sub(e.payload_size());
        room = left.unwrap_or(0);
        left.is_some()
    };
    stretch.entries().iter().take_while(fits).count()
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
        let cut = |runs: &[&[usize]]| -> Vec<Vec<u64>> {
            let (mut all, mut index) = (Entries::new(), 1..);
            for run in runs {
                all.push(run.iter().zip(&mut index).map(|(len, index)| entry(index, *len)).collect());
            }
            let indexes = |p: Vec<Stretch<'_>>| p.iter().flat_map(|s| s.entries()).map(|e| e.index.0).collect();
            pieces(&all).map(indexes).collect()
        };
        assert_eq!(cut(&[&[big, 1, big + 1, big + 1, 0]]), [vec![1], vec![2], vec![3], vec![4], vec![5]]);
        assert_eq!(cut(&[&[1, 2], &[3], &[big, 4], &[5]]), [vec![1, 2, 3], vec![4], vec![5, 6]], "over several runs");
        assert_eq!(cut(&[&[big], &[0, 0], &[1]]), [vec![1, 2, 3], vec![4]]);
        assert_eq!(cut(&[]).len(), 0);
    }
}
