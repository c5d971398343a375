//! Why a store does not open, and what is wrong with a record. Each variant says what to do.
//!
//! Invariant: nothing here is ever answered by trying again in the same process.

use pontoon_raftstore::ids::{GroupId, Index};
use std::fmt;
use std::path::PathBuf;

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open: stop that one, or use another directory.
    #[error("directory in use: {} is locked by another process", .0.display())]
    InUse(PathBuf),
    /// Written by a newer build: use that one.
    #[error("log store format {found} is newer than this build's {known}: use the newer build")]
    TooNew {
        /// In the directory.
        found: u32,
        /// Highest that this build reads.
        known: u32,
    },
    /// A file that makes the directory a log store is missing or damaged: restore the directory whole, or give the node
    /// a new id and an empty directory.
    #[error("not a whole log store: {0}")]
    NotWhole(String),
    /// Acknowledged log is gone: the node must not start from this directory.
    #[error(transparent)]
    Lost(Box<LostLog>),
    /// A record that recovery reads is damaged: the node must not start from this directory.
    #[error("log store is corrupt, the node must not start from it: {0}")]
    Corrupt(CorruptRecord),
    /// RocksDB cannot read its own files: the node must not start from this directory.
    #[error("log store is damaged, the node must not start from it: {0}")]
    Damaged(String),
    /// A setting that safety rests on was changed silently. A bug, or another RocksDB.
    #[error("RocksDB did not take the option {name} = {wanted}: it reports {found}")]
    OptionNotInEffect {
        /// The option.
        name: &'static str,
        /// As asked for.
        wanted: String,
        /// As read back.
        found: String,
    },
    /// Settings that make no sense, all of them.
    #[error("log store settings: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The disk does not answer, or has no room.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl OpenError {
    /// What RocksDB says when it does not open: the disk's fault, which may pass, or damage, which does not.
    pub(crate) fn of_database(e: &rocksdb::Error) -> OpenError {
        let text = e.to_string();
        // The second is the crate's own, before it asks RocksDB.
        let of_disk = e.kind() == rocksdb::ErrorKind::IOError || text.starts_with("Failed to create");
        if of_disk && !text.contains("No such file") {
            return OpenError::Io { doing: "open the database".into(), source: std::io::Error::other(text) };
        }
        OpenError::Damaged(text)
    }
}

/// Recovery ends below the durable watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostLog {
    /// Sequence number that recovery reaches.
    pub recovered: u64,
    /// Sequence number that was synced.
    pub expected: u64,
    /// Where the WAL stops making sense, as far as its headers tell: file, offset, what is there.
    pub place: Option<(String, u64, String)>,
    /// Groups with records behind that place, as far as they are readable; at most `wal_scan::MAX_GROUPS`.
    pub groups: Vec<GroupId>,
}

impl fmt::Display for LostLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged log is lost: recovered sequence number {}, expected at least {}",
            self.recovered, self.expected
        )?;
        match &self.place {
            Some((file, offset, what)) => write!(f, "; {file} at offset {offset}: {what}")?,
            None => f.write_str("; no WAL file holds the next record: one was removed")?,
        }
        if !self.groups.is_empty() {
            write!(f, "; readable records behind it belong to groups")?;
            self.groups.iter().try_for_each(|g| write!(f, " {g}"))?;
        }
        f.write_str(". The node must not start from this directory: nothing was changed in it. ")?;
        f.write_str("Restore it, or replace the node under a new node id")
    }
}

impl std::error::Error for LostLog {}

/// A record that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptRecord {
    /// Whose; `None`: a record of the node.
    pub group: Option<GroupId>,
    /// First bad index; `None`: a record beside the entries.
    pub index: Option<Index>,
    /// Table files that may hold it; none: the WAL.
    pub files: Vec<String>,
    /// Expected and found.
    pub what: String,
}

impl CorruptRecord {
    /// Entries are missing from `index` on.
    pub(crate) fn hole(group: GroupId, index: Index) -> CorruptRecord {
        let what = "entries are missing".to_owned();
        CorruptRecord { group: Some(group), index: Some(index), files: Vec::new(), what }
    }
}

impl fmt::Display for CorruptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.group, self.index) {
            (Some(group), Some(index)) => write!(f, "group {group} at index {index}")?,
            (Some(group), None) => write!(f, "group {group}")?,
            (None, _) => f.write_str("node record")?,
        }
        let place = if self.files.is_empty() { "in the WAL".to_owned() } else { self.files.join(", ") };
        write!(f, " ({place}): {}", self.what)
    }
}

impl std::error::Error for CorruptRecord {}

/// Names what was tried when the system refused.
pub(crate) trait Doing<T> {
    /// Adds the name.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, OpenError>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { doing: what(), source })
    }
}
