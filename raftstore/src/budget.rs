//! The node-wide byte budget: proposals, inbound appends and the log cache draw on one sum (law 4).
//!
//! Leaves to others: what an item weighs, and what is said to the caller when nothing is left.
//! Invariant: `used` is the sum of what was taken and not given back; `try_take` never lets it pass the limit. What waits to be
//! applied counts against new commands only: a slow machine holds back proposals, never votes or appends.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sum of bytes with a limit, shared by all parts of a node.
#[derive(Debug)]
pub struct Budget {
    /// Most that `try_take` lets in. Bytes.
    limit: u64,
    /// Taken and not given back. Bytes. Relaxed is enough: it guards no other memory.
    used: AtomicU64,
    /// Committed, and not applied yet. Bytes.
    applying: AtomicU64,
}

impl Budget {
    /// An unused budget.
    #[must_use]
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: AtomicU64::new(0), applying: AtomicU64::new(0) }
    }

    /// Takes `bytes` if they still fit.
    #[must_use]
    pub fn try_take(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        taken.is_ok()
    }

    /// Takes `bytes` for a new command, if they still fit beside what waits to be applied.
    #[must_use]
    pub fn try_admit(&self, bytes: u64) -> bool {
        let applying = self.applying.load(Ordering::Relaxed);
        self.used().saturating_add(applying) <= self.limit && self.try_take(bytes)
    }

    /// So much was handed to the machines.
    pub fn begin_applying(&self, bytes: u64) {
        self.applying.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much of it was applied, or never will be.
    pub fn end_applying(&self, bytes: u64) {
        let before = self.applying.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} of {before} bytes were applied");
    }

    /// Takes `bytes` for what was admitted already under another name, or must never be refused.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "gave back {bytes} of {before} bytes");
    }

    /// Taken now. Bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Most that may be taken. Bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Is so much taken that caches should shrink?
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.used() > self.limit / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_fit_and_recovers() {
        let b = Budget::new(10);
        assert!(b.try_take(6) && !b.try_take(5) && b.try_take(4));
        b.give_back(6);
        assert_eq!(b.used(), 4);
        assert!(!b.try_take(u64::MAX));
    }

    #[test]
    fn what_waits_to_be_applied_counts_against_commands_only() {
        let b = Budget::new(10);
        b.begin_applying(11);
        assert!(!b.try_admit(1) && b.try_take(9));
        b.end_applying(10);
        assert!(b.try_admit(1));
    }
}
