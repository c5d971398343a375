//! Errors of the face. Those of groups are raftstore's (law 6); this file adds what can go wrong before there is one.
//!
//! Invariant: an `OpenError` is returned before any promise was made: no vote, no ack, no answer left this node.

use crate::state_machine::SmError;
pub use pontoon_raftstore::error::{
    AdminError, BootError, GroupError, LeaderHint, LifecycleError, Limit, Lost, ProposeError, ReadError,
};
use std::io;
use std::path::PathBuf;

/// Why an engine did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Fix these, all at once.
    #[error("{} configuration problem(s):{}", .0.len(), list(.0))]
    Config(Vec<String>),
    /// Another engine has the directory open.
    #[error("directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The peer address cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// As asked for.
        addr: String,
        /// What the system said.
        error: io::Error,
    },
    /// Another node's directory, another cluster's, or founded otherwise.
    #[error("directory belongs to {found}, asked for {asked}")]
    WrongIdentity {
        /// On disk.
        found: String,
        /// Given.
        asked: String,
    },
    /// The directory holds no node, and neither founding nor joining was asked for.
    #[error("directory {0} holds no node: found a cluster with it, join one, or give the right directory")]
    NotFounded(PathBuf),
    /// Written by a newer version.
    #[error("on-disk format {0} is newer than this build")]
    TooNew(u32),
    /// The log store refuses to open: the message names file, offset and expected number as far as known.
    #[error("log store: {0}")]
    LogStore(String),
    /// The peers did not all confirm this founding in time, or no member let this node in; start them, then start again.
    #[error("not admitted: {0}")]
    NotAdmitted(String),
    /// Recovery found what must not be.
    #[error(transparent)]
    Boot(BootError),
    /// A kind could not be started.
    #[error("state machines of kind {kind:?}: {error}")]
    Kind {
        /// Its name.
        kind: String,
        /// What it said.
        error: SmError,
    },
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<BootError> for OpenError {
    fn from(error: BootError) -> OpenError {
        match error {
            BootError::Config(problems) => OpenError::Config(problems),
            BootError::WrongIdentity { found, asked } => OpenError::WrongIdentity { found, asked },
            BootError::Load(e) => OpenError::LogStore(e.to_string()),
            BootError::Write(e) => OpenError::LogStore(e.to_string()),
            other => OpenError::Boot(other),
        }
    }
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}
