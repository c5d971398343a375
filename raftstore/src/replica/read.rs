//! Linearizable reads: one ReadIndex round per group and turn, then a wait until the machine has applied that far.
//!
//! Leaves to others: the round itself (the core; followers forward it), the read (the caller's thread).
//! Invariant: a read that joined at `t` is confirmed by a round that began at or after `t`. Asking again is always
//! safe, it only makes the answer newer.

use super::{Replica, Work};
use crate::error::{Limit, ReadError};
use crate::ids::{Index, Tick};
use crate::proposal::ReadSlot;
use bytes::{BufMut, Bytes, BytesMut};
use pontoon_raft::ReadState;
use std::collections::VecDeque;
use std::sync::Arc;

/// Reads of one group that may wait.
const MAX_READS: usize = 1 << 16;

/// A caller.
struct Asker {
    slot: Arc<dyn ReadSlot>,
    /// When it is told `Unconfirmed`.
    until: Tick,
}

/// Reads of one group.
pub(super) struct PendingReads {
    /// To be asked for in the next round.
    joined: Vec<Asker>,
    /// Rounds on their way: number, who asked. Ascending.
    asked: VecDeque<(u64, Vec<Asker>)>,
    /// Confirmed; they wait for the machine.
    confirmed: Vec<(Index, Vec<Asker>)>,
    /// All three together. Invariant: at most `MAX_READS`.
    count: usize,
    /// Random per start of the node.
    nonce: u64,
    /// Number of the last round.
    round: u64,
    /// Not later than the earliest `until`.
    earliest: Tick,
}

impl PendingReads {
    pub(super) fn new(nonce: u64) -> PendingReads {
        PendingReads {
            joined: Vec::new(),
            asked: VecDeque::new(),
            confirmed: Vec::new(),
            count: 0,
            nonce,
            round: 0,
            earliest: Tick::MAX,
        }
    }

    pub(super) fn join(&mut self, slot: Arc<dyn ReadSlot>, until: Tick) {
        if self.count >= MAX_READS {
            return slot.fail(ReadError::Overloaded(Limit::GroupInflight));
        }
        self.count += 1;
        self.earliest = self.earliest.min(until);
        self.joined.push(Asker { slot, until });
    }

    /// Does a round have to be asked for?
    pub(super) fn wants_round(&self) -> bool {
        !self.joined.is_empty()
    }

    pub(super) fn deadline(&self) -> Tick {
        self.earliest
    }

    /// Tells those whose time is up.
    pub(super) fn expire(&mut self, now: Tick) {
        if now < self.earliest {
            return;
        }
        let mut left = Tick::MAX;
        let mut gone = 0;
        let mut keep = |askers: &mut Vec<Asker>| {
            askers.retain(|a| {
                if a.until <= now {
                    a.slot.fail(ReadError::Unconfirmed);
                    gone += 1;
                    return false;
                }
                left = left.min(a.until);
                true
            });
            !askers.is_empty()
        };
        keep(&mut self.joined);
        self.asked.retain_mut(|round| keep(&mut round.1));
        self.confirmed.retain_mut(|ready| keep(&mut ready.1));
        self.count -= gone;
        self.earliest = left;
    }

    fn begin_round(&mut self) -> Bytes {
        self.round += 1;
        self.asked.push_back((self.round, std::mem::take(&mut self.joined)));
        let mut context = BytesMut::with_capacity(16);
        context.put_u64_le(self.nonce);
        context.put_u64_le(self.round);
        context.freeze()
    }

    fn take_round(&mut self, context: &[u8]) -> Option<Vec<Asker>> {
        let (nonce, round) = context.split_at_checked(8)?;
        let round = u64::from_le_bytes(round.try_into().ok()?);
        if nonce != self.nonce.to_le_bytes() {
            return None;
        }
        let at = self.asked.binary_search_by_key(&round, |r| r.0).ok()?;
        self.asked.remove(at).map(|r| r.1)
    }

    fn answer(&mut self, askers: Vec<Asker>, at: Index) {
        self.count -= askers.len();
        askers.into_iter().for_each(|a| a.slot.ready(at));
        self.calm();
    }

    /// The machine has applied up to `applied`.
    pub(super) fn on_applied(&mut self, applied: Index) {
        if self.confirmed.iter().all(|c| c.0 > applied) {
            return;
        }
        let (ready, later) = std::mem::take(&mut self.confirmed).into_iter().partition(|c| c.0 <= applied);
        self.confirmed = later;
        let ready: Vec<(Index, Vec<Asker>)> = ready;
        ready.into_iter().for_each(|(_, askers)| self.answer(askers, applied));
    }

    /// The leader changed: rounds on their way may be lost, so they are asked for again.
    pub(super) fn ask_again(&mut self) {
        for (_, askers) in self.asked.drain(..) {
            self.joined.extend(askers);
        }
    }

    pub(super) fn fail_all(&mut self, error: &ReadError) {
        self.ask_again();
        let ready = std::mem::take(&mut self.confirmed).into_iter().flat_map(|c| c.1);
        let all: Vec<Asker> = self.joined.drain(..).chain(ready).collect();
        self.count = 0;
        self.calm();
        all.into_iter().for_each(|a| a.slot.fail(error.clone()));
    }

    fn fail_joined(&mut self, error: &ReadError) {
        self.count -= self.joined.len();
        self.joined.drain(..).for_each(|a| a.slot.fail(error.clone()));
        self.calm();
    }

    /// Nobody waits: no deadline. Keeps the bound loose otherwise; `expire` makes it exact.
    fn calm(&mut self) {
        if self.count == 0 {
            self.earliest = Tick::MAX;
        }
    }
}

impl Replica {
    /// One round for all reads that the turn gathered.
    pub(super) fn ask_joined(&mut self, work: &mut Work) {
        if self.reads.joined.is_empty() {
            return;
        }
        work.tally.reads += self.reads.joined.len() as u64;
        let context = self.reads.begin_round();
        if self.raft.read_index(work.now, context.clone()).is_err() {
            self.reads.joined = self.reads.take_round(&context).unwrap_or_default();
            self.reads.fail_joined(&ReadError::NoLeader);
        }
    }

    /// Rounds that the core confirmed, and those that it gave up.
    pub(super) fn on_read_states(&mut self, confirmed: Vec<ReadState>, dropped: &[Bytes]) {
        for state in confirmed {
            let Some(askers) = self.reads.take_round(&state.context) else { continue };
            if state.index <= self.machine.applied() {
                self.reads.answer(askers, self.machine.applied());
            } else {
                self.reads.confirmed.push((state.index, askers));
            }
        }
        for context in dropped {
            if let Some(askers) = self.reads.take_round(context) {
                self.reads.joined.extend(askers);
            }
        }
    }
}
