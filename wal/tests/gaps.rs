//! WAL files that go on behind missing records: RocksDB applies what comes behind such a gap, the store must not.
//!
//! A power cut loses the unsynced end of one file, exactly at a record, and keeps the next file; or a file is gone; or a
//! hole of zeros ends with its block. At or below the watermark that is lost log, above it the unsynced tail begins
//! there. The records are hard states alone where nothing else would notice (blocks have a chain of their own).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, missing_docs)]

mod common;

use common::{append, create, entries, hard_state, image, synced};
use pontoon_raftstore::env::{GroupWrite, LogBatch, LogStore, StoredGroup};
use pontoon_wal::{LostLog, OpenError, WalConfig, WalStore};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 11;

/// Ranges of records, by file.
type Files<'a> = &'a [&'a [Range<usize>]];

/// A store with one WAL file, imaged while open: record 1 creates group 1, record n + 1 is batch n.
struct Written {
    base: tempfile::TempDir,
    /// Of the WAL file, in order.
    records: Vec<Vec<u8>>,
    /// Number of the WAL file.
    number: u32,
}

impl Written {
    /// `sync` says which batches are synced.
    fn new(batches: u64, sync: impl Fn(u64) -> bool, write: impl Fn(u64) -> GroupWrite) -> Written {
        let base = tempfile::tempdir().unwrap();
        let store = open(&base.path().join("open")).unwrap();
        let _ = store.write(&synced(vec![create(1, 1)])).unwrap();
        for n in 1..=batches {
            let _ = store.write(&LogBatch { sync: sync(n), ..synced(vec![write(n)]) }).unwrap();
        }
        image(&base.path().join("open"), &base.path().join("image"));
        drop(store);
        let wal = wals(&base.path().join("image")).pop().unwrap();
        let number = wal.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let records = records(&fs::read(&wal).unwrap(), number);
        assert_eq!(records.len() as u64, batches + 1);
        fs::remove_file(wal).unwrap();
        Written { base, records, number }
    }

    /// Hard states alone; the term of batch n is n.
    fn hard_states(batches: u64, sync: impl Fn(u64) -> bool) -> Written {
        Written::new(batches, sync, |n| append(1, Vec::new(), Some(hard_state(n, 1, 0))))
    }

    /// One entry a batch.
    fn blocks(batches: u64, sync: impl Fn(u64) -> bool) -> Written {
        Written::new(batches, sync, |n| append(1, entries(n..n + 1, 1, 100), Some(hard_state(1, 1, 0))))
    }

    /// A directory with these records in WAL files, one range each; an empty range is no file. Files end with the
    /// record, or are full of zeros to the end of the block, and then go on.
    fn with_files(&self, files: Files<'_>) -> PathBuf {
        let dir = self.base.path().join("copy");
        image(&self.base.path().join("image"), &dir);
        for (number, ranges) in (self.number..).zip(files) {
            let bytes = frame(number, ranges.iter().map(|r| &self.records[r.clone()]));
            if !bytes.is_empty() {
                fs::write(dir.join(format!("store/db/{number:06}.log")), bytes).unwrap();
            }
        }
        dir
    }

    /// Sequence number behind so many records.
    fn sequence(&self, records: usize) -> u64 {
        self.records[..records].iter().map(|r| u64::from(u32::from_le_bytes(r[8..12].try_into().unwrap()))).sum()
    }
}

fn open(dir: &Path) -> Result<WalStore, OpenError> {
    WalStore::open(dir, &WalConfig::default())
}

fn wals(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("store/db")).unwrap().map(|e| e.unwrap().path());
    let mut wals: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    wals.sort();
    wals
}

/// The payloads of a file's records: an independent, minimal reader.
fn records(bytes: &[u8], number: u32) -> Vec<Vec<u8>> {
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        if BLOCK - at % BLOCK < HEADER {
            at += BLOCK - at % BLOCK;
        }
        match bytes.get(at..at + HEADER) {
            Some(h) if (5..=8).contains(&h[6]) && h[7..] == number.to_le_bytes() => {
                if h[6] <= 6 {
                    all.push(Vec::new());
                }
                let len = usize::from(h[4]) + 256 * usize::from(h[5]);
                all.last_mut().unwrap().extend(&bytes[at + HEADER..at + HEADER + len]);
                at += HEADER + len;
            }
            _ => return all,
        }
    }
}

/// A WAL file with these runs of (short) records; between two runs zeros, to the end of the block.
fn frame<'a>(number: u32, runs: impl Iterator<Item = &'a [Vec<u8>]>) -> Vec<u8> {
    let mut file = Vec::new();
    for (n, run) in runs.enumerate() {
        if n > 0 {
            file.resize(file.len().next_multiple_of(BLOCK), 0);
        }
        for record in run {
            assert!(BLOCK - file.len() % BLOCK >= HEADER + record.len(), "a record in one fragment");
            let mut checked = vec![5]; // full, recyclable
            checked.extend(number.to_le_bytes());
            checked.extend(record);
            let crc = crc32c::crc32c(&checked).rotate_right(15).wrapping_add(0xa282_ead8);
            file.extend(crc.to_le_bytes());
            file.extend((record.len() as u16).to_le_bytes());
            file.extend(checked);
        }
    }
    file
}

/// A refusal by loss, which changed nothing.
fn refused(dir: &Path) -> Box<LostLog> {
    let read = || wals(dir).iter().map(|w| fs::read(w).unwrap()).collect::<Vec<_>>();
    let before = read();
    let error = open(dir).map(drop).unwrap_err();
    println!("{error}");
    assert_eq!(read(), before, "a refusal changed files");
    assert!(!dir.join("salvage").exists() && !dir.join("cut.trial").exists());
    match error {
        OpenError::Lost(lost) => lost,
        other => panic!("{other}"),
    }
}

/// Opens; what is there of the group. A copy of the cut is kept, and the store goes on where it was cut.
fn cut_at(dir: &Path, sequence: u64) -> StoredGroup {
    let store = open(dir).unwrap();
    assert_eq!(store.recovered_seq().0, sequence);
    let group = store.load().unwrap().groups.remove(0);
    assert_eq!(fs::read_dir(dir.join("salvage")).unwrap().count(), 1, "the tail that was cut is kept");
    assert!(!dir.join("cut.trial").exists());
    let next = group.last.index.0 + 1;
    let more = append(1, entries(next..next + 1, 9, 10), Some(hard_state(99, 1, 0)));
    assert_eq!(store.write(&synced(vec![more])).unwrap().seq().0, sequence + 1);
    drop(store);
    let again = open(dir).unwrap().load().unwrap().groups.remove(0);
    assert_eq!((again.last.index.0, again.hard_state.term.0), (next, 99));
    group
}

#[test]
fn what_is_put_together_again_opens() {
    let written = Written::hard_states(20, |_| true);
    for files in [&[&[0..21][..]][..], &[&[0..10], &[10..21]], &[&[0..10], &[10..10], &[10..11], &[11..21]]] {
        let store = open(&written.with_files(files)).unwrap();
        assert_eq!(store.recovered_seq().0, written.sequence(21));
        assert_eq!(store.load().unwrap().groups[0].hard_state.term.0, 20);
    }
}

/// Bug: a node that had lost nothing refused to start ("a record without a sequence number"). Mechanism: 11 to 22 bytes
/// before the end of a block a record's first fragment holds less than its sequence number and count, or nothing at all;
/// 7 to 10 bytes are no room for a recyclable header and hold zeros. Fix: the former are gathered from all fragments, the
/// latter are the block's end.
#[test]
fn a_record_may_begin_at_the_very_end_of_a_block() {
    let base = tempfile::tempdir().unwrap();
    let (dir, copy) = (base.path().join("open"), base.path().join("image"));
    let store = open(&dir).unwrap();
    let _ = store.write(&synced(vec![create(1, 1)])).unwrap();
    const BATCHES: u64 = 20_000;
    for n in 1..=BATCHES {
        let length = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        let write = append(1, entries(n..n + 1, 1, length), Some(hard_state(1, 1, 0)));
        let _ = store.write(&LogBatch { sync: n == BATCHES, ..synced(vec![write]) }).unwrap();
    }
    image(&dir, &copy);
    let bytes = fs::read(wals(&copy).pop().unwrap()).unwrap();
    let splits = bytes.chunks(BLOCK).filter(|b| b.len() == BLOCK).filter(|block| {
        let split = |at: usize| block[at + 6] == 6 && block[at + 4..at + 6] == [(BLOCK - at - HEADER) as u8, 0];
        (BLOCK - HEADER - 11..=BLOCK - HEADER).any(split)
    });
    assert!(splits.count() > 0, "no block ends inside the front of a record: the test shows nothing");
    let recovered = open(&copy).unwrap();
    assert_eq!(recovered.recovered_seq(), store.synced_seq());
}

/// Bug: recovery passed a hole of hard states alone (lost votes). Mechanism: RocksDB jumps a gap that begins where a file
/// ends with a record, and the last number is still above the mark. Fix: the numbers are counted.
#[test]
fn a_gap_below_the_mark_refuses() {
    let written = Written::hard_states(20, |_| true);
    let name = |later: u32| format!("{:06}.log", written.number + later);
    let (first, last) = (written.sequence(8), written.sequence(21));
    let cases: [(Files<'_>, u64, String); 4] = [
        (&[&[0..8], &[12..21]], first, name(1)),
        (&[&[0..0], &[12..21]], 0, name(1)),
        (&[&[0..8], &[9..9], &[12..14], &[14..21]], first, name(2)),
        (&[&[0..8, 12..21]], first, name(0)),
    ];
    for (files, recovered, file) in cases {
        let lost = refused(&written.with_files(files));
        assert_eq!((lost.recovered, lost.expected), (recovered, last));
        assert_eq!(lost.place.as_ref().unwrap().0, file, "{files:?}");
    }
}

#[test]
fn a_gap_above_the_mark_is_where_the_tail_begins() {
    let written = Written::hard_states(20, |n| n <= 5);
    let files: [Files<'_>; 5] = [
        &[&[0..8], &[12..21]],
        &[&[0..8, 12..21]],
        &[&[0..4], &[4..8], &[12..14], &[14..21]],
        &[&[0..4], &[4..8, 12..14], &[14..21]],
        &[&[0..8, 12..14, 16..21]],
    ];
    for files in files {
        let group = cut_at(&written.with_files(files), written.sequence(8));
        assert_eq!(group.hard_state.term.0, 7, "{files:?}: the hard state before the gap");
    }
}

/// Bug: a node that had lost nothing acknowledged refused to start, because entries were missing between unsynced ones.
#[test]
fn a_gap_of_unsynced_entries_does_not_refuse() {
    let written = Written::blocks(20, |n| n <= 5);
    let group = cut_at(&written.with_files(&[&[0..8], &[12..21]]), written.sequence(8));
    assert_eq!(group.last.index.0, 7);
}

#[test]
fn a_cut_that_was_interrupted_is_made_again() {
    let written = Written::hard_states(20, |n| n <= 5);
    // The newest files go first: what is left has the gap still, or ends before it.
    let dir = written.with_files(&[&[0..8], &[12..14]]);
    fs::create_dir_all(dir.join("cut.trial")).unwrap();
    fs::write(dir.join("cut.trial/000009.log"), "half").unwrap();
    assert_eq!(cut_at(&dir, written.sequence(8)).hard_state.term.0, 7);
    let store = open(&written.with_files(&[&[0..8]])).unwrap();
    assert_eq!(store.recovered_seq().0, written.sequence(8));
}

/// What a SIGKILL in the middle of a write, or a recycled file, may leave behind the last whole record.
fn tails(number: u32, last: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let torn = frame(number, std::iter::once(&[last.to_vec()][..]));
    let old = frame(number - 1, std::iter::once(&[last.to_vec()][..]));
    vec![
        ("half a record", torn[..torn.len() / 2].to_vec()),
        ("half a header", torn[..5].to_vec()),
        ("a record of an older file", old.clone()),
        ("the rest of one", old[3..].to_vec()),
        ("zeros", vec![0; 500]),
        ("nothing", Vec::new()),
    ]
}

/// A second crash, before the file that the first recovery began is flushed. RocksDB begins it with an empty record.
#[test]
fn a_torn_tail_is_survived_twice() {
    for variant in 0..6 {
        let base = tempfile::tempdir().unwrap();
        let (dir, first) = (base.path().join("open"), base.path().join("first"));
        let store = open(&dir).unwrap();
        let _ = store.write(&synced(vec![create(1, 1)])).unwrap();
        let one = |n: u64| vec![append(1, entries(n..n + 1, 1, 100), Some(hard_state(1, 1, 0)))];
        let _ = store.write(&synced(one(1))).unwrap();
        image(&dir, &first);
        drop(store);
        let wal = wals(&first).pop().unwrap();
        let mut bytes = fs::read(&wal).unwrap();
        let number: u32 = wal.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let whole = records(&bytes, number);
        bytes.truncate(whole.iter().map(|r| r.len() + HEADER).sum());
        let (name, tail) = tails(number, whole.last().unwrap()).swap_remove(variant);
        bytes.extend(tail);
        fs::write(&wal, bytes).unwrap();

        let store = open(&first).unwrap();
        let old_mark = fs::read(first.join("store/WATERMARK")).unwrap();
        for written in 2..4 {
            let _ = store.write(&synced(one(written))).unwrap();
            for is_mark_old in [false, true] {
                let second = base.path().join(format!("second-{written}-{is_mark_old}"));
                image(&first, &second);
                if is_mark_old {
                    fs::write(second.join("store/WATERMARK"), &old_mark).unwrap();
                }
                let again = open(&second).unwrap_or_else(|e| panic!("{name}, {written}, {is_mark_old}: {e}"));
                assert_eq!(again.recovered_seq(), store.synced_seq(), "{name}");
                assert_eq!(again.load().unwrap().groups[0].last.index.0, written, "{name}");
            }
        }
    }
}
