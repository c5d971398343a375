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

impl NodeId {
    /// `most`, up to a quarter less by the node's number: how much this node lets gather before it does costly work. Replicas
    /// of the same groups take in the same bytes in lockstep. If all let the same gather, all would work it off at the
    /// same moments, and no quorum would be without one that does. By the golden ratio: the first few nodes lie far
    /// apart, each later one between two.
    #[must_use]
    pub fn staggered(self, most: u64) -> u64 {
        let fraction = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32; // of 2^32
        most - ((u128::from(most / 4) * u128::from(fraction)) >> 32) as u64
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_lie_apart_within_a_quarter() {
        let most = 64 << 20;
        for nodes in [3, 5, 7] {
            let mut sizes: Vec<u64> = (1..=nodes).map(|n| NodeId(n).staggered(most)).collect();
            assert!(sizes.iter().all(|size| (most - most / 4..=most).contains(size)));
            sizes.sort_unstable();
            let nearest = sizes.windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(nearest >= Some(most / 4 / (2 * nodes)), "{nodes} nodes: {sizes:?}");
        }
        assert_eq!(NodeId(u64::MAX).staggered(0), 0);
        assert!(NodeId(u64::MAX).staggered(u64::MAX) >= u64::MAX / 4 * 3);
    }
}
