//! What the writer must know of every group without reading: who sits where, the end of its log, where it may be cut.
//!
//! A few hundred bytes per group; entries are never here. Filled by recovery, then changed by each batch before it is
//! written (a failed write poisons the store, so nothing is ever taken back).
//! Invariant: for a living replica `last`, `truncated` and `hard_state` equal what the database holds.

use crate::block::VersionedHardState;
use crate::envelope::Owner;
use pontoon_raftstore::env::Install;
use pontoon_raftstore::ids::{GroupId, Index, LogPos, ReplicaId};
use std::collections::{HashMap, VecDeque};

/// All groups of the node.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    /// Living replicas and tombstones.
    seats: HashMap<GroupId, Seat>,
    /// Payload bytes between truncation points and ends, estimated.
    live_bytes: u64,
}

impl Seats {
    /// Takes a seat out, to be put back.
    pub(crate) fn take(&mut self, group: GroupId) -> Option<Seat> {
        let seat = self.seats.remove(&group);
        self.live_bytes -= seat.as_ref().map_or(0, Seat::live_bytes);
        seat
    }

    /// Puts a seat in.
    pub(crate) fn put(&mut self, group: GroupId, seat: Option<Seat>) {
        let Some(seat) = seat else { return };
        self.live_bytes += seat.live_bytes();
        self.seats.insert(group, seat);
    }

    /// Payload bytes that are live, estimated.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }
}

/// A group's place on this node.
#[derive(Debug)]
pub(crate) enum Seat {
    /// A replica lives here.
    Living(Box<Living>),
    /// Nobody; the lowest replica id that may be born here.
    Tombstone(ReplicaId),
}

impl Seat {
    fn live_bytes(&self) -> u64 {
        match self {
            Seat::Living(living) => living.marks.live(),
            Seat::Tombstone(_) => 0,
        }
    }
}

/// A living replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Living {
    /// Replica and generation: what every record of it carries.
    pub(crate) owner: Owner,
    /// Last entry, or the truncation point.
    pub(crate) last: LogPos,
    /// The log's entries begin behind it.
    pub(crate) truncated: LogPos,
    /// As stored last.
    pub(crate) hard_state: VersionedHardState,
    /// A begun install.
    pub(crate) intent: Option<Box<Install>>,
    /// Blocks that begin below are deleted already.
    pub(crate) cleared: Index,
    /// Where the log may be cut without reading.
    pub(crate) marks: Marks,
}

/// First indexes of some blocks, ascending, with the bytes before them: at most `MAX_MARKS`, then every second one
/// goes. Truncation deletes up to a mark; what lies between a mark and the truncation point goes next time.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    /// First index of a block, and payload bytes that were appended before it.
    marks: VecDeque<(Index, u64)>,
    /// Payload bytes appended in all.
    appended: u64,
    /// Payload bytes behind the last truncation point, as subtracted so far.
    dropped: u64,
    /// Least bytes between two marks.
    stride: u64,
}

const MAX_MARKS: usize = 16;
const LEAST_STRIDE: u64 = 4 << 10;

impl Default for Marks {
    fn default() -> Marks {
        Marks { marks: VecDeque::new(), appended: 0, dropped: 0, stride: LEAST_STRIDE }
    }
}

impl Marks {
    /// A block is written.
    pub(crate) fn on_block(&mut self, first: Index, bytes: u64) {
        if self.marks.back().is_none_or(|m| self.appended - m.1 >= self.stride) {
            self.marks.push_back((first, self.appended));
        }
        self.appended += bytes;
        if self.marks.len() > MAX_MARKS {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
    }

    /// Blocks from `from` on are gone (a conflict).
    pub(crate) fn on_cut(&mut self, from: Index) {
        while self.marks.back().is_some_and(|m| m.0 >= from) {
            self.marks.pop_back();
        }
    }

    /// All blocks are dead.
    pub(crate) fn on_all_dead(&mut self) {
        *self = Marks::default();
    }

    /// Entries below `begin` are dead: the highest block boundary known that is not above it. Forgets what is below.
    pub(crate) fn take_boundary(&mut self, begin: Index) -> Option<Index> {
        let mut boundary = None;
        while let Some((first, before)) = self.marks.front().copied().filter(|m| m.0 <= begin) {
            boundary = Some(first);
            self.dropped = before;
            self.marks.pop_front();
        }
        let (first, before) = (boundary?, self.dropped);
        self.marks.push_front((first, before));
        if self.marks.len() <= MAX_MARKS / 2 {
            // They have become too coarse for a log of this length.
            self.stride = (self.stride / 2).max(LEAST_STRIDE);
        }
        boundary
    }

    /// Payload bytes that are live, estimated.
    pub(crate) fn live(&self) -> u64 {
        self.appended - self.dropped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marks_stay_few_and_name_block_boundaries_only() {
        let mut marks = Marks::default();
        for i in 1..=10_000 {
            marks.on_block(Index(i * 10), 1000);
            assert!(marks.marks.len() <= MAX_MARKS);
        }
        let boundary = marks.take_boundary(Index(50_005)).unwrap();
        assert!(boundary <= Index(50_005) && boundary.0 % 10 == 0 && boundary > Index(30_000), "{boundary}");
        assert_eq!(marks.live(), 10_000_000 - (boundary.0 / 10 - 1) * 1000);
        assert_eq!(marks.take_boundary(Index(5)), None);
        marks.on_cut(Index(1));
        assert_eq!(marks.take_boundary(Index(u64::MAX)), None);
    }

    #[test]
    fn marks_of_a_log_that_was_long_become_fine_again() {
        let mut marks = Marks::default();
        (1..=10_000).for_each(|i| marks.on_block(Index(i), 1 << 10));
        let mut last = 10_000;
        for _ in 0..20 {
            last += 64;
            (last - 63..=last).for_each(|i| marks.on_block(Index(i), 1 << 10));
            marks.take_boundary(Index(last - 64)).unwrap();
        }
        assert!(marks.live() < 2 * (64 << 10), "{}", marks.live());
    }
}
