//! The small periodic work of a node, on one thread: watermarks, refusals, disk reserve, leader balance, metrics.
//!
//! Leaves to others: everything that serves a call. Invariant: nothing here is needed for safety within a second; a
//! failed write here poisons the node as any other does.

use crate::balance::Balance;
use crate::core::Core;
use crate::metrics::{self, Sums};
use parking_lot::{Condvar, Mutex};
use pontoon_raftstore::env::WriteFailed;
use pontoon_raftstore::error::BootError;
use pontoon_raftstore::ids::NodeId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One step: refusals are looked at, and at most one leader is moved.
const STEP: Duration = Duration::from_millis(200);
/// Steps to the once-a-second work, and to draining histograms.
const SECOND: u64 = 5;
const UPKEEP: u64 = 25;

/// What the ticker needs of log store, network and identity.
pub(crate) trait Upkeep: Send + Sync {
    /// Once a second: watermarks, links to peers heard of lately.
    fn tick(&self) -> Result<(), WriteFailed>;
    /// Did a peer refuse this node for good?
    fn fatal(&self) -> Option<BootError>;
    /// Bytes of live log.
    fn live_log_bytes(&self) -> u64;
    /// Is there a link to the node?
    fn is_up(&self, node: NodeId) -> bool;
}

/// The running thread.
pub(crate) struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(core: Arc<Core>, upkeep: Arc<dyn Upkeep>, dir: PathBuf) -> io::Result<Ticker> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&stop);
        let mut work = Work { balance: Balance::new(), sums: Sums::new(), core, upkeep, dir };
        // No page of metrics lacks them.
        work.sums.refresh(&work.core);
        let run = move || {
            let (flag, bell) = &*told;
            let mut stopped = flag.lock();
            for step in 0u64.. {
                bell.wait_for(&mut stopped, STEP);
                if *stopped {
                    return;
                }
                work.step(step);
            }
        };
        let thread = thread::Builder::new().name("pontoon-ticker".to_owned()).spawn(run)?;
        Ok(Ticker { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let (flag, bell) = &*self.stop;
        *flag.lock() = true;
        bell.notify_all();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Work {
    core: Arc<Core>,
    upkeep: Arc<dyn Upkeep>,
    dir: PathBuf,
    balance: Balance,
    sums: Sums,
}

impl Work {
    fn step(&mut self, step: u64) {
        let router = self.core.node.router();
        if router.health().is_poisoned() {
            return;
        }
        if let Some(why) = self.upkeep.fatal() {
            router.poison(&why.to_string());
            return;
        }
        if self.core.config.balance {
            self.balance.step(&self.core, &*self.upkeep);
        }
        if step.is_multiple_of(SECOND) {
            if let Err(e) = self.upkeep.tick() {
                router.poison(&e.to_string());
            }
            self.look_at_disk();
            self.sums.refresh(&self.core);
        }
        if step.is_multiple_of(UPKEEP) {
            metrics::upkeep();
        }
    }

    /// Proposals are refused before the disk is full, and before the log outgrows its bound.
    fn look_at_disk(&self) {
        let config = &self.core.config;
        let health = self.core.node.router().health();
        let reserve = config.disk_reserve.get();
        if reserve > 0
            && let Ok(disk) = rustix::fs::statvfs(&self.dir)
        {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            ::metrics::gauge!("pontoon_disk_available_bytes").set(free as f64);
            health.set_disk_full(free < reserve);
        }
        let (live, limit) = (self.upkeep.live_log_bytes(), config.log.live_limit.get());
        health.set_log_full(live > limit);
        health.set_log_crowded(live > limit / 2);
    }
}
