//! How much was applied since the machines last reported what is durable: why and when to ask again.
//!
//! Appliers and the snapshotter note, durability reads. Leaves to others: asking (`durability`), positions (the machines).
//! Invariant: while a sum is above zero, something applied is unreported; who resets a sum asks afterwards.

use crate::ids::NodeId;
use crate::mail::Mail;
use crate::task::DurabilityMsg;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes applied to durable machines after which they are asked at once, at most. They flush then: what they write to in memory stays
/// small, which makes writing cheaper, and less log is live. Log is truncated behind it.
const ASK_DURABLE: u64 = 16 << 20;
/// The same for volatile machines, at most.
const ASK_VOLATILE: u64 = 32 << 20;
/// At least: where their snapshots are few and small. The log is cut as often, and what is cut before its memtable is full is
/// written once.
const ASK_VOLATILE_LEAST: u64 = 8 << 20;
/// What must be applied for each byte that snapshots cost.
const PER_KEPT: u64 = 16;
/// What a snapshot costs beside its bytes: handing it on, reading it back, the truncation that follows. With 256 groups the
/// machines are asked as seldom as any others.
const SNAPSHOT: u64 = 8 << 10;
/// What an entry weighs beside its payload: in memory, for machines that flush it.
const ENTRY: u64 = 64;
/// And in the log.
const LOG_ENTRY: u64 = 8;

/// Sums over all appliers of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whose: not all nodes ask, and flush, at once.
    me: NodeId,
    /// Applied to machines that report by themselves. Bytes. Relaxed is enough: it guards no other memory.
    durable: AtomicU64,
    /// Applied to volatile machines. Bytes.
    volatile: AtomicU64,
    /// What snapshots of volatile machines cost since these were last asked. Bytes.
    kept: AtomicU64,
    /// And what they cost the time before.
    kept_before: AtomicU64,
}

impl Ledger {
    /// Nothing applied yet.
    #[must_use]
    pub fn new(me: NodeId) -> Ledger {
        Ledger { me, ..Ledger::default() }
    }

    /// Something was committed in machines; asks when that makes enough.
    pub fn on_applied(&self, is_durable: bool, entries: u64, payload: u64, mail: &Mail) {
        let (sum, enough, entry) = match is_durable {
            true => (&self.durable, self.me.staggered(ASK_DURABLE), ENTRY),
            false => (&self.volatile, self.volatile_enough(), LOG_ENTRY),
        };
        let more = entries * entry + payload;
        let before = sum.fetch_add(more, Ordering::Relaxed);
        if before < enough && before + more >= enough {
            mail.durability(DurabilityMsg::Ask);
        }
    }

    /// So many snapshots of volatile machines were published in a file of this size.
    pub fn on_kept(&self, snapshots: usize, size: u64) {
        self.kept.fetch_add(size + snapshots as u64 * SNAPSHOT, Ordering::Relaxed);
    }

    /// Was anything applied since the last call? Resets the sum. For machines that report by themselves.
    pub fn take_durable(&self) -> bool {
        self.durable.swap(0, Ordering::Relaxed) > 0
    }

    /// The same for volatile machines.
    pub fn take_volatile(&self) -> bool {
        self.kept_before.store(self.kept.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.volatile.swap(0, Ordering::Relaxed) > 0
    }

    /// Is enough unreported in volatile machines to ask before the time?
    #[must_use]
    pub fn is_volatile_heavy(&self) -> bool {
        self.volatile.load(Ordering::Relaxed) >= self.volatile_enough()
    }

    fn volatile_enough(&self) -> u64 {
        let kept = self.kept_before.load(Ordering::Relaxed);
        kept.saturating_mul(PER_KEPT).clamp(ASK_VOLATILE_LEAST, ASK_VOLATILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many bytes volatile machines are asked.
    fn asked_after(ledger: &Ledger) -> u64 {
        let (mail, inboxes) = Mail::new(1, 1);
        ledger.take_volatile();
        let mut applied = 0;
        while inboxes.durability.is_empty() {
            ledger.on_applied(false, 1, (1 << 20) - LOG_ENTRY, &mail);
            applied += 1;
        }
        assert!(ledger.is_volatile_heavy() && inboxes.durability.len() == 1);
        applied << 20
    }

    #[test]
    fn nodes_ask_durable_machines_at_different_times() {
        let asked_after = |node| {
            let (ledger, (mail, inboxes)) = (Ledger::new(NodeId(node)), Mail::new(1, 1));
            let step = |applied: u64| {
                ledger.on_applied(true, 1, (64 << 10) - ENTRY, &mail);
                inboxes.durability.is_empty().then_some(applied + (64 << 10))
            };
            std::iter::successors(Some(0), |applied| step(*applied)).last().unwrap_or_default()
        };
        let [first, second, third] = [1, 2, 3].map(asked_after);
        assert!(first.abs_diff(second) >= 1 << 20 && second.abs_diff(third) >= 1 << 20);
        assert!([first, second, third].iter().all(|at| (12 << 20..=16 << 20).contains(at)));
    }

    #[test]
    fn machines_with_small_snapshots_are_asked_more_often() {
        let ledger = Ledger::new(NodeId(1));
        assert_eq!(asked_after(&ledger), 8 << 20, "nothing is known");
        ledger.on_kept(1, 1 << 20);
        assert_eq!(asked_after(&ledger), 17 << 20);
        ledger.on_kept(256, 1 << 10);
        assert_eq!(asked_after(&ledger), 32 << 20, "many");
        ledger.on_kept(1, 1 << 30);
        assert_eq!(asked_after(&ledger), 32 << 20, "large");
        assert_eq!(asked_after(&ledger), 8 << 20, "the last time counts");
    }
}
