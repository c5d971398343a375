//! What a driver thread counts: latencies of this window, and errors by what they say.
//!
//! Leaves to others: what was acknowledged (`books`). Invariant: an error is either a refusal (never appended) or of unknown
//! outcome, and counts once.

use super::pace::Moment;
use crate::drive::Failure;
use crate::drive::control::Counts;
use hdrhistogram::Histogram;
use pontoon::{Limit, Lost, ProposeError};

/// Highest latency told apart, microseconds.
const HIGHEST: u64 = 120_000_000;

/// How often each name was counted: millions of times at overload, of few names.
type Named = Vec<(&'static str, u64)>;

/// See the file's head.
pub(super) struct Tally {
    latencies: Histogram<u64>,
    refused: Named,
    unknown: Named,
    /// Open loop: due before the end and never begun.
    pub(super) overdue: u64,
}

impl Tally {
    pub(super) fn new() -> Result<Tally, Failure> {
        let latencies = Histogram::new_with_max(HIGHEST, 3)?;
        Ok(Tally { latencies, refused: Named::new(), unknown: Named::new(), overdue: 0 })
    }

    pub(super) fn took(&mut self, began: Moment, now: Moment) {
        let took = now.saturating_sub(began) / 1000;
        self.latencies.saturating_record(took.min(HIGHEST));
    }

    /// A write's error. True: of unknown outcome.
    pub(super) fn failed(&mut self, error: &ProposeError) -> bool {
        let unknown = !error.never_appended();
        self.add(unknown, name(error), 1);
        unknown
    }

    /// `n` writes without an answer at the end.
    pub(super) fn unanswered(&mut self, n: u64) {
        self.add(true, "unanswered", n);
    }

    /// A read that was not served. Reads change nothing.
    pub(super) fn unread(&mut self) {
        self.add(false, "read", 1);
    }

    fn add(&mut self, unknown: bool, name: &'static str, n: u64) {
        if n > 0 {
            let all = if unknown { &mut self.unknown } else { &mut self.refused };
            // Millions of times a second: mostly it is the very same name.
            match all.iter_mut().find(|known| std::ptr::eq(known.0, name) || known.0 == name) {
                Some(known) => known.1 += n,
                None => all.push((name, n)),
            }
        }
    }

    /// The latencies of this window, in microseconds, and how often. The next begins.
    pub(super) fn cut(&mut self) -> Vec<(u64, u64)> {
        let seen = self.latencies.iter_recorded();
        let seen = seen.map(|v| (v.value_iterated_to(), v.count_since_last_iteration())).collect();
        self.latencies.reset();
        seen
    }

    pub(super) fn refused(&self) -> Counts {
        owned(&self.refused)
    }

    pub(super) fn unknown(&self) -> Counts {
        owned(&self.unknown)
    }
}

fn owned(counts: &Named) -> Counts {
    counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

fn name(error: &ProposeError) -> &'static str {
    match error {
        ProposeError::NotLeader { .. } => "not leader",
        ProposeError::Overloaded(Limit::GroupInflight) => "overloaded: GroupInflight",
        ProposeError::Overloaded(Limit::NodeInflight) => "overloaded: NodeInflight",
        ProposeError::Overloaded(Limit::Wal) => "overloaded: Wal",
        ProposeError::Overloaded(Limit::ApplyBacklog) => "overloaded: ApplyBacklog",
        ProposeError::Overloaded(Limit::DiskFull) => "overloaded: DiskFull",
        ProposeError::Transferring { .. } => "transferring",
        ProposeError::Group(_) => "group",
        ProposeError::OutcomeUnknown { why: Lost::Leadership, .. } => "leadership lost",
        ProposeError::OutcomeUnknown { why: Lost::Timeout, .. } => "timeout",
        ProposeError::OutcomeUnknown { why: Lost::Overwritten, .. } => "overwritten",
        ProposeError::OutcomeUnknown { .. } => "replica stopped",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_by_what_they_say_and_latencies_by_window() {
        let mut tally = Tally::new().expect("a histogram");
        assert!(!tally.failed(&ProposeError::Overloaded(Limit::NodeInflight)));
        assert!(tally.failed(&ProposeError::OutcomeUnknown { why: Lost::Timeout, at: None }));
        tally.unanswered(0);
        assert_eq!(tally.refused(), Counts::from([("overloaded: NodeInflight".to_owned(), 1)]));
        assert_eq!(tally.unknown(), Counts::from([("timeout".to_owned(), 1)]));
        (0..3).for_each(|_| tally.took(9, 9 + 700_000));
        assert_eq!(tally.cut(), [(700, 3)]);
        assert!(tally.cut().is_empty(), "the next window");
    }
}
