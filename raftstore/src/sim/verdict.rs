//! What a run comes to, and the numbers beside it.
//!
//! Invariant: only `Ok` passes; a run in which too little happened proves nothing and is `Vacuous`.

use std::collections::BTreeMap;
use std::fmt;

/// Outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check held, everything recovered, enough happened.
    Ok,
    /// A promise was broken.
    Violation(String),
    /// A check did not come to an end.
    Unknown(String),
    /// Too little happened to say anything.
    Vacuous(String),
}

/// A run's outcome and figures.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Outcome.
    pub verdict: Verdict,
    /// Of everything that happened, in order.
    pub trace: u64,
    /// Events that were scheduled.
    pub events: u64,
    /// Virtual time at the end, seconds.
    pub seconds: f64,
    /// Counts by name: faults, crash points, operations, checks.
    pub counts: BTreeMap<String, u64>,
    /// The last lines about the group that was asked for.
    pub story: Vec<String>,
}

impl Report {
    /// Did it pass?
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Ok
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, verdict, trace, events, seconds, counts, story: _ } = self;
        write!(f, "seed {seed}: {verdict:?}; trace {trace:016x}, {events} events, {seconds:.1} s")?;
        counts.iter().try_for_each(|(name, n)| write!(f, ", {name} {n}"))
    }
}
