//! Membership (Raft 6): what may be proposed, what happens when it takes effect, leaving a joint state.
//!
//! Leaves to others: what a change does to the configuration (`confchange`).
//! Invariant: with validation on, at most one change is above `applied` on a leader; a change takes effect on
//! each replica when that replica applies it.

use crate::conf_change::ConfChangeV2;
use crate::confchange::{Changer, ConfChangeError};
use crate::entry::{Entry, EntryKind};
use crate::error::StepError;
use crate::ids::{Index, ReplicaId};
use crate::mutant::{self, Mutant};
use crate::raft::Raft;
use crate::replication::Empty;
use crate::state::ConfState;
use crate::storage::Storage;
use crate::trace::{ConfChangeRefusal, Trace};
use crate::tracker::Tracker;

impl<S: Storage> Raft<S> {
    /// May this change be proposed now? `earlier`: one that was accepted in the same proposal.
    pub(crate) fn may_propose_change(&mut self, entry: &Entry, earlier: Option<Index>) -> Result<bool, StepError> {
        let decoded = ConfChangeV2::from_entry(entry);
        let Ok(Some(change)) = decoded else { return Err(StepError::Malformed("an unreadable membership change")) };
        let Some(reason) = self.refusal(&change, earlier) else { return Ok(true) };
        if self.config.disable_conf_change_validation {
            return Ok(true);
        }
        let conf = self.tracker.conf_state();
        self.trace.note(|| Trace::ConfChangeIgnored { change, conf, reason });
        Ok(false)
    }

    fn refusal(&self, change: &ConfChangeV2, earlier: Option<Index>) -> Option<ConfChangeRefusal> {
        let pending = earlier.or(self.leader().map(|l| l.pending_conf)).unwrap_or_default();
        let applied = self.log.applied();
        let (joint, leaves) = (self.tracker.is_joint(), change.changes.is_empty());
        if pending > applied && !mutant::is(Mutant::PendingIgnored) {
            return Some(ConfChangeRefusal::Unapplied { pending, applied });
        }
        if joint && !leaves {
            return Some(ConfChangeRefusal::MustLeaveFirst);
        }
        if !joint && leaves {
            return Some(ConfChangeRefusal::NotJoint);
        }
        // Nothing can come between: what works now works when it is applied (S30).
        let trial = if self.config.strict { self.changed(change).err() } else { None };
        trial.map(ConfChangeRefusal::WouldFail)
    }

    fn changed(&self, change: &ConfChangeV2) -> Result<Tracker, ConfChangeError> {
        Changer::new(&self.tracker, self.log.last_index()).apply(change)
    }

    /// A committed change takes effect here.
    pub(crate) fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, ConfChangeError> {
        let tracker = self.changed(change)?;
        Ok(self.switch_config(tracker))
    }

    /// A new configuration takes effect, by a change, a snapshot, or at start (raft-core 10.5).
    pub(crate) fn switch_config(&mut self, tracker: Tracker) -> ConfState {
        self.tracker = tracker;
        let conf = self.tracker.conf_state();
        self.trace.note(|| Trace::SwitchedConf { conf: conf.clone() });
        if !self.is_leader() {
            return conf;
        }
        let is_member = self.tracker.contains(self.id) && !self.tracker.is_learner(self.id);
        if !is_member {
            if self.config.step_down_on_removal {
                self.become_follower(self.term, ReplicaId::NONE);
            }
            return conf;
        }
        if !conf.voters.is_empty() {
            self.lead_new_config();
        }
        conf
    }

    /// Quorums changed: what they hold may be committed now, what they confirmed may be served.
    fn lead_new_config(&mut self) {
        if !mutant::is(Mutant::NewQuorumNotAsked) && self.maybe_commit() {
            self.release_waiting_reads();
            self.broadcast_append(Empty::Send);
        } else {
            self.broadcast_append(Empty::Skip);
        }
        self.release_confirmed_reads();
        let transferee = self.leader().map(|l| l.transferee).unwrap_or_default();
        if !self.tracker.is_voter(transferee) {
            self.abort_transfer();
        }
    }

    /// Proposes to leave a joint state once the change that entered it is applied (S31).
    pub(crate) fn auto_leave(&mut self) {
        let applied = self.log.applied();
        let due = self.tracker.auto_leave() && self.leader().is_some_and(|l| applied >= l.pending_conf);
        if !due || mutant::is(Mutant::NeverLeaves) {
            return;
        }
        let leave = Entry { kind: EntryKind::ConfChangeV2, ..Entry::default() };
        let outcome = self.lead_proposal([leave].into_iter().collect());
        let conf = self.tracker.conf_state();
        self.trace.note(|| match outcome {
            Ok(_) => Trace::AutoLeave { conf },
            Err(error) => Trace::AutoLeaveRefused { conf, error },
        });
    }
}
