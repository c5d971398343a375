//! Truncation of the local log: behind what the machine has made durable, and what followers still need.
//!
//! Leaves to others: learning what is durable (durability), dropping the records (the log store).
//! Invariant: nothing above the machine's durable position is ever dropped (law 5); followers, dead ones too, are a courtesy
//! that ends at `log_keep` bytes a group and at a node-wide sum, then the laggard gets a snapshot. What comes behind that
//! stays until it has caught up (`feeding`), or the node's log is crowded.

use super::{Phase, Replica, Work};
use crate::env::{GroupOp, Truncation};
use crate::group_status::FollowerStatus;
use crate::ids::{Index, LogPos, Tick};
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::{FlowState, StateRole};

/// The node-wide sum of kept log, in units of `log_keep`.
const NODE_KEEPS: u64 = 16;
/// A log is left alone below this part of what may be kept.
const WORTH: u64 = 8;
/// Most of the log of all groups that stays though nobody here knows who needs it. Well below a memtable of the log store:
/// what is dead when that is flushed is not written a second time.
const NODE_TAIL: u64 = 16 << 20;
/// Behind this many bytes of log a small snapshot is what a follower gets.
const LEAST_TAIL: u64 = 1 << 20;

/// What a log shares the node's with.
#[derive(Clone, Copy, Debug)]
pub struct LogRoom {
    /// Replicas on this node.
    pub groups: u64,
    /// The node's log is at half of its bound.
    pub crowded: bool,
}

impl Replica {
    /// Drops what nobody needs, if it is worth a write.
    pub fn truncate(&mut self, room: LogRoom, work: &mut Work) {
        if !matches!(self.phase, Phase::Running) || self.writes.has_install() {
            return;
        }
        let log_keep = self.limits.log_keep;
        let groups = room.groups.max(1);
        let keep = log_keep.min(log_keep.saturating_mul(NODE_KEEPS) / groups).max(1 << 10);
        let Some(upto) = self.droppable(keep, NODE_TAIL / groups, room.crowded, work.now) else { return };
        let (Some(term), Some(conf)) = (self.stored_term(upto), self.machine.conf_at(upto)) else { return };
        let truncation = Truncation { pos: LogPos::new(term, upto), conf_state: conf.clone() };
        self.write_lazy_commit(work);
        self.put(GroupOp::Truncate(truncation.clone()), false, work);
        self.machine.forget_confs(upto);
        self.raft.storage_mut().truncate(truncation);
    }

    /// The last index that may go, of a group's share of what may be kept and of what stays. Bytes.
    fn droppable(&mut self, keep: u64, tail: u64, crowded: bool, now: Tick) -> Option<Index> {
        let storage = self.raft.storage();
        let first = storage.truncated().pos.index;
        let bytes = storage.log_bytes();
        let durable = match mutant::is(Mutant::TruncateAheadOfDurable) {
            true => self.machine.applied(),
            false => self.machine.durable.index,
        };
        if bytes < tail.min(keep / WORTH) || durable <= first {
            return None;
        }
        let followers = self.followers_to_keep_for();
        let fed = self.needed_by_fed(&followers, durable, now);
        if bytes > keep {
            let upto = if crowded { durable } else { durable.min(fed) };
            self.leading.give_up_below(upto);
            return (upto > first).then_some(upto);
        }
        // A tail stays for followers that a later leader may find lagging. None that is much longer than the snapshot that they
        // would get without it: what is not cut when its memtable is full is written a second time.
        let tail = tail.min(keep / 4).min(self.snapshots.kept_size().max(LEAST_TAIL.min(keep / 16)));
        let entries = first.lag_to(self.machine.applied()).max(1);
        let tail = tail.saturating_mul(entries) / bytes.max(1);
        let tail_start = Index(self.machine.applied().0.saturating_sub(tail));
        let upto = durable.min(self.needed_by_followers(&followers)).min(fed).min(tail_start);
        // A tenth of the log at least, or it is not worth a record.
        (first.lag_to(upto) > entries / 10).then_some(upto)
    }

    /// On a leader, all. Looked at afresh: what the status shows may be several memtables old.
    fn followers_to_keep_for(&self) -> Vec<FollowerStatus> {
        match self.raft.basic_status().role {
            StateRole::Leader => self.look_at_followers(),
            _ => Vec::new(),
        }
    }

    /// What every follower has. Of a follower that this leader never heard nothing is known: for it everything stays, until
    /// that is too much once.
    fn needed_by_followers(&self, followers: &[FollowerStatus]) -> Index {
        let given_up = self.leading.given_up();
        let fed = |f: &&FollowerStatus| f.flow != FlowState::Snapshot && f.matched >= given_up;
        followers.iter().filter(fed).map(|f| f.matched).min().unwrap_or(Index(u64::MAX))
    }

    /// The snapshot that is built or on its way, and whoever lives on one. A follower feeds nobody.
    fn needed_by_fed(&mut self, followers: &[FollowerStatus], durable: Index, now: Tick) -> Index {
        if followers.is_empty() {
            return Index(u64::MAX);
        }
        self.snapshots.feeding.needs(followers, durable, now).min(self.needed_by_shelf(now))
    }
}
