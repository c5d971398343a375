//! The periodic word of a link: what the gatekeeper says, and stamps that measure the round trip.
//!
//! Leaves to others: when to speak and whom to tell (`driver`). Stamps are echoed in the next beacon together with
//! how long they were held, so that nothing has to be answered at once.
//! Invariant: a peer's stamps are only ever echoed, never compared with this node's time.

use crate::error::PeerFault;
use crate::handshake::{cluster_from_wire, cluster_to_wire};
use crate::proto;
use bytes::Bytes;
use pontoon_raftstore::env::{Beacon, Instant};
use pontoon_raftstore::ids::StoreSeq;
use prost::Message;
use std::time::Duration;

/// The stamps of one session.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// The peer's last stamp, and when it came.
    heard: Option<(u64, Instant)>,
}

impl Stamps {
    /// The body to send now.
    pub(crate) fn word(&self, now: Instant, beacon: Beacon) -> Bytes {
        let (echo, held) = self.heard.map_or((0, 0), |(stamp, at)| (stamp, now.0.saturating_sub(at.0)));
        let record = proto::Beacon {
            cluster: cluster_to_wire(beacon.cluster),
            synced: beacon.synced.0,
            stamp: now.0,
            echo,
            echo_held: held,
        };
        record.encode_to_vec().into()
    }

    /// A beacon has come. Returns what it says, and the round trip if it echoes a stamp of ours.
    pub(crate) fn on_beacon(&mut self, now: Instant, body: Bytes) -> Result<(Beacon, Option<Duration>), PeerFault> {
        let bad = |why: String| PeerFault::BadRecord { what: "beacon", why };
        let record = proto::Beacon::decode(body).map_err(|e| bad(e.to_string()))?;
        let cluster = cluster_from_wire(&record.cluster).ok_or_else(|| bad("cluster id".into()))?;
        self.heard = Some((record.stamp, now));
        let rtt = now.0.checked_sub(record.echo).and_then(|sum| sum.checked_sub(record.echo_held));
        let rtt = rtt.filter(|_| record.echo != 0).map(Duration::from_nanos);
        Ok((Beacon { cluster, synced: StoreSeq(record.synced) }, rtt))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pontoon_raftstore::ids::ClusterId;

    #[test]
    fn the_round_trip_leaves_out_how_long_the_stamp_was_held() {
        let (mut a, mut b) = (Stamps::default(), Stamps::default());
        let beacon = Beacon { cluster: Some(ClusterId([7; 16])), synced: StoreSeq(9) };
        let (said, rtt) = b.on_beacon(Instant(5_000), a.word(Instant(100), beacon)).unwrap();
        assert_eq!((said, rtt), (beacon, None));
        let (_, rtt) = a.on_beacon(Instant(1_400), b.word(Instant(6_000), beacon)).unwrap();
        assert_eq!(rtt, Some(Duration::from_nanos(1_300 - 1_000)));
    }

    #[test]
    fn nonsense_is_a_fault_or_no_measurement() {
        let mut stamps = Stamps::default();
        assert!(stamps.on_beacon(Instant(1), Bytes::from_static(b"\xff\xff")).is_err());
        let lies = proto::Beacon { cluster: Bytes::new(), synced: 0, stamp: 1, echo: u64::MAX, echo_held: u64::MAX };
        let (_, rtt) = stamps.on_beacon(Instant(1), lies.encode_to_vec().into()).unwrap();
        assert_eq!(rtt, None);
    }
}
