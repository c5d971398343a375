//! The handshake as a sequence of values: what was shown, what was judged, what was admitted.
//!
//! No I/O: `driver` carries the bodies and asks the `Gatekeeper`. Each step consumes the one before, so that an
//! `Admitted` can be made in one place only, out of two welcomes. Every refusal is typed and reaches both sides.
//! Leaves to others: the decision table of identity (raftstore); here are protocol range and addresses only.
//! Invariant: whatever a peer sends is judged before it is used, and bounded in size.

use crate::error::{LocalFault, PeerFault};
use crate::frame::{Caps, HARD_CAP};
use crate::proto;
use crate::proto::verdict::Why;
use bytes::Bytes;
use pontoon_raftstore::env::{Admission, Hello, PeerIdentity, Refusal};
use pontoon_raftstore::ids::{BootEpoch, ClusterId, Incarnation, NodeId, StoreSeq};
use prost::Message;

/// Protocols that this build speaks, lowest and highest.
pub const PROTOCOLS: (u32, u32) = (1, 2);

/// Longest listen address, bytes.
const MAX_LISTEN: usize = 255;
/// Longest advert, bytes.
const MAX_ADVERT: usize = 16 << 10;
/// Longest free text of a refusal, in characters: it ends up in logs.
const MAX_TEXT: usize = 256;

/// How this node came to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Somebody dialled it.
    Accepts,
    /// It dialled this node.
    Dials(NodeId),
    /// It dialled an address, and takes whoever answers.
    Knocks,
}

impl Side {
    /// Whom the hello is meant for; 0: whoever answers.
    pub(crate) fn meant(self) -> NodeId {
        if let Side::Dials(peer) = self { peer } else { NodeId(0) }
    }
}

/// What this node shows.
#[derive(Debug)]
pub(crate) struct Greeting {
    us: Hello,
    caps: Caps,
    side: Side,
}

/// What the peer has shown.
#[derive(Debug)]
pub(crate) struct Shown {
    greeting: Greeting,
    peer: Hello,
    peer_caps: Caps,
    /// Whom the peer believes to talk to.
    to: NodeId,
    /// Its protocols.
    protocols: (u32, u32),
}

/// Our verdict is made.
#[derive(Debug)]
pub(crate) struct Judged {
    shown: Shown,
    refusal: Option<Refusal>,
}

/// How the handshake ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Both sides said welcome.
    Admitted(Admitted),
    /// At least one did not.
    Refused {
        /// The peer, as it shows itself.
        peer: Hello,
        /// Why we did not.
        by_us: Option<Refusal>,
        /// Why it did not.
        by_peer: Option<Refusal>,
    },
}

/// Proof that both sides admitted each other. Made by `Judged::on_verdict` only.
#[derive(Debug)]
pub(crate) struct Admitted {
    peer: Hello,
    send_caps: Caps,
    protocol: u32,
}

impl Greeting {
    /// Refuses what no frame may carry.
    pub(crate) fn new(us: Hello, caps: Caps, side: Side) -> Result<Greeting, LocalFault> {
        if us.listen.len() > MAX_LISTEN || us.advert.len() > MAX_ADVERT {
            let (listen, advert) = (us.listen.len(), us.advert.len());
            let sizes = format!("listen {listen} of {MAX_LISTEN} bytes, advert {advert} of {MAX_ADVERT}");
            return Err(LocalFault::OwnHello(sizes));
        }
        Ok(Greeting { us, caps, side })
    }

    /// The body that shows this node to `to`.
    pub(crate) fn body(&self, to: NodeId) -> Bytes {
        let us = &self.us;
        let record = proto::Hello {
            protocol_min: PROTOCOLS.0,
            protocol_max: PROTOCOLS.1,
            to: to.0,
            max_frame: self.caps.frame as u64,
            max_snapshot_frame: self.caps.snapshot as u64,
            cluster: cluster_to_wire(us.cluster),
            node: us.node.0,
            incarnation: us.incarnation.0,
            epoch_counter: us.epoch.counter,
            epoch_nonce: us.epoch.nonce,
            admitted: us.admitted,
            digest: us.digest,
            recovered: us.recovered.0,
            synced: us.synced.0,
            listen: us.listen.clone(),
            advert: us.advert.clone(),
        };
        record.encode_to_vec().into()
    }

    /// The peer's first body.
    pub(crate) fn on_hello(self, body: Bytes) -> Result<Shown, PeerFault> {
        let record = proto::Hello::decode(body).map_err(|e| bad_hello(e.to_string()))?;
        let (to, protocols) = (NodeId(record.to), (record.protocol_min, record.protocol_max));
        if protocols.0 == 0 || protocols.0 > protocols.1 {
            return Err(bad_hello(format!("protocols {}..={}", protocols.0, protocols.1)));
        }
        let peer_caps = Caps { frame: cap(record.max_frame)?, snapshot: cap(record.max_snapshot_frame)? };
        let peer = hello_from_wire(record)?;
        Ok(Shown { greeting: self, peer, peer_caps, to, protocols })
    }
}

impl Shown {
    /// The peer.
    pub(crate) fn peer(&self) -> &Hello {
        &self.peer
    }

    /// Our own hello, now that it is known to whom.
    pub(crate) fn reply(&self) -> Bytes {
        self.greeting.body(self.peer.node)
    }

    /// What is refused here, without asking the gatekeeper (who would remember a node that was never meant).
    pub(crate) fn objection(&self) -> Option<Refusal> {
        let (us, peer) = (self.greeting.us.node, self.peer.node);
        let (min, max) = PROTOCOLS;
        let why = if self.protocols.1 < min || self.protocols.0 > max {
            format!("node {peer} speaks protocols {}..={}, node {us} {min}..={max}", self.protocols.0, self.protocols.1)
        } else if peer == us {
            format!("node {us} met itself, or another node with its id: check the addresses and ids of --cluster")
        } else if let Side::Dials(dialled) = self.greeting.side
            && dialled != peer
        {
            format!("node {dialled} was dialled, node {peer} answered: check the address of node {dialled}")
        } else if self.to != us && !self.is_knocked_at() {
            format!("node {} was dialled, this is node {us}: check the address of node {}", self.to, self.to)
        } else {
            return None;
        };
        Some(Refusal::Protocol(why))
    }

    /// The dialler takes whoever answers.
    fn is_knocked_at(&self) -> bool {
        self.to == NodeId(0) && self.greeting.side == Side::Accepts
    }

    /// The judgement is made; the body carries it to the peer.
    pub(crate) fn on_admission(self, admission: Admission) -> (Bytes, Judged) {
        let refusal = match admission {
            Admission::Welcome => None,
            Admission::Refused(why) => Some(why),
        };
        let record = proto::Verdict {
            protocol: if refusal.is_none() { self.protocol() } else { 0 },
            why: refusal.as_ref().map(refusal_to_wire),
        };
        (record.encode_to_vec().into(), Judged { shown: self, refusal })
    }

    /// The highest protocol that both speak; meaningful after `objection` found nothing.
    fn protocol(&self) -> u32 {
        self.protocols.1.min(PROTOCOLS.1)
    }
}

impl Judged {
    /// The peer's verdict.
    pub(crate) fn on_verdict(self, body: Bytes) -> Result<Outcome, PeerFault> {
        let record = proto::Verdict::decode(body).map_err(|e| bad_verdict(e.to_string()))?;
        let by_peer = match (record.protocol, record.why) {
            (0, Some(why)) => Some(refusal_from_wire(why)?),
            (protocol, None) if protocol == self.shown.protocol() => None,
            (protocol, None) => return Err(bad_verdict(format!("welcome to protocol {protocol}"))),
            (_, Some(_)) => return Err(bad_verdict("welcome and refusal at once".into())),
        };
        if self.refusal.is_some() || by_peer.is_some() {
            return Ok(Outcome::Refused { peer: self.shown.peer, by_us: self.refusal, by_peer });
        }
        let send_caps = self.shown.greeting.caps.min(self.shown.peer_caps);
        let protocol = self.shown.protocol();
        Ok(Outcome::Admitted(Admitted { peer: self.shown.peer, send_caps, protocol }))
    }

    /// The peer went away without a verdict: ours stands if it was a refusal.
    pub(crate) fn on_silence(self) -> Option<Outcome> {
        self.refusal.is_some().then(|| Outcome::Refused { peer: self.shown.peer, by_us: self.refusal, by_peer: None })
    }
}

impl Admitted {
    /// What the peer has shown.
    pub(crate) fn peer(&self) -> &Hello {
        &self.peer
    }

    /// Whose frames come over the connection.
    pub(crate) fn identity(&self) -> PeerIdentity {
        PeerIdentity { node: self.peer.node, incarnation: self.peer.incarnation, epoch: self.peer.epoch }
    }

    /// What both speak.
    pub(crate) fn protocol(&self) -> u32 {
        self.protocol
    }

    /// What may be sent to it.
    pub(crate) fn send_caps(&self) -> Caps {
        self.send_caps
    }
}

fn bad_hello(why: String) -> PeerFault {
    PeerFault::BadRecord { what: "hello", why }
}

fn bad_verdict(why: String) -> PeerFault {
    PeerFault::BadRecord { what: "verdict", why }
}

fn cap(wire: u64) -> Result<usize, PeerFault> {
    match usize::try_from(wire) {
        Ok(0) => Err(bad_hello("frame cap of 0".into())),
        Ok(cap) => Ok(cap.min(HARD_CAP)),
        Err(_) => Ok(HARD_CAP),
    }
}

fn hello_from_wire(record: proto::Hello) -> Result<Hello, PeerFault> {
    if record.node == 0 {
        return Err(bad_hello("node 0".into()));
    }
    if record.listen.len() > MAX_LISTEN || record.advert.len() > MAX_ADVERT {
        return Err(bad_hello(format!("listen {} bytes, advert {} bytes", record.listen.len(), record.advert.len())));
    }
    Ok(Hello {
        cluster: cluster_from_wire(&record.cluster).ok_or_else(|| bad_hello("cluster id".into()))?,
        node: NodeId(record.node),
        incarnation: Incarnation(record.incarnation),
        epoch: BootEpoch { counter: record.epoch_counter, nonce: record.epoch_nonce },
        admitted: record.admitted,
        digest: record.digest,
        recovered: StoreSeq(record.recovered),
        synced: StoreSeq(record.synced),
        listen: record.listen,
        advert: record.advert,
    })
}

/// The wire form of a cluster id: empty, or its 16 bytes.
pub(crate) fn cluster_to_wire(cluster: Option<ClusterId>) -> Bytes {
    cluster.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id.0))
}

/// `None`: neither empty nor 16 bytes.
pub(crate) fn cluster_from_wire(wire: &[u8]) -> Option<Option<ClusterId>> {
    match wire {
        [] => Some(None),
        _ => Some(Some(ClusterId(wire.try_into().ok()?))),
    }
}

fn refusal_to_wire(refusal: &Refusal) -> Why {
    match refusal {
        Refusal::OtherDisk { node, known, shown } => {
            Why::OtherDisk(proto::OtherDisk { node: node.0, known: known.0, shown: shown.0 })
        }
        Refusal::OldCopy { node, known, shown } => Why::OldCopy(proto::OldCopy {
            node: node.0,
            known_counter: known.counter,
            known_nonce: known.nonce,
            shown_counter: shown.counter,
            shown_nonce: shown.nonce,
        }),
        Refusal::LostLog { node, recovered, synced } => {
            Why::LostLog(proto::LostLog { node: node.0, recovered: recovered.0, synced: synced.0 })
        }
        Refusal::OtherCluster { ours, theirs } => Why::OtherCluster(proto::OtherCluster {
            ours: cluster_to_wire(Some(*ours)),
            theirs: cluster_to_wire(Some(*theirs)),
        }),
        Refusal::OtherDigest { ours, theirs } => Why::OtherDigest(proto::OtherDigest { ours: *ours, theirs: *theirs }),
        // A reason that this protocol has no record for travels as its text.
        other => Why::Other(printable(&other.to_string())),
    }
}

fn refusal_from_wire(why: Why) -> Result<Refusal, PeerFault> {
    Ok(match why {
        Why::OtherDisk(r) => {
            Refusal::OtherDisk { node: NodeId(r.node), known: Incarnation(r.known), shown: Incarnation(r.shown) }
        }
        Why::OldCopy(r) => Refusal::OldCopy {
            node: NodeId(r.node),
            known: BootEpoch { counter: r.known_counter, nonce: r.known_nonce },
            shown: BootEpoch { counter: r.shown_counter, nonce: r.shown_nonce },
        },
        Why::LostLog(r) => {
            Refusal::LostLog { node: NodeId(r.node), recovered: StoreSeq(r.recovered), synced: StoreSeq(r.synced) }
        }
        Why::OtherCluster(r) => {
            let id = |wire: &[u8]| cluster_from_wire(wire).flatten().ok_or_else(|| bad_verdict("cluster id".into()));
            Refusal::OtherCluster { ours: id(&r.ours)?, theirs: id(&r.theirs)? }
        }
        Why::OtherDigest(r) => Refusal::OtherDigest { ours: r.ours, theirs: r.theirs },
        Why::Other(text) => Refusal::Protocol(printable(&text)),
    })
}

/// Text that is safe and short enough for logs.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_TEXT).collect()
}

/// Label of the counter of refusals.
pub(crate) fn refusal_reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::OtherDisk { .. } => "other_disk",
        Refusal::OldCopy { .. } => "old_copy",
        Refusal::LostLog { .. } => "lost_log",
        Refusal::OtherCluster { .. } => "other_cluster",
        Refusal::OtherDigest { .. } => "other_digest",
        _ => "protocol",
    }
}
