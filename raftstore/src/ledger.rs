//! How much was applied since the machines last reported what is durable: why and when to ask again.
//!
//! Appliers note, durability reads. Leaves to others: asking (`durability`), positions (the machines).
//! Invariant: while a sum is above zero, something applied is unreported; who resets a sum asks afterwards.

use crate::mail::Mail;
use crate::task::DurabilityMsg;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes applied to volatile machines after which they are asked at once.
const ASK_VOLATILE: u64 = 32 << 20;
/// Bytes applied to durable machines after which they are asked at once. They flush then: what they write to in memory stays
/// small, which makes writing cheaper, and less log is live. Log is truncated behind it.
const ASK_DURABLE: u64 = 16 << 20;
/// What an entry weighs beside its payload.
const ENTRY: u64 = 64;

/// Sums over all appliers of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Applied to machines that report by themselves. Bytes. Relaxed is enough: it guards no other memory.
    durable: AtomicU64,
    /// Applied to volatile machines. Bytes.
    volatile: AtomicU64,
}

impl Ledger {
    /// Something was committed in machines; asks when that makes enough.
    pub fn on_applied(&self, is_durable: bool, entries: u64, payload: u64, mail: &Mail) {
        let (sum, enough) = if is_durable { (&self.durable, ASK_DURABLE) } else { (&self.volatile, ASK_VOLATILE) };
        let more = entries * ENTRY + payload;
        let before = sum.fetch_add(more, Ordering::Relaxed);
        if before < enough && before + more >= enough {
            mail.durability(DurabilityMsg::Ask);
        }
    }

    /// Was anything applied since the last call? Resets the sum. For machines that report by themselves.
    pub fn take_durable(&self) -> bool {
        self.durable.swap(0, Ordering::Relaxed) > 0
    }

    /// The same for volatile machines.
    pub fn take_volatile(&self) -> bool {
        self.volatile.swap(0, Ordering::Relaxed) > 0
    }

    /// Is enough unreported in volatile machines to ask before the time?
    #[must_use]
    pub fn is_volatile_heavy(&self) -> bool {
        self.volatile.load(Ordering::Relaxed) >= ASK_VOLATILE
    }
}
