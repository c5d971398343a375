//! Lifecycle and administration of a poller's groups: adoption, burial, durable positions, the end.
//!
//! Leaves to others: preparing replicas (lifecycle, boot), what a caller asked of one group (`replica`).
//! Invariant: after `abandon` and `stop` every caller that waited here has its answer, and nobody new waits.

use super::Poller;
use crate::env::PeerIdentity;
use crate::error::{AdminError, GroupError};
use crate::events::Event;
use crate::ids::{Generation, GroupId, LogPos, ReplicaId};
use crate::proposal::AdminSlot;
use crate::replica::{LogRoom, Replica, Surroundings};
use crate::task::{Control, Newborn, SnapshotEvent, SnapshotTask};
use std::sync::Arc;

impl Poller {
    pub(super) fn on_control(&mut self, control: Control) {
        match control {
            Control::Adopt(newborn) => self.adopt(*newborn),
            Control::Destroy { group, done } => self.admin(group, done, |r, done, work| r.bury(done, work)),
            Control::Transfer { group, to, done } => {
                self.admin(group, done, |r, done, work| r.transfer(to, done, work));
            }
            Control::SnapshotNow { group, done } => {
                self.admin(group, done, |r, done, work| r.snapshot_now(done, work));
            }
            Control::Reconfigure { group, target, done } => {
                self.admin(group, done, |r, done, _| r.reconfigure(target, done));
            }
            Control::AbortReconfigure { group, done } => {
                self.admin(group, done, |r, done, _| r.abort_reconfigure(done));
            }
            Control::Campaign(group) => self.at(group, |r, work| r.campaign(work)),
            Control::Stop => self.stop(),
        }
    }

    fn admin(
        &mut self,
        group: GroupId,
        done: Arc<dyn AdminSlot>,
        f: impl FnOnce(&mut Replica, Arc<dyn AdminSlot>, &mut crate::replica::Work),
    ) {
        match self.touch(group) {
            Some(place) => self.with(place, |r, work| f(r, done, work)),
            None => done.done(Err(AdminError::Group(self.why_not_here(group)))),
        }
    }

    fn adopt(&mut self, newborn: Newborn) {
        let group = newborn.stored.group;
        let Some(cell) = self.parts.router.cell(group) else { return };
        if self.closed.is_some() || self.places.contains_key(&group) {
            return;
        }
        let campaign = newborn.campaign;
        let around = Surroundings {
            cell: cell.clone(),
            limits: self.limits.clone(),
            poller: self.parts.id,
            me: self.parts.me,
            work: &self.work,
        };
        match Replica::adopt(newborn, around) {
            Ok(replica) => self.settle_in(replica, campaign),
            Err(e) => {
                let why = e.to_string();
                cell.with_status(|s| s.quarantined = Some(why.clone()));
                self.parts.router.events().tell(Event::Quarantined { group, why });
            }
        }
    }

    fn settle_in(&mut self, replica: Replica, campaign: bool) {
        let group = replica.group();
        let place = self.free.pop().unwrap_or_else(|| {
            self.replicas.push(None);
            u32::try_from(self.replicas.len() - 1).expect("fewer than 2^32 groups")
        });
        self.replicas[place as usize] = Some(Box::new(replica));
        self.places.insert(group, place);
        self.touch_place(place);
        if campaign {
            self.with(place, |r, work| r.campaign(work));
        }
        self.stand_first(place);
    }

    /// A link came up: groups that this node led before it started may be led at once.
    pub(super) fn on_linked(&mut self, peer: PeerIdentity) {
        self.disks.insert(peer.node, peer.incarnation);
        (0..self.replicas.len() as u32).for_each(|place| self.stand_first(place));
    }

    fn stand_first(&mut self, place: u32) {
        let Some(replica) = self.replicas[place as usize].as_mut() else { return };
        if replica.stand_first(&self.disks, &self.work) {
            self.touch_place(place);
        }
    }

    pub(super) fn on_snapshot(&mut self, event: SnapshotEvent) {
        let group = event.group();
        if self.places.contains_key(&group) {
            return self.at(group, |r, work| r.on_snapshot(event, work));
        }
        if let Some(spool) = event.spool() {
            self.parts.router.mail().snapshotter(SnapshotTask::Drop(spool));
        }
    }

    pub(super) fn on_durable(&mut self, positions: Vec<(GroupId, ReplicaId, Generation, LogPos)>) {
        let groups = (self.places.len() * self.parts.router.mail().pollers()) as u64;
        let room = LogRoom { groups, crowded: self.parts.router.health().is_log_crowded() };
        for (group, replica, generation, pos) in positions {
            self.at(group, |r, work| {
                if r.id() == replica {
                    r.on_durable(generation, pos);
                    r.truncate(room, work);
                    r.answer_flushed();
                }
            });
        }
    }

    /// Answers everybody, writes commits that were put off, and ends.
    fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        for replica in self.replicas.iter_mut().flatten() {
            replica.on_stop(&mut self.work);
        }
        self.refuse_all(GroupError::ShuttingDown);
    }

    /// The node is poisoned: everybody is told that the outcome is unknown, and nothing leaves any more (law 7).
    pub(super) fn abandon(&mut self, why: &str) {
        if matches!(self.closed, Some(GroupError::Quarantined(_))) {
            return;
        }
        let closed = GroupError::Quarantined(format!("the log store is poisoned: {why}"));
        for replica in self.replicas.iter_mut().flatten() {
            replica.abandon(&closed, &self.work);
        }
        self.refuse_all(closed);
        self.places.clear();
        self.replicas.iter_mut().for_each(|r| *r = None);
        self.touched.clear();
        self.later.clear();
        self.holding.clear();
        self.in_flight.clear();
        self.work.batch = crate::env::LogBatch::default();
        self.work.letters.clear();
        self.work.outbox.clear();
    }

    /// Answers what still waits in the inbox, and all that comes later: no group is found any more.
    fn refuse_all(&mut self, why: GroupError) {
        self.places.clear();
        self.closed = Some(why);
        while let Some(letter) = self.parts.inbox.take() {
            self.on_letter(letter);
        }
    }
}
