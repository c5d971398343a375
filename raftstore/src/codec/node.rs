//! The byte forms of a node's own records: who it is, which start this is, what it knows of a peer (boot.md 1).
//!
//! Leaves to others: the keys (`env::meta_keys`), what is refused (`identity`).
//! Invariant: an admitted node has a cluster.

use super::DecodeError;
use super::wire::{Reader, put_blob, put_varint};
use crate::ids::{BootEpoch, ClusterId, Incarnation, NodeId, StoreSeq};
use bytes::{BufMut, Bytes};

const NODE_V1: u8 = 1;
const EPOCH_V1: u8 = 1;
const PEER_V1: u8 = 1;
/// Longest listen address, bytes.
const MAX_LISTEN: usize = 512;

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// The cluster, once minted or adopted.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub incarnation: Incarnation,
    /// Is the founding or joining complete?
    pub admitted: bool,
    /// Digest of what was founded.
    pub digest: u64,
}

impl NodeRecord {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![NODE_V1];
        put_varint(&mut out, self.node.0);
        out.put_u64_le(self.incarnation.0);
        out.put_u8(u8::from(self.admitted));
        out.put_u64_le(self.digest);
        out.put_u8(u8::from(self.cluster.is_some()));
        out.put_slice(self.cluster.as_ref().map_or(&[], |c| &c.0));
        out.into()
    }

    /// A record from its bytes.
    pub fn decode(bytes: Bytes) -> Result<NodeRecord, DecodeError> {
        let mut r = Reader::new("node record", bytes);
        r.version(NODE_V1)?;
        let node = r.node()?;
        let incarnation = Incarnation(r.fixed64()?);
        let admitted = r.flag()?;
        let digest = r.fixed64()?;
        let cluster = if r.flag()? { Some(ClusterId(r.array()?)) } else { None };
        r.ensure(!admitted || cluster.is_some(), "admitted without a cluster")?;
        r.finish()?;
        Ok(NodeRecord { cluster, node, incarnation, admitted, digest })
    }
}

/// Bytes of a boot epoch.
#[must_use]
pub fn encode_epoch(epoch: BootEpoch) -> Bytes {
    let mut out = vec![EPOCH_V1];
    put_epoch(&mut out, epoch);
    out.into()
}

/// A boot epoch from its bytes.
pub fn decode_epoch(bytes: Bytes) -> Result<BootEpoch, DecodeError> {
    let mut r = Reader::new("boot epoch", bytes);
    r.version(EPOCH_V1)?;
    let epoch = take_epoch(&mut r)?;
    r.finish()?;
    Ok(epoch)
}

/// What this node has synced of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its disk.
    pub incarnation: Incarnation,
    /// Its newest start.
    pub epoch: BootEpoch,
    /// Highest sequence number that it said to have synced.
    pub synced: StoreSeq,
    /// Where it listened then.
    pub listen: String,
}

impl PeerRecord {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![PEER_V1];
        out.put_u64_le(self.incarnation.0);
        put_epoch(&mut out, self.epoch);
        put_varint(&mut out, self.synced.0);
        put_blob(&mut out, self.listen.as_bytes());
        out.into()
    }

    /// A record from its bytes.
    pub fn decode(bytes: Bytes) -> Result<PeerRecord, DecodeError> {
        let mut r = Reader::new("peer record", bytes);
        r.version(PEER_V1)?;
        let incarnation = Incarnation(r.fixed64()?);
        let epoch = take_epoch(&mut r)?;
        let synced = StoreSeq(r.varint()?);
        let record = PeerRecord { incarnation, epoch, synced, listen: r.text(MAX_LISTEN)? };
        r.finish()?;
        Ok(record)
    }
}

fn put_epoch(out: &mut impl BufMut, epoch: BootEpoch) {
    put_varint(out, epoch.counter);
    out.put_u64_le(epoch.nonce);
}

fn take_epoch(r: &mut Reader) -> Result<BootEpoch, DecodeError> {
    let counter = r.varint()?;
    r.ensure(counter < u64::MAX, "boot counter at its end")?;
    Ok(BootEpoch { counter, nonce: r.fixed64()? })
}
