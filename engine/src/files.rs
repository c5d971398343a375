//! The engine's directory: its lock, its parts, and snapshot files in it.
//!
//! ```text
//! LOCK            held while an engine runs
//! log/            the log store's
//! kinds/NAME/     one per kind
//! snapshots/      published: 16 hex digits + ".snap"; staged: the same in staged/
//! ```
//! Leaves to others: what the files hold. Invariant: a snapshot file under its published name is whole and synced.

use crate::error::OpenError;
use parking_lot::Mutex;
use pontoon_raftstore::env::{SnapshotFiles, SpoolReader, SpoolWriter};
use pontoon_raftstore::ids::SpoolId;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = ".snap";

/// Exclusive use of a directory until dropped; the system releases it when the process dies.
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates the directory if need be.
    pub(crate) fn take(dir: &Path) -> Result<DirLock, OpenError> {
        make_dir(dir)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("LOCK"))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }
}

/// Creates a directory and makes its name durable.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync_dir(dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Snapshot files in a directory.
pub(crate) struct SnapshotDir {
    published: PathBuf,
    staged: PathBuf,
    /// Staged files as they were written: an error of writing back is told for sure only to who had the file open then.
    written: Mutex<BTreeMap<SpoolId, Arc<File>>>,
}

impl SnapshotDir {
    /// Opens it; what an earlier start left staged is removed.
    pub(crate) fn open(dir: &Path) -> io::Result<SnapshotDir> {
        let staged = dir.join("staged");
        make_dir(&staged)?;
        for left in fs::read_dir(&staged)? {
            fs::remove_file(left?.path())?;
        }
        Ok(SnapshotDir { published: dir.to_path_buf(), staged, written: Mutex::default() })
    }

    fn published(&self, id: SpoolId) -> PathBuf {
        self.published.join(name(id))
    }

    fn staged(&self, id: SpoolId) -> PathBuf {
        self.staged.join(name(id))
    }
}

fn name(id: SpoolId) -> String {
    format!("{:016x}{SUFFIX}", id.0)
}

/// Only names that this file makes: anything else in the directory is not ours.
fn id_of(file: &str) -> Option<SpoolId> {
    let id = u64::from_str_radix(file.strip_suffix(SUFFIX)?, 16).ok().map(SpoolId)?;
    (name(id) == file).then_some(id)
}

impl SnapshotFiles for SnapshotDir {
    fn create(&self, id: SpoolId) -> io::Result<Box<dyn SpoolWriter>> {
        if self.published(id).exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = OpenOptions::new().create_new(true).write(true).open(self.staged(id))?;
        let file = Arc::new(file);
        self.written.lock().insert(id, Arc::clone(&file));
        Ok(Box::new(Spool { file }))
    }

    fn open(&self, id: SpoolId) -> io::Result<Box<dyn SpoolReader>> {
        let file = match File::open(self.published(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::open(self.staged(id))?,
            other => other?,
        };
        Ok(Box::new(Spool { file: Arc::new(file) }))
    }

    fn publish(&self, ids: &[SpoolId]) -> io::Result<()> {
        for id in ids {
            let file = self.written.lock().get(id).cloned();
            file.ok_or(io::ErrorKind::NotFound)?.sync_all()?;
        }
        for id in ids {
            fs::rename(self.staged(*id), self.published(*id))?;
            self.written.lock().remove(id);
        }
        sync_dir(&self.published)
    }

    fn remove(&self, id: SpoolId) -> io::Result<()> {
        self.written.lock().remove(&id);
        for path in [self.published(id), self.staged(id)] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn published(&self) -> io::Result<Vec<SpoolId>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.published)? {
            found.extend(file?.file_name().to_str().and_then(id_of));
        }
        found.sort_unstable();
        Ok(found)
    }
}

struct Spool {
    file: Arc<File>,
}

impl SpoolWriter for Spool {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(data)
    }
}

impl SpoolReader for Spool {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pontoon_raftstore::testing::snapshot_files_contract::{self, FilesFixture};
    use tempfile::TempDir;

    struct World {
        dir: TempDir,
        files: Arc<SnapshotDir>,
    }

    impl FilesFixture for World {
        fn files(&self) -> Arc<dyn SnapshotFiles> {
            Arc::clone(&self.files) as _
        }
        fn crash_and_reopen(&mut self) {
            self.files = Arc::new(SnapshotDir::open(self.dir.path()).unwrap());
        }
    }

    #[test]
    fn the_contract_of_snapshot_files() {
        for (_, case) in snapshot_files_contract::CASES {
            let dir = tempfile::tempdir().unwrap();
            let files = Arc::new(SnapshotDir::open(dir.path()).unwrap());
            case(&mut World { dir, files });
        }
    }

    #[test]
    fn a_directory_is_used_by_one_engine_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("er");
        let lock = DirLock::take(&path).unwrap();
        assert!(matches!(DirLock::take(&path), Err(OpenError::InUse(p)) if p == path));
        drop(lock);
        DirLock::take(&path).unwrap();
    }
}
