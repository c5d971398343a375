//! The byte form of a run of consecutive entries, written once: who proposes many or receives some keeps their bytes beside
//! the entries (`EntryRun::form`), and all frames and the log take them from there.
//!
//! run := count, entry*; entry := step of the term, kind, payload. A run is told relative to the position before it: neither
//! indexes nor equal terms are repeated, and a run that is not consecutive cannot be written down. The *form* is a run
//! without the count, so that forms one behind the other are the form of all.
//! Leaves to others: what stands before a run (messages, blocks of the log). Payloads are slices of the form.
//! Invariant: a form says what its entries say, whatever stood before the run when it was made: only its first byte tells of
//! that, and is compared before it is used.

use super::DecodeError;
use super::entry::{HEAD, MAX_PAYLOAD, kind_of, put_behind};
use super::wire::{Reader, put_varint, varint_at, varint_into};
use crate::ids::{LogPos, Term};
use bytes::{BufMut, Bytes};
use pontoon_raft::{Entry, EntryKind, EntryRun, varint_len};
use std::ops::Range;

/// Least bytes that an entry of a run takes: kind, term step, length.
const MIN_ENTRY: usize = 3;
/// So many commands get a form when they are proposed: for fewer a buffer costs more than writing them three times.
const MANY: usize = 16;
/// None get one that are larger, on average: copying them is all that writing them is.
const LARGE: usize = 1 << 10;

/// Consecutive entries of one run, and their form if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    entries: &'a [Entry],
    payload: u64,
    form: Option<&'a [u8]>,
}

impl<'a> Stretch<'a> {
    /// A whole run.
    #[must_use]
    pub fn of(run: &'a EntryRun) -> Stretch<'a> {
        let form = run.form().map(|form| &form[..]).filter(|_| run.is_ordered());
        Stretch { entries: run, payload: run.payload_size(), form }
    }

    /// Its entries.
    #[must_use]
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Their payload. Bytes.
    #[must_use]
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// The first `n` entries, and the others.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_at(self, n: usize) -> (Stretch<'a>, Stretch<'a>) {
        let (front, back) = self.entries.split_at(n);
        let forms = self.form.map(|form| form.split_at(length_of(form, n)));
        let before = front.iter().map(Entry::payload_size).sum();
        let part = |entries, payload, form| Stretch { entries, payload, form };
        (part(front, before, forms.map(|f| f.0)), part(back, self.payload - before, forms.map(|f| f.1)))
    }

    /// Appends the entries, which follow `prev`; returns the position of the last.
    fn put(self, out: &mut impl BufMut, prev: LogPos) -> LogPos {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else { return prev };
        assert!(follows(first, prev), "{:?} after {prev:?}", first.pos());
        let mut step = [0; HEAD];
        let len = varint_into(&mut step, 0, first.term.0 - prev.term.0);
        match self.form.filter(|form| form.starts_with(&step[..len])) {
            Some(form) => {
                debug_assert_eq!(form, form_of(prev, self.entries), "a form that says something else than its entries");
                out.put_slice(form);
            }
            None => put_entries(out, prev, self.entries),
        }
        last.pos()
    }
}

/// Appends a run that follows `prev`. Whoever stores a run keeps `prev` beside it.
///
/// # Panics
/// If the entries do not follow `prev` and one another: a run from the core always does.
pub fn put_run(out: &mut impl BufMut, prev: LogPos, run: &EntryRun) {
    put_stretches(out, prev, &[Stretch::of(run)]);
}

/// Same, of several stretches, each of which follows the one before.
///
/// # Panics
/// If one does not.
pub fn put_stretches(out: &mut impl BufMut, prev: LogPos, stretches: &[Stretch<'_>]) {
    put_varint(out, stretches.iter().map(|s| s.entries.len() as u64).sum());
    stretches.iter().fold(prev, |prev, stretch| stretch.put(out, prev));
}

fn put_entries(out: &mut impl BufMut, prev: LogPos, entries: &[Entry]) {
    let mut last = prev;
    for entry in entries {
        assert!(follows(entry, last), "{:?} after {last:?}", entry.pos());
        let mut head = [0; HEAD];
        let at = varint_into(&mut head, 0, entry.term.0 - last.term.0);
        put_behind(out, head, at, entry);
        last = entry.pos();
    }
}

fn follows(entry: &Entry, prev: LogPos) -> bool {
    entry.index == prev.index.next() && entry.term >= prev.term
}

fn form_of(prev: LogPos, entries: &[Entry]) -> Vec<u8> {
    let mut form = Vec::new();
    put_entries(&mut form, prev, entries);
    form
}

/// Commands as a run for the core to place, with their form where it spares more than it costs.
#[must_use]
pub fn run_of(commands: Vec<Bytes>) -> EntryRun {
    let head = |command: &Bytes| 2 + varint_len(command.len() as u64) as usize;
    let size: usize = commands.iter().map(|command| head(command) + command.len()).sum();
    let spares = commands.len() >= MANY && size < LARGE * commands.len();
    let run = EntryRun::commands(commands.into_iter());
    if !spares {
        return run;
    }
    let mut form = Vec::with_capacity(size);
    // No step: before them is an entry of the same term, if only the one that the leader began it with.
    run.iter().for_each(|entry| put_behind(&mut form, [0; HEAD], 1, entry));
    run.with_form(form.into())
}

/// Takes a run that follows `prev`: consecutive, terms never fall. Payloads and form are slices of the buffer that is read.
pub fn take_run(r: &mut Reader, prev: LogPos) -> Result<EntryRun, DecodeError> {
    let n = r.count(usize::MAX, MIN_ENTRY)?;
    if n == 0 {
        return Ok(EntryRun::default());
    }
    let len = check(r.rest(), n, prev).map_err(|why| r.error(why))?;
    let form = r.take(len)?;
    let (mut at, mut last) = (0, prev);
    let entries = (0..n).map(|_| {
        let head = head_at(&form, at).expect("checked before");
        last = LogPos { term: Term(last.term.0 + head.step), index: last.index.next() };
        at = head.payload.end;
        Entry { term: last.term, index: last.index, kind: head.kind, replaced: false, data: form.slice(head.payload) }
    });
    Ok(entries.collect::<EntryRun>().with_form(form.clone()))
}

/// What stands before a payload, and where the payload is.
struct Head {
    step: u64,
    kind: EntryKind,
    payload: Range<usize>,
}

fn head_at(form: &[u8], at: usize) -> Result<Head, &'static str> {
    let (step, at) = varint_at(form, at)?;
    let kind = kind_of(*form.get(at).ok_or("cut short")?)?;
    let (len, at) = varint_at(form, at + 1)?;
    let fits = len <= MAX_PAYLOAD as u64 && len <= (form.len() - at) as u64;
    if fits { Ok(Head { step, kind, payload: at..at + len as usize }) } else { Err("payload is too large") }
}

/// Length of the first `n` entries, which follow `prev`, if that is what the bytes begin with.
fn check(form: &[u8], n: usize, prev: LogPos) -> Result<usize, &'static str> {
    let (mut at, mut term) = (0, prev.term.0);
    for _ in 0..n {
        let head = head_at(form, at)?;
        let next = term.checked_add(head.step).filter(|t| (1..=u64::MAX / 2).contains(t));
        term = next.ok_or("entry of an impossible term")?;
        at = head.payload.end;
    }
    Ok(at)
}

/// Length of the first `n` entries of a form.
fn length_of(form: &[u8], n: usize) -> usize {
    (0..n).fold(0, |at, _| head_at(form, at).expect("forms are made or checked here").payload.end)
}
