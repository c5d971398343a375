//! The only file that names the adapters: it brings log store, network, machines and node together, in order.
//!
//! Leaves to others: each part's own work. Invariant: no message leaves before identity, log store and every group
//! were found right (boot.md).

use crate::builder::Builder;
use crate::core::Core;
use crate::engine::{Engine, Peer};
use crate::error::OpenError;
use pontoon_raftstore::ids::ClusterId;

/// What runs.
pub(crate) struct Wired {}

/// Opens a node.
pub(crate) async fn open(builder: Builder) -> Result<Engine, OpenError> {
    Err(OpenError::NotFounded(builder.dir))
}

impl Wired {
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        None
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    /// Ends everything, in the reverse order; what went wrong.
    pub(crate) async fn stop(self, core: &Core) -> Vec<String> {
        core.node.stop();
        core.kinds.values().for_each(|k| k.stop());
        core.timer.stop();
        Vec::new()
    }
}
