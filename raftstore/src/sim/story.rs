//! What happened to one group, line by line, for whoever looks into a broken world.
//!
//! Leaves to others: who asks. Invariant: telling changes nothing; the newest `LINES` are kept.

use crate::codec::{SnapshotFrame, decode_messages};
use crate::env::{Instant, Lane, LogBatch};
use crate::ids::{GroupId, NodeId};
use crate::mem::{AppliedCommand, Packet};
use std::collections::VecDeque;

/// Lines that are kept.
const LINES: usize = 400_000;

/// The story of a group.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Nobody asks for one: nothing is told.
    group: Option<GroupId>,
    lines: VecDeque<String>,
}

impl Story {
    pub(super) fn new(group: Option<GroupId>) -> Story {
        Story { group, lines: VecDeque::new() }
    }

    pub(super) fn note(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.group.is_some() {
            if self.lines.len() == LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{now:?} {}", line()));
        }
    }

    pub(super) fn on_durable(&mut self, now: Instant, node: NodeId, batch: &LogBatch) {
        for write in batch.writes.iter().filter(|w| Some(w.group) == self.group).collect::<Vec<_>>() {
            self.note(now, || format!("node {node} durable {:?}", write.op));
        }
    }

    pub(super) fn on_applied(&mut self, now: Instant, node: NodeId, applied: &AppliedCommand) {
        if Some(applied.group) == self.group {
            self.note(now, || format!("node {node} applies {:?}", applied.pos));
        }
    }

    pub(super) fn on_frame(&mut self, now: Instant, verb: &str, packet: &Packet) {
        if self.group.is_none() {
            return;
        }
        if packet.lane == Lane::Snapshot {
            return self.on_stream(now, verb, packet);
        }
        for m in decode_messages(packet.body.clone()).unwrap_or_default() {
            if Some(m.group) == self.group {
                self.note(now, || format!("node {} {verb} to {}: {:?}", packet.from.node, packet.to, m.message));
            }
        }
    }

    /// Streams are told of all groups: an ack does not say whose it is.
    fn on_stream(&mut self, now: Instant, verb: &str, packet: &Packet) {
        let said = match SnapshotFrame::decode(packet.body.clone()) {
            Ok(SnapshotFrame::Chunk(c)) => {
                let of = c.header.as_ref().map(|h| (h.message.group, h.size));
                format!("stream {} {of:?} {}+{} end {}", c.stream, c.offset, c.data.len(), c.digest.is_some())
            }
            Ok(SnapshotFrame::Ack(ack)) => format!("{ack:?}"),
            Err(e) => e.to_string(),
        };
        self.note(now, || format!("node {} {verb} to {}: {said}", packet.from.node, packet.to));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
