//! Which positions survive a crash: noted after each commit, reported after a flush that came later (boot.md 8).
//!
//! Invariant: what is reported was committed before the flush began, so the flush covers it. Bound: one entry per
//! replica that committed since the last report.

use super::keys::Owner;
use crate::state_machine::{Durable, Meta, SmError};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Positions committed and not yet reported.
#[derive(Default)]
pub(super) struct Noted {
    latest: Mutex<HashMap<Owner, Meta>>,
}

impl Noted {
    /// These were committed, in this order.
    pub(super) fn note(&self, positions: Vec<(Owner, Meta)>) {
        self.latest.lock().extend(positions);
    }

    /// Reports what was noted before `flush`, if it succeeds; else it stays noted.
    pub(super) fn report(
        &self,
        since: &mut Durable<'_>,
        flush: impl FnOnce() -> Result<(), SmError>,
    ) -> Result<(), SmError> {
        let covered = std::mem::take(&mut *self.latest.lock());
        if covered.is_empty() {
            return Ok(());
        }
        if let Err(e) = flush() {
            let mut latest = self.latest.lock();
            for (owner, meta) in covered {
                latest.entry(owner).or_insert(meta);
            }
            return Err(e);
        }
        for (owner, meta) in covered {
            since.report(owner.group, owner.replica, owner.generation, meta);
        }
        Ok(())
    }
}
