//! The byte form of one entry, and of a run of consecutive entries.
//!
//! A run is told relative to the position before it: neither indexes nor equal terms are repeated, and a run that is
//! not consecutive cannot be written down. Payloads are slices of the buffer that came in.
//! Kinds from 3 on are reserved (sessions): refused, not guessed.

use super::DecodeError;
use super::wire::{MAX_VARINT, Reader, put_varint, varint_into};
use crate::ids::{LogPos, Term};
use bytes::{BufMut, Bytes};
use pontoon_raft::{Entry, EntryKind};

/// Largest payload of an entry: the largest command that a configuration may allow, and room for what wraps it.
pub const MAX_PAYLOAD: usize = (64 << 20) + (1 << 16);

/// Least bytes that an entry of a run takes: kind, term step, length.
const MIN_RUN_ENTRY: usize = 3;

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

/// Appends a run that follows `prev`. Whoever stores a run keeps `prev` beside it.
///
/// # Panics
/// If the entries do not follow `prev` and one another: a run from the core always does.
pub fn put_run(out: &mut impl BufMut, prev: LogPos, entries: &[Entry]) {
    put_varint(out, entries.len() as u64);
    let mut last = prev;
    for entry in entries {
        assert!(entry.index == last.index.next() && entry.term >= last.term, "{:?} after {last:?}", entry.pos());
        let mut head = [0; HEAD];
        let at = varint_into(&mut head, 0, entry.term.0 - last.term.0);
        put_behind(out, head, at, entry);
        last = entry.pos();
    }
}

/// Takes a run that follows `prev`: consecutive, terms never fall.
pub fn take_run(r: &mut Reader, prev: LogPos) -> Result<Vec<Entry>, DecodeError> {
    let n = r.count(usize::MAX, MIN_RUN_ENTRY)?;
    let mut entries = Vec::with_capacity(n.min(1024)); // grows with what is really there
    let mut last = prev;
    for _ in 0..n {
        let step = r.varint()?;
        let term = last.term.0.checked_add(step).filter(|t| (1..=u64::MAX / 2).contains(t));
        let term = Term(term.ok_or_else(|| r.error("entry of an impossible term"))?);
        let (kind, data) = take_kind_and_payload(r)?;
        let entry = Entry { term, index: last.index.next(), kind, replaced: false, data };
        last = entry.pos();
        entries.push(entry);
    }
    Ok(entries)
}

/// Appends entries that have no position yet (forwarded proposals, read requests).
pub(super) fn put_unplaced(out: &mut impl BufMut, entries: &[Entry]) {
    put_varint(out, entries.len() as u64);
    entries.iter().for_each(|e| put_kind_and_payload(out, e));
}

/// Takes entries that have no position yet.
pub(super) fn take_unplaced(r: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let n = r.count(usize::MAX, MIN_RUN_ENTRY - 1)?;
    let mut entries = Vec::with_capacity(n.min(1024)); // grows with what is really there
    for _ in 0..n {
        let (kind, data) = take_kind_and_payload(r)?;
        entries.push(Entry { kind, data, ..Entry::default() });
    }
    Ok(entries)
}

/// Longest of what stands before a payload: step of the term, kind, length. Bytes.
const HEAD: usize = 2 * MAX_VARINT + 1;

fn put_kind_and_payload(out: &mut impl BufMut, entry: &Entry) {
    put_behind(out, [0; HEAD], 0, entry);
}

/// Kind and payload behind the first `at` bytes of `head`, in two strokes: entries are most of what is ever encoded.
fn put_behind(out: &mut impl BufMut, mut head: [u8; HEAD], at: usize, entry: &Entry) {
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
    let kind = match r.u8()? {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        reserved => return Err(r.error(format!("entry of the reserved kind {reserved}"))),
    };
    Ok((kind, r.blob(MAX_PAYLOAD)?))
}
