//! CLUSTER SLOTS, SHARDS, NODES and INFO: the groups' leaders shown as a Redis Cluster's masters.
//!
//! A group's leader is its slots' master; the other nodes that hold the group are replicas. A node that leads nothing is
//! shown as a master without slots, since it may lead at any time; one that holds nothing is not shown. Leaves to others:
//! who leads and holds what (`node`, `routes`).

use crate::advert::Advert;
use crate::node::ServerNode;
use crate::resp::Reply;
use crate::routes::Route;
use pontoon::NodeId;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Slots that one node leads and the same nodes hold.
struct Range {
    first: u16,
    last: u16,
    route: Route,
}

/// Slot ranges with their leader; alike neighbours joined.
fn led_ranges(node: &ServerNode, routes: &[Option<Route>]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for ((_, first, last), route) in node.shards.ranges().zip(routes) {
        let Some(route) = route else { continue };
        let alike = |r: &&mut Range| r.route.leader == route.leader && r.route.members == route.members;
        match ranges.last_mut().filter(|r| r.last + 1 == first).filter(alike) {
            Some(range) => range.last = last,
            None => ranges.push(Range { first, last, route: route.clone() }),
        }
    }
    ranges
}

/// A node's name as Redis shows one: 40 hexadecimal digits.
pub(crate) fn name(node: NodeId) -> String {
    format!("{:040x}", node.0)
}

/// CLUSTER SLOTS.
pub(crate) fn slots(node: &ServerNode) -> Reply {
    let routes = node.all_routes();
    let adverts = node.serving(&routes);
    let entry = |id: &NodeId, advert: &Advert| {
        let (host, port) = advert.redis_parts();
        Reply::Array(vec![Reply::text(host), Reply::Int(i64::from(port)), Reply::text(name(*id))])
    };
    let rows = led_ranges(node, &routes).into_iter().filter_map(|Range { first, last, route }| {
        let leader = route.leader;
        let mut row =
            vec![Reply::Int(i64::from(first)), Reply::Int(i64::from(last)), entry(&leader, adverts.get(&leader)?)];
        let replicas = adverts.iter().filter(|(id, _)| **id != leader && route.members.contains(id));
        row.extend(replicas.map(|(id, a)| entry(id, a)));
        Some(Reply::Array(row))
    });
    Reply::Array(rows.collect())
}

/// Slot ranges by leader, neighbours joined; nodes that lead nothing have none.
fn led_by(node: &ServerNode, adverts: &BTreeMap<NodeId, Advert>) -> BTreeMap<NodeId, Vec<(u16, u16)>> {
    let mut led: BTreeMap<NodeId, Vec<(u16, u16)>> = adverts.keys().map(|id| (*id, Vec::new())).collect();
    for Range { first, last, route } in led_ranges(node, &node.all_routes()) {
        let ranges = led.entry(route.leader).or_default();
        match ranges.last_mut().filter(|r| r.1 + 1 == first) {
            Some(range) => range.1 = last,
            None => ranges.push((first, last)),
        }
    }
    led
}

/// CLUSTER SHARDS.
pub(crate) fn shards(node: &ServerNode) -> Reply {
    let adverts = node.serving(&node.all_routes());
    let row = |(id, ranges): (NodeId, Vec<(u16, u16)>)| {
        let advert = adverts.get(&id)?;
        let (host, port) = advert.redis_parts();
        let bounds = ranges.iter().flat_map(|(a, b)| [Reply::Int(i64::from(*a)), Reply::Int(i64::from(*b))]).collect();
        let member = Reply::Map(vec![
            (Reply::text("id"), Reply::text(name(id))),
            (Reply::text("port"), Reply::Int(i64::from(port))),
            (Reply::text("ip"), Reply::text(host)),
            (Reply::text("endpoint"), Reply::text(host)),
            (Reply::text("role"), Reply::text("master")),
            (Reply::text("health"), Reply::text("online")),
        ]);
        Some(Reply::Map(vec![
            (Reply::text("slots"), Reply::Array(bounds)),
            (Reply::text("nodes"), Reply::Array(vec![member])),
        ]))
    };
    Reply::Array(led_by(node, &adverts).into_iter().filter_map(row).collect())
}

/// CLUSTER NODES.
pub(crate) fn nodes(node: &ServerNode) -> Reply {
    let adverts = node.serving(&node.all_routes());
    let mut text = String::new();
    for (id, ranges) in led_by(node, &adverts) {
        let Some(advert) = adverts.get(&id) else { continue };
        let (_, port) = advert.redis_parts();
        let myself = if id == node.me { "myself," } else { "" };
        let bus = u32::from(port) + 10_000;
        let _ = write!(text, "{} {}@{bus} {myself}master - 0 0 {} connected", name(id), advert.redis, id.0);
        for (first, last) in ranges {
            let _ = if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
        }
        text.push('\n');
    }
    Reply::text(text)
}

/// CLUSTER INFO.
pub(crate) fn info(node: &ServerNode) -> Reply {
    let routes = node.all_routes();
    let served: u32 = led_ranges(node, &routes).iter().map(|r| u32::from(r.last - r.first) + 1).sum();
    let state = if served == u32::from(crate::shards::SLOTS) { "ok" } else { "fail" };
    let known = node.serving(&routes).len();
    Reply::text(format!(
        "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:{served}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{known}\r\ncluster_size:{known}\r\n",
        u32::from(crate::shards::SLOTS) - served
    ))
}
