//! The byte form of one entry, with its position or without any.
//!
//! Leaves to others: runs (`run`). Payloads are slices of the buffer that came in.
//! Kinds from 3 on are reserved (sessions): refused, not guessed.

use super::DecodeError;
use super::wire::{MAX_VARINT, Reader, put_varint, varint_into};
use bytes::{BufMut, Bytes};
use pontoon_raft::{Entry, EntryKind};

/// Largest payload of an entry: the largest command that a configuration may allow, and room for what wraps it.
pub const MAX_PAYLOAD: usize = (64 << 20) + (1 << 16);

/// Least bytes that an entry without position takes: kind, length.
const MIN_ENTRY: usize = 2;

/// Appends one entry with its position.
pub fn encode_entry(out: &mut impl BufMut, entry: &Entry) {
    put_varint(out, entry.term.0);
    put_varint(out, entry.index.0);
    put_kind_and_payload(out, entry);
}

/// Takes one entry with its position.
pub fn decode_entry(r: &mut Reader) -> Result<Entry, DecodeError> {
    let term = r.term()?;
    let index = r.index()?;
    r.ensure(index.0 > 0 && term.0 > 0, "entry without position")?;
    let (kind, data) = take_kind_and_payload(r)?;
    Ok(Entry { term, index, kind, replaced: false, data })
}

/// Appends entries that have no position yet (forwarded proposals, read requests).
pub(super) fn put_unplaced(out: &mut impl BufMut, entries: &[Entry]) {
    put_varint(out, entries.len() as u64);
    entries.iter().for_each(|e| put_kind_and_payload(out, e));
}

/// Takes entries that have no position yet.
pub(super) fn take_unplaced(r: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let n = r.count(usize::MAX, MIN_ENTRY)?;
    let mut entries = Vec::with_capacity(n.min(1024)); // grows with what is really there
    for _ in 0..n {
        let (kind, data) = take_kind_and_payload(r)?;
        entries.push(Entry { kind, data, ..Entry::default() });
    }
    Ok(entries)
}

/// Longest of what stands before a payload: step of the term, kind, length. Bytes.
pub(super) const HEAD: usize = 2 * MAX_VARINT + 1;

fn put_kind_and_payload(out: &mut impl BufMut, entry: &Entry) {
    put_behind(out, [0; HEAD], 0, entry);
}

/// Kind and payload behind the first `at` bytes of `head`, in two strokes: entries are most of what is ever encoded.
pub(super) fn put_behind(out: &mut impl BufMut, mut head: [u8; HEAD], at: usize, entry: &Entry) {
    head[at] = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    };
    let len = varint_into(&mut head, at + 1, entry.data.len() as u64);
    out.put_slice(&head[..len]);
    out.put_slice(&entry.data);
}

fn take_kind_and_payload(r: &mut Reader) -> Result<(EntryKind, Bytes), DecodeError> {
    let kind = kind_of(r.u8()?).map_err(|why| r.error(why))?;
    Ok((kind, r.blob(MAX_PAYLOAD)?))
}

/// The kind that a byte names.
pub(super) fn kind_of(byte: u8) -> Result<EntryKind, &'static str> {
    match byte {
        0 => Ok(EntryKind::Normal),
        1 => Ok(EntryKind::ConfChange),
        2 => Ok(EntryKind::ConfChangeV2),
        _ => Err("entry of a reserved kind"),
    }
}
