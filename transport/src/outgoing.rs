//! The way out of the session that is up: its socket, and what it has not taken yet.
//!
//! Whoever sends writes here first, so that a frame that the socket takes needs no other thread; the session's writer
//! (`driver`) goes on where the socket was full. Leaves to others: which frames (`link`), who writes when (`peer`).
//! Invariant: frames are taken from the link and given to the socket under one lock, so they leave in that order, and
//! what was taken for a session goes to that session's socket or nowhere. No write blocks.

use crate::batch::Batch;
use crate::frame::Kind;
use crate::link::{Link, SessionNo};
use crate::metrics::PeerMetrics;
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::net::tcp::OwnedWriteHalf;

/// Pieces in one write.
const SLICES: usize = 64;

/// What writes to one session's socket. Dropping it ends the connection's outgoing half.
pub(crate) struct Outgoing {
    /// Whose frames it takes.
    session: SessionNo,
    /// Where they go.
    socket: OwnedWriteHalf,
    /// Taken from the link, not yet from the batch by the socket.
    batch: Batch,
    /// Bytes to take at once.
    budget: usize,
    /// Frames between the link and the batch; empty, kept for its memory.
    frames: Vec<(Kind, Bytes)>,
    /// Did the link keep frames when the batch was filled?
    more: bool,
}

impl Outgoing {
    pub(crate) fn new(session: SessionNo, socket: OwnedWriteHalf, batch: Batch, budget: usize) -> Outgoing {
        Outgoing { session, socket, batch, budget, frames: Vec::new(), more: false }
    }

    /// Takes the next frames if all before are written.
    fn fill(&mut self, link: &Mutex<Link>, metrics: &PeerMetrics) {
        if self.batch.has_remaining() {
            return;
        }
        self.more = link.lock().take_frames(self.session, self.budget, &mut self.frames);
        if self.frames.is_empty() {
            return;
        }
        metrics.batch(self.frames.len());
        for (kind, body) in self.frames.drain(..) {
            if let Kind::Data(lane) = kind {
                metrics.sent(lane);
            }
            self.batch.push(kind, body);
        }
        self.batch.seal();
    }

    /// Writes once.
    fn write(&mut self, metrics: &PeerMetrics) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let n = self.batch.chunks_vectored(&mut slices);
        let written = self.socket.try_write_vectored(&slices[..n])?;
        self.batch.advance(written);
        metrics.sent_bytes(written);
        Ok(())
    }

    /// Writes once what waits, if the socket takes it now. False: something is left for the session's writer.
    pub(crate) fn try_write(&mut self, link: &Mutex<Link>, metrics: &PeerMetrics) -> bool {
        if self.batch.has_remaining() {
            return true; // the writer knows of it already, and takes what follows
        }
        self.fill(link, metrics);
        // An error is the writer's to find and to end the session with.
        let written = !self.batch.has_remaining() || self.write(metrics).is_ok();
        written && !self.batch.has_remaining() && !self.more
    }

    /// Writes once what waits, when the socket takes it; false if nothing does. For the session's writer.
    pub(crate) fn poll_write(
        &mut self,
        link: &Mutex<Link>,
        metrics: &PeerMetrics,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        self.fill(link, metrics);
        if !self.batch.has_remaining() {
            return Poll::Ready(Ok(false));
        }
        loop {
            ready!(self.socket.as_ref().poll_write_ready(cx))?;
            match self.write(metrics) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(|()| true)),
            }
        }
    }
}
