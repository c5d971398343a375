//! Pages of the peers' table: how running nodes learn where a joiner listens (protocol 2, docs/wire-format.md).
//!
//! A session sends what changed, page by page; a page that waits for the writer holds back the next one.
//! Leaves to others: whether to believe it (`Gatekeeper`), when to speak (`driver`).
//! Invariant: a page has at most `MAX_LISTINGS` listings of bounded length, in either direction.

use crate::error::PeerFault;
use crate::proto;
use bytes::Bytes;
use pontoon_raftstore::env::Listing;
use pontoon_raftstore::ids::{Incarnation, NodeId};
use prost::Message;

/// Protocol from which pages are understood.
pub(crate) const SINCE: u32 = 2;
/// Most listings of a page.
const MAX_LISTINGS: usize = 64;
/// Longest address, bytes.
const MAX_LISTEN: usize = 255;

/// The body of a page.
pub(crate) fn encode(page: Vec<Listing>) -> Bytes {
    let listing =
        |l: Listing| proto::Listing { node: l.node.0, incarnation: l.incarnation.0, boot: l.boot, listen: l.listen };
    let fits = |l: &Listing| l.listen.len() <= MAX_LISTEN;
    let listings = page.into_iter().filter(fits).take(MAX_LISTINGS).map(listing).collect();
    proto::Directory { listings }.encode_to_vec().into()
}

/// A page that came.
pub(crate) fn decode(body: Bytes) -> Result<Vec<Listing>, PeerFault> {
    let bad = |why: String| PeerFault::BadRecord { what: "directory", why };
    let record = proto::Directory::decode(body).map_err(|e| bad(e.to_string()))?;
    if record.listings.len() > MAX_LISTINGS {
        return Err(bad(format!("{} listings", record.listings.len())));
    }
    if let Some(odd) = record.listings.iter().find(|l| l.node == 0 || l.listen.len() > MAX_LISTEN) {
        return Err(bad(format!("node {} with an address of {} bytes", odd.node, odd.listen.len())));
    }
    let listing = |l: proto::Listing| Listing {
        node: NodeId(l.node),
        incarnation: Incarnation(l.incarnation),
        boot: l.boot,
        listen: l.listen,
    };
    Ok(record.listings.into_iter().map(listing).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn listing(node: u64, len: usize) -> Listing {
        Listing { node: NodeId(node), incarnation: Incarnation(7), boot: 3, listen: "x".repeat(len) }
    }

    #[test]
    fn pages_come_back_within_their_bounds_and_their_frame() {
        let page: Vec<Listing> = (1..=64).map(|n| listing(n, 255)).collect();
        let body = encode(page.clone());
        assert!(body.len() <= crate::frame::DIRECTORY_CAP, "{} bytes", body.len());
        assert_eq!(decode(body).unwrap(), page);
        assert_eq!(decode(encode(vec![listing(1, 256), listing(2, 5)])).unwrap(), [listing(2, 5)]);
    }

    #[test]
    fn nonsense_is_the_peers_fault() {
        let of = |l: &Listing| proto::Listing { node: l.node.0, incarnation: 7, boot: 3, listen: l.listen.clone() };
        let body =
            |all: &[Listing]| Bytes::from(proto::Directory { listings: all.iter().map(of).collect() }.encode_to_vec());
        assert!(decode(Bytes::from_static(b"\xff\xff")).is_err());
        assert!(decode(body(&[listing(0, 5)])).is_err());
        assert!(decode(body(&[listing(1, 256)])).is_err());
        assert!(decode(body(&vec![listing(1, 1); 65])).is_err());
        assert_eq!(decode(body(&[])).unwrap(), []);
    }
}
