//! The end of a replica: tombstone first, contents after it.
//!
//! Leaves to others: stopping the replica and writing its tombstone behind its last batch (its poller).
//! Invariant: contents are deleted only once the tombstone is durable; whoever asks in between waits for the same one.

use super::{Effect, Life, Lifecycle, Slot};
use crate::env::{GroupOp, GroupWrite};
use crate::error::{AdminError, GroupError, LifecycleError};
use crate::ids::{GroupId, ReplicaId};
use crate::mail::Mail;
use crate::proposal::{AdminDone, AdminSlot};
use crate::task::{ApplierMsg, Control, LifecycleMsg, PollerMsg};
use std::sync::Arc;

impl Lifecycle {
    pub(super) fn destroy(&mut self, group: GroupId, done: Slot) {
        if let Some(closed) = &self.closed {
            return done.done(Err(closed.clone().into()));
        }
        match self.lives.get_mut(&group) {
            None if self.tombstones.contains_key(&group) => done.done(Ok(())),
            None => done.done(Err(GroupError::NotFound(group).into())),
            Some(Life::Burying { waiters }) => waiters.push(done),
            Some(Life::Creating { .. }) => {
                done.done(Err(LifecycleError::BadSpec("the group is being created".to_owned())));
            }
            Some(Life::Standing { replica, runs, .. }) => {
                let (replica, runs) = (*replica, *runs);
                self.lives.insert(group, Life::Burying { waiters: vec![done] });
                self.bury(group, replica, runs);
            }
        }
    }

    /// Removed from its group, and needed by nobody: destroyed as if somebody here had asked for it.
    pub(super) fn on_dismissed(&mut self, group: GroupId, dismissed: ReplicaId) {
        match self.lives.get(&group) {
            Some(Life::Standing { replica, runs, .. }) if *replica == dismissed && self.closed.is_none() => {
                let runs = *runs;
                tracing::info!(%group, replica = %dismissed, "removed from its group: destroyed");
                self.lives.insert(group, Life::Burying { waiters: Vec::new() });
                self.bury(group, dismissed, runs);
            }
            _ => {}
        }
    }

    fn bury(&mut self, group: GroupId, replica: ReplicaId, runs: bool) {
        let mail = self.router.mail();
        if runs {
            // Its owner has batches of it in flight: only behind them may the tombstone stand.
            let done = Arc::new(Undertaker { group, mail: mail.clone() });
            let poller = self.router.cell(group).map_or_else(|| mail.home_of(group), |cell| cell.poller);
            mail.poller(poller, PollerMsg::Control(Control::Destroy { group, done }));
        } else {
            let next_replica = ReplicaId(replica.0 + 1);
            self.batch.push(GroupWrite { group, replica, op: GroupOp::Destroy { next_replica } });
            self.effects.push(Effect::Buried { group, next_replica });
        }
    }

    /// The tombstone is durable, or will not be.
    pub(super) fn on_buried(&mut self, group: GroupId, result: Result<ReplicaId, AdminError>) {
        let Some(Life::Burying { waiters }) = self.lives.remove(&group) else { return };
        let answer = match result {
            Ok(next_replica) => {
                self.tombstones.insert(group, next_replica);
                self.router.mark_destroyed(group);
                self.router.mail().applier(group, ApplierMsg::Destroy { group, next_replica });
                Ok(())
            }
            // The owner stops only with the node, or with the log store: nobody is born or buried here any more.
            Err(AdminError::Group(e)) => Err(LifecycleError::Group(e)),
            Err(e) => Err(LifecycleError::Group(GroupError::Quarantined(e.to_string()))),
        };
        waiters.iter().for_each(|slot| slot.done(answer.clone()));
    }
}

/// Carries the owner's word back to lifecycle.
struct Undertaker {
    group: GroupId,
    mail: Mail,
}

impl AdminSlot for Undertaker {
    fn done(&self, result: Result<AdminDone, AdminError>) {
        let result = result.and_then(|done| match done {
            AdminDone::Buried(next_replica) => Ok(next_replica),
            other => Err(AdminError::Refused(format!("a burial was answered with {other:?}"))),
        });
        self.mail.lifecycle(LifecycleMsg::Buried { group: self.group, result });
    }
}
