//! Messages of one turn, gathered per node and lane, encoded once, handed to the network at the turn's end.
//!
//! Leaves to others: when a message may leave (the core holds acks and votes back), snapshots' contents.
//! Invariant: never blocks and never retries; who could not be reached is named, so that raft is told.

use crate::codec::MessageBatch;
use crate::env::{Destination, Lane, Transport};
use crate::ids::{GroupId, ReplicaId};
use crate::task::GroupMessage;
use bytes::Bytes;
use pontoon_raft::Body;
use std::collections::BTreeMap;

/// A frame is closed once it is larger. Bytes.
const FRAME: usize = 1 << 20;

/// One lane to one node.
#[derive(Default)]
struct Gathered {
    /// Closed frames.
    frames: Vec<Bytes>,
    /// The frame being filled.
    open: MessageBatch,
    /// Whose appends are in here: group and receiver.
    appends: Vec<(GroupId, ReplicaId)>,
}

/// What leaves at the end of the turn.
#[derive(Default)]
pub struct Outbox {
    /// By node and disk: urgent lane, append lane. Entries stay, so that buffers keep their memory.
    links: BTreeMap<Destination, [Gathered; 2]>,
    /// Messages gathered since the last flush.
    count: u64,
}

impl Outbox {
    /// Gathers a message for a node.
    pub fn push(&mut self, to: Destination, message: &GroupMessage) {
        let lane = lane_of(&message.message.body);
        let link = self.links.entry(to).or_default();
        let gathered = &mut link[usize::from(lane == Lane::Append)];
        if gathered.open.bytes() >= FRAME {
            gathered.frames.push(gathered.open.take());
        }
        if !gathered.open.push(message) {
            gathered.frames.push(gathered.open.take());
            let fits = gathered.open.push(message);
            assert!(fits, "an empty frame takes a message");
        }
        if matches!(message.message.body, Body::Append(_)) {
            gathered.appends.push((message.group, message.message.to));
        }
        self.count += 1;
    }

    /// Hands everything to the network. Pushes into `failed` the receivers of appends that were not queued.
    /// Returns how many messages left.
    pub fn flush(&mut self, transport: &dyn Transport, failed: &mut Vec<(GroupId, ReplicaId)>) -> u64 {
        if self.count == 0 {
            return 0;
        }
        for (node, lanes) in &mut self.links {
            for (lane, gathered) in [Lane::Urgent, Lane::Append].into_iter().zip(lanes) {
                if !gathered.open.is_empty() {
                    gathered.frames.push(gathered.open.take());
                }
                let mut lost = false;
                for frame in gathered.frames.drain(..) {
                    lost |= transport.send(*node, lane, frame).is_err();
                }
                if lost {
                    failed.append(&mut gathered.appends);
                }
                gathered.appends.clear();
            }
        }
        std::mem::take(&mut self.count)
    }

    /// Drops everything: the node promises nothing any more.
    pub fn clear(&mut self) {
        self.links.clear();
        self.count = 0;
    }
}

/// Bulk must never delay what keeps leaders alive.
fn lane_of(body: &Body) -> Lane {
    match body {
        Body::Append(_) | Body::AppendResp(_) | Body::Propose { .. } => Lane::Append,
        _ => Lane::Urgent,
    }
}
