//! Engine errors as Redis errors: one function per family, tested variant by variant.
//!
//! Invariant: `MOVED`, `TRYAGAIN` and `CLUSTERDOWN` only where the command was never appended; an outcome that may be
//! yet to come is `ERR outcome unknown: ..`.

use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::kv::KvMachine;
use pontoon::{Group, GroupError, Lost, NodeId, ProposeError, ReadError};

/// What a client is told.
#[derive(Debug, PartialEq)]
enum Told {
    /// Ask that node: `MOVED`.
    Ask(NodeId),
    /// No replica is here (any more): `MOVED` to who is heard to lead.
    AskAround,
    /// This.
    Text(String),
}

/// The reply to a write that was not acknowledged.
pub(crate) fn propose_error(error: &ProposeError, slot: u16, node: &ServerNode) -> Reply {
    match told(error) {
        Told::Ask(leader) => node.moved(leader, slot),
        Told::AskAround => node.not_leader(slot),
        Told::Text(text) => Reply::Error(text),
    }
}

fn told(error: &ProposeError) -> Told {
    Told::Text(match error {
        ProposeError::NotLeader { leader: Some(hint) } => return Told::Ask(hint.node),
        ProposeError::NotLeader { leader: None } => NO_LEADER.to_owned(),
        ProposeError::Fenced { .. } => "TRYAGAIN the leader has changed, nothing was appended".to_owned(),
        ProposeError::Behind => "TRYAGAIN a command before this one was refused".to_owned(),
        ProposeError::Overloaded(limit) => format!("TRYAGAIN overloaded: {limit:?}"),
        ProposeError::Transferring { to } => format!("TRYAGAIN leadership is moving to node {to}"),
        ProposeError::TooLarge(size, limit) => format!("ERR command of {size} bytes is over the limit of {limit}"),
        ProposeError::Group(error) if is_elsewhere(error) => return Told::AskAround,
        ProposeError::Group(error) => group_text(error),
        ProposeError::OutcomeUnknown { why, .. } => format!("ERR outcome unknown: {}", lost(*why)),
        other if other.never_appended() => format!("ERR {other}"),
        other => format!("ERR outcome unknown: {other}"),
    })
}

/// The reply to a read that was not served.
pub(crate) fn read_error(error: &ReadError, slot: u16, node: &ServerNode, group: &Group<KvMachine>) -> Reply {
    match error {
        ReadError::NoLeader => no_leader(),
        ReadError::Unconfirmed if node.leads(group) => Reply::error("CLUSTERDOWN no quorum confirmed the read in time"),
        ReadError::Unconfirmed => node.not_leader(slot),
        ReadError::Group(error) if is_elsewhere(error) => node.not_leader(slot),
        ReadError::Overloaded(limit) => Reply::error(format!("TRYAGAIN overloaded: {limit:?}")),
        ReadError::Group(error) => Reply::Error(group_text(error)),
        other => Reply::error(format!("TRYAGAIN {other}")),
    }
}

const NO_LEADER: &str = "CLUSTERDOWN Hash slot not served: no leader is known";

pub(crate) fn no_leader() -> Reply {
    Reply::error(NO_LEADER)
}

/// A leader was known a moment ago: the client should not back off as from a broken cluster.
pub(crate) fn in_handover(reply: Reply) -> Reply {
    match reply {
        Reply::Error(text) if text == NO_LEADER => Reply::error("TRYAGAIN the leader has just changed"),
        other => other,
    }
}

/// The replica left with a change of members, or never was here.
fn is_elsewhere(error: &GroupError) -> bool {
    matches!(error, GroupError::NotFound(_) | GroupError::Destroyed(_))
}

fn group_text(error: &GroupError) -> String {
    format!("CLUSTERDOWN Hash slot not served here: {error}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon::{GroupId, LeaderHint, Limit, Term};

    #[test]
    fn only_what_was_never_appended_may_be_retried() {
        let all = [
            ProposeError::NotLeader { leader: None },
            ProposeError::Overloaded(Limit::Wal),
            ProposeError::Transferring { to: NodeId(2) },
            ProposeError::TooLarge(9, 8),
            ProposeError::Fenced { now: Term(3) },
            ProposeError::Behind,
            ProposeError::Group(GroupError::ShuttingDown),
            ProposeError::OutcomeUnknown { why: Lost::Leadership, at: None },
            ProposeError::OutcomeUnknown { why: Lost::Timeout, at: None },
            ProposeError::OutcomeUnknown { why: Lost::Overwritten, at: None },
            ProposeError::OutcomeUnknown { why: Lost::ReplicaStopped, at: None },
        ];
        for error in all {
            let Told::Text(text) = told(&error) else { panic!("{error:?} names no node") };
            assert_eq!(text.starts_with("ERR outcome unknown: "), !error.never_appended(), "{error:?}: {text}");
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.contains('\n'), "{text}");
        }
        let hint = LeaderHint { node: NodeId(3), term: Term(1) };
        assert_eq!(told(&ProposeError::NotLeader { leader: Some(hint) }), Told::Ask(NodeId(3)));
        for gone in [GroupError::NotFound(GroupId(1)), GroupError::Destroyed(GroupId(1))] {
            assert_eq!(told(&ProposeError::Group(gone)), Told::AskAround);
        }
    }
}
