//! Our own reader of RocksDB's WAL files: which sequence numbers they hold one behind the other, and where they stop
//! making sense.
//!
//! A file is blocks of 32 KiB of fragments: `crc u32 | length u16 | type u8`, in recycled files `| log number u32`, then
//! the payload. A record begins with its sequence number and count, which may lie in several fragments. Leaves to others: what follows
//! from it (`replay`). Stricter than RocksDB, which reads on behind zeros that begin where a record ends.
//! Invariant: reads one block at a time; never fails on what a file holds; from `first` to `last` no number is missing.

use crate::keys::{self, Key};
use pontoon_raftstore::ids::GroupId;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most groups that a message names.
pub(crate) const MAX_GROUPS: usize = 8;
const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;
/// Sequence number and count at the front of a record.
const BATCH_HEADER: usize = 12;

/// What one WAL file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WalFile {
    /// Its name.
    pub(crate) name: String,
    /// The number in its name.
    pub(crate) number: u64,
    /// First sequence number.
    pub(crate) first: Option<u64>,
    /// Last sequence number before the end.
    pub(crate) last: Option<u64>,
    /// Where the readable records end.
    pub(crate) end: u64,
    /// What is wrong there; `None`: the file ends there, or what follows is of an older life of a recycled file.
    pub(crate) broken: Option<String>,
    /// Groups of readable records behind `end`.
    pub(crate) groups: BTreeSet<GroupId>,
}

/// All WAL files of a database, by number.
pub(crate) fn scan(db: &Path) -> io::Result<Vec<WalFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(db)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let number = name.strip_suffix(".log").and_then(|n| n.parse().ok());
        if let Some(number) = number {
            let file = WalFile { name, number, ..WalFile::default() };
            files.push(file.scan(File::open(db.join(format!("{number:06}.log")))?)?);
        }
    }
    files.sort_by_key(|f| f.number);
    Ok(files)
}

/// Where the record behind `recovered` should be: file, offset, what is there.
pub(crate) fn place_of_loss(files: &[WalFile], recovered: u64) -> Option<(&WalFile, u64, String)> {
    let next = recovered + 1;
    let reaches =
        |f: &&WalFile| f.first.is_none_or(|first| first <= next) && f.last.is_none_or(|last| last <= recovered);
    if let Some(broken) = files.iter().find(|f| f.broken.is_some() && reaches(f)) {
        return Some((broken, broken.end, broken.broken.clone().unwrap_or_default()));
    }
    if let Some(later) = files.iter().find(|f| f.first.is_some_and(|first| first > next)) {
        let what = format!("continues with sequence number {}, {next} is missing", later.first.unwrap_or_default());
        return Some((later, 0, what));
    }
    let last = files.iter().rev().find(|f| f.last == Some(recovered))?;
    Some((last, last.end, "the file ends".into()))
}

/// Was something behind `recovered` cut?
pub(crate) fn has_cut_tail(files: &[WalFile], recovered: u64) -> bool {
    files.iter().any(|f| f.broken.is_some() || f.last.is_some_and(|last| last > recovered))
}

/// What stands at one place of a block.
enum Fragment<'a> {
    /// A whole one: type 1-4 (full, first, middle, last) or another kind, header and payload bytes, payload.
    Whole { kind: u8, len: usize, payload: &'a [u8] },
    /// No room for a header.
    Trailer,
    /// Belongs to this file, but damaged.
    Damaged(&'static str),
    /// Zeros, or something of an older life of the file.
    Foreign,
}

fn fragment(block: &[u8], number: u64) -> Fragment<'_> {
    // No room for the header that this file's writer uses: filled with zeros.
    let no_room = block.len() < RECYCLABLE_HEADER && block.iter().all(|byte| *byte == 0);
    if block.len() < HEADER || no_room {
        return Fragment::Trailer;
    }
    let (crc, len, kind) = (&block[..4], usize::from(u16::from_le_bytes([block[4], block[5]])), block[6]);
    let (recyclable, kind) = match kind {
        1..=4 | 9 | 10 | 130 => (false, kind),
        5..=8 => (true, kind - 4),
        11 | 131 => (true, kind),
        _ => return Fragment::Foreign,
    };
    let header = if recyclable { RECYCLABLE_HEADER } else { HEADER };
    if recyclable {
        match block.get(HEADER..RECYCLABLE_HEADER) {
            Some(of) if of == (number as u32).to_le_bytes() => {}
            _ => return Fragment::Foreign,
        }
    }
    let damaged = |what| if recyclable { Fragment::Damaged(what) } else { Fragment::Foreign };
    match block.get(header..header + len) {
        None => damaged("record is cut short"),
        Some(_) if mask(crc32c::crc32c(&block[6..header + len])).to_le_bytes() != crc => damaged("checksum mismatch"),
        Some(payload) => Fragment::Whole { kind, len: header + len, payload },
    }
}

/// RocksDB stores checksums masked, because records may hold checksums.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

impl WalFile {
    fn scan(mut self, mut file: File) -> io::Result<WalFile> {
        let mut block = Vec::with_capacity(BLOCK);
        let mut open: Option<Head> = None; // a record whose last fragment is still to come
        let mut ended = false;
        for at in (0..).step_by(BLOCK) {
            block.clear();
            if (&mut file).take(BLOCK as u64).read_to_end(&mut block)? == 0 {
                break;
            }
            let offset = if ended { Some(0) } else { self.walk(at, &block, &mut open) };
            if let Some(offset) = offset {
                ended = true;
                self.look_behind(at, &block[offset..], offset as u64);
            }
        }
        if open.is_some() && self.broken.is_none() {
            self.broken = Some("record is cut short".into());
        }
        Ok(self)
    }

    /// Reads a block; `Some`: the records end at this place of it.
    fn walk(&mut self, at: u64, block: &[u8], open: &mut Option<Head>) -> Option<usize> {
        let mut offset = 0;
        loop {
            match fragment(&block[offset..], self.number) {
                Fragment::Whole { kind, len, payload } => {
                    if let Err(what) = self.take(kind, payload, open) {
                        self.broken = Some(what);
                        return Some(offset);
                    }
                    offset += len;
                    if open.is_none() {
                        self.end = at + offset as u64;
                    }
                }
                Fragment::Trailer => return None,
                Fragment::Damaged(what) => {
                    self.broken = Some(what.into());
                    return Some(offset);
                }
                Fragment::Foreign => return Some(offset),
            }
        }
    }

    /// One fragment more; what is wrong if it does not fit.
    fn take(&mut self, kind: u8, payload: &[u8], open: &mut Option<Head>) -> Result<(), String> {
        match (kind, open.as_mut()) {
            (1 | 2, None) => open.insert(Head::default()).push(payload),
            (3 | 4, Some(head)) => head.push(payload),
            (9.., None) => return Ok(()),
            _ => return Err("fragments out of order".into()),
        }
        if matches!(kind, 1 | 4)
            && let Some(head) = open.take()
        {
            let (sequence, count) = self.follows(&head)?;
            self.first.get_or_insert(sequence);
            // RocksDB begins a file with an empty record after a torn tail: its number is that of the record to come.
            self.last = Some((sequence + count).saturating_sub(1));
        }
        Ok(())
    }

    /// Sequence number and count of a record, if it follows the one before.
    fn follows(&self, head: &Head) -> Result<(u64, u64), String> {
        let (sequence, count) = head.sequence_and_count().ok_or("a record without a sequence number")?;
        match self.last {
            Some(last) if sequence != last + 1 => Err(format!("sequence number {sequence} follows {last}")),
            _ => Ok((sequence, count)),
        }
    }

    /// Looks for readable records behind the end: then the end is damage, not the file's last record.
    fn look_behind(&mut self, at: u64, rest: &[u8], base: u64) {
        let mut offset = 0;
        while offset + RECYCLABLE_HEADER <= rest.len() {
            match fragment(&rest[offset..], self.number) {
                Fragment::Whole { kind, len, payload } if kind <= 4 => {
                    if self.broken.is_none() {
                        let there = at + base + offset as u64;
                        self.broken = Some(format!("damaged: readable records go on at offset {there}"));
                    }
                    if kind <= 2 {
                        groups_of(payload, &mut self.groups);
                    }
                    offset += len;
                }
                _ => offset += 1,
            }
        }
    }
}

/// The front of a record, gathered from its fragments: a block may end inside it, or even before its first byte.
#[derive(Default)]
struct Head {
    bytes: [u8; BATCH_HEADER],
    filled: usize,
}

impl Head {
    fn push(&mut self, payload: &[u8]) {
        let missing = &mut self.bytes[self.filled..];
        let n = missing.len().min(payload.len());
        missing[..n].copy_from_slice(&payload[..n]);
        self.filled += n;
    }

    fn sequence_and_count(&self) -> Option<(u64, u64)> {
        let (sequence, count) = self.bytes.split_first_chunk()?;
        let count = u32::from_le_bytes(count.try_into().ok()?);
        (self.filled == BATCH_HEADER).then_some((u64::from_le_bytes(*sequence) & (u64::MAX >> 8), u64::from(count)))
    }
}

/// Groups of the blocks in a record's first fragment, as far as they can be read.
fn groups_of(payload: &[u8], groups: &mut BTreeSet<GroupId>) {
    let mut rest = payload.get(BATCH_HEADER..).unwrap_or_default();
    while let Some((tag, after)) = rest.split_first() {
        let strings = match tag {
            0 => 1,      // delete
            1 | 15 => 2, // put, delete range
            _ => return,
        };
        let Some((key, mut after)) = string(after) else { return };
        if let Some(Key::Block(group, _)) = keys::split(key)
            && groups.len() < MAX_GROUPS
        {
            groups.insert(group);
        }
        for _ in 1..strings {
            match string(after) {
                Some((_, behind)) => after = behind,
                None => return,
            }
        }
        rest = after;
    }
}

/// A string with its varint length in front.
fn string(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return bytes.split_at_checked(len);
        }
    }
    None
}
