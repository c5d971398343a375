//! One peer as threads and tasks share it: its `Link` and its way out behind locks, and who to wake when they change.
//!
//! Leaves to others: every decision (`link`), every socket (`outgoing`, `driver`).
//! Invariant: no lock is held across an await, nor while raftstore or the gatekeeper is called, and `link` is never
//! locked before `outgoing`; `seat` is held by the one session that is up, from before `on_link_up` until after
//! `on_link_down`.

use crate::config::Config;
use crate::link::{Link, SessionNo};
use crate::metrics::PeerMetrics;
use crate::outgoing::Outgoing;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::env::{Destination, Lane, SendError};
use pontoon_raftstore::ids::NodeId;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Notify, watch};

/// One peer.
pub(crate) struct Peer {
    /// The node.
    pub(crate) id: NodeId,
    /// States and queues.
    pub(crate) link: Mutex<Link>,
    /// The way out of the session that is up. Senders only try the lock: it is held for as long as a write takes.
    pub(crate) outgoing: Mutex<Option<Outgoing>>,
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
            outgoing: Mutex::default(),
            wake: Notify::new(),
            redial: Notify::new(),
            seat: Arc::default(),
            floor: watch::Sender::new(0),
            metrics: PeerMetrics::new(id),
        }
    }

    /// Queues a body, and writes it if the socket is free and takes it.
    pub(crate) fn send(&self, to: Destination, lane: Lane, body: Bytes) -> Result<(), SendError> {
        let sent = self.link.lock().on_send(to, lane, body);
        match sent {
            Ok(()) => self.push_out(),
            Err(why) => self.metrics.refused(why),
        }
        sent
    }

    /// Writes what waits without waiting for anything. What is left, or written by another one at this moment, is the
    /// writer's: it looks for frames once more.
    pub(crate) fn push_out(&self) {
        let written = match self.outgoing.try_lock().as_deref_mut() {
            Some(Some(outgoing)) => outgoing.try_write(&self.link, &self.metrics),
            _ => false,
        };
        if !written {
            self.wake.notify_one();
        }
    }

    /// For the writer: writes once, when the socket takes something. False: nothing waits, or the session is over.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut *self.outgoing.lock() {
            Some(outgoing) => outgoing.poll_write(&self.link, &self.metrics, cx),
            None => Poll::Ready(Ok(false)),
        }
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
