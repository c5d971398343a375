//! The threads of a node: a ten-line loop around each part's `turn`. The only place that spawns.
//!
//! Leaves to others: everything that a turn does. The simulator replaces this file, and only this file.
//! Invariant: a part that panics ends the node loudly: poisoned, its waiters answered, the others told (law 7).

use crate::env::Clock;
use crate::mail::Mail;
use crate::node::NodeParts;
use crate::router::Router;
use crate::task::{ApplierMsg, DurabilityMsg, LifecycleMsg, SnapshotTask, WriterMsg};
use crate::turn::Active;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Longest sleep without a look at the clock, so that health sees that a part lives.
const LOOK: Duration = Duration::from_millis(500);

/// All threads of a node.
pub struct Threads {
    /// Everybody's inbox and health.
    router: Arc<Router>,
    /// These stop first.
    pollers: Vec<JoinHandle<()>>,
    /// These answer what the pollers left, then stop.
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Drives all parts. Call once the node is admitted; open the router afterwards.
    pub fn start(parts: NodeParts, router: Arc<Router>, clock: &Arc<dyn Clock>) -> io::Result<Threads> {
        let NodeParts { pollers, log_writer, log_reader, appliers, snapshotter, lifecycle, durability } = parts;
        let spawn = |part: Box<dyn Active>| spawn(part, router.clone(), clock.clone());
        let mut others: Vec<Box<dyn Active>> = appliers.into_iter().map(|a| Box::new(a) as Box<dyn Active>).collect();
        others.push(Box::new(log_writer));
        others.push(Box::new(log_reader));
        others.push(Box::new(snapshotter));
        others.push(Box::new(lifecycle));
        others.push(Box::new(durability));
        let others = others.into_iter().map(&spawn).collect::<io::Result<_>>()?;
        let pollers = pollers.into_iter().map(|p| spawn(Box::new(p))).collect::<io::Result<_>>()?;
        Ok(Threads { router, pollers, others })
    }

    /// Ends all parts, pollers first. What still waits is answered. Returns how many had panicked.
    #[must_use]
    pub fn stop(self) -> usize {
        self.router.health().set_stopping();
        self.router.close();
        self.router.stop_pollers();
        let mut panicked = join(self.pollers);
        stop_others(self.router.mail());
        panicked += join(self.others);
        panicked
    }
}

fn stop_others(mail: &Mail) {
    mail.durability(DurabilityMsg::Stop);
    mail.lifecycle(LifecycleMsg::Stop);
    mail.appliers(|| ApplierMsg::Stop);
    mail.snapshotter(SnapshotTask::Stop);
    mail.stop_log_reader();
    mail.writer(WriterMsg::Stop);
}

fn join(threads: Vec<JoinHandle<()>>) -> usize {
    threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
}

fn spawn(part: Box<dyn Active>, router: Arc<Router>, clock: Arc<dyn Clock>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(part.name()).spawn(move || drive(part, &router, &*clock))
}

fn drive(mut part: Box<dyn Active>, router: &Router, clock: &dyn Clock) {
    let seen = router.health().part(part.name(), clock.now());
    let mut now = clock.now();
    while !part.is_stopped() {
        seen.store(now.0, Ordering::Relaxed);
        // After a panic no turn follows: the part is only asked to answer its waiters.
        let turn = match catch_unwind(AssertUnwindSafe(|| part.turn(now))) {
            Ok(turn) => turn,
            Err(panic) => return on_panic(&mut *part, router, &*panic),
        };
        now = clock.now();
        part.on_end(now);
        if !turn.worked {
            part.wait(turn.next.since(now).min(LOOK));
            now = clock.now();
        }
    }
    seen.store(u64::MAX, Ordering::Relaxed);
}

fn on_panic(part: &mut dyn Active, router: &Router, panic: &(dyn std::any::Any + Send)) {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let why = format!("{} panicked: {said}", part.name());
    tracing::error!(why, "a part of the node panicked: nothing is promised any more");
    metrics::counter!("pontoon_critical_errors_total", "kind" => "panic").increment(1);
    router.poison(&why);
    part.on_panic();
    // The thread ends loudly, too: `Threads::stop` counts it.
    std::panic::resume_unwind(Box::new(why));
}
