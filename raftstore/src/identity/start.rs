//! What a directory says about its node, against what the caller asks for (boot.md 1 and 2).
//!
//! Pure. Leaves to others: writing what is new (`mod`), the peers' word.
//! Invariant: until "admitted" is written, every start counts as an empty directory that keeps its incarnation.

use super::book::Book;
use crate::codec::{NodeRecord, decode_epoch};
use crate::env::{LoadError, meta_keys};
use crate::error::BootError;
use crate::ids::{BootEpoch, ClusterId, Incarnation, NodeId};
use bytes::Bytes;

/// How the node comes to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Founds a cluster together with all listed nodes, this one included: node and peer address.
    Found {
        /// Everybody who founds.
        peers: Vec<(NodeId, String)>,
    },
    /// Joins a cluster that exists, through any of these addresses.
    Join,
    /// The directory knows; an empty one is refused.
    Existing,
}

/// What the caller asks for.
#[derive(Clone, Debug)]
pub struct IdentityOptions {
    /// This node.
    pub node: NodeId,
    /// How it comes to its cluster.
    pub start: Start,
    /// Refuse any other cluster, if given.
    pub cluster: Option<ClusterId>,
    /// Where it listens for peers.
    pub listen: String,
    /// Opaque to Pontoon: e.g. client and admin addresses.
    pub advert: Bytes,
    /// Digest of what is founded (node ids, groups, ranges); 0 if joining.
    pub digest: u64,
    /// Randomness, used for the incarnation, the boot nonce and the cluster id.
    pub entropy: [u64; 4],
}

/// What this start is, before any peer was heard.
#[derive(Debug)]
pub(super) struct Opening {
    /// The node's record, as it must be on disk.
    pub(super) record: NodeRecord,
    /// This start.
    pub(super) epoch: BootEpoch,
    /// What is known of peers.
    pub(super) book: Book,
    /// Who must confirm this node; empty unless founding.
    pub(super) founders: Vec<NodeId>,
}

/// Decides what this start is.
pub(super) fn open(meta: &[(Bytes, Bytes)], options: &IdentityOptions) -> Result<Opening, BootError> {
    check_options(options)?;
    let (stored, last_epoch, mut book) = read(meta)?;
    let record = match stored {
        Some(record) => reopen(record, options)?,
        None => begin(options)?,
    };
    let founders = founders(options, &record);
    if let Start::Found { peers } = &options.start {
        peers.iter().filter(|p| p.0 != options.node).for_each(|(node, listen)| book.configure(*node, listen));
    }
    let counter = last_epoch.counter.checked_add(1).ok_or_else(|| corrupt("boot counter at its end"))?;
    let epoch = BootEpoch { counter, nonce: options.entropy[1] };
    Ok(Opening { record, epoch, book, founders })
}

fn check_options(options: &IdentityOptions) -> Result<(), BootError> {
    let mut problems = Vec::new();
    if options.node == NodeId(0) {
        problems.push("node ids must be above 0".to_owned());
    }
    if let Start::Found { peers } = &options.start {
        let mut ids: Vec<NodeId> = peers.iter().map(|p| p.0).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|w| w[0] == w[1]) {
            problems.push("a node is listed twice in the cluster".to_owned());
        }
        if !ids.contains(&options.node) {
            problems.push(format!("node {} is not listed in the cluster that it founds", options.node));
        }
        if options.digest == 0 {
            problems.push("a founding needs the digest of what is founded".to_owned());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(BootError::Config(problems)) }
}

fn read(meta: &[(Bytes, Bytes)]) -> Result<(Option<NodeRecord>, BootEpoch, Book), BootError> {
    let (mut record, mut epoch, mut book) = (None, None, Book::default());
    for (key, value) in meta {
        match &key[..] {
            meta_keys::NODE => record = Some(NodeRecord::decode(value.clone()).map_err(corrupt)?),
            meta_keys::EPOCH => epoch = Some(decode_epoch(value.clone()).map_err(corrupt)?),
            peer if peer.starts_with(meta_keys::PEER) => book.load(peer, value.clone()).map_err(corrupt)?,
            _ => {}
        }
    }
    // Both are written by the first batch that a directory ever sees.
    if record.is_some() != epoch.is_some() {
        return Err(corrupt("only one of node record and boot epoch is there"));
    }
    Ok((record, epoch.unwrap_or_default(), book))
}

fn corrupt(why: impl ToString) -> BootError {
    BootError::Load(LoadError::Corrupt(why.to_string()))
}

fn wrong(found: impl ToString, asked: impl ToString) -> BootError {
    BootError::WrongIdentity { found: found.to_string(), asked: asked.to_string() }
}

fn reopen(record: NodeRecord, options: &IdentityOptions) -> Result<NodeRecord, BootError> {
    if record.node != options.node {
        return Err(wrong(format!("node {}", record.node), format!("node {}", options.node)));
    }
    if let (Some(found), Some(asked)) = (record.cluster, options.cluster)
        && found != asked
    {
        return Err(wrong(format!("cluster {found}"), format!("cluster {asked}")));
    }
    if record.admitted {
        let other = options.digest != 0 && record.digest != 0 && options.digest != record.digest;
        return match other {
            true => Err(wrong(
                format!("a cluster founded with digest {:#x}", record.digest),
                format!("{:#x}: nodes and groups are set at the first start", options.digest),
            )),
            false => Ok(record),
        };
    }
    match options.start {
        Start::Existing => Err(wrong("a node whose founding was never completed", "an existing node")),
        Start::Found { .. } | Start::Join => Ok(NodeRecord { digest: digest(options), cluster: None, ..record }),
    }
}

fn begin(options: &IdentityOptions) -> Result<NodeRecord, BootError> {
    if options.start == Start::Existing {
        return Err(wrong("an empty directory", "an existing node"));
    }
    let incarnation = Incarnation(options.entropy[0]);
    Ok(NodeRecord { cluster: None, node: options.node, incarnation, admitted: false, digest: digest(options) })
}

/// A joiner was not there when the cluster was founded: it takes what stands.
fn digest(options: &IdentityOptions) -> u64 {
    if options.start == Start::Join { 0 } else { options.digest }
}

fn founders(options: &IdentityOptions, record: &NodeRecord) -> Vec<NodeId> {
    match &options.start {
        Start::Found { peers } if !record.admitted => {
            let mut ids: Vec<NodeId> = peers.iter().map(|p| p.0).collect();
            ids.sort_unstable();
            ids
        }
        _ => Vec::new(),
    }
}
