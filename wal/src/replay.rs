//! What RocksDB replays at open, and how far it may be believed: the WAL files behind the flushed tables, up to the
//! first missing sequence number.
//!
//! Point-in-time recovery stops at a record that is damaged, or of an older life of its file, and goes on in a later
//! file only where that one begins with the next number. But it looks for damage, not for numbers (looked up in
//! 11.8.1, `MaybeReviseStopReplayForCorruption`, `ReadPhysicalRecord`): a file that ends where a record ends is no
//! damage, nor is a file that is gone, nor zeros from the end of a record to the end of its block. What comes behind
//! such a gap is applied. So the numbers are counted here.
//! Leaves to others: the watermark, and what a refusal says (`opening`). Invariant: nothing is changed but by `cut`.

use crate::error::{Doing, OpenError};
use crate::latch::{Flushed, Latch};
use crate::wal_scan::{self, WalFile};
use rocksdb::Options;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the folder, in the store's own directory, where a cut is tried before it is made.
pub(crate) const TRIAL: &str = "cut.trial";

/// The WAL files that RocksDB replays.
pub(crate) struct Replay {
    /// Where they are.
    db: PathBuf,
    /// By number.
    pub(crate) files: Vec<WalFile>,
    /// Last sequence number before the first missing one.
    pub(crate) reach: u64,
}

impl Replay {
    /// Reads them. `home` holds `db`, and no WAL file itself.
    pub(crate) fn survey(home: &Path, options: &Options) -> Result<Replay, OpenError> {
        let db = home.join("db");
        let Flushed { sequence, first_wal } = Latch::flushed(&db, home, options)?;
        let mut files = wal_scan::scan(&db).doing(|| "read the WAL files".into())?;
        files.retain(|f| f.number >= first_wal);
        let reach = reach(&files, sequence);
        Ok(Replay { db, files, reach })
    }

    /// The WAL files as they would be after `cut`, in a folder of their own below `dir`.
    pub(crate) fn stage(&self, dir: &Path) -> io::Result<PathBuf> {
        discard(dir)?;
        let trial = dir.join(TRIAL);
        fs::create_dir(&trial)?;
        let (kept, _) = self.files.split_at(self.kept());
        for file in kept {
            fs::copy(self.db.join(&file.name), trial.join(&file.name))?;
        }
        if let Some(last) = kept.last() {
            OpenOptions::new().write(true).open(trial.join(&last.name))?.set_len(last.end)?;
        }
        Ok(trial)
    }

    /// Removes everything behind `reach`, the newest first: at a crash in between the gap is still there, or all is done.
    pub(crate) fn cut(&self) -> io::Result<()> {
        let (kept, gone) = self.files.split_at(self.kept());
        for file in gone.iter().rev() {
            fs::remove_file(self.db.join(&file.name))?;
            File::open(&self.db)?.sync_all()?;
        }
        if let Some(last) = kept.last() {
            let file = OpenOptions::new().write(true).open(self.db.join(&last.name))?;
            file.set_len(last.end)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// How many files stay in a cut: up to the one that ends with `reach`.
    fn kept(&self) -> usize {
        self.files.iter().rposition(|f| f.last == Some(self.reach)).map_or(0, |at| at + 1)
    }
}

/// Removes what a trial left.
pub(crate) fn discard(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(TRIAL)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// How far the files go on behind `flushed` without a gap.
fn reach(files: &[WalFile], flushed: u64) -> u64 {
    files.iter().fold(flushed, |reached, file| match (file.first, file.last) {
        (Some(first), Some(last)) if first <= reached + 1 => reached.max(last),
        _ => reached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(ranges: &[(u64, u64)]) -> Vec<WalFile> {
        let file = |(number, (first, last)): (usize, &(u64, u64))| {
            let range = (*last > 0).then_some((*first, *last));
            let (first, last) = (range.map(|r| r.0), range.map(|r| r.1));
            WalFile { number: number as u64, first, last, ..WalFile::default() }
        };
        ranges.iter().enumerate().map(file).collect()
    }

    /// What is reached, and how many files stay.
    fn judged(ranges: &[(u64, u64)], flushed: u64) -> (u64, usize) {
        let files = files(ranges);
        let reach = reach(&files, flushed);
        let replay = Replay { db: PathBuf::new(), files, reach };
        (replay.reach, replay.kept())
    }

    #[test]
    fn numbers_are_counted_over_all_files() {
        const EMPTY: (u64, u64) = (0, 0);
        assert_eq!(judged(&[], 7), (7, 0));
        assert_eq!(judged(&[EMPTY], 7), (7, 0));
        assert_eq!(judged(&[(8, 20), EMPTY, (21, 30)], 7), (30, 3));
        assert_eq!(judged(&[(8, 20), (22, 30)], 7), (20, 1), "a gap between files");
        assert_eq!(judged(&[(9, 20)], 7), (7, 0), "a gap behind the tables");
        assert_eq!(judged(&[(8, 20), EMPTY, (30, 40), (41, 50)], 7), (20, 1), "a file is gone");
        assert_eq!(judged(&[(1, 5), (6, 20)], 7), (20, 2), "a file that is flushed in part");
    }
}
