//! The three protocols that turn a configuration into the next one.
//!
//! Leaves to others: which protocol a change asks for is `ConfChangeV2::protocol`.
//! Invariant: the tracker that is returned satisfies `check`; the one that was given is never touched.

use super::{BrokenConfig, ConfChangeError};
use crate::conf_change::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Protocol};
use crate::ids::{Index, ReplicaId};
use crate::mutant::{self, Mutant};
use crate::tracker::{Roles, Tracker};

/// Applies changes to a copy of a tracker.
pub struct Changer<'a> {
    /// The configuration as it is.
    tracker: &'a Tracker,
    /// The own last index: members that join are probed from there.
    last: Index,
}

impl<'a> Changer<'a> {
    /// Changes start from `tracker`; new members are probed from `last`.
    #[must_use]
    pub fn new(tracker: &'a Tracker, last: Index) -> Changer<'a> {
        Changer { tracker, last }
    }

    /// Applies `cc` by the protocol it asks for.
    pub fn apply(&self, cc: &ConfChangeV2) -> Result<Tracker, ConfChangeError> {
        match cc.protocol() {
            Protocol::Simple => self.simple(&cc.changes),
            Protocol::EnterJoint { auto_leave } => self.enter_joint(auto_leave, &cc.changes),
            Protocol::LeaveJoint => self.leave_joint(),
        }
    }

    /// Operations that change at most one voter: any two majorities before and after overlap.
    pub fn simple(&self, ops: &[ConfChangeSingle]) -> Result<Tracker, ConfChangeError> {
        let mut new = self.checked_copy()?;
        if new.is_joint() {
            return Err(ConfChangeError::SimpleInJoint);
        }
        self.run(&mut new, ops)?;
        if self.voters_changed(&new) > 1 {
            return Err(ConfChangeError::ManyVoters);
        }
        checked(new)
    }

    /// The voters so far become the outgoing half; the operations shape the incoming one.
    pub fn enter_joint(&self, auto_leave: bool, ops: &[ConfChangeSingle]) -> Result<Tracker, ConfChangeError> {
        let mut new = self.checked_copy()?;
        if new.is_joint() {
            return Err(ConfChangeError::AlreadyJoint);
        }
        if new.voters().next().is_none() {
            return Err(ConfChangeError::ZeroVoters);
        }
        for member in new.iter_mut().filter(|m| m.roles.has(Roles::INCOMING)) {
            member.roles.insert(if mutant::is(Mutant::NoOutgoingHalf) { Roles::NONE } else { Roles::OUTGOING });
        }
        self.run(&mut new, ops)?;
        new.auto_leave = auto_leave;
        checked(new)
    }

    /// The outgoing half goes; who was to become a learner becomes one.
    pub fn leave_joint(&self) -> Result<Tracker, ConfChangeError> {
        let mut new = self.checked_copy()?;
        if !new.is_joint() {
            return Err(ConfChangeError::NotJoint);
        }
        for member in new.iter_mut() {
            member.roles.remove(Roles::OUTGOING);
            if member.roles.has(Roles::LEARNER_NEXT) {
                member.roles.remove(Roles::LEARNER_NEXT);
                member.roles.insert(if mutant::is(Mutant::LeaveForgetsLearners) {
                    Roles::NONE
                } else {
                    Roles::LEARNER
                });
            }
        }
        new.drop_roleless();
        new.auto_leave = false;
        checked(new)
    }

    fn checked_copy(&self) -> Result<Tracker, ConfChangeError> {
        checked(self.tracker.clone())
    }

    fn run(&self, new: &mut Tracker, ops: &[ConfChangeSingle]) -> Result<(), ConfChangeError> {
        for op in ops.iter().filter(|op| !op.id.is_none()) {
            match op.kind {
                ConfChangeType::AddNode => self.make_voter(new, op.id),
                ConfChangeType::AddLearnerNode => self.make_learner(new, op.id),
                ConfChangeType::RemoveNode => remove(new, op.id),
                ConfChangeType::UpdateNode => {}
                ConfChangeType::Unknown(n) => return Err(ConfChangeError::UnknownKind(n)),
            }
        }
        let has_incoming = new.iter().any(|m| m.roles.has(Roles::INCOMING));
        if has_incoming { Ok(()) } else { Err(ConfChangeError::NoVoters) }
    }

    fn make_voter(&self, new: &mut Tracker, id: ReplicaId) {
        let member = new.entry(id, self.first_probe());
        member.roles.remove(Roles::LEARNER);
        member.roles.remove(Roles::LEARNER_NEXT);
        member.roles.insert(Roles::INCOMING);
    }

    /// An outgoing voter keeps its vote until the joint state is left (raft-core S32).
    fn make_learner(&self, new: &mut Tracker, id: ReplicaId) {
        let member = new.entry(id, self.first_probe());
        member.roles.remove(Roles::INCOMING);
        if mutant::is(Mutant::DemotedAtOnce) {
            member.roles.remove(Roles::OUTGOING);
        }
        let role = if member.roles.has(Roles::OUTGOING) { Roles::LEARNER_NEXT } else { Roles::LEARNER };
        member.roles.insert(role);
    }

    fn first_probe(&self) -> Index {
        self.last.max(Index(1))
    }

    /// How many ids vote in the incoming half of one tracker, but not of the other.
    fn voters_changed(&self, new: &Tracker) -> usize {
        let incoming = |t: &Tracker, id| t.get(id).is_some_and(|m| m.roles.has(Roles::INCOMING));
        let gone = self.tracker.iter().filter(|m| m.roles.has(Roles::INCOMING) && !incoming(new, m.id)).count();
        let come = new.iter().filter(|m| m.roles.has(Roles::INCOMING) && !incoming(self.tracker, m.id)).count();
        gone + come
    }
}

fn remove(new: &mut Tracker, id: ReplicaId) {
    let Some(member) = new.get_mut(id) else { return };
    for role in [Roles::INCOMING, Roles::LEARNER, Roles::LEARNER_NEXT] {
        member.roles.remove(role);
    }
    new.drop_roleless();
}

fn checked(tracker: Tracker) -> Result<Tracker, ConfChangeError> {
    check(&tracker)?;
    Ok(tracker)
}

/// The rules of raft-core 10.1.
fn check(tracker: &Tracker) -> Result<(), BrokenConfig> {
    for member in tracker.iter() {
        let (id, roles) = (member.id, member.roles);
        let rules = [
            (roles == Roles::NONE, BrokenConfig::Roleless(id)),
            (roles.has(Roles::LEARNER_NEXT) && !roles.has(Roles::OUTGOING), BrokenConfig::NextNotOutgoing(id)),
            (roles.has(Roles::LEARNER_NEXT) && roles.is_learner(), BrokenConfig::NextIsLearner(id)),
            (roles.is_learner() && roles.has(Roles::OUTGOING), BrokenConfig::LearnerOutgoing(id)),
            (roles.is_learner() && roles.has(Roles::INCOMING), BrokenConfig::LearnerIncoming(id)),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(is_broken, _)| *is_broken) {
            return Err(broken);
        }
    }
    if tracker.auto_leave && !tracker.is_joint() { Err(BrokenConfig::AutoLeaveNotJoint) } else { Ok(()) }
}
