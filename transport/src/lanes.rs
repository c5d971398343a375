//! The send queues of one peer: three lanes bounded by bytes, and the order in which they share the socket.
//!
//! Leaves to others: framing (`batch`), whether there is a link at all (`link`).
//! Invariant: `bytes` of a lane is the cost of what it holds and never above its bound; frames of one lane leave
//! in the order they came. No lane starves: urgent frames go first but take at most half of a batch while others
//! wait, and a waiting snapshot frame earns its turn by the append bytes that pass it.

use crate::config::QueueBytes;
use crate::frame::HEADER;
use bytes::Bytes;
use pontoon_raftstore::env::{Lane, SendError};
use std::collections::VecDeque;

/// Append bytes that may pass a waiting snapshot frame, per byte of it.
const APPEND_PER_SNAPSHOT: usize = 3;

/// What a queued frame costs against the bound: its body, its header and about as much for the queue itself, so
/// that empty bodies are bounded too.
fn cost(body: &Bytes) -> usize {
    body.len() + 2 * HEADER
}

/// One lane.
#[derive(Debug)]
struct Queue {
    /// Waiting bodies, oldest first.
    frames: VecDeque<Bytes>,
    /// Their cost. Invariant: the sum over `frames`, at most `bound`.
    bytes: usize,
    /// Bound of `bytes`.
    bound: usize,
}

impl Queue {
    fn new(bound: usize) -> Queue {
        Queue { frames: VecDeque::new(), bytes: 0, bound }
    }

    fn push(&mut self, body: Bytes) -> Result<(), SendError> {
        let cost = cost(&body);
        if self.bytes + cost > self.bound {
            return Err(SendError::Full);
        }
        self.bytes += cost;
        self.frames.push_back(body);
        Ok(())
    }

    fn take(&mut self) -> Option<Bytes> {
        let body = self.frames.pop_front()?;
        self.bytes -= cost(&body);
        Some(body)
    }
}

/// The three lanes of one peer.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// Heartbeats, votes, answers.
    urgent: Queue,
    /// Appends.
    append: Queue,
    /// Snapshot chunks.
    snapshot: Queue,
    /// Append bytes sent while a snapshot frame waited.
    passed: usize,
}

impl Lanes {
    pub(crate) fn new(bounds: QueueBytes) -> Lanes {
        Lanes {
            urgent: Queue::new(bounds.urgent),
            append: Queue::new(bounds.append),
            snapshot: Queue::new(bounds.snapshot),
            passed: 0,
        }
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Append => &mut self.append,
            Lane::Snapshot => &mut self.snapshot,
        }
    }

    /// Queues a body, or refuses it for its lane's bound.
    pub(crate) fn push(&mut self, lane: Lane, body: Bytes) -> Result<(), SendError> {
        self.queue(lane).push(body)
    }

    /// Bytes waiting: urgent, append, snapshot.
    pub(crate) fn bytes(&self) -> [usize; 3] {
        [self.urgent.bytes, self.append.bytes, self.snapshot.bytes]
    }

    /// Forgets everything; returns how many frames that were.
    pub(crate) fn clear(&mut self) -> usize {
        self.passed = 0;
        [Lane::Urgent, Lane::Append, Lane::Snapshot]
            .into_iter()
            .map(|lane| {
                let queue = self.queue(lane);
                queue.bytes = 0;
                std::mem::take(&mut queue.frames).len()
            })
            .sum()
    }

    /// Moves the next frames to `out`: about `budget` bytes, more only by the last frame.
    pub(crate) fn take(&mut self, budget: usize, out: &mut Vec<(Lane, Bytes)>) {
        let mut left = budget;
        let others_wait = !self.append.frames.is_empty() || !self.snapshot.frames.is_empty();
        let reserved = if others_wait { budget / 2 } else { 0 };
        while left > reserved && self.move_one(Lane::Urgent, &mut left, out) {}
        while left > 0 {
            let lane = if self.is_snapshots_turn() { Lane::Snapshot } else { Lane::Append };
            if !self.move_one(lane, &mut left, out) {
                break;
            }
        }
        // What the others left of their half.
        while left > 0 && self.move_one(Lane::Urgent, &mut left, out) {}
    }

    /// Is a snapshot frame waiting that has been passed often enough, or by nobody?
    fn is_snapshots_turn(&self) -> bool {
        let Some(front) = self.snapshot.frames.front() else { return false };
        self.append.frames.is_empty() || self.passed >= APPEND_PER_SNAPSHOT.saturating_mul(front.len())
    }

    fn move_one(&mut self, lane: Lane, left: &mut usize, out: &mut Vec<(Lane, Bytes)>) -> bool {
        let Some(body) = self.queue(lane).take() else { return false };
        let cost = cost(&body);
        match lane {
            Lane::Urgent => {}
            Lane::Append if self.snapshot.frames.is_empty() => self.passed = 0,
            Lane::Append => self.passed = self.passed.saturating_add(cost),
            Lane::Snapshot => self.passed = 0,
        }
        *left = left.saturating_sub(cost);
        out.push((lane, body));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lanes() -> Lanes {
        Lanes::new(QueueBytes { urgent: 64 << 10, append: 1 << 20, snapshot: 1 << 20 })
    }

    fn body(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    fn take_lanes(lanes: &mut Lanes, budget: usize) -> Vec<Lane> {
        let mut out = Vec::new();
        lanes.take(budget, &mut out);
        out.into_iter().map(|(lane, _)| lane).collect()
    }

    #[test]
    fn bounds_hold_in_bytes_and_for_empty_bodies() {
        let mut lanes = lanes();
        let empty = (0..).take_while(|_| lanes.push(Lane::Urgent, Bytes::new()).is_ok()).count();
        assert_eq!(empty, (64 << 10) / (2 * HEADER));
        assert_eq!(lanes.push(Lane::Urgent, Bytes::new()), Err(SendError::Full));
        assert_eq!(lanes.push(Lane::Append, body(1 << 20)), Err(SendError::Full));
        lanes.push(Lane::Append, body(1000)).unwrap();
        assert_eq!(lanes.clear(), empty + 1);
        assert_eq!(lanes.bytes(), [0, 0, 0]);
    }

    #[test]
    fn urgent_passes_a_full_snapshot_queue() {
        let mut lanes = lanes();
        while lanes.push(Lane::Snapshot, body(64 << 10)).is_ok() {}
        lanes.push(Lane::Urgent, body(10)).unwrap();
        assert_eq!(take_lanes(&mut lanes, 64 << 10)[0], Lane::Urgent);
    }

    #[test]
    fn snapshots_are_interleaved_with_a_stream_of_appends() {
        let mut lanes = lanes();
        for _ in 0..3 {
            lanes.push(Lane::Snapshot, body(10_000)).unwrap();
        }
        let (mut appends, mut snapshots) = (0, 0);
        for _ in 0..200 {
            while lanes.push(Lane::Append, body(1000)).is_ok() {}
            for lane in take_lanes(&mut lanes, 4000) {
                *if lane == Lane::Append { &mut appends } else { &mut snapshots } += 1;
            }
        }
        assert_eq!(snapshots, 3);
        assert!(appends > 90, "{appends}");
    }

    #[test]
    fn appends_pass_a_flood_of_urgent_frames() {
        let mut lanes = lanes();
        lanes.push(Lane::Append, body(100)).unwrap();
        while lanes.push(Lane::Urgent, body(1000)).is_ok() {}
        assert!(take_lanes(&mut lanes, 8000).contains(&Lane::Append));
    }

    #[test]
    fn a_lane_keeps_its_order() {
        let mut lanes = lanes();
        for n in 0..100u8 {
            lanes.push(Lane::Append, Bytes::copy_from_slice(&[n])).unwrap();
        }
        let mut out = Vec::new();
        while lanes.bytes() != [0, 0, 0] {
            lanes.take(200, &mut out);
        }
        assert!(out.iter().map(|(_, b)| b[0]).eq(0..100));
    }
}
