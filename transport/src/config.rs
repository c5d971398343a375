//! Configuration of the transport: every field with unit, default and when to touch it.
//!
//! Leaves to others: parsing (engine, server). Nothing is silently altered: `validate` names every mistake.

use crate::error::ConfigFault;
use crate::frame::{Caps, HARD_CAP, HEADER};
use pontoon_raftstore::ids::NodeId;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Byte bounds of a peer's send queues, one per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBytes {
    /// Heartbeats, votes and answers. Default 4 MiB.
    pub urgent: usize,
    /// Appends. Default 32 MiB. Raise on links with much delay when `dropped{reason=queue_full}` grows.
    pub append: usize,
    /// Snapshot chunks. Default 4 MiB.
    pub snapshot: usize,
}

/// What `TcpTransport` needs to know. `Config::new(node, listen)` runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Where peers are served. The loopback, unless `insecure_peers`. Port 0: one of the system's choice.
    pub listen: SocketAddr,
    /// Everybody who can reach `listen` is trusted. Default false.
    pub insecure_peers: bool,
    /// Largest body on the lanes `Urgent` and `Append`. Default 10 MiB: raftstore's largest command (8 MiB), the 1 MiB
    /// of other messages that may share its frame, and their headers; raise it with `max_command`. At most 64 MiB. Of
    /// two sides the smaller counts.
    pub max_frame: usize,
    /// Largest body on the lane `Snapshot`, which is what a heartbeat may have to wait behind. Default 1 MiB + 256 KiB:
    /// raftstore's largest chunk and its header.
    pub max_snapshot_frame: usize,
    /// Bounds of the send queues, per peer.
    pub queue: QueueBytes,
    /// Bytes gathered for one write to a socket. Default 256 KiB.
    pub batch: usize,
    /// How long a handshake may take. Default 5 s. The gatekeeper syncs within it.
    pub handshake_deadline: Duration,
    /// How long resolving and connecting may take. Default 3 s.
    pub dial_deadline: Duration,
    /// Time between beacons. Default 1 s.
    pub beacon_every: Duration,
    /// A link on which nothing arrives for so long is dropped, as is one that takes nothing. Default 3 s. Above two
    /// beacons.
    pub silence: Duration,
    /// First and longest pause between dials; doubled in between, each drawn from `[half, whole]`. Default 50 ms, 1 s.
    pub backoff: (Duration, Duration),
    /// Connections that may be in their handshake at once; further ones are closed unread. Default 64.
    pub max_half_open: usize,
    /// Seed of the jitter. Default: drawn from the node id.
    pub seed: u64,
}

impl Config {
    /// The defaults for a node.
    #[must_use]
    pub fn new(node: NodeId, listen: SocketAddr) -> Config {
        Config {
            node,
            listen,
            insecure_peers: false,
            max_frame: 10 << 20,
            max_snapshot_frame: (1 << 20) + (256 << 10),
            queue: QueueBytes { urgent: 4 << 20, append: 32 << 20, snapshot: 4 << 20 },
            batch: 256 << 10,
            handshake_deadline: Duration::from_secs(5),
            dial_deadline: Duration::from_secs(3),
            beacon_every: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            max_half_open: 64,
            seed: node.0,
        }
    }

    /// The defaults on the loopback, on a port of the system's choice.
    #[must_use]
    pub fn loopback(node: NodeId) -> Config {
        Config::new(node, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Every mistake.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, field: &'static str, wrong: String| {
            if !holds {
                faults.push(ConfigFault { field, wrong });
            }
        };
        let (node, caps, queue) = (self.node.0, self.caps(), self.queue);
        rule(node > 0, "node", "must be above 0".into());
        rule((1..=HARD_CAP).contains(&caps.frame), "max_frame", format!("{} not in 1..={HARD_CAP}", caps.frame));
        rule(
            (1..=caps.frame).contains(&caps.snapshot),
            "max_snapshot_frame",
            format!("{} not in 1..=max_frame", caps.snapshot),
        );
        rule(queue.urgent >= 64 << 10, "queue.urgent", format!("{} under 64 KiB", queue.urgent));
        let holds = |bound: usize, cap: usize| bound >= cap.saturating_add(2 * HEADER);
        rule(holds(queue.append, caps.frame), "queue.append", "does not hold one frame of max_frame".into());
        rule(
            holds(queue.snapshot, caps.snapshot),
            "queue.snapshot",
            "does not hold one frame of max_snapshot_frame".into(),
        );
        rule((4 << 10..=4 << 20).contains(&self.batch), "batch", format!("{} not in 4 KiB..=4 MiB", self.batch));
        rule(!self.handshake_deadline.is_zero(), "handshake_deadline", "must be above 0".into());
        rule(!self.dial_deadline.is_zero(), "dial_deadline", "must be above 0".into());
        rule(!self.beacon_every.is_zero(), "beacon_every", "must be above 0".into());
        rule(
            self.silence >= self.beacon_every.saturating_mul(2),
            "silence",
            "must be at least two beacons, or healthy links are dropped".into(),
        );
        let (first, longest) = self.backoff;
        rule(!first.is_zero() && first <= longest, "backoff", format!("{first:?} up to {longest:?}"));
        rule(self.max_half_open > 0, "max_half_open", "must be above 0".into());
        faults
    }

    /// Caps of what may arrive.
    pub(crate) fn caps(&self) -> Caps {
        Caps { frame: self.max_frame, snapshot: self.max_snapshot_frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_right_and_every_mistake_is_named() {
        assert_eq!(Config::loopback(NodeId(1)).validate(), []);
        let wrong = Config {
            node: NodeId(0),
            max_frame: HARD_CAP + 1,
            max_snapshot_frame: 0,
            queue: QueueBytes { urgent: 0, append: 0, snapshot: 0 },
            batch: 0,
            handshake_deadline: Duration::ZERO,
            dial_deadline: Duration::ZERO,
            beacon_every: Duration::ZERO,
            silence: Duration::from_millis(1),
            backoff: (Duration::from_secs(2), Duration::from_secs(1)),
            max_half_open: 0,
            ..Config::loopback(NodeId(1))
        };
        let fields: Vec<_> = wrong.validate().iter().map(|f| f.field).collect();
        assert_eq!(
            fields,
            [
                "node",
                "max_frame",
                "max_snapshot_frame",
                "queue.urgent",
                "queue.append",
                "queue.snapshot",
                "batch",
                "handshake_deadline",
                "dial_deadline",
                "beacon_every",
                "backoff",
                "max_half_open"
            ]
        );
    }
}
