//! Who is who on a node: nodes, groups, generations, batches; the core's ids are re-exported.
//!
//! Invariant: *node* is the process, *group* one replicated log, *replica* one group's copy on one node.

pub use pontoon_raft::{Index, LogPos, ReplicaId, Term, Tick};
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    )* };
}

ids! {
    /// A process of the cluster. Never reused once its disk is lost (boot.md 1). Above 0.
    NodeId,
    /// One replicated log. Above 0.
    GroupId,
    /// Which state-machine contents of a replica are the living ones; a snapshot install takes the next one (boot.md 5).
    Generation,
    /// Random name of a directory, made with it: another one for a known node id is another disk (boot.md 1).
    Incarnation,
    /// Order of log-store batches of one poller.
    BatchSeq,
    /// A spooled snapshot on this node: the only name a file of it ever has (never one from the wire).
    SpoolId,
    /// Names one snapshot stream at its sender; with the sender's node id unique while its process lives.
    StreamId,
    /// Log-store sequence number: grows with every write (boot.md 1, 9).
    StoreSeq,
}

/// Random name of a cluster, minted once when it is founded (boot.md 2).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One start of one disk: the counter orders them, the nonce tells copies apart (boot.md 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BootEpoch {
    /// Grows by one with every start, synced before the first message.
    pub counter: u64,
    /// Random per start.
    pub nonce: u64,
}

/// Index of a poller of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PollerId(pub u32);
