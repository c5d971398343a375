//! What happens on a node, for whoever listens: bounded, and a slow listener loses events, never blocks a part.
//!
//! Leaves to others: metrics and logs. Nothing in raftstore decides anything by an event.
//! Invariant: a listener that lost events is told how many before the next one it gets.

use crate::ids::{GroupId, Index, LogPos, NodeId, Term};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Events that a listener may leave waiting.
const BACKLOG: usize = 4096;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A replica came into being here, or was recovered.
    Opened(GroupId),
    /// A replica was destroyed here.
    Destroyed(GroupId),
    /// The leader as far as known here changed.
    Leader {
        /// The group.
        group: GroupId,
        /// Its leader's node; `None`: none known.
        node: Option<NodeId>,
        /// In this term.
        term: Term,
    },
    /// A snapshot replaced the contents of a replica here.
    SnapshotInstalled {
        /// The group.
        group: GroupId,
        /// The snapshot's position.
        at: LogPos,
    },
    /// A change of members has reached its goal, as applied here.
    Reconfigured {
        /// The group.
        group: GroupId,
        /// Index of the configuration.
        at: Index,
    },
    /// A replica stands still.
    Quarantined {
        /// The group.
        group: GroupId,
        /// Why.
        why: String,
    },
    /// A member was created with another spec than this replica: its messages are refused until its first entry is
    /// applied (boot.md 3). At most one event per replica and ten election timeouts; the metric counts all.
    OtherBirth {
        /// The group.
        group: GroupId,
        /// Where the other replica is.
        node: NodeId,
        /// Digest of the spec here.
        ours: u64,
        /// Digest of the spec there.
        theirs: u64,
    },
    /// A write to the log store hangs: leaders are handed over.
    DiskStalled,
    /// It has ended.
    DiskRecovered,
    /// A poller served a deadline, or let acks and votes go, more than a heartbeat interval too late. At most one event
    /// per poller, cause and 10 s; the metric counts all.
    LateTurn {
        /// Why.
        cause: LateCause,
        /// How late.
        by: Duration,
    },
    /// The node promises nothing any more.
    Poisoned(String),
    /// So many events were lost for this listener.
    Lagged(u64),
}

/// Why a poller's turn was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateCause {
    /// Its turn before took long: too much work for one poller, or a pause that fell into a turn.
    PollerBusy,
    /// A write to the log took long.
    SyncSlow,
    /// It was to run and did not: the machine or process was stopped, or had no processor time to give.
    MachinePaused,
}

impl LateCause {
    /// All of them.
    pub const ALL: [LateCause; 3] = [LateCause::PollerBusy, LateCause::SyncSlow, LateCause::MachinePaused];

    /// As a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LateCause::PollerBusy => "poller_busy",
            LateCause::SyncSlow => "sync_slow",
            LateCause::MachinePaused => "machine_paused",
        }
    }
}

struct Listener {
    tx: Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// Where parts tell and listeners subscribe.
#[derive(Default)]
pub struct Events {
    listeners: Mutex<Vec<Listener>>,
}

/// One listener's end.
pub struct EventStream {
    rx: Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// Tells every listener.
    pub fn tell(&self, event: Event) {
        self.listeners.lock().retain(|l| match l.tx.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                l.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    /// A new listener, for what happens from now on.
    #[must_use]
    pub fn listen(&self) -> EventStream {
        let (tx, rx) = crossbeam_channel::bounded(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        self.listeners.lock().push(Listener { tx, lost: lost.clone() });
        EventStream { rx, lost }
    }
}

impl EventStream {
    /// The next event, if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Event> {
        self.lagged().or_else(|| self.rx.try_recv().ok())
    }

    /// The next event, waiting for it.
    #[must_use]
    pub fn next_within(&self, wait: Duration) -> Option<Event> {
        self.lagged().or_else(|| self.rx.recv_timeout(wait).ok())
    }

    fn lagged(&self) -> Option<Event> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => None,
            n => Some(Event::Lagged(n)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_listener_is_told_what_it_lost() {
        let events = Events::default();
        let listener = events.listen();
        for _ in 0..BACKLOG + 3 {
            events.tell(Event::DiskStalled);
        }
        assert_eq!(listener.try_next(), Some(Event::Lagged(3)));
        assert_eq!(listener.try_next(), Some(Event::DiskStalled));
    }
}
