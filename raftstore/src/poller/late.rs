//! The detector of late turns: did a poller serve a deadline, or let acks and votes go, more than one heartbeat interval
//! too late, and why?
//!
//! Followers that hear nothing for an election timeout campaign: lateness is the first suspect when leaders change for
//! no reason. Leaves to others: what to do about it (people), what a deadline means (replicas).
//! Invariant: nothing here is read by anything that decides. A turn counts at most once for its deadlines, and at most
//! once for its writes.

use crate::env::Instant;
use crate::events::{Event, LateCause};
use std::time::Duration;

/// Shortest time between two events of one cause.
const QUIET: Duration = Duration::from_secs(10);

/// One poller's.
pub(super) struct Late {
    /// What is later than this is late: the heartbeat interval.
    interval: Duration,
    /// The turn before this one, once there was one.
    before: Option<Past>,
    /// The earliest deadline that this turn served.
    due: Option<Instant>,
    /// When the oldest batch was handed over that this turn learnt to be durable.
    handed: Option<Instant>,
    delay: metrics::Histogram,
    /// By cause: the counter, and when the next event may be told.
    causes: [(LateCause, metrics::Counter, Instant); LateCause::ALL.len()],
}

/// A turn that is over.
#[derive(Clone, Copy)]
struct Past {
    began: Instant,
    ended: Instant,
    /// Of it in writes of its own (`Config::inline_sync`).
    writing: Duration,
}

impl Late {
    /// Registers the counters at once, so that the first late turn shows as a rate.
    pub(super) fn new(interval: Duration) -> Late {
        let counter = |c: LateCause| metrics::counter!("pontoon_late_turns_total", "cause" => c.name());
        Late {
            interval,
            before: None,
            due: None,
            handed: None,
            delay: metrics::histogram!("pontoon_tick_delay_seconds"),
            causes: LateCause::ALL.map(|c| (c, counter(c), Instant::default())),
        }
    }

    /// This turn serves a deadline.
    pub(super) fn on_served(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// This turn learns that a batch is durable: what it held back may go.
    pub(super) fn on_synced(&mut self, handed: Instant) {
        self.handed = Some(self.handed.map_or(handed, |earlier| earlier.min(handed)));
    }

    /// This turn spent so long in a write of its own.
    pub(super) fn on_wrote(&mut self, took: Duration) {
        if let Some(turn) = &mut self.before {
            turn.writing += took;
        }
    }

    /// This turn is over.
    pub(super) fn on_end(&mut self, ended: Instant) {
        if let Some(turn) = &mut self.before {
            turn.ended = ended;
        }
    }

    /// Judges the turn that began at `now`, after its deadlines and before its writes. Returns what is to be told.
    pub(super) fn judge(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        let before = self.before.replace(Past { began: now, ended: now, writing: Duration::ZERO });
        let (due, handed) = (self.due.take(), self.handed.take());
        let Some(before) = before else { return events };
        // A deadline that had passed when the turn before began was set or moved meanwhile.
        let delay = due.map(|due| now.since(due.max(before.began)));
        delay.iter().for_each(|d| self.delay.record(d.as_secs_f64()));
        let late = delay.filter(|d| *d > self.interval);
        if let Some(by) = late {
            events.extend(self.count(cause(before, now), by, now));
        }
        // Who came late himself cannot say how long the write took after he had looked last.
        let seen = if late.is_some() { before.began } else { now };
        if let Some(by) = handed.map(|at| seen.since(at)).filter(|by| *by > self.interval) {
            events.extend(self.count(LateCause::SyncSlow, by, now));
        }
        events
    }

    fn count(&mut self, cause: LateCause, by: Duration, now: Instant) -> Option<Event> {
        let (_, counter, quiet) = self.causes.iter_mut().find(|c| c.0 == cause)?;
        counter.increment(1);
        if now < *quiet {
            return None;
        }
        *quiet = now.after(QUIET);
        Some(Event::LateTurn { cause, by })
    }
}

/// What most of the time from the beginning of the turn before until `now` went to.
fn cause(before: Past, now: Instant) -> LateCause {
    let busy = before.ended.since(before.began).saturating_sub(before.writing);
    let away = now.since(before.ended);
    match before.writing.max(busy).max(away) {
        most if most == before.writing => LateCause::SyncSlow,
        most if most == busy => LateCause::PollerBusy,
        _ => LateCause::MachinePaused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    /// A turn from `began` to `ended` that serves a deadline of `due`, if any.
    fn turn(late: &mut Late, due: Option<u64>, began: u64, ended: u64) -> Vec<LateCause> {
        due.into_iter().for_each(|d| late.on_served(at(d)));
        let told = late.judge(at(began));
        late.on_end(at(ended));
        told.iter().map(|e| if let Event::LateTurn { cause, .. } = e { *cause } else { panic!("{e:?}") }).collect()
    }

    fn on_time() -> Late {
        let mut late = Late::new(INTERVAL);
        assert_eq!(turn(&mut late, None, 1000, 1000), []);
        late
    }

    #[test]
    fn a_turn_that_took_long_made_the_next_one_late() {
        let mut late = on_time();
        assert_eq!(turn(&mut late, Some(1100), 1100, 1310), []);
        assert_eq!(turn(&mut late, Some(1200), 1310, 1310), [LateCause::PollerBusy]);
    }

    #[test]
    fn a_write_of_its_own_took_most_of_the_turn() {
        let mut late = on_time();
        turn(&mut late, Some(1100), 1100, 1400);
        late.on_wrote(Duration::from_millis(200));
        assert_eq!(turn(&mut late, Some(1200), 1400, 1400), [LateCause::SyncSlow]);
    }

    #[test]
    fn nobody_woke_it() {
        let mut late = on_time();
        turn(&mut late, Some(1100), 1100, 1101);
        assert_eq!(turn(&mut late, Some(1200), 1301, 1301), [LateCause::MachinePaused]);
    }

    #[test]
    fn one_heartbeat_interval_is_not_late_and_a_deadline_far_away_neither() {
        let mut late = on_time();
        assert_eq!(turn(&mut late, Some(1100), 1200, 1200), []);
        assert_eq!(turn(&mut late, None, 9000, 9000), []);
        assert_eq!(turn(&mut late, Some(20_000), 20_000, 20_000), []);
        // It had passed before it was set.
        assert_eq!(turn(&mut late, Some(3000), 20_100, 20_100), []);
    }

    #[test]
    fn acks_waited_for_the_disk() {
        let mut late = on_time();
        late.on_synced(at(1000));
        assert_eq!(turn(&mut late, None, 1100, 1100), []);
        late.on_synced(at(1099));
        late.on_synced(at(1150));
        assert_eq!(turn(&mut late, None, 1200, 1200), [LateCause::SyncSlow]);
        // A pause while a write is on its way is a pause.
        let mut late = on_time();
        late.on_synced(at(1000));
        assert_eq!(turn(&mut late, Some(1100), 6000, 6000), [LateCause::MachinePaused]);
    }

    #[test]
    fn events_are_rare() {
        let mut late = on_time();
        let told: Vec<usize> =
            (1..=100).map(|n| turn(&mut late, Some(1000 * n + 100), 1000 * (n + 1), 1000 * (n + 1)).len()).collect();
        assert_eq!(told.iter().sum::<usize>(), 10);
    }
}
