//! The twin of a directory of snapshot files.
//!
//! A crash cuts a file to what was synced of it, drops staged files, and may bring back a file that was removed: nothing
//! promises that a removal is durable. Leaves to others: what is in the files.
//! Invariant: what is published was synced.

use super::power::{CrashPoint, Power};
use crate::env::{SnapshotFiles, SpoolReader, SpoolWriter};
use crate::ids::SpoolId;
use crate::testing::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The medium: survives crashes of its node.
#[derive(Debug, Default)]
pub struct MemFiles {
    /// All state.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By name.
    files: BTreeMap<SpoolId, File>,
    /// Published files that were removed since the last directory sync.
    removed: BTreeMap<SpoolId, File>,
    /// Writes to let through before the disk is full.
    full_after: Option<u32>,
    /// Writes that found it full.
    refused: u64,
    /// The next publication fails behind its first file.
    fails_to_publish: bool,
    /// Syncs of the directory.
    publications: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// Contents.
    data: Vec<u8>,
    /// Length that survives.
    synced: usize,
    /// Permanent?
    published: bool,
}

impl MemFiles {
    /// Opens the directory: staged files of an earlier start go.
    #[must_use]
    pub fn open(self: &Arc<MemFiles>, power: Arc<Power>) -> MemSnapshotFiles {
        self.inner.lock().files.retain(|_, f| f.published);
        MemSnapshotFiles { medium: self.clone(), power }
    }

    /// The power fails.
    pub fn crash(&self, rng: &mut Rng) {
        let mut inner = self.inner.lock();
        let removed = std::mem::take(&mut inner.removed);
        inner.files.extend(removed.into_iter().filter(|_| rng.chance(500)));
        inner.files.retain(|_, f| f.published);
        inner.files.values_mut().for_each(|f| f.data.truncate(f.synced));
        inner.full_after = None;
    }

    /// The disk is full after so many more writes, until the next crash or `make_room`.
    pub fn fill_after(&self, writes: u32) {
        self.inner.lock().full_after = Some(writes);
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.inner.lock().full_after = None;
    }

    /// Writes that found the disk full since it was made.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inner.lock().refused
    }

    /// The next publication fails when one file has its name.
    pub fn fail_next_publication(&self) {
        self.inner.lock().fails_to_publish = true;
    }

    /// Successful publications since it was made.
    #[must_use]
    pub fn publications(&self) -> u64 {
        self.inner.lock().publications
    }

    /// A copy of what survives, as somebody might take of a directory.
    #[must_use]
    pub fn copy(&self) -> Arc<MemFiles> {
        let files = self.inner.lock().files.iter().filter(|f| f.1.published).map(|(id, f)| (*id, f.clone())).collect();
        Arc::new(MemFiles { inner: Mutex::new(Inner { files, ..Inner::default() }) })
    }

    /// A bit of a file rots.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip(&self, id: SpoolId, at: u64) {
        let mut inner = self.inner.lock();
        let file = inner.files.get_mut(&id).expect("a file that exists");
        file.data[usize::try_from(at).expect("files of a test are small")] ^= 0x40;
    }

    /// Files that exist, staged ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.lock().files.len()
    }
}

/// The handle of one start of one node.
#[derive(Clone, Debug)]
pub struct MemSnapshotFiles {
    /// What survives.
    medium: Arc<MemFiles>,
    /// Of this start.
    power: Arc<Power>,
}

/// One open file.
struct Handle {
    /// Its directory.
    files: MemSnapshotFiles,
    /// Its name.
    id: SpoolId,
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found(id: SpoolId) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no snapshot file {id}"))
}

impl MemSnapshotFiles {
    fn with<T>(&self, id: SpoolId, f: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        if !self.power.is_on() {
            return Err(no_power());
        }
        f(self.medium.inner.lock().files.get_mut(&id).ok_or_else(|| not_found(id))?)
    }

    fn charge_write(&self) -> io::Result<()> {
        let mut inner = self.medium.inner.lock();
        match &mut inner.full_after {
            Some(0) => {
                inner.refused += 1;
                Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl SpoolWriter for Handle {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.files.charge_write()?;
        self.files.with(self.id, |f| {
            f.data.extend_from_slice(data);
            Ok(())
        })
    }
}

impl SpoolReader for Handle {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.files.with(self.id, |f| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(f.data.len());
            let n = buf.len().min(f.data.len() - from);
            buf[..n].copy_from_slice(&f.data[from..from + n]);
            Ok(n)
        })
    }

    fn len(&mut self) -> io::Result<u64> {
        self.files.with(self.id, |f| Ok(f.data.len() as u64))
    }
}

impl SnapshotFiles for MemSnapshotFiles {
    fn create(&self, id: SpoolId) -> io::Result<Box<dyn SpoolWriter>> {
        if !self.power.is_on() {
            return Err(no_power());
        }
        self.charge_write()?;
        let mut inner = self.medium.inner.lock();
        if inner.files.contains_key(&id) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("snapshot file {id} exists")));
        }
        inner.files.insert(id, File::default());
        Ok(Box::new(Handle { files: self.clone(), id }))
    }

    fn open(&self, id: SpoolId) -> io::Result<Box<dyn SpoolReader>> {
        self.with(id, |_| Ok(()))?;
        Ok(Box::new(Handle { files: self.clone(), id }))
    }

    fn publish(&self, ids: &[SpoolId]) -> io::Result<()> {
        for id in ids {
            self.with(*id, |f| {
                f.synced = f.data.len();
                if f.published { Err(not_found(*id)) } else { Ok(()) }
            })?;
        }
        // The power may fail with some of them renamed.
        for id in ids {
            if !self.power.pass(CrashPoint::BeforePublish) {
                return Err(no_power());
            }
            self.with(*id, |f| {
                f.published = true;
                Ok(())
            })?;
            if std::mem::take(&mut self.medium.inner.lock().fails_to_publish) {
                return Err(io::Error::other("the directory fails"));
            }
        }
        let mut inner = self.medium.inner.lock();
        inner.removed.clear();
        inner.publications += 1;
        drop(inner);
        if self.power.pass(CrashPoint::AfterPublish) { Ok(()) } else { Err(no_power()) }
    }

    fn remove(&self, id: SpoolId) -> io::Result<()> {
        if !self.power.is_on() {
            return Err(no_power());
        }
        let mut inner = self.medium.inner.lock();
        if let Some(file) = inner.files.remove(&id).filter(|f| f.published) {
            inner.removed.insert(id, file);
        }
        Ok(())
    }

    fn published(&self) -> io::Result<Vec<SpoolId>> {
        if !self.power.is_on() {
            return Err(no_power());
        }
        let inner = self.medium.inner.lock();
        Ok(inner.files.iter().filter(|(_, f)| f.published).map(|(id, _)| *id).collect())
    }
}
