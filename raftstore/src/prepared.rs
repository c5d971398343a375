//! A replica with its machine, made by boot or by creation, and how it enters the running node.
//!
//! Leaves to others: finding it out (`boot`), making it durable (`lifecycle`).
//! Invariant: the applier has the machine, and the router the read view, before the poller can step the replica.

use crate::env::{Machine, StoredGroup};
use crate::ids::{BootEpoch, GroupId, PollerId};
use crate::router::{GroupCell, Router};
use crate::task::{ApplierMsg, Control, Newborn, PollerMsg};
use std::sync::Arc;

/// Ready to be stepped.
pub struct PreparedReplica {
    /// For the poller.
    pub newborn: Newborn,
    /// For the applier.
    pub machine: Box<dyn Machine>,
}

impl PreparedReplica {
    /// Hands machine, read view and replica to their owners.
    pub fn launch(self, router: &Router) {
        let StoredGroup { group, replica, generation, .. } = self.newborn.stored;
        let kind = self.newborn.stored.creation.kind.clone();
        let (mail, poller) = (router.mail(), router.mail().home_of(group));
        let cell = outside(router, group, &self.newborn.stored, poller);
        cell.set_reader(self.machine.reader());
        let record = Box::new(self.newborn.record.clone());
        let machine = self.machine;
        mail.applier(group, ApplierMsg::Open { group, replica, generation, kind, machine, poller, record });
        mail.poller(poller, PollerMsg::Control(Control::Adopt(Box::new(self.newborn))));
    }
}

/// A replica that stands still from the start: seen by callers, stepped by nobody.
pub struct StoppedReplica {
    /// What the log store has.
    pub stored: StoredGroup,
    /// Why it does not run.
    pub why: String,
}

impl StoppedReplica {
    /// Shows it to callers, and tells the applier what is there, should the replica be destroyed.
    pub fn show(&self, router: &Router) {
        let StoredGroup { group, replica, generation, .. } = self.stored;
        let cell = outside(router, group, &self.stored, router.mail().home_of(group));
        cell.with_status(|s| s.quarantined = Some(self.why.clone()));
        let kind = self.stored.creation.kind.clone();
        let generations = self.stored.intent.iter().map(|i| i.generation).chain([generation]).collect();
        router.mail().applier(group, ApplierMsg::Stopped { group, replica, kind, generations });
    }
}

fn outside(router: &Router, group: GroupId, stored: &StoredGroup, poller: PollerId) -> Arc<GroupCell> {
    let cell = Arc::new(GroupCell::new(group, stored.replica, stored.creation.kind.clone(), poller));
    router.register(cell.clone());
    cell
}

/// Seed of a replica's election jitter: differs by node (the epoch's nonce), start and group.
#[must_use]
pub fn jitter_seed(epoch: BootEpoch, group: GroupId) -> u64 {
    epoch.nonce ^ epoch.counter.rotate_left(32) ^ crate::group_spec::spread(group)
}
