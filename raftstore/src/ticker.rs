//! A hashed timer wheel: which replicas of a poller are due, found without a scan over all of them (law 2).
//!
//! Leaves to others: what is due then (the core's deadlines, waiting reads).
//! Invariant: an armed deadline fires at the first `due` call at or after it; one that was re-armed or whose tenant has
//! left fires as a false alarm, which the owner recognises by its own note of the deadline.

use crate::ids::Tick;

/// Slots of the wheel, in ticks: a power of two above any usual timeout.
const SLOTS: usize = 256;

/// The deadlines of one poller's replicas.
#[derive(Debug)]
pub struct Ticker {
    /// By deadline modulo `SLOTS`: deadline and place in the poller's slab.
    slots: Vec<Vec<(Tick, u32)>>,
    /// Everything up to here has fired.
    fired: Tick,
    /// Deadlines in the wheel, stale ones included.
    armed: usize,
}

impl Ticker {
    /// An empty wheel at `now`.
    #[must_use]
    pub fn new(now: Tick) -> Ticker {
        Ticker { slots: vec![Vec::new(); SLOTS], fired: now, armed: 0 }
    }

    /// Fires `place` at `deadline`, at the next tick if that has passed. `Tick::MAX`: never.
    pub fn arm(&mut self, deadline: Tick, place: u32) -> Tick {
        if deadline == Tick::MAX {
            return deadline;
        }
        let deadline = deadline.max(self.fired + 1);
        self.slots[slot(deadline)].push((deadline, place));
        self.armed += 1;
        deadline
    }

    /// Takes what is due by `now` into `out`, ascending by tick, within a tick by place: neighbours' memory lies close together,
    /// and the nodes that hear of them meet theirs in the same order.
    pub fn due(&mut self, now: Tick, out: &mut Vec<(Tick, u32)>) {
        let last = now.min(self.fired.saturating_add(SLOTS as u64));
        let from = out.len();
        for tick in self.fired + 1..=last {
            let due = &mut self.slots[slot(tick)];
            let before = due.len();
            out.extend(due.iter().filter(|d| d.0 <= now));
            due.retain(|d| d.0 > now);
            self.armed -= before - due.len();
        }
        out[from..].sort_unstable();
        self.fired = self.fired.max(now);
    }

    /// The earliest deadline, if there is one within a turn of the wheel; at most one turn away otherwise.
    #[must_use]
    pub fn next(&self) -> Tick {
        if self.armed == 0 {
            return Tick::MAX;
        }
        let near = |tick: &Tick| self.slots[slot(*tick)].iter().any(|d| d.0 <= *tick);
        let end = self.fired + SLOTS as u64;
        (self.fired + 1..end).find(near).unwrap_or(end)
    }
}

fn slot(tick: Tick) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("below SLOTS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(t: &mut Ticker, now: Tick) -> Vec<(Tick, u32)> {
        let mut out = Vec::new();
        t.due(now, &mut out);
        out
    }

    #[test]
    fn fires_each_deadline_once_in_order() {
        let mut t = Ticker::new(10);
        for (deadline, place) in [(13, 3), (11, 2), (13, 1), (600, 4), (5, 5)] {
            t.arm(deadline, place);
        }
        assert_eq!(t.next(), 11);
        assert_eq!(due(&mut t, 10), []);
        assert_eq!(due(&mut t, 13), [(11, 2), (11, 5), (13, 1), (13, 3)]);
        assert_eq!(t.next(), 13 + SLOTS as u64, "far ones are looked at once per turn of the wheel");
        assert_eq!(due(&mut t, 599), []);
        assert_eq!(t.next(), 600);
        assert_eq!(due(&mut t, 10_000), [(600, 4)]);
        assert_eq!(t.next(), Tick::MAX);
    }

    #[test]
    fn a_long_sleep_is_one_call() {
        let mut t = Ticker::new(0);
        (0..1000).for_each(|n| {
            t.arm(u64::from(n) + 1, n);
        });
        assert_eq!(due(&mut t, 1_000_000_000).len(), 1000);
    }
}
