//! The seam to snapshot files: so that crashes during building, receiving and installing can be simulated.
//!
//! Names are numbers made here, never a path from the wire. A file is *staged* until `publish`; what is staged is
//! garbage after a crash.

use crate::ids::SpoolId;
use std::io;

/// A file being written.
pub trait SpoolWriter: Send {
    /// Appends. Durable once it is published.
    fn write(&mut self, data: &[u8]) -> io::Result<()>;
}

/// A file being read.
pub trait SpoolReader: Send {
    /// Fills a prefix of `buf`; 0 at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    fn len(&mut self) -> io::Result<u64>;
    /// Is it empty?
    fn is_empty(&mut self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of snapshot files.
pub trait SnapshotFiles: Send + Sync {
    /// A new staged file. Fails if the id exists.
    fn create(&self, id: SpoolId) -> io::Result<Box<dyn SpoolWriter>>;
    /// A staged or published file.
    fn open(&self, id: SpoolId) -> io::Result<Box<dyn SpoolReader>>;
    /// Makes staged files permanent together: all of them synced, then all renamed, then one sync of the directory. After an
    /// error each is either permanent or staged.
    fn publish(&self, ids: &[SpoolId]) -> io::Result<()>;
    /// Removes a staged or published file; not there is fine.
    fn remove(&self, id: SpoolId) -> io::Result<()>;
    /// Published files, ascending. Staged ones of an earlier start are removed when the directory is opened.
    fn published(&self) -> io::Result<Vec<SpoolId>>;
}

const _: fn(&dyn SnapshotFiles) = |_| {};
