//! When operations begin: at once while there is room (closed loop), or on time (open loop), and how many may wait.
//!
//! Leaves to others: beginning them. Invariant: open loop, what is due is spread evenly, and a new pace begins without anything
//! due; a node's share of rate and room is that of the groups that it leads. Moments are nanoseconds of the driver's clock: at
//! overload millions are compared in a second.

use crate::drive::control::Pace;
use std::time::Duration;

/// Nanoseconds since the driver began.
pub(super) type Moment = u64;

/// How long a driver rests for whom much becomes due meanwhile: to wake for each, and for each turn of an applier, would cost it
/// more than to do them, and what is measured loses the processor each time. Latencies count from when each was due until the
/// driver looks.
const REST: Duration = Duration::from_millis(2);
/// So much.
const MUCH: u64 = 64;

/// See the file's head.
pub(super) struct Arrivals {
    pace: Pace,
    /// Groups led here and in all.
    led: u64,
    all: u64,
    /// Open loop: when the next operation is due.
    next_at: Moment,
    /// Open loop: nanoseconds between two operations of this node.
    every: Option<u64>,
}

impl Arrivals {
    pub(super) fn new(pace: Pace, all: u64, now: Moment) -> Arrivals {
        let mut new = Arrivals { pace, led: 0, all: all.max(1), next_at: now, every: None };
        new.space();
        new
    }

    /// Another pace from now on.
    pub(super) fn change(&mut self, pace: Pace, now: Moment) {
        self.pace = pace;
        self.next_at = now;
        self.space();
    }

    /// So many groups are led here. Nothing was due while none was.
    pub(super) fn lead(&mut self, led: u64, now: Moment) {
        if self.led == 0 {
            self.next_at = self.next_at.max(now);
        }
        self.led = led;
        self.space();
    }

    /// How many operations may be under way: one at least.
    pub(super) fn room(&self) -> u64 {
        (self.pace.inflight * self.led).div_ceil(self.all).max(1)
    }

    /// Since when the next operation is due; `None` if it is not.
    pub(super) fn due(&self, now: Moment) -> Option<Moment> {
        match (self.led, self.pace.rate) {
            (0, _) => None,
            (_, None) => Some(now),
            (_, Some(_)) => (self.next_at <= now).then_some(self.next_at),
        }
    }

    /// It was begun.
    pub(super) fn begun(&mut self) {
        if let Some(every) = self.every {
            self.next_at += every;
        }
    }

    /// Open loop: the time until something is due.
    pub(super) fn until_due(&self, now: Moment) -> Option<Duration> {
        self.pace.rate.map(|_| Duration::from_nanos(self.next_at.saturating_sub(now)))
    }

    /// Open loop, with nothing due: how long to rest, if much becomes due meanwhile.
    pub(super) fn rest(&self, now: Moment) -> Option<Duration> {
        let much = self.every.is_some_and(|every| every * MUCH <= REST.as_nanos() as u64);
        (much && self.next_at > now).then_some(REST)
    }

    /// Open loop: for how long something has been due.
    pub(super) fn behind(&self, now: Moment) -> Duration {
        Duration::from_nanos(self.due(now).map_or(0, |due| now.saturating_sub(due)))
    }

    fn space(&mut self) {
        let share = self.led.max(1) as f64 / self.all as f64;
        self.every = self.pace.rate.map(|rate| (1e9 / (rate * share)) as u64);
    }

    /// Open loop: when it was due, for each that was due and never began.
    pub(super) fn take_overdue(&mut self, now: Moment) -> Vec<Moment> {
        let mut overdue = Vec::new();
        while self.pace.rate.is_some() {
            let Some(due) = self.due(now) else { break };
            overdue.push(due);
            self.begun();
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: f64) -> Pace {
        Pace { rate: Some(rate), inflight: 30 }
    }

    fn after(now: Moment, ms: u64) -> Moment {
        now + ms * 1_000_000
    }

    #[test]
    fn a_third_of_the_groups_is_a_third_of_rate_and_room() {
        let t = 7;
        let mut a = Arrivals::new(open(3_000.0), 48, t);
        assert!(a.due(after(t, 50)).is_none(), "nothing is led");
        a.lead(16, after(t, 100));
        assert_eq!(a.room(), 10);
        // A thousand a second, one each millisecond, from the moment that something is led.
        assert_eq!(a.take_overdue(after(t, 109)).len(), 10);
        assert_eq!(a.until_due(after(t, 109)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn rests_where_much_becomes_due_meanwhile() {
        let mut a = Arrivals::new(open(31_000.0), 1, 0);
        a.lead(1, 0);
        a.begun();
        assert_eq!(a.rest(0), None, "little");
        a.change(open(32_000.0), 0);
        assert_eq!(a.rest(0), None, "something is due");
        a.begun();
        assert_eq!(a.rest(0), Some(REST));
    }

    #[test]
    fn a_new_pace_begins_with_nothing_due() {
        let t = 7;
        let mut a = Arrivals::new(Pace { rate: None, inflight: 9 }, 3, t);
        a.lead(3, t);
        assert_eq!(a.due(after(t, 5)), Some(after(t, 5)), "closed loop: always");
        assert!(a.take_overdue(after(t, 5)).is_empty(), "closed loop: never late");
        a.change(open(1_000.0), after(t, 5_000));
        assert_eq!(a.take_overdue(after(t, 5_000)).len(), 1);
        a.change(open(2_000.0), after(t, 9_000));
        assert_eq!(a.take_overdue(after(t, 9_001)).len(), 3, "the backlog of the pace before is gone");
    }
}
