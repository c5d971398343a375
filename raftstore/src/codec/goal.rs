//! The byte forms of a change of members: the goal in the replica record, and what a membership entry says beside its
//! operations.
//!
//! Leaves to others: what they mean (`replica/membership`). Tags are never given twice; unknown ones are refused, for a
//! replica that passes an order over would differ from the others.

use super::DecodeError;
use super::record::{Member, put_members, take_members};
use super::wire::{Reader, put_varint};
use crate::ids::NodeId;
use crate::reconfigure::{Goal, WhyAborted};
use bytes::{BufMut, Bytes};
use std::collections::BTreeSet;

/// Most members that one entry may name.
const MAX_NAMED: usize = 256;
/// Most nodes in one list of a goal.
const MAX_NODES: usize = 64;

/// Stands where the old form has the number of members named, which never was 0.
const ORDERED: u8 = 0;
const ORDERED_V1: u8 = 1;

const BEGIN: u8 = 1;
const ABORT: u8 = 2;
const SEAL: u8 = 3;

const GOES_ON: u8 = 0;
const ASKED: u8 = 1;
const NO_PROGRESS: u8 = 2;

/// What a membership entry says beside its operations: news for the replica map, and what becomes of the goal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfContext {
    /// Replica, node, disk.
    pub named: Vec<Member>,
    /// At most one.
    pub order: Option<Order>,
}

/// What becomes of the goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// This is the goal from now on, if there is none.
    Begin(Goal),
    /// It is given up.
    Abort(WhyAborted),
    /// It is reached, and nobody needs the removed replicas any more.
    Seal,
}

impl ConfContext {
    /// The context's bytes; none if there is nothing to say.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match (&self.order, self.named.is_empty()) {
            (None, true) => {}
            (None, false) => put_members(&mut out, &self.named),
            (Some(order), _) => {
                out.extend([ORDERED, ORDERED_V1]);
                put_members(&mut out, &self.named);
                put_order(&mut out, order);
            }
        }
        out.into()
    }

    /// A context from its bytes.
    pub fn decode(bytes: Bytes) -> Result<ConfContext, DecodeError> {
        if bytes.is_empty() {
            return Ok(ConfContext::default());
        }
        let ordered = bytes[0] == ORDERED;
        let mut r = Reader::new("membership context", bytes);
        if ordered {
            r.version(ORDERED)?;
            r.version(ORDERED_V1)?;
        }
        let named = take_members(&mut r, MAX_NAMED)?;
        let order = if ordered { Some(take_order(&mut r)?) } else { None };
        r.finish()?;
        Ok(ConfContext { named, order })
    }
}

fn put_order(out: &mut Vec<u8>, order: &Order) {
    match order {
        Order::Begin(goal) => {
            out.put_u8(BEGIN);
            put_goal(out, goal);
        }
        Order::Abort(why) => {
            out.put_u8(ABORT);
            put_why(out, Some(*why));
        }
        Order::Seal => out.put_u8(SEAL),
    }
}

fn take_order(r: &mut Reader) -> Result<Order, DecodeError> {
    Ok(match r.u8()? {
        BEGIN => Order::Begin(take_goal(r)?),
        ABORT => Order::Abort(take_why(r)?.ok_or_else(|| r.error("given up for no reason"))?),
        SEAL => Order::Seal,
        unknown => return Err(r.error(format!("unknown order {unknown}"))),
    })
}

/// Appends a goal.
pub(super) fn put_goal(out: &mut Vec<u8>, goal: &Goal) {
    put_nodes(out, &goal.voters);
    put_nodes(out, &goal.learners);
    put_varint(out, goal.promote_lag);
    put_varint(out, goal.first.0);
    put_why(out, goal.aborted);
}

/// Takes a goal.
pub(super) fn take_goal(r: &mut Reader) -> Result<Goal, DecodeError> {
    let (voters, learners) = (take_nodes(r)?, take_nodes(r)?);
    r.ensure(!voters.is_empty() && voters.is_disjoint(&learners), "a goal that no group can have")?;
    Ok(Goal { voters, learners, promote_lag: r.varint()?, first: r.replica()?, aborted: take_why(r)? })
}

fn put_nodes(out: &mut Vec<u8>, nodes: &BTreeSet<NodeId>) {
    put_varint(out, nodes.len() as u64);
    nodes.iter().for_each(|n| put_varint(out, n.0));
}

fn take_nodes(r: &mut Reader) -> Result<BTreeSet<NodeId>, DecodeError> {
    let n = r.count(MAX_NODES, 1)?;
    let mut nodes = BTreeSet::new();
    for _ in 0..n {
        let node = r.node()?;
        r.ensure(nodes.last().is_none_or(|last| *last < node), "nodes out of order")?;
        nodes.insert(node);
    }
    Ok(nodes)
}

fn put_why(out: &mut Vec<u8>, why: Option<WhyAborted>) {
    match why {
        None => out.put_u8(GOES_ON),
        Some(WhyAborted::Asked) => out.put_u8(ASKED),
        Some(WhyAborted::NoProgress(node)) => {
            out.put_u8(NO_PROGRESS);
            put_varint(out, node.0);
        }
    }
}

fn take_why(r: &mut Reader) -> Result<Option<WhyAborted>, DecodeError> {
    Ok(match r.u8()? {
        GOES_ON => None,
        ASKED => Some(WhyAborted::Asked),
        NO_PROGRESS => Some(WhyAborted::NoProgress(r.node()?)),
        unknown => return Err(r.error(format!("unknown reason {unknown}"))),
    })
}
