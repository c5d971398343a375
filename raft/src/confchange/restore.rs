//! A tracker from a stored configuration, by the same operations that any change takes.
//!
//! Invariant: what comes out says the same as what went in, up to the order of the lists (raft-core S36).

use super::{Changer, ConfChangeError};
use crate::conf_change::{ConfChangeSingle, ConfChangeType};
use crate::ids::{Index, ReplicaId};
use crate::state::ConfState;
use crate::tracker::{Tracker, WindowLimits};

/// The tracker of `conf_state`; its members are probed from `last`.
pub fn restore(conf_state: &ConfState, last: Index, limits: WindowLimits) -> Result<Tracker, ConfChangeError> {
    let mut tracker = Tracker::new(limits);
    let ops = |ids: &[ReplicaId], kind| ids.iter().map(|id| ConfChangeSingle::new(kind, *id)).collect::<Vec<_>>();
    let mut incoming = ops(&conf_state.voters_outgoing, ConfChangeType::RemoveNode);
    incoming.extend(ops(&conf_state.voters, ConfChangeType::AddNode));
    incoming.extend(ops(&conf_state.learners, ConfChangeType::AddLearnerNode));
    incoming.extend(ops(&conf_state.learners_next, ConfChangeType::AddLearnerNode));

    if conf_state.voters_outgoing.is_empty() {
        for op in incoming {
            tracker = Changer::new(&tracker, last).simple(&[op])?;
        }
    } else {
        for op in ops(&conf_state.voters_outgoing, ConfChangeType::AddNode) {
            tracker = Changer::new(&tracker, last).simple(&[op])?;
        }
        tracker = Changer::new(&tracker, last).enter_joint(conf_state.auto_leave, &incoming)?;
    }
    let got = tracker.conf_state();
    if got.equivalent(conf_state) {
        Ok(tracker)
    } else {
        Err(ConfChangeError::NotRestored { wanted: Box::new(conf_state.clone()), got: Box::new(got) })
    }
}
