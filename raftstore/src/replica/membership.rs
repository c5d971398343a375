//! Membership entries as they are applied: configuration, replica map, next replica id, goal.
//!
//! Leaves to others: which change comes next (`plan`), proposing it (`reconfigure`), what a change does (the core).
//! A change's context (`codec::ConfContext`) is the replica map's news, (replica, node, disk) each, and what becomes of the
//! goal. The leader of a new group proposes one whose only operation does nothing: it names the disks of the initial
//! voters (boot.md 3). (A change without operations would mean "leave the joint configuration".)
//! Invariant: a replica's node never changes, its disk only from unknown to known; ids are never used again.
//! Invariant: whoever has the seal of a goal in its log knows that the configuration before it is committed, so a
//! removed replica is let go at the seal and not before (docs/membership.md has the proof).

use super::{Replica, Work};
use crate::codec::{ConfContext, Member, Order};
use crate::events::Event;
use crate::ids::{Incarnation, NodeId, ReplicaId};
use crate::reconfigure::Goal;
use pontoon_raft::{ConfChangeSingle, ConfChangeType, ConfChangeV1, ConfChangeV2, Entry, EntryKind};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Replica {
    /// Lets a committed change take effect here. `Err` quarantines.
    pub(super) fn apply_membership(&mut self, entry: &Entry, work: &mut Work) -> Result<(), String> {
        let change: ConfChangeV2 = match entry.kind {
            EntryKind::Normal => return Ok(()),
            EntryKind::ConfChange => ConfChangeV1::decode(&entry.data).map_err(|e| e.to_string())?.into(),
            EntryKind::ConfChangeV2 => ConfChangeV2::decode(&entry.data).map_err(|e| e.to_string())?,
        };
        let context = ConfContext::decode(change.context.clone()).map_err(|e| e.to_string())?;
        let conf = self.raft.apply_conf_change(work.now, &change).map_err(|e| e.to_string())?;
        self.learn(context.named);
        let record = Arc::make_mut(&mut self.machine.record);
        let (members, removed) = std::mem::take(&mut record.members).into_iter().partition(|m| conf.contains(m.0));
        record.members = members;
        record.leaving.extend::<Vec<Member>>(removed);
        if !conf.equivalent(&record.conf_state) {
            record.conf_index = entry.index;
            self.machine.note_conf(entry.index, conf);
        }
        if let Some(order) = context.order {
            self.obey(order, work);
        }
        self.publish_shape();
        Ok(())
    }

    /// News for the replica map.
    fn learn(&mut self, named: Vec<Member>) {
        let record = Arc::make_mut(&mut self.machine.record);
        for (replica, node, disk) in named {
            match record.members.iter_mut().find(|m| m.0 == replica) {
                Some(known) if known.1 == node && known.2 == Incarnation(0) => known.2 = disk,
                Some(_) => {}
                None => record.members.push((replica, node, disk)),
            }
            record.next_replica = record.next_replica.max(ReplicaId(replica.0.saturating_add(1)));
        }
        record.members.sort_unstable();
    }

    fn obey(&mut self, order: Order, work: &mut Work) {
        let record = Arc::make_mut(&mut self.machine.record);
        match order {
            Order::Begin(goal) if record.goal.is_none() => {
                let goal = Goal { first: record.next_replica, ..goal };
                self.changing.on_begun(&goal);
                record.goal = Some(Box::new(goal));
            }
            Order::Begin(_) => {}
            Order::Abort(why) => {
                if let Some(goal) = record.goal.as_mut().filter(|_| !record.conf_state.is_joint()) {
                    goal.aborted.get_or_insert(why);
                }
            }
            Order::Seal => self.seal(work),
        }
    }

    /// The goal is reached, or what was added for it is gone again; who was removed may go.
    fn seal(&mut self, work: &mut Work) {
        let record = Arc::make_mut(&mut self.machine.record);
        let leaving = std::mem::take(&mut record.leaving);
        let Some(goal) = record.goal.take() else { return };
        let at = record.conf_index;
        if self.leading_now() {
            leaving.iter().for_each(|(replica, node, _)| self.say_removed(*node, *replica, work));
            let result = if goal.aborted.is_some() { "aborted" } else { "done" };
            metrics::counter!("pontoon_reconfigurations_total", "result" => result).increment(1);
        }
        if goal.aborted.is_none() {
            work.events.push(Event::Reconfigured { group: self.group, at });
        }
        self.on_sealed(*goal);
    }

    /// On the leader: names the disks of members that the replica map does not know yet, once all were heard of.
    pub(super) fn fill_in_disks(&mut self, disks: &BTreeMap<NodeId, Incarnation>, work: &Work) {
        let record = &self.machine.record;
        let unnamed = |m: &&Member| m.2 == Incarnation(0);
        if record.conf_state.is_joint() || !record.members.iter().any(|m| unnamed(&m)) || !self.may_change(work.now) {
            return;
        }
        let name = |m: &Member| disks.get(&m.1).map(|disk| (m.0, m.1, *disk));
        let named: Option<Vec<Member>> = record.members.iter().filter(unnamed).map(name).collect();
        let Some(named) = named else { return };
        self.propose_context(ConfContext { named, order: None }, work);
    }

    /// Proposes a change whose only operation does nothing: it carries a context.
    pub(super) fn propose_context(&mut self, context: ConfContext, work: &Work) {
        let nothing = ConfChangeSingle { kind: ConfChangeType::UpdateNode, id: self.id };
        self.propose_simple(Some(nothing), context, work);
    }
}
