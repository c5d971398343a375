//! The end of a world: does everybody serve, are replicas equal, is the history linearizable, did enough happen?
//!
//! Leaves to others: what is checked on the way (`facts`). Invariant: nothing here changes the world.

use super::verdict::{Report, Verdict};
use super::world::World;
use crate::env::Instant;
use crate::testing::linearizability::{KvVerdict, check_kv};

/// Steps of the linearizability check for one group of keys.
const BUDGET: u64 = 30_000_000;

impl World {
    pub(super) fn judge(&mut self) -> Verdict {
        self.clients.finish();
        if let Err(why) = self.queues.finish(self.now, &mut self.clients.history) {
            return Verdict::Violation(why);
        }
        if let Err(why) = self.read_to_the_end() {
            return Verdict::Violation(why);
        }
        if let Err(why) = self.check_end() {
            return Verdict::Violation(why);
        }
        match check_kv(&self.clients.history, BUDGET) {
            KvVerdict::Ok => self.judge_coverage(),
            KvVerdict::Unknown { keys } => Verdict::Unknown(format!("linearizability of {keys:?}")),
            KvVerdict::Violation { keys, calls, explained } => Verdict::Violation(format!(
                "not linearizable: keys {keys:?}, {} of {} calls explained, the first that is not: {:?}",
                explained.len(),
                calls.len(),
                (0..calls.len()).find(|c| !explained.contains(c)).map(|c| &calls[c])
            )),
        }
    }

    /// After healing: everybody runs, every group serves, replicas are equal.
    fn check_end(&self) -> Result<(), String> {
        self.check_ended()?;
        self.check_budgets()?;
        self.check_callers()?;
        for spec in self.specs.iter().filter(|s| !self.ended.contains(&s.id)) {
            let healed = Instant(1).after(self.swarm.fault_phase);
            if self.clients.last_ack.get(&spec.id).is_none_or(|at| *at < healed) {
                return Err(format!("group {} acknowledged nothing after everything was healed", spec.id));
            }
            self.check_members(spec.id)?;
        }
        Ok(())
    }

    /// Clients rest: no command is charged to anybody.
    fn check_budgets(&self) -> Result<(), String> {
        for (node, up) in self.nodes.iter().filter_map(|(id, n)| Some((id, n.serving()?))) {
            let parts = up.handle.router().budget().parts();
            let held = parts.iter().filter(|p| ["at_door", "uncommitted", "applying"].contains(&p.0)).any(|p| p.1 > 0);
            if held {
                return Err(format!("node {node} still holds commands in its budget: {parts:?}"));
            }
        }
        Ok(())
    }

    fn judge_coverage(&self) -> Verdict {
        let count = |name: &str| self.clients.counts.get(name).copied().unwrap_or_default();
        let answered = count("writes acked") + count("reads answered");
        let begun = self.clients.begun();
        if self.swarm.operations == 0 {
            return Verdict::Ok; // a script knows what it wants to happen
        }
        if begun < 2_000 || 2 * answered < begun {
            return Verdict::Vacuous(format!("{answered} of {begun} operations answered"));
        }
        if self.swarm.queues > 0 && self.queues.counts.get("bulk: acked").is_none_or(|n| *n == 0) {
            return Verdict::Vacuous("no command in bulk was acknowledged".to_owned());
        }
        let missing = |name: &str| self.counts.get(name).copied().unwrap_or_default() == 0;
        let needed = [
            ("frames lost", self.swarm.loss > 0),
            ("frames duplicated", self.swarm.duplicate > 0),
            ("frames reordered", self.swarm.reorder > 0),
        ];
        if let Some((name, _)) = needed.into_iter().find(|(name, wanted)| *wanted && missing(name)) {
            return Verdict::Vacuous(format!("no {name}"));
        }
        self.still_owed().map_or(Verdict::Ok, |fault| Verdict::Vacuous(format!("{fault:?} never hit")))
    }

    pub(super) fn report(mut self, seed: u64, verdict: Verdict) -> Report {
        self.count_effects();
        let clients = std::mem::take(&mut self.clients.counts);
        self.counts.extend(clients.into_iter().map(|(name, n)| (name.into(), n)));
        let bulk = std::mem::take(&mut self.queues.counts);
        self.counts.extend(bulk.into_iter().map(|(name, n)| (name.into(), n)));
        let checks = std::mem::take(&mut self.facts.checks);
        self.counts.extend(checks.into_iter().map(|(name, n)| (format!("checked: {name}").into(), n)));
        let changes = self.facts.change_counts();
        self.counts.extend(changes.into_iter().map(|(name, n)| (name.into(), n)));
        let committed: usize = self.specs.iter().map(|s| self.facts.committed(s.id)).sum();
        self.counts.insert("entries committed".into(), committed as u64);
        let seconds = self.now.0 as f64 / 1e9;
        let (trace, story) = (self.trace.finish(), self.story.into_lines());
        let counts = self.counts.into_iter().map(|(name, n)| (name.into_owned(), n)).collect();
        Report { seed, verdict, trace, events: self.number, seconds, counts, story }
    }
}
