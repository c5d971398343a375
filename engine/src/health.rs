//! Is this node well, and is it ready for work? The checks behind `/healthz` and `/readyz`.
//!
//! Leaves to others: what is measured (raftstore's health). Invariant: *alive* asks only what a restart could cure,
//! never a quorum; *ready* asks whether clients should come here.

use crate::core::Core;
use pontoon_raftstore::health::HealthReport;
use serde::Serialize;
use std::time::Duration;

/// A part that has not turned for so long counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// A write to the log store that takes longer makes the node not ready.
const SLOW_WRITE: Duration = Duration::from_secs(5);

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is asked: a fixed name.
    pub name: &'static str,
    /// The answer.
    pub ok: bool,
    /// For people.
    pub detail: String,
}

/// Owned copy of the node's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Would a restart not help?
    pub alive: bool,
    /// Should clients come here?
    pub ready: bool,
    /// All checks, `alive` ones first.
    pub checks: Vec<Check>,
    /// Groups with a replica here.
    pub groups: usize,
    /// Groups led from here.
    pub led: usize,
    /// Groups that know no leader.
    pub leaderless: usize,
    /// Replicas that stand still.
    pub quarantined: usize,
}

impl Health {
    pub(crate) fn of(core: &Core) -> Health {
        let report = core.node.health(PATIENCE);
        let mut health = Health::default();
        for cell in core.node.router().cells() {
            cell.with_status(|s| {
                health.groups += 1;
                health.led += usize::from(s.is_leader());
                health.leaderless += usize::from(s.leader.is_none());
                health.quarantined += usize::from(s.quarantined.is_some());
            });
        }
        let alive = alive_checks(&report);
        let ready = health.ready_checks(&report, core.node.router().health().is_stopping());
        health.alive = alive.iter().all(|c| c.ok);
        health.ready = health.alive && ready.iter().all(|c| c.ok);
        health.checks = alive.into_iter().chain(ready).collect();
        health
    }

    fn ready_checks(&self, report: &HealthReport, stopping: bool) -> Vec<Check> {
        let age = report.write_age.unwrap_or_default();
        let usable = self.leaderless * 2 <= self.groups;
        vec![
            Check { name: "not_stopping", ok: !stopping, detail: String::new() },
            Check { name: "disk", ok: !report.disk_full, detail: text(report.disk_full, "the reserve is reached") },
            Check { name: "log_write", ok: age < SLOW_WRITE, detail: format!("in flight for {}ms", age.as_millis()) },
            Check {
                name: "leaders",
                ok: usable,
                detail: format!("{} of {} groups know no leader", self.leaderless, self.groups),
            },
            Check {
                name: "quarantine",
                ok: self.quarantined == 0,
                detail: format!("{} replicas stand still", self.quarantined),
            },
        ]
    }
}

fn alive_checks(report: &HealthReport) -> Vec<Check> {
    let stuck: Vec<String> = report.stuck.iter().map(|(n, d)| format!("{n} for {}s", d.as_secs())).collect();
    vec![
        Check { name: "log_store", ok: report.poisoned.is_none(), detail: report.poisoned.clone().unwrap_or_default() },
        Check { name: "workers", ok: stuck.is_empty(), detail: stuck.join(", ") },
    ]
}

fn text(wrong: bool, why: &str) -> String {
    if wrong { why.to_owned() } else { String::new() }
}
