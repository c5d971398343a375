//! What a driver thread wrote to each group, and what of it was acknowledged; kept in a ledger, too, if the process is to be
//! killed.
//!
//! Leaves to others: submitting. Invariant: stamps grow in the order of submission, also over restarts of the process, and a
//! key belongs to one node: a stamp that was acknowledged is never followed by a lower one.

use crate::drive::Failure;
use crate::drive::control::{Acked, Outcome};
use crate::drive::ledger::{Ledger, key_of, place_of};
use pontoon::{Engine, Group, StateMachine};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// How far stamps jump over what an earlier process may have had in flight.
const GAP: u64 = 1 << 32;

/// A group and what this node wrote to it.
pub(super) struct Target<S: StateMachine> {
    pub(super) id: u64,
    pub(super) group: Group<S>,
    next_key: usize,
    acked: u64,
    /// Last acknowledged stamp by key; 0: none.
    last: Vec<u64>,
    /// Acknowledged something since the ledger was told.
    touched: bool,
}

/// See the file's head.
pub(super) struct Books<S: StateMachine> {
    me: u64,
    pub(super) groups: Vec<Target<S>>,
    stamp: u64,
    unknown: u64,
    ledger: Option<Ledger>,
    /// Places of the groups that the ledger does not know the number of.
    touched: Vec<usize>,
}

impl<S: StateMachine> Books<S> {
    /// Goes on from what the ledger holds.
    pub(super) fn open(engine: &Engine, ledger: Option<Ledger>) -> Result<Books<S>, Failure> {
        let me = engine.me().0;
        let before = ledger.as_ref().map_or(Ok(Outcome::default()), |l| l.read(me))?;
        let mut groups = Vec::new();
        for status in engine.groups() {
            let id = status.group.0;
            let mut last = Vec::new();
            for (key, stamp) in before.last.get(&id).into_iter().flatten() {
                note(&mut last, place_of(*key), *stamp);
            }
            let acked = before.per_group.get(&id).copied().unwrap_or(0);
            let group = engine.group::<S>(status.group)?;
            groups.push(Target { id, group, next_key: 0, acked, last, touched: false });
        }
        let highest = groups.iter().flat_map(|g| &g.last).max().copied().unwrap_or(0);
        let unknown = before.unknown.values().sum();
        Ok(Books { me, groups, stamp: first_stamp(highest, now_ns()), unknown, ledger, touched: Vec::new() })
    }

    /// Key (as a place), its name in the machine, and stamp of the next write to a group, of so many keys.
    pub(super) fn next(&mut self, at: usize, keys: usize) -> (usize, u64, u64) {
        self.stamp += 1;
        let target = &mut self.groups[at];
        let key = target.next_key % keys;
        target.next_key += 1;
        (key, key_of(self.me, key), self.stamp)
    }

    /// A write was acknowledged.
    pub(super) fn acked(&mut self, at: usize, key: usize, stamp: u64) -> Result<(), Failure> {
        let target = &mut self.groups[at];
        target.acked += 1;
        let stamp = note(&mut target.last, key, stamp);
        if let Some(ledger) = &self.ledger {
            ledger.note_stamp(target.id, key, stamp)?;
            if !std::mem::replace(&mut target.touched, true) {
                self.touched.push(at);
            }
        }
        Ok(())
    }

    /// Writes are of unknown outcome.
    pub(super) fn unknown(&mut self, n: u64) -> Result<(), Failure> {
        self.unknown += n;
        self.ledger.as_ref().map_or(Ok(()), |l| l.note_unknown(self.unknown))
    }

    /// Everything is in the ledger when this returns.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        for at in self.touched.drain(..) {
            let target = &mut self.groups[at];
            target.touched = false;
            if let Some(ledger) = &self.ledger {
                ledger.note_acked(target.id, target.acked)?;
            }
        }
        Ok(())
    }

    /// By group: how many, and the last stamps.
    pub(super) fn totals(&self) -> (BTreeMap<u64, u64>, Acked) {
        let groups = || self.groups.iter().filter(|g| g.acked > 0);
        let stamps = |g: &Target<S>| {
            let acked = g.last.iter().enumerate().filter(|(_, stamp)| **stamp > 0);
            acked.map(|(key, stamp)| (key_of(self.me, key), *stamp)).collect()
        };
        (groups().map(|g| (g.id, g.acked)).collect(), groups().map(|g| (g.id, stamps(g))).collect())
    }
}

/// Raises the stamp of a key; what it is now.
fn note(last: &mut Vec<u64>, key: usize, stamp: u64) -> u64 {
    if last.len() <= key {
        last.resize(key + 1, 0);
    }
    last[key] = last[key].max(stamp);
    last[key]
}

/// Above everything that an earlier process of this node submitted: it began at its time and did fewer than one a nanosecond.
/// Should the clock have gone back, the ledger's highest and a gap.
fn first_stamp(highest: u64, now_ns: u64) -> u64 {
    now_ns.max(if highest == 0 { 0 } else { highest + GAP })
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_over_restarts_also_if_the_clock_goes_back() {
        assert_eq!(first_stamp(0, 77), 77);
        assert_eq!(first_stamp(1_000, GAP * 4), GAP * 4);
        assert!(first_stamp(5_000, 4_000) > 5_000 + 1_000_000);
    }

    #[test]
    fn the_highest_stamp_of_a_key_stays() {
        let mut last = Vec::new();
        assert_eq!(note(&mut last, 2, 9), 9);
        assert_eq!(note(&mut last, 2, 8), 9, "answers come in any order");
        assert_eq!(last, [0, 0, 9]);
    }
}
