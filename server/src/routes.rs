//! Who leads and holds the groups that have no replica here, as other nodes say: so that a node that just joined, or that
//! was emptied, still sends clients to the right place.
//!
//! One node is asked, once a second, and only while a leader is unknown here. Leaves to others: what own replicas know
//! (`node`). Invariant: hearsay only ever sends a client elsewhere; a route of a lower term never replaces a higher one.

use crate::client::{Answer, ClusterClient, Value};
use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::{GroupId, NodeId};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who leads and holds a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Of the leader.
    pub(crate) term: u64,
    pub(crate) leader: NodeId,
    /// Nodes with a replica.
    pub(crate) members: Vec<NodeId>,
}

/// What was heard, by group id - 1.
pub(crate) struct Routes(Mutex<Vec<Option<Route>>>);

impl Routes {
    pub(crate) fn new(groups: u16) -> Routes {
        Routes(Mutex::new(vec![None; usize::from(groups)]))
    }

    /// The last word about a group.
    pub(crate) fn heard(&self, id: GroupId) -> Option<Route> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(usize::try_from(id.0.checked_sub(1)?).ok()?)?.clone()
    }

    fn hear(&self, id: u64, route: Route) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = id.checked_sub(1).and_then(|at| heard.get_mut(usize::try_from(at).ok()?));
        if let Some(place) = place.filter(|p| p.as_ref().is_none_or(|known| known.term <= route.term)) {
            *place = Some(route);
        }
    }
}

/// PONTOON ROUTES: a row of numbers for each group whose leader the replica here knows: group, term, leader, members.
pub(crate) fn told(node: &ServerNode) -> Reply {
    let row = |id: u64| {
        let status = node.engine.status(GroupId(id)).ok()?;
        let leader = status.leader?;
        let members = status.members.iter().map(|m| m.1.0);
        let numbers = [id, leader.term.0, leader.node.0].into_iter().chain(members);
        Some(Reply::Array(numbers.map(|n| Reply::Int(n as i64)).collect()))
    };
    Reply::Array((1..=u64::from(node.shards.count())).filter_map(row).collect())
}

/// Asks other nodes, in turn, while anything is unknown here. Runs until it is aborted.
pub(crate) async fn listen(node: Arc<ServerNode>) {
    for turn in 0usize.. {
        tokio::time::sleep(ASK_EVERY).await;
        let known_here = |id: u64| node.engine.status(GroupId(id)).is_ok_and(|s| s.leader.is_some());
        if (1..=u64::from(node.shards.count())).all(known_here) {
            continue;
        }
        let mut others = node.adverts();
        others.remove(&node.me);
        if let Some(other) = others.values().nth(turn % others.len().max(1)) {
            ask(&node, &other.redis).await;
        }
    }
}

async fn ask(node: &ServerNode, addr: &str) {
    let mut client = ClusterClient::new(vec![addr.to_owned()], PATIENCE);
    if let Answer::Done(Value::Array(rows)) = client.call_at(addr, &[b"PONTOON", b"ROUTES"]).await {
        rows.iter().filter_map(parse).for_each(|(id, route)| node.routes.hear(id, route));
    }
}

fn parse(row: &Value) -> Option<(u64, Route)> {
    let Value::Array(cells) = row else { return None };
    let number = |v: &Value| if let Value::Int(n) = v { u64::try_from(*n).ok() } else { None };
    let numbers: Vec<u64> = cells.iter().map(number).collect::<Option<_>>()?;
    let [id, term, leader, members @ ..] = numbers.as_slice() else { return None };
    let members = members.iter().copied().map(NodeId).collect();
    Some((*id, Route { term: *term, leader: NodeId(*leader), members }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_never_goes_back_in_terms() {
        let routes = Routes::new(3);
        let route = |term, leader| Route { term, leader: NodeId(leader), members: vec![NodeId(leader)] };
        for (id, told) in [(1, route(5, 1)), (1, route(4, 2)), (3, route(1, 9)), (0, route(9, 9)), (4, route(9, 9))] {
            routes.hear(id, told);
        }
        assert_eq!(routes.heard(GroupId(1)), Some(route(5, 1)));
        routes.hear(1, route(5, 3));
        assert_eq!(routes.heard(GroupId(1)), Some(route(5, 3)));
        assert_eq!([0, 2, 4].map(|id| routes.heard(GroupId(id))), [None, None, None]);
    }

    #[test]
    fn rows_are_numbers_or_nothing() {
        let row = |numbers: &[i64]| Value::Array(numbers.iter().map(|n| Value::Int(*n)).collect());
        let route = Route { term: 4, leader: NodeId(2), members: vec![NodeId(1), NodeId(2)] };
        assert_eq!(parse(&row(&[7, 4, 2, 1, 2])), Some((7, route)));
        assert_eq!(parse(&row(&[7, 4])), None);
        assert_eq!(parse(&row(&[7, -4, 2])), None);
        assert_eq!(parse(&Value::Nil), None);
    }
}
