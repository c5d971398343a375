//! Snapshots between machine, disk and network: builds files from handles, streams them, receives and verifies them.
//!
//! Leaves to others: when a snapshot is taken or needed (replica, durability), installing (applier).
//! Invariant: a snapshot is never in memory as a whole; what is handed on as received was read back and verified; every
//! staged file belongs to exactly one of `builds`, `receptions` or a replica, and is removed with it.

mod build;
mod kept;
mod receive;
mod round;
mod send;
#[cfg(all(test, feature = "testing"))]
mod tests;

use crate::boot::KeptFiles;
use crate::codec::SnapshotFrame;
use crate::config::Config;
use crate::env::{Env, Instant, PeerIdentity, SnapshotFiles, SpoolReader};
use crate::ids::SpoolId;
use crate::inbox::Inbox;
use crate::ledger::Ledger;
use crate::router::Router;
use crate::task::SnapshotTask;
use crate::turn::{Active, Turn};
use build::Builds;
use bytes::Bytes;
use receive::Receptions;
use send::Sends;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Most letters of one turn.
const MAX_LETTERS: usize = 256;

/// Files and their names: the only place that makes a `SpoolId`.
pub(crate) struct Spools {
    /// The directory.
    files: Arc<dyn SnapshotFiles>,
    /// The next name. Invariant: above every file's in the directory.
    next: SpoolId,
    /// Files that streams read, and how many do. A removal waits for them.
    held: BTreeMap<SpoolId, Hold>,
}

/// A file in use.
#[derive(Default)]
struct Hold {
    readers: usize,
    /// Remove it behind the last reader.
    doomed: bool,
}

impl Spools {
    fn take_id(&mut self) -> SpoolId {
        let id = self.next;
        self.next = SpoolId(id.0 + 1);
        id
    }

    /// Opens a file that stays until `unhold`.
    fn hold(&mut self, id: SpoolId) -> io::Result<Box<dyn SpoolReader>> {
        let reader = self.files.open(id)?;
        self.held.entry(id).or_default().readers += 1;
        Ok(reader)
    }

    /// A reader is done.
    fn unhold(&mut self, id: SpoolId) {
        let Some(hold) = self.held.get_mut(&id) else { return };
        hold.readers -= 1;
        if hold.readers == 0 && self.held.remove(&id).is_some_and(|h| h.doomed) {
            self.remove(id);
        }
    }

    /// Removes a file, once nobody reads it; one that cannot be removed is garbage that the next start removes.
    fn remove(&mut self, id: SpoolId) {
        if let Some(hold) = self.held.get_mut(&id) {
            hold.doomed = true;
        } else if let Err(error) = self.files.remove(id) {
            tracing::warn!(spool = %id, %error, "a snapshot file was not removed");
        }
    }
}

/// The node's snapshotter.
pub struct Snapshotter {
    /// Work.
    inbox: Inbox<SnapshotTask>,
    /// Owners of groups, and everyone's inbox.
    router: Arc<Router>,
    /// Files.
    spools: Spools,
    /// What was built here.
    builds: Builds,
    /// Streams that leave.
    sends: Sends,
    /// Streams that arrive.
    receptions: Receptions,
    /// `Stop` was taken.
    stopped: bool,
}

impl Snapshotter {
    /// A snapshotter that knows the published snapshots that boot has found.
    #[must_use]
    pub fn new(
        inbox: Inbox<SnapshotTask>,
        router: Arc<Router>,
        env: &Env,
        config: &Config,
        kept: KeptFiles,
        ledger: Arc<Ledger>,
    ) -> Snapshotter {
        Snapshotter {
            inbox,
            router,
            spools: Spools { files: env.files.clone(), next: kept.next_spool, held: BTreeMap::new() },
            builds: Builds::new(kept, ledger),
            sends: Sends::new(env.transport.clone(), config.snapshot_rate),
            receptions: Receptions::new(env.transport.clone()),
            stopped: false,
        }
    }

    fn on_letter(&mut self, now: Instant, letter: SnapshotTask) {
        let mail = self.router.mail();
        match letter {
            SnapshotTask::Build { group, replica: _, poller, purpose, record, source } => {
                let order = build::Order { group, poller, purpose, record };
                self.builds.build(&mut self.spools, mail, order, source);
            }
            SnapshotTask::BuildFailed { group, poller, purpose, why } => {
                build::tell_failure(mail, group, poller, purpose, why);
            }
            SnapshotTask::Send { poller, to, message, spooled } => {
                self.sends.begin(now, &mut self.spools, mail, poller, to, *message, &spooled);
            }
            SnapshotTask::Frame { from, body } => self.on_frame(now, from, body),
            SnapshotTask::Kept { spool, record, poller } => {
                self.receptions.release(spool);
                self.builds.adopt(&mut self.spools, mail, spool, *record, poller);
            }
            SnapshotTask::Forget { group, next_replica } => {
                // What is built of the one that follows, and sent, comes by way of the applier, as this did: behind it.
                self.builds.forget(&mut self.spools, group);
                self.sends.forget(&mut self.spools, group);
                self.receptions.forget(&mut self.spools, group, next_replica);
            }
            SnapshotTask::Drop(spool) => {
                self.receptions.release(spool);
                // A spool that became a volatile machine's own snapshot outlives its delivery.
                if !self.builds.release(spool) {
                    self.spools.remove(spool);
                }
            }
            SnapshotTask::Stop => self.stop(),
        }
    }

    fn on_frame(&mut self, now: Instant, from: PeerIdentity, body: Bytes) {
        match SnapshotFrame::decode(body) {
            Ok(SnapshotFrame::Chunk(chunk)) => {
                self.receptions.on_chunk(now, &mut self.spools, &self.router, from, chunk);
            }
            Ok(SnapshotFrame::Ack(ack)) => self.sends.on_ack(now, &mut self.spools, self.router.mail(), from, ack),
            Err(error) => {
                tracing::warn!(node = %from.node, %error, "snapshot frame refused");
                metrics::counter!("pontoon_snapshot_frames_rejected_total").increment(1);
            }
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.sends.end_all(&mut self.spools, self.router.mail());
        self.receptions.abort_all(&mut self.spools);
    }
}

impl Active for Snapshotter {
    fn turn(&mut self, now: Instant) -> Turn {
        let mut worked = false;
        for _ in 0..MAX_LETTERS {
            let Some(letter) = self.inbox.take() else { break };
            worked = true;
            if !self.stopped {
                self.on_letter(now, letter);
            }
        }
        self.builds.end_round(&mut self.spools, self.router.mail());
        if self.stopped {
            return Turn { worked, next: Instant::NEVER };
        }
        let (sent, send_at) = self.sends.pump(now, &mut self.spools, self.router.mail());
        let expire_at = self.receptions.expire(now, &mut self.spools);
        Turn { worked: worked || sent, next: send_at.min(expire_at) }
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        "snapshotter".to_owned()
    }
}
