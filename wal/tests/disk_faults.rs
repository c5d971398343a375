//! Disks that fail (`faults/shim.c`): a failed write or sync closes the store for good, whatever the disk does
//! afterwards (law 7); what was acknowledged is there when it is sound again, and an open that failed half-way, a first
//! one, too, has lost nothing.
//!
//! Each test runs itself again in a child process under the shim.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;
mod faults;

use common::{append, create, entries, hard_state, image, small, synced};
use faults::{EIO, ENOSPC, Faults};
use pontoon_raftstore::env::{Fetch, LogBatch, LogStore, ReadLogError, WriteFailed};
use pontoon_raftstore::ids::{GroupId, Index};
use pontoon_wal::{OpenError, WalConfig, WalStore};
use std::path::Path;
use std::time::{Duration, Instant};

const LOG: &str = "*/store/db/*.log";
const MARK: &str = "*/store/WATERMARK";
const TABLES: &str = "*/store/db/*.sst";
const MANIFEST: &str = "*/store/db/MANIFEST-*";

/// Runs `body` in a child under the shim.
fn under_faults(test: &str, body: impl FnOnce(&Faults, &Path)) {
    if let Some(faults) = Faults::of_parent() {
        let dir = tempfile::tempdir().unwrap();
        return body(&faults, dir.path());
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Faults::build(dir.path()).child(test);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "no test {test}");
}

/// A store with one group, and what was acknowledged to its writer.
struct Writer {
    store: WalStore,
    /// Index of the last entry of a synced batch that was answered `Ok`.
    acknowledged: u64,
    /// Index of the last entry that was given to the store.
    given: u64,
}

impl Writer {
    fn found(dir: &Path, config: &WalConfig) -> Writer {
        let store = WalStore::open(dir, config).unwrap();
        let _ = store.write(&synced(vec![create(1, 1)])).unwrap();
        Writer { store, acknowledged: 0, given: 0 }
    }

    fn next(&mut self, sync: bool) -> Result<(), WriteFailed> {
        self.given += 1;
        let writes = vec![append(1, entries(self.given..self.given + 1, 1, 300), Some(hard_state(1, 1, 0)))];
        let _ = self.store.write(&LogBatch { sync, ..synced(writes) })?;
        if sync {
            self.acknowledged = self.given;
        }
        Ok(())
    }

    /// Writes and ticks until that fails.
    fn until_it_fails(&mut self) -> String {
        let began = Instant::now();
        loop {
            match self.next(true).and_then(|()| self.store.tick()) {
                Ok(()) => assert!(began.elapsed() < Duration::from_secs(60), "no write ever failed"),
                Err(e) => return e.to_string(),
            }
        }
    }

    /// Everything fails with the same words, and nothing more counts as synced.
    fn is_closed(&mut self, why: &str) {
        let synced = self.store.synced_seq();
        for sync in [true, false, true] {
            assert_eq!(self.next(sync).unwrap_err().to_string(), why);
        }
        let nothing = LogBatch { sync: true, ..LogBatch::default() };
        assert_eq!(self.store.write(&nothing).unwrap_err().to_string(), why, "a sync alone");
        assert_eq!(self.store.tick().unwrap_err().to_string(), why);
        assert!(self.store.load().is_err());
        let fetch = Fetch { group: GroupId(1), low: Index(1), high: Index(2), max_bytes: 1 };
        assert!(matches!(self.store.read(&[fetch])[..], [Err(ReadLogError::Poisoned)]));
        assert_eq!(self.store.synced_seq(), synced);
    }

    /// The store is closed and opened again on a sound disk: all that was acknowledged, nothing that was not given.
    fn reopened(self, dir: &Path, config: &WalConfig) -> Writer {
        let (synced, acknowledged) = (self.store.synced_seq(), self.acknowledged);
        drop(self.store);
        let store = WalStore::open(dir, config).unwrap();
        assert!(store.recovered_seq() >= synced, "{} < {synced}", store.recovered_seq());
        let last = store.load().unwrap().groups[0].last.index.0;
        assert!((acknowledged..=self.given).contains(&last), "{acknowledged} acknowledged, {last} there");
        let mut writer = Writer { store, acknowledged: last, given: last };
        writer.next(true).unwrap();
        writer
    }
}

#[test]
fn a_failed_write_or_sync_is_the_last_whatever_the_disk_does_then() {
    under_faults("a_failed_write_or_sync_is_the_last_whatever_the_disk_does_then", |faults, base| {
        let cases = [
            (LOG, "write", EIO),
            (LOG, "write", ENOSPC),
            (LOG, "torn", EIO),
            (LOG, "torn", ENOSPC),
            (LOG, "sync", EIO),
            (LOG, "sync", ENOSPC),
            (MARK, "write", EIO),
            (MARK, "write", ENOSPC),
            (MARK, "sync", EIO),
        ];
        for (n, (files, kind, error)) in cases.into_iter().enumerate() {
            let dir = base.join(n.to_string());
            let mut writer = Writer::found(&dir, &WalConfig::default());
            (0..20).for_each(|_| writer.next(true).unwrap());
            faults.arm(kind, error, 0, 1, files); // once: the disk is sound again at the next call
            let why = writer.until_it_fails();
            println!("{files} {kind} {error}: {why}");
            assert!(faults.struck());
            writer.is_closed(&why);
            // RocksDB takes itself up again after a full disk, in its own time; the store stays closed (above).
            let trace = faults.trace();
            let behind = trace.iter().skip_while(|line| !line.starts_with("fail")).skip(1);
            assert!((error, files) == (ENOSPC, LOG) || behind.count() == 0, "tried again: {trace:?}");
            faults.disarm();
            writer.reopened(&dir, &WalConfig::default());
        }
    });
}

#[test]
fn tables_that_cannot_be_written_close_the_store() {
    under_faults("tables_that_cannot_be_written_close_the_store", |faults, base| {
        let cases = [
            (TABLES, "write", EIO),
            (TABLES, "write", ENOSPC),
            (TABLES, "create", ENOSPC),
            (TABLES, "sync", EIO),
            (MANIFEST, "write", ENOSPC),
            (MANIFEST, "sync", EIO),
            (LOG, "create", ENOSPC),
        ];
        for (n, (files, kind, error)) in cases.into_iter().enumerate() {
            let dir = base.join(n.to_string());
            let mut writer = Writer::found(&dir, &small());
            faults.arm(kind, error, 0, 0, files);
            let why = writer.until_it_fails();
            println!("{files} {kind} {error}: {why} at {}", writer.given);
            assert!(faults.struck());
            writer.is_closed(&why);
            faults.disarm();
            writer.reopened(&dir, &small());
        }
    });
}

/// A directory as a killed process leaves it: tables, two lives of WAL files, an unsynced tail. What is acknowledged.
fn killed(base: &Path) -> (std::path::PathBuf, u64) {
    let mut writer = Writer::found(&base.join("open"), &small());
    (0..600).for_each(|n| writer.next(n % 3 != 0).unwrap());
    (0..10).for_each(|_| writer.next(false).unwrap());
    image(&base.join("open"), &base.join("image"));
    (base.join("image"), writer.acknowledged)
}

/// Lets the first, second, .. call of an open fail, until an open meets no failure: each leaves a directory that opens
/// when the disk is sound, with what was acknowledged.
fn each_call_of_an_open_fails(faults: &Faults, base: &Path, from: Option<&Path>, acknowledged: u64, fail: (i32, u64)) {
    for skip in 0.. {
        let dir = base.join("tried");
        let _ = std::fs::remove_dir_all(&dir);
        if let Some(from) = from {
            image(from, &dir);
        }
        faults.arm("any", fail.0, skip, fail.1, "*/tried/*");
        let tried = WalStore::open(&dir, &small()).map(drop);
        let struck = faults.struck();
        let trace = faults.trace();
        faults.disarm();
        match tried {
            Ok(()) if !struck => {
                println!("{fail:?}: {skip} calls failed one after the other");
                assert!(skip > 20, "an open writes more than that: {trace:?}");
                return;
            }
            Ok(()) => {} // of no importance, RocksDB's own log for one
            Err(OpenError::Io { .. }) => assert!(struck),
            Err(e) => panic!("call {skip}: {e}\n{trace:?}"),
        }
        let store = WalStore::open(&dir, &small()).unwrap_or_else(|e| panic!("after {:?}: {e}", trace.last()));
        let last = store.load().unwrap().groups.first().map_or(0, |g| g.last.index.0);
        assert!(last >= acknowledged, "after {:?}: {last} of {acknowledged} are there", trace.last());
    }
}

#[test]
fn an_open_that_fails_anywhere_loses_nothing() {
    under_faults("an_open_that_fails_anywhere_loses_nothing", |faults, base| {
        let (image, acknowledged) = killed(base);
        for fail in [(ENOSPC, 0), (EIO, 1)] {
            each_call_of_an_open_fails(faults, base, Some(&image), acknowledged, fail);
        }
    });
}

#[test]
fn a_first_open_that_fails_anywhere_is_begun_again() {
    under_faults("a_first_open_that_fails_anywhere_is_begun_again", |faults, base| {
        for fail in [(ENOSPC, 0), (EIO, 1)] {
            each_call_of_an_open_fails(faults, base, None, 0, fail);
        }
    });
}
