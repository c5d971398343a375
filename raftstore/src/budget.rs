//! The node-wide byte budget: proposals, inbound appends and the log cache draw on one sum (law 4).
//!
//! Leaves to others: what an item weighs, and what is said to the caller when nothing is left.
//! Invariant: `used` is the sum of what was taken and not given back; `try_take` never lets it pass the limit. Commands get
//! in while there is room for what the node itself needs to go on: other leaders' appends, without which their groups stand
//! still. A machine that is slow, or an inbox that is long, holds back commands, never votes or appends.

use std::sync::atomic::{AtomicU64, Ordering};

/// How short of memory a node is. What it keeps for convenience goes before it refuses commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Not at all.
    None,
    /// Above a quarter of the limit: each group keeps little for laggards.
    Tight,
    /// Above three eighths: nothing is kept for laggards for longer than a beat. Above a half commands are refused.
    Short,
    /// Above seven eighths: other leaders' appends will soon be refused, so nothing is kept that the disk has.
    Full,
}

/// A sum of bytes with a limit, shared by all parts of a node.
#[derive(Debug)]
pub struct Budget {
    /// Most that `try_take` lets in. Bytes.
    limit: u64,
    /// Taken and not given back. Bytes. Relaxed is enough: it guards no other memory.
    used: AtomicU64,
    /// Committed, and not applied yet. Bytes.
    applying: AtomicU64,
    /// Of `used`: commands that no poller has met yet. Bytes.
    at_door: AtomicU64,
    /// Commands that were appended and not committed yet. Bytes.
    uncommitted: AtomicU64,
}

impl Budget {
    /// An unused budget.
    #[must_use]
    pub fn new(limit: u64) -> Budget {
        Budget {
            limit,
            used: AtomicU64::new(0),
            applying: AtomicU64::new(0),
            at_door: AtomicU64::new(0),
            uncommitted: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` if they still fit.
    #[must_use]
    pub fn try_take(&self, bytes: u64) -> bool {
        self.try_take_below(bytes, self.limit)
    }

    fn try_take_below(&self, bytes: u64, limit: u64) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        taken.is_ok()
    }

    /// Takes `bytes` for small messages that make room, acks for instance: they get in up to a sixteenth above the limit.
    #[must_use]
    pub fn try_squeeze(&self, bytes: u64) -> bool {
        self.try_take_below(bytes, self.limit.saturating_add(self.limit / 16))
    }

    /// Takes `bytes` for a new command: while half of all is left beside what waits to be applied, and what waits for a
    /// poller is short, for messages wait behind it. The first command gets in whatever it weighs.
    #[must_use]
    pub fn try_admit(&self, bytes: u64) -> bool {
        let held = self.used().saturating_add(self.applying.load(Ordering::Relaxed));
        let line = self.at_door.load(Ordering::Relaxed);
        let room = held <= self.limit / 2 && (line == 0 || line.saturating_add(bytes) <= self.longest_line());
        let admitted = room && self.try_take(bytes);
        if admitted {
            self.at_door.fetch_add(bytes, Ordering::Relaxed);
        }
        admitted
    }

    /// Most that waits for a poller. Bytes.
    fn longest_line(&self) -> u64 {
        self.limit / 16
    }

    /// Is half of the room at the door taken? Then no command should be left standing there.
    #[must_use]
    pub fn has_long_line(&self) -> bool {
        self.at_door.load(Ordering::Relaxed) > self.longest_line() / 2
    }

    /// A poller met commands of this weight, and appended or refused them.
    pub fn leave_door(&self, bytes: u64) {
        let before = self.at_door.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} of {before} bytes left the door");
        self.give_back(bytes);
    }

    /// What one group has appended and not committed weighs `now`, and not `before` any more.
    pub fn count_uncommitted(&self, before: u64, now: u64) {
        self.uncommitted.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Commands on their way: at the door, appended and not committed, committed and not applied. Bytes.
    #[must_use]
    pub fn on_its_way(&self) -> u64 {
        let all = [&self.at_door, &self.uncommitted, &self.applying];
        all.iter().map(|part| part.load(Ordering::Relaxed)).sum()
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

    /// What it is made of, for gauges: names of parts, bytes.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        let now = |part: &AtomicU64| part.load(Ordering::Relaxed);
        [
            ("limit", self.limit),
            ("used", now(&self.used)),
            ("at_door", now(&self.at_door)),
            ("uncommitted", now(&self.uncommitted)),
            ("applying", now(&self.applying)),
        ]
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

    /// How much is taken.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        match (self.used(), self.limit / 8) {
            (used, eighth) if used > eighth * 7 => Pressure::Full,
            (used, eighth) if used > eighth * 3 => Pressure::Short,
            (used, eighth) if used > eighth * 2 => Pressure::Tight,
            _ => Pressure::None,
        }
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
    fn pressure_grows_before_commands_are_refused() {
        let b = Budget::new(80);
        let mut seen = Vec::new();
        for _ in 0..8 {
            b.take(10);
            seen.push(b.pressure());
        }
        use Pressure::{Full, None, Short, Tight};
        assert_eq!(seen, [None, None, Tight, Short, Short, Short, Short, Full]);
    }

    #[test]
    fn small_messages_get_in_a_little_above_the_limit() {
        let b = Budget::new(32);
        b.take(32);
        assert!(!b.try_take(1) && b.try_squeeze(2) && !b.try_squeeze(1));
    }

    #[test]
    fn what_waits_to_be_applied_counts_against_commands_only() {
        let b = Budget::new(10);
        b.begin_applying(6);
        assert!(!b.try_admit(1) && b.try_take(4));
        b.end_applying(5);
        assert!(b.try_admit(1));
    }

    #[test]
    fn commands_leave_room_for_others_appends() {
        let b = Budget::new(32);
        assert!(b.try_take(17) && !b.try_admit(1) && b.try_take(15));
    }

    #[test]
    fn knows_what_is_on_its_way() {
        let b = Budget::new(64);
        assert!(b.try_admit(2));
        b.count_uncommitted(0, 3);
        b.begin_applying(1);
        assert_eq!(b.on_its_way(), 6);
        b.count_uncommitted(3, 1);
        b.leave_door(2);
        assert_eq!(b.on_its_way(), 2);
    }

    #[test]
    fn the_line_at_the_door_is_short() {
        let b = Budget::new(32);
        assert!(b.try_admit(10) && !b.try_admit(1), "the first one, however large");
        b.leave_door(10);
        assert!(b.try_admit(1) && !b.has_long_line());
        assert!(b.try_admit(1) && b.has_long_line() && !b.try_admit(1));
        b.leave_door(2);
        assert_eq!(b.used(), 0);
    }
}
