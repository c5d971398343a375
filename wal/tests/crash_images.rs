//! What a store does with a damaged directory: opens where only an unsynced tail is gone, refuses where acknowledged
//! log is; never opens with less than was synced, and a refusal changes nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use common::{append, create, entries, image, small, synced, truncate};
use pontoon_raftstore::env::{LogBatch, LogStore};
use pontoon_raftstore::testing::Rng;
use pontoon_wal::{OpenError, WalStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Does something to a WAL file with so many live bytes.
type Damage = fn(&Path, usize);

/// A store written to for a while, imaged while open. The WAL was rotated and recycled; the last file is live.
struct Written {
    base: tempfile::TempDir,
    synced: u64,
    last: u64,
    next: u64,
}

impl Written {
    /// `unsynced` batches without a sync stand at the end.
    fn new(batches: u64, unsynced: u64) -> Written {
        let base = tempfile::tempdir().unwrap();
        let store = WalStore::open(&base.path().join("open"), &small()).unwrap();
        let _ = store.write(&synced(vec![create(1, 1), create(2, 1)])).unwrap();
        let mut next = 1;
        for batch in 0..batches + unsynced {
            let mut writes = vec![append(1 + batch % 2, entries(next..next + 3, 1, 60), None)];
            if batch % 2 == 1 {
                next += 3;
                if batch % 200 == 1 && next > 30 {
                    writes.push(truncate(2, next - 20, 1));
                }
            }
            let _ = store.write(&LogBatch { sync: batch < batches, ..synced(writes) }).unwrap();
        }
        image(&base.path().join("open"), &base.path().join("image"));
        let synced = store.synced_seq().0;
        drop(store);
        Written { synced, last: synced + unsynced, next, base }
    }

    fn image(&self) -> PathBuf {
        self.base.path().join("image")
    }

    /// A copy of the image, to be damaged.
    fn copy(&self) -> PathBuf {
        let copy = self.base.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        image(&self.image(), &copy);
        copy
    }

    fn wals(&self, dir: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir.join("store/db")).unwrap().map(|e| e.unwrap().path());
        let mut wals: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
        wals.sort();
        wals
    }

    /// The file that was being written, and how far.
    fn live(&self, dir: &Path) -> (PathBuf, usize) {
        let live = self.wals(dir).pop().unwrap();
        let number: u32 = live.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let end = live_end(&std::fs::read(&live).unwrap(), number);
        (live, end)
    }
}

/// Where the fragments of this log number end: an independent, minimal reader.
fn live_end(bytes: &[u8], number: u32) -> usize {
    let mut at = 0;
    loop {
        if 32768 - at % 32768 < 11 {
            at += 32768 - at % 32768;
        }
        match bytes.get(at..at + 11) {
            Some(h) if (5..=8).contains(&h[6]) && h[7..] == number.to_le_bytes() => {
                at += 11 + usize::from(h[4]) + 256 * usize::from(h[5]);
            }
            _ => return at,
        }
    }
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    all
}

/// Opens a damaged copy. `Ok`: at least the mark; `Err`: a refusal by loss or damage that changed nothing.
fn try_open(dir: &Path, synced: u64) -> Result<u64, OpenError> {
    let before = files(dir);
    match WalStore::open(dir, &small()) {
        Ok(store) => {
            assert!(store.recovered_seq().0 >= synced, "opened with less than was synced");
            let found = store.load().unwrap();
            assert_eq!(found.groups.len(), 2);
            Ok(store.recovered_seq().0)
        }
        Err(e) => {
            let unchanged = files(dir).iter().filter(|f| before.get(f.0) != Some(f.1)).count();
            assert_eq!(unchanged, 0, "a refusal changed files: {e}");
            Err(e)
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_live_wal_is_recycled_and_an_undamaged_image_opens() {
    let written = Written::new(2000, 0);
    let dir = written.copy();
    let (live, end) = written.live(&dir);
    let len = std::fs::metadata(&live).unwrap().len() as usize;
    assert!(len > end, "{} holds {end} live bytes of {len}: not recycled", live.display());
    assert_eq!(try_open(&dir, written.synced).unwrap(), written.synced);
    assert!(!dir.join("salvage").exists(), "nothing was cut");
    // Again on what that start left.
    assert_eq!(try_open(&dir, written.synced).unwrap(), written.synced);
}

#[test]
fn flips_below_the_mark_refuse_with_a_place_and_stale_ones_change_nothing() {
    let written = Written::new(2000, 0);
    let (_, end) = written.live(&written.image());
    let mut rng = Rng::new(3);
    let mut stale = 0;
    for round in 0..60 {
        let dir = written.copy();
        let (live, _) = written.live(&dir);
        let len = std::fs::metadata(&live).unwrap().len();
        let at = if round % 4 == 3 { rng.range(end as u64..len) } else { rng.below(end as u64) } as usize;
        flip(&live, at);
        match try_open(&dir, written.synced) {
            Ok(_) => {
                assert!(at >= end, "a flip at {at} of {end} live bytes went unnoticed");
                stale += 1;
            }
            Err(OpenError::Lost(lost)) => {
                assert!(at < end, "a flip in the stale tail refused: {lost}");
                assert_eq!(lost.expected, written.synced);
                let (file, offset, _) = lost.place.clone().unwrap();
                assert_eq!(file, live.file_name().unwrap().to_str().unwrap());
                assert!(offset <= at as u64 && at as u64 - offset < 1000, "flip at {at}: {lost}");
            }
            Err(other) => panic!("flip at {at}: {other}"),
        }
    }
    assert_eq!(stale, 15);
}

#[test]
fn a_lost_cut_or_hollow_wal_refuses() {
    let written = Written::new(2000, 0);
    let damages: [(&str, Damage); 4] = [
        ("deleted", |wal, _| std::fs::remove_file(wal).unwrap()),
        ("cut in half", |wal, end| {
            std::fs::OpenOptions::new().write(true).open(wal).unwrap().set_len(end as u64 / 2).unwrap();
        }),
        ("zero hole", |wal, end| {
            let mut bytes = std::fs::read(wal).unwrap();
            let at = end / 2;
            bytes[at..at + 512].fill(0);
            std::fs::write(wal, bytes).unwrap();
        }),
        ("an older life of the file", |wal, end| {
            let bytes = std::fs::read(wal).unwrap();
            std::fs::write(wal, [&vec![0; 4096], &bytes[..end]].concat()).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let dir = written.copy();
        let (live, end) = written.live(&dir);
        damage(&live, end);
        match try_open(&dir, written.synced) {
            Err(OpenError::Lost(lost)) => {
                println!("{name}: {lost}");
                assert!(lost.recovered < written.synced);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn an_unsynced_tail_is_cut_and_kept_in_salvage() {
    let written = Written::new(300, 40);
    let mut rng = Rng::new(5);
    let (_, end) = written.live(&written.image());
    let mut cut = 0;
    for _ in 0..40 {
        let dir = written.copy();
        let (live, _) = written.live(&dir);
        // The last unsynced batches only: about 200 bytes each.
        let at = end - 1 - rng.below(2000) as usize;
        flip(&live, at);
        let recovered = try_open(&dir, written.synced).unwrap();
        assert!(recovered >= written.synced && recovered < written.last, "{recovered}");
        let kept = std::fs::read_dir(dir.join("salvage")).unwrap().count();
        assert_eq!(kept, 1, "the tail that was cut is kept");
        cut += 1;
        // The next batch goes on from there.
        let store = WalStore::open(&dir, &small()).unwrap();
        let last = store.load().unwrap().groups[0].last.index.0;
        let proof = store.write(&synced(vec![append(1, entries(last + 1..last + 2, 1, 8), None)])).unwrap();
        assert_eq!(proof.seq().0, recovered + 1);
    }
    assert_eq!(cut, 40);
    assert!(written.next > 1);
}

#[test]
fn an_older_watermark_opens_and_a_missing_one_refuses() {
    let written = Written::new(50, 0);
    let dir = written.copy();
    let old = std::fs::read(dir.join("store/WATERMARK")).unwrap();
    let store = WalStore::open(&dir, &small()).unwrap();
    let _ = store.write(&synced(vec![create(3, 1)])).unwrap();
    drop(store);
    std::fs::write(dir.join("store/WATERMARK"), old).unwrap(); // a power cut lost the newer marks
    assert!(WalStore::open(&dir, &small()).unwrap().recovered_seq().0 > written.synced);
    let dir = written.copy();
    std::fs::remove_file(dir.join("store/WATERMARK")).unwrap();
    assert!(matches!(try_open(&dir, 0), Err(OpenError::NotWhole(_))));
    for file in ["store/IDENTITY", "store/db/CURRENT"] {
        let dir = written.copy();
        std::fs::remove_file(dir.join(file)).unwrap();
        assert!(matches!(try_open(&dir, 0), Err(OpenError::NotWhole(_))), "{file}");
    }
    let dir = written.copy();
    let identity = dir.join("store/IDENTITY");
    let mut bytes = std::fs::read(&identity).unwrap();
    bytes[8] = 9;
    std::fs::write(&identity, bytes).unwrap();
    assert!(matches!(try_open(&dir, 0), Err(OpenError::TooNew { found: 9, .. })));
}

#[test]
fn a_file_of_another_store_refuses() {
    let (written, other) = (Written::new(20, 0), Written::new(20, 0));
    let dir = written.copy();
    std::fs::copy(other.image().join("store/WATERMARK"), dir.join("store/WATERMARK")).unwrap();
    assert!(matches!(try_open(&dir, 0), Err(OpenError::NotWhole(_))));
    let dir = written.copy();
    std::fs::remove_dir_all(dir.join("store/db")).unwrap();
    image(&other.image().join("store/db"), &dir.join("store/db"));
    match try_open(&dir, 0) {
        Err(OpenError::Corrupt(e)) => assert!(e.to_string().contains("store"), "{e}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_tables_refuse() {
    let written = Written::new(2000, 0);
    let tables = live_tables(&written.copy());
    assert!(!tables.is_empty());
    for table in tables {
        let dir = written.copy();
        flip(&dir.join("store/db").join(&table), 100);
        let error = try_open(&dir, written.synced).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_) | OpenError::Corrupt(_)), "{table}: {error}");
    }
}

/// The tables that the manifest names: an image may hold others, of a compaction that was running.
fn live_tables(dir: &Path) -> Vec<String> {
    let db = rocksdb::DB::open_for_read_only(&rocksdb::Options::default(), dir.join("store/db"), false).unwrap();
    db.live_files().unwrap().iter().map(|f| f.name.trim_start_matches('/').to_owned()).collect()
}

#[test]
fn one_process_at_a_time_and_half_a_birth_is_finished() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("a/b");
    std::fs::create_dir_all(dir.join("store.new/db")).unwrap();
    std::fs::write(dir.join("store.new/db/CURRENT"), "half").unwrap();
    let store = WalStore::open(&dir, &small()).unwrap();
    assert!(!dir.join("store.new").exists());
    assert!(matches!(WalStore::open(&dir, &small()), Err(OpenError::InUse(_))));
    drop(store);
    WalStore::open(&dir, &small()).unwrap();
}

#[test]
fn a_tail_of_one_file_lost_and_the_next_file_kept_opens() {
    // A power cut may keep a new, unsynced WAL file and lose the unsynced end of the one before.
    let written = Written::new(10, 600);
    let dir = written.copy();
    let wals = written.wals(&dir);
    assert!(wals.len() > 1, "the unsynced batches rotate the WAL");
    let first = wals.iter().find(|w| std::fs::metadata(w).unwrap().len() > 0).unwrap();
    let number: u32 = first.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let end = live_end(&std::fs::read(first).unwrap(), number);
    std::fs::OpenOptions::new().write(true).open(first).unwrap().set_len(end as u64 - 50).unwrap();
    match try_open(&dir, written.synced) {
        Ok(recovered) => assert!(recovered >= written.synced),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_bug_of_the_caller_poisons() {
    let dir = tempfile::tempdir().unwrap();
    let store = common::open(dir.path());
    let batch = synced(vec![append(1, entries(1..2, 1, 8), None)]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.write(&batch).map(drop)));
    assert!(panicked.is_err(), "group 1 was never created");
    assert!(store.write(&synced(vec![create(1, 1)])).is_err());
    assert!(store.tick().is_err() && store.load().is_err());
    drop(store);
    assert!(common::open(dir.path()).load().unwrap().groups.is_empty());
}
