//! What is left of a replica that does not run: contents without a machine.
//!
//! Leaves to others: why it stopped (`applier`, `boot`). Invariant: they stay as they are, as evidence, until the replica is
//! destroyed; a machine that failed deletes nothing: each is opened anew for it.

use super::cell::{destroy, note_failure};
use crate::env::{Machine, MachineKind};
use crate::guard::guarded;
use crate::ids::{Generation, GroupId, ReplicaId};

/// See the file's head.
pub(super) struct Remains {
    /// The group.
    pub(super) group: GroupId,
    /// The replica.
    pub(super) replica: ReplicaId,
    /// Kind's name.
    pub(super) kind: String,
    /// Whose contents may be there: the replica's, and those of an install that was not recorded.
    pub(super) generations: Vec<Generation>,
    /// Contents that an install had replaced; their machine did not fail.
    pub(super) superseded: Option<Box<dyn Machine>>,
}

impl Remains {
    /// The replica is no more: deletes all of it. A kind that is not registered at this start leaves it to one where it is.
    pub(super) fn destroy(self, kind: Option<&dyn MachineKind>) {
        self.superseded.into_iter().for_each(|machine| destroy(self.group, machine));
        for (kind, generation) in kind.into_iter().flat_map(|kind| self.generations.iter().map(move |g| (kind, *g))) {
            note_failure(self.group, guarded(|| kind.open(self.group, self.replica, generation)?.destroy()));
        }
    }
}
