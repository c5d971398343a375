//! Copies of WAL files whose unsynced tail RocksDB is about to cut: kept for whoever wants to look, bounded.
//!
//! Leaves to others: whether something was cut (`wal_scan`). Nothing ever reads a copy back.
//! Invariant: copies together take at most the configured bytes; the oldest go first; what does not fit is not copied.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Name of the folder.
pub(crate) const FOLDER: &str = "salvage";

/// Copies the WAL files of `db` into a new folder under `dir`, named by the recovered sequence number. Says how many.
pub(crate) fn keep(dir: &Path, db: &Path, recovered: u64, limit: u64) -> io::Result<usize> {
    let mut wals = Vec::new();
    for entry in fs::read_dir(db)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "log") {
            wals.push((entry.file_name(), entry.metadata()?.len()));
        }
    }
    wals.sort();
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let mut room = limit;
    wals.reverse(); // newest first: the tail was cut there
    wals.retain(|(_, len)| {
        let fits = *len <= room;
        room -= if fits { *len } else { 0 };
        fits
    });
    make_room(&folder, room)?;
    let target = new_folder(&folder, recovered)?;
    for (name, _) in &wals {
        fs::copy(db.join(name), target.join(name))?;
        File::open(target.join(name))?.sync_all()?;
    }
    File::open(&target)?.sync_all()?;
    File::open(&folder)?.sync_all()?;
    Ok(wals.len())
}

fn new_folder(folder: &Path, recovered: u64) -> io::Result<std::path::PathBuf> {
    for attempt in 0_u32.. {
        let target = folder.join(format!("{recovered:020}-{attempt}"));
        match fs::create_dir(&target) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| target),
        }
    }
    Err(io::Error::other("no free name"))
}

/// Removes the oldest copies until the rest takes at most `room` bytes.
fn make_room(folder: &Path, room: u64) -> io::Result<()> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let mut bytes = 0;
        for file in fs::read_dir(entry.path())? {
            bytes += file?.metadata()?.len();
        }
        copies.push((entry.metadata()?.modified()?, entry.path(), bytes));
    }
    copies.sort();
    let mut total: u64 = copies.iter().map(|c| c.2).sum();
    for (_, path, bytes) in copies {
        if total <= room {
            break;
        }
        fs::remove_dir_all(path)?;
        total -= bytes;
    }
    Ok(())
}
