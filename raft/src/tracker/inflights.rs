//! The window of appends that a follower has not acknowledged yet.
//!
//! Leaves to others: when to look (`Progress`), what to send (`replication`).
//! Invariant: indexes rise from front to back, at most `max_msgs` of them, and `bytes` is the sum of
//! what is in the window. Memory is taken by the first message, not before.

use crate::ids::Index;
use crate::mutant::{self, Mutant};
use std::collections::VecDeque;

/// How much may be in flight to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowLimits {
    /// Messages.
    pub max_msgs: usize,
    /// Payload bytes; 0 none. A soft limit: one message may cross it.
    pub max_bytes: u64,
}

/// Appends in flight, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inflights {
    /// Last index and payload bytes of each message. Bound: `limits.max_msgs`.
    window: VecDeque<(Index, u64)>,
    /// Payload bytes of the whole window.
    bytes: u64,
    /// When the window is full.
    limits: WindowLimits,
}

impl Inflights {
    /// An empty window; takes no memory.
    #[must_use]
    pub fn new(limits: WindowLimits) -> Inflights {
        Inflights { window: VecDeque::new(), bytes: 0, limits }
    }

    /// A message up to `last` with this much payload left. The caller asked `is_full` before.
    #[inline]
    pub fn add(&mut self, last: Index, bytes: u64) {
        assert!(!self.is_full(), "an append was sent into a full window");
        assert!(self.window.back().is_none_or(|(newest, _)| *newest < last), "appends leave in order");
        self.window.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` has arrived.
    #[inline]
    pub fn free_to(&mut self, index: Index) {
        while let Some((last, bytes)) = self.window.front().copied()
            && last <= index
        {
            self.window.pop_front();
            self.bytes -= if mutant::is(Mutant::WindowBytesLeak) { 0 } else { bytes };
        }
        if self.window.is_empty() && self.window.capacity() > KEPT {
            self.window = VecDeque::new();
        }
    }

    /// May nothing more leave?
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        let WindowLimits { max_msgs, max_bytes } = self.limits;
        let full = self.window.len() >= max_msgs || (max_bytes != 0 && self.bytes >= max_bytes);
        full && !mutant::is(Mutant::WindowUnlimited)
    }

    /// Messages in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.window.len()
    }

    /// Is nothing in flight?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }
}

/// Messages for which an idle window keeps its memory.
const KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// The model recomputes everything from a plain list.
    #[test]
    fn agrees_with_a_list() {
        let mut state = 3u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..2_000 {
            let limits = WindowLimits { max_msgs: 1 + below(40) as usize, max_bytes: below(3) * 50 };
            let (mut window, mut model) = (Inflights::new(limits), Vec::<(u64, u64)>::new());
            let mut last = 0;
            for _ in 0..60 {
                let sum: u64 = model.iter().map(|m| m.1).sum();
                let full = model.len() >= limits.max_msgs || (limits.max_bytes > 0 && sum >= limits.max_bytes);
                assert_eq!((window.is_full(), window.count()), (full, model.len()));
                assert_eq!((window.bytes, window.is_empty()), (sum, model.is_empty()));
                if below(3) > 0 && !full {
                    last += 1 + below(3);
                    let bytes = below(30);
                    window.add(Index(last), bytes);
                    model.push((last, bytes));
                } else {
                    let upto = (last + 2).saturating_sub(below(12));
                    window.free_to(Index(upto));
                    model.retain(|m| m.0 > upto);
                }
            }
        }
    }

    #[test]
    fn memory_comes_with_the_first_message_and_goes_when_idle() {
        let mut window = Inflights::new(WindowLimits { max_msgs: 256, max_bytes: 0 });
        assert_eq!(window.window.capacity(), 0);
        for i in 1..=100 {
            window.add(Index(i), 1);
        }
        window.free_to(Index(100));
        assert_eq!(window.window.capacity(), 0);
    }

    #[test]
    fn a_small_window_keeps_its_memory() {
        let mut window = Inflights::new(WindowLimits { max_msgs: 256, max_bytes: 0 });
        window.window.reserve_exact(KEPT);
        window.add(Index(1), 1);
        window.free_to(Index(1));
        assert_eq!(window.window.capacity(), KEPT);
    }

    #[test]
    #[should_panic(expected = "appends leave in order")]
    fn appends_leave_in_order() {
        let mut window = Inflights::new(WindowLimits { max_msgs: 256, max_bytes: 0 });
        window.add(Index(1), 1);
        window.add(Index(1), 1);
    }
}
