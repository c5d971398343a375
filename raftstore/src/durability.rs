//! Asks the machines what survives a crash, so that the log may be truncated behind it (boot.md 8).
//!
//! On a thread of its own: `durable` flushes and may take long. Leaves to others: truncating (replica), the snapshots of
//! volatile machines (applier and snapshotter: their positions are reported when they are published).
//! Invariant: a position is reported only after the kind said that it survives a crash.

use crate::boot::record_of;
use crate::config::Config;
use crate::env::{DurablePositions, Env, Instant, MachineKind};
use crate::guard::guarded;
use crate::ids::{Generation, GroupId, LogPos, PollerId, ReplicaId};
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::router::Router;
use crate::task::{ApplierMsg, DurabilityMsg, PollerMsg};
use crate::turn::{Active, Turn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often volatile machines that applied something get a new snapshot.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// Asks, by time and by bytes applied.
pub struct Durability {
    /// Work.
    inbox: Inbox<DurabilityMsg>,
    /// Owners of groups, and everyone's inbox.
    router: Arc<Router>,
    /// Kinds whose contents survive by themselves.
    durable: BTreeMap<String, Arc<dyn MachineKind>>,
    /// What was applied since the last time.
    ledger: Arc<Ledger>,
    /// How often durable kinds are asked.
    every: Duration,
    /// When they are asked next.
    ask_at: Instant,
    /// When volatile machines are snapshotted next.
    keep_at: Instant,
    /// Kinds that failed: their replicas are quarantined, they are not asked again.
    failed: Vec<String>,
    /// `Stop` was taken.
    stopped: bool,
}

impl Durability {
    /// Asks for the first time one interval after `now`.
    #[must_use]
    pub fn new(
        inbox: Inbox<DurabilityMsg>,
        router: Arc<Router>,
        env: &Env,
        config: &Config,
        ledger: Arc<Ledger>,
        now: Instant,
    ) -> Durability {
        let durable = env.kinds.iter().filter(|(_, kind)| kind.is_durable());
        Durability {
            inbox,
            router,
            durable: durable.map(|(name, kind)| (name.clone(), kind.clone())).collect(),
            ledger,
            every: config.durable_every,
            ask_at: now.after(config.durable_every),
            keep_at: now.after(KEEP_EVERY),
            failed: Vec::new(),
            stopped: false,
        }
    }

    fn ask(&mut self) {
        // Taken before asking: what is applied meanwhile counts for the next time.
        if !self.ledger.take_durable() {
            return;
        }
        for (name, kind) in &self.durable {
            if self.failed.contains(name) {
                continue;
            }
            let mut positions = DurablePositions::default();
            match guarded(|| kind.durable(&mut positions)) {
                Ok(()) => self.report(positions),
                Err(why) => {
                    self.failed.push(name.clone());
                    let why = format!("durable failed: {why}");
                    tracing::error!(kind = name, why, "state-machine kind failed, its replicas are quarantined");
                    let letter = || ApplierMsg::FailKind { kind: name.clone(), why: why.clone() };
                    self.router.mail().appliers(letter);
                }
            }
        }
    }

    fn report(&self, positions: DurablePositions) {
        let mut by_poller: BTreeMap<PollerId, Vec<(GroupId, ReplicaId, Generation, LogPos)>> = BTreeMap::new();
        for (group, replica, generation, meta) in positions.found {
            match record_of(meta) {
                Ok(Some(record)) => {
                    let Some(cell) = self.router.cell(group) else { continue };
                    by_poller.entry(cell.poller).or_default().push((group, replica, generation, record.applied));
                }
                Ok(None) => {}
                // Nothing is truncated on its word; the replica meets it when it next starts.
                Err(error) => tracing::error!(%group, %error, "a durable replica record does not decode"),
            }
        }
        for (poller, durable) in by_poller {
            self.router.mail().poller(poller, PollerMsg::Durable(durable));
        }
    }
}

impl Active for Durability {
    fn turn(&mut self, now: Instant) -> Turn {
        let mut asked = false;
        while let Some(letter) = self.inbox.take() {
            match letter {
                DurabilityMsg::Ask => asked = true,
                DurabilityMsg::Stop => self.stopped = true,
            }
        }
        if self.stopped {
            return Turn::IDLE;
        }
        let keeps = now >= self.keep_at || (asked && self.ledger.is_volatile_heavy());
        if keeps {
            self.keep_at = now.after(KEEP_EVERY);
            if self.ledger.take_volatile() {
                self.router.mail().appliers(|| ApplierMsg::KeepDirty);
            }
        }
        let asks = asked || now >= self.ask_at;
        if asks {
            self.ask_at = now.after(self.every);
            self.ask();
        }
        Turn { worked: keeps || asks, next: self.ask_at.min(self.keep_at) }
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        "durability".to_owned()
    }
}
