//! One peer as threads and tasks share it: its `Link` behind a lock, and who to wake when the link changes.
//!
//! Leaves to others: every decision (`link`), every socket (`driver`).
//! Invariant: `link` is never locked across an await, nor while raftstore or the gatekeeper is called; `seat` is held
//! by the one session that is up, from before `on_link_up` until after `on_link_down`.

use crate::config::Config;
use crate::link::{Link, SessionNo};
use crate::metrics::PeerMetrics;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::env::{Destination, Lane, SendError};
use pontoon_raftstore::ids::NodeId;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// One peer.
pub(crate) struct Peer {
    /// The node.
    pub(crate) id: NodeId,
    /// States and queues.
    pub(crate) link: Mutex<Link>,
    /// Wakes the writer of the session: there may be frames.
    pub(crate) wake: Notify,
    /// Wakes the dialer: `Link::next_dial` may have changed.
    pub(crate) redial: Notify,
    /// Whose turn it is: sessions of a pair follow each other, they never overlap.
    pub(crate) seat: Arc<tokio::sync::Mutex<()>>,
    /// Sessions with a lower number end.
    pub(crate) floor: watch::Sender<SessionNo>,
    /// Counters.
    pub(crate) metrics: PeerMetrics,
}

impl Peer {
    pub(crate) fn new(config: &Config, id: NodeId) -> Peer {
        Peer {
            id,
            link: Mutex::new(Link::new(config, id)),
            wake: Notify::new(),
            redial: Notify::new(),
            seat: Arc::default(),
            floor: watch::Sender::new(0),
            metrics: PeerMetrics::new(id),
        }
    }

    /// Queues a body.
    pub(crate) fn send(&self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError> {
        let sent = self.link.lock().on_send(to, lane, body);
        match sent {
            Ok(()) => self.wake.notify_one(),
            Err(why) => self.metrics.refused(why),
        }
        sent
    }

    /// Ends every session below `session`.
    pub(crate) fn raise_floor(&self, session: SessionNo) {
        self.floor.send_if_modified(|floor| {
            let raised = *floor < session;
            *floor = (*floor).max(session);
            raised
        });
    }
}
