//! Opening and founding a store, in the steps of boot.md 9.
//!
//! ```text
//! DIR/LOCK                held while a process has the store open
//! DIR/store/IDENTITY      format and name       DIR/store/WATERMARK   last synced sequence number
//! DIR/store/db/           the RocksDB           DIR/salvage/          copies of cut WAL files
//! ```
//! A new store is built under `DIR/store.new` and gets its name by one rename: the one commit point, so that no crash
//! leaves half a store and RocksDB never creates a database where one was lost.
//! Invariant: nothing in `DIR/store` changes before what is recovered was compared with the watermark and every record
//! of it checked; where records go on behind a gap, what is recovered ends before the gap.

use crate::config::WalConfig;
use crate::envelope::StoreId;
use crate::error::{Doing, LostLog, OpenError};
use crate::latch::Latch;
use crate::recover::{self, Found};
use crate::replay::{self, Replay};
use crate::wal_scan::{self, WalFile};
use crate::watermark::Watermark;
use crate::{identity, metrics, options, salvage};
use rocksdb::Options;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Everything that an open store is made of.
pub(crate) struct Opened {
    /// The database, open for writing.
    pub(crate) latch: Latch,
    /// The store's name.
    pub(crate) store: StoreId,
    /// What recovery found.
    pub(crate) found: Found,
    /// Stands at `recovered`.
    pub(crate) watermark: Watermark,
    /// Sequence number that recovery reached.
    pub(crate) recovered: u64,
    /// Released when the store is dropped.
    pub(crate) lock: File,
}

/// Opens the store in `dir`; founds it where none ever was.
pub(crate) fn open(dir: &Path, config: &WalConfig) -> Result<Opened, OpenError> {
    config.validate()?;
    let options = options::build(config)?;
    let lock = lock(dir)?;
    let home = dir.join("store");
    if !home.try_exists().doing(|| format!("look at {}", home.display()))? {
        found(dir, &home, &options)?;
    }
    let store = identity::read(&home)?;
    let mut watermark = Watermark::open(&home, store)?;
    let db = home.join("db");
    if !db.join("CURRENT").is_file() {
        return Err(OpenError::NotWhole("the database is missing".into()));
    }
    replay::discard(dir).doing(|| format!("remove {}", replay::TRIAL))?;
    let replay = Replay::survey(&home, &options)?;
    let Inspected { found, recovered, jumped } = inspect(dir, &db, &replay, store, &options, watermark.sequence())?;
    keep_cut_tail(dir, &db, &replay, recovered, config.salvage_bytes)?;
    if jumped {
        replay.cut().doing(|| "cut WAL files behind a gap".into())?;
    }
    let latch = Latch::open(&db, &options).map_err(|e| refused(dir, &e))?;
    if latch.latest_sequence() != recovered {
        let reached = latch.latest_sequence();
        return Err(OpenError::Damaged(format!("recovery reached {recovered} at first and {reached} at second")));
    }
    options::assert_in_effect(&db, config)?;
    // What was recovered is flushed now, synced or not before: from here on it is promised.
    watermark.record(recovered).and_then(|()| watermark.sync()).doing(|| "write the watermark".into())?;
    Ok(Opened { latch, store, found, watermark, recovered, lock })
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    if !dir.is_dir() {
        fs::create_dir_all(dir).doing(|| format!("create {}", dir.display()))?;
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent)?;
    }
    let path = dir.join("LOCK");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.doing(|| format!("open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(e).doing(|| format!("lock {}", path.display())),
    }
}

fn found(dir: &Path, home: &Path, options: &Options) -> Result<(), OpenError> {
    let new = dir.join("store.new");
    match fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).doing(|| "remove half a store".into()),
        _ => {}
    }
    fs::create_dir(&new).doing(|| format!("create {}", new.display()))?;
    let mut creating = options.clone();
    creating.create_if_missing(true);
    creating.set_error_if_exists(true);
    drop(Latch::open(&new.join("db"), &creating).map_err(|e| refused(dir, &e))?);
    let store = identity::create(&new)?;
    Watermark::create(&new, store)?;
    sync_dir(&new.join("db"))?;
    sync_dir(&new)?;
    fs::rename(&new, home).doing(|| format!("rename {}", new.display()))?;
    sync_dir(dir)
}

/// What a look without changing anything gave.
struct Inspected {
    /// All records.
    found: Found,
    /// Last sequence number of them.
    recovered: u64,
    /// RocksDB would go on behind a gap: the WAL files must be cut first.
    jumped: bool,
}

/// Recovers without changing a file, compares with the watermark, checks every record.
fn inspect(
    dir: &Path,
    db: &Path,
    replay: &Replay,
    store: StoreId,
    options: &Options,
    mark: u64,
) -> Result<Inspected, OpenError> {
    let latch = Latch::open_read_only(db, options).map_err(|e| OpenError::of_database(&e))?;
    let replayed = latch.latest_sequence();
    let recovered = replayed.min(replay.reach);
    if recovered < mark {
        return Err(lost(&replay.files, recovered, mark));
    }
    if replayed == recovered {
        return Ok(Inspected { found: recover::pass(&latch, store)?, recovered, jumped: false });
    }
    drop(latch);
    let trial = replay.stage(dir).doing(|| "copy the WAL files before a gap".into())?;
    let found = before_the_gap(&trial, db, replay.reach, store, options);
    replay::discard(dir).doing(|| format!("remove {}", trial.display()))?;
    Ok(Inspected { found: found?, recovered, jumped: true })
}

/// Reads what is left when the WAL files are cut at a gap, on the copies in `trial`.
fn before_the_gap(trial: &Path, db: &Path, reach: u64, store: StoreId, options: &Options) -> Result<Found, OpenError> {
    let mut on_trial = options.clone();
    on_trial.set_wal_dir(trial);
    let latch = Latch::open_read_only(db, &on_trial).map_err(|e| OpenError::of_database(&e))?;
    match latch.latest_sequence() {
        reached if reached == reach => recover::pass(&latch, store),
        reached => Err(OpenError::Damaged(format!("recovery reached {reached}, the WAL files end at {reach}"))),
    }
}

fn lost(files: &[WalFile], recovered: u64, expected: u64) -> OpenError {
    let place = wal_scan::place_of_loss(files, recovered);
    let groups = place.as_ref().map(|(file, ..)| file.groups.iter().copied().collect()).unwrap_or_default();
    let place = place.map(|(file, offset, what)| (file.name.clone(), offset, what));
    OpenError::Lost(Box::new(LostLog { recovered, expected, place, groups }))
}

fn keep_cut_tail(dir: &Path, db: &Path, replay: &Replay, recovered: u64, limit: u64) -> Result<(), OpenError> {
    let cut = wal_scan::has_cut_tail(&replay.files, recovered);
    metrics::on_open(cut);
    if !cut {
        return Ok(());
    }
    let copied = salvage::keep(dir, db, recovered, limit).doing(|| "copy WAL files with an unsynced tail".into())?;
    let place = wal_scan::place_of_loss(&replay.files, recovered).map(|(file, at, what)| (&file.name, at, what));
    tracing::warn!(recovered, copied, ?place, "an unsynced tail of the log is cut; nothing acknowledged is lost");
    Ok(())
}

fn refused(dir: &Path, e: &rocksdb::Error) -> OpenError {
    let locked = |how| e.as_ref().contains(how);
    if locked("lock hold by current process") || locked("While lock file") {
        return OpenError::InUse(dir.to_owned());
    }
    OpenError::of_database(e)
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|d| d.sync_all()).doing(|| format!("sync {}", dir.display()))
}
