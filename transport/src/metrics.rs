//! Counters and gauges of the transport (operability.md). Labels: peer (bounded by the cluster's size), lane,
//! direction, and reasons from fixed lists; never a group.
//!
//! Handles are fetched once, so install the recorder before the transport is bound.

use crate::error::PeerFault;
use crate::handshake::refusal_reason;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use pontoon_raftstore::env::{Lane, Refusal, SendError};
use pontoon_raftstore::ids::NodeId;
use std::time::Duration;

const LANES: [&str; 3] = ["urgent", "append", "snapshot"];

/// Place of a lane in arrays by lane.
pub(crate) fn lane_at(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Append => 1,
        Lane::Snapshot => 2,
    }
}

/// Metrics of one peer.
pub(crate) struct PeerMetrics {
    up: Gauge,
    rtt: Histogram,
    sent_bytes: Counter,
    received_bytes: Counter,
    sent_frames: [Counter; 3],
    received_frames: [Counter; 3],
    dropped: [Counter; 4],
    queued: [Gauge; 3],
    batch_frames: Histogram,
}

impl PeerMetrics {
    pub(crate) fn new(peer: NodeId) -> PeerMetrics {
        let peer = peer.to_string();
        let bytes =
            |direction| counter!("pontoon_transport_bytes_total", "direction" => direction, "peer" => peer.clone());
        let frames = |direction| {
            LANES.map(|lane| counter!("pontoon_transport_frames_total", "direction" => direction, "lane" => lane))
        };
        PeerMetrics {
            up: gauge!("pontoon_transport_connections", "peer" => peer.clone(), "state" => "up"),
            rtt: histogram!("pontoon_transport_rtt_seconds", "peer" => peer.clone()),
            sent_bytes: bytes("sent"),
            received_bytes: bytes("received"),
            sent_frames: frames("sent"),
            received_frames: frames("received"),
            dropped: ["queue_full", "disconnected", "oversize", "other_disk"]
                .map(|reason| counter!("pontoon_transport_dropped_total", "peer" => peer.clone(), "reason" => reason)),
            queued: LANES.map(|lane| gauge!("pontoon_transport_queue_bytes", "peer" => peer.clone(), "lane" => lane)),
            batch_frames: histogram!("pontoon_transport_batch_frames"),
        }
    }

    pub(crate) fn up(&self, up: bool) {
        self.up.set(if up { 1.0 } else { 0.0 });
    }

    pub(crate) fn rtt(&self, rtt: Duration) {
        self.rtt.record(rtt.as_secs_f64());
    }

    pub(crate) fn sent_bytes(&self, bytes: usize) {
        self.sent_bytes.increment(bytes as u64);
    }

    pub(crate) fn batch(&self, frames: usize) {
        self.batch_frames.record(frames as f64);
    }

    pub(crate) fn sent(&self, lane: Lane) {
        self.sent_frames[lane_at(lane)].increment(1);
    }

    pub(crate) fn received_bytes(&self, bytes: usize) {
        self.received_bytes.increment(bytes as u64);
    }

    pub(crate) fn received(&self, lane: Lane) {
        self.received_frames[lane_at(lane)].increment(1);
    }

    pub(crate) fn refused(&self, why: SendError) {
        let reason = match why {
            SendError::Full => 0,
            SendError::TooLarge => 2,
            SendError::OtherDisk => 3,
            _ => 1,
        };
        self.dropped[reason].increment(1);
    }

    pub(crate) fn lost(&self, frames: usize) {
        self.dropped[1].increment(frames as u64);
    }

    pub(crate) fn queued(&self, bytes: [usize; 3]) {
        for (gauge, bytes) in self.queued.iter().zip(bytes) {
            gauge.set(bytes as f64);
        }
    }
}

/// Counts a connection dropped for what its peer did.
pub(crate) fn count_fault(fault: &PeerFault) {
    counter!("pontoon_transport_peer_faults_total", "reason" => fault.reason()).increment(1);
}

/// Counts a refused handshake.
pub(crate) fn count_refusal(refusal: &Refusal, by: &'static str) {
    counter!("pontoon_transport_refusals_total", "by" => by, "reason" => refusal_reason(refusal)).increment(1);
}

/// Counts a connection closed unread because too many were in their handshake.
pub(crate) fn count_crowded() {
    counter!("pontoon_transport_crowded_total").increment(1);
}
