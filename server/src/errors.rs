//! Engine errors as Redis errors: one function per family, tested variant by variant.
//!
//! Invariant: `MOVED`, `TRYAGAIN` and `CLUSTERDOWN` only where the command was never appended; an outcome that may be
//! yet to come is `ERR outcome unknown: ..`.

use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::kv::KvMachine;
use pontoon::{Group, GroupError, Lost, ProposeError, ReadError};

/// The reply to a write that was not acknowledged.
pub(crate) fn propose_error(error: &ProposeError, slot: u16, node: &ServerNode) -> Reply {
    match error {
        ProposeError::NotLeader { leader: Some(hint) } => node.moved(hint.node, slot),
        ProposeError::NotLeader { leader: None } => no_leader(),
        ProposeError::Fenced { .. } => Reply::error("TRYAGAIN the leader has changed, nothing was appended"),
        ProposeError::Overloaded(limit) => Reply::error(format!("TRYAGAIN overloaded: {limit:?}")),
        ProposeError::Transferring { to } => Reply::error(format!("TRYAGAIN leadership is moving to node {to}")),
        ProposeError::TooLarge(size, limit) => {
            Reply::error(format!("ERR command of {size} bytes is over the limit of {limit}"))
        }
        ProposeError::Group(error) => group_error(error),
        ProposeError::OutcomeUnknown { why, .. } => Reply::error(format!("ERR outcome unknown: {}", lost(*why))),
        other => Reply::error(format!("ERR outcome unknown: {other}")),
    }
}

/// The reply to a read that was not served.
pub(crate) fn read_error(error: &ReadError, slot: u16, node: &ServerNode, group: &Group<KvMachine>) -> Reply {
    match error {
        ReadError::NoLeader => no_leader(),
        ReadError::Unconfirmed if node.leads(group) => Reply::error("CLUSTERDOWN no quorum confirmed the read in time"),
        ReadError::Unconfirmed => node.not_leader(group, slot),
        ReadError::Overloaded(limit) => Reply::error(format!("TRYAGAIN overloaded: {limit:?}")),
        ReadError::Group(error) => group_error(error),
        other => Reply::error(format!("TRYAGAIN {other}")),
    }
}

pub(crate) fn no_leader() -> Reply {
    Reply::error("CLUSTERDOWN Hash slot not served: no leader is known")
}

fn group_error(error: &GroupError) -> Reply {
    Reply::error(format!("CLUSTERDOWN Hash slot not served here: {error}"))
}

fn lost(why: Lost) -> &'static str {
    match why {
        Lost::Leadership => "the leader changed before the command was committed",
        Lost::Timeout => "no answer within the deadline",
        Lost::Overwritten => "another leader's entry took its place",
        Lost::ReplicaStopped => "this replica stopped",
        _ => "the command may or may not have taken effect",
    }
}
