//! CLUSTER SLOTS, SHARDS, NODES and INFO: the groups' leaders shown as a Redis Cluster's masters.
//!
//! A group's leader is its slots' master; the other nodes are replicas. A node that leads nothing is shown as a master
//! without slots, since it may lead at any time. Leaves to others: who leads (the engine's group statuses).

use crate::advert::Advert;
use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::NodeId;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Slot ranges with their leader; neighbours of one leader joined.
fn led_ranges(node: &ServerNode) -> Vec<(u16, u16, NodeId)> {
    let mut ranges: Vec<(u16, u16, NodeId)> = Vec::new();
    for ((_, first, last), leader) in node.shards.ranges().zip(node.leaders()) {
        let Some(leader) = leader else { continue };
        match ranges.last_mut() {
            Some(r) if r.2 == leader && r.1 + 1 == first => r.1 = last,
            _ => ranges.push((first, last, leader)),
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
    let adverts = node.adverts();
    let entry = |id: &NodeId, advert: &Advert| {
        let (host, port) = advert.redis_parts();
        Reply::Array(vec![Reply::text(host), Reply::Int(i64::from(port)), Reply::text(name(*id))])
    };
    let rows = led_ranges(node).into_iter().filter_map(|(first, last, leader)| {
        let mut row =
            vec![Reply::Int(i64::from(first)), Reply::Int(i64::from(last)), entry(&leader, adverts.get(&leader)?)];
        row.extend(adverts.iter().filter(|(id, _)| **id != leader).map(|(id, a)| entry(id, a)));
        Some(Reply::Array(row))
    });
    Reply::Array(rows.collect())
}

fn led_by(node: &ServerNode) -> BTreeMap<NodeId, Vec<(u16, u16)>> {
    let mut led: BTreeMap<NodeId, Vec<(u16, u16)>> = node.adverts().keys().map(|id| (*id, Vec::new())).collect();
    for (first, last, leader) in led_ranges(node) {
        led.entry(leader).or_default().push((first, last));
    }
    led
}

/// CLUSTER SHARDS.
pub(crate) fn shards(node: &ServerNode) -> Reply {
    let adverts = node.adverts();
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
    Reply::Array(led_by(node).into_iter().filter_map(row).collect())
}

/// CLUSTER NODES.
pub(crate) fn nodes(node: &ServerNode) -> Reply {
    let adverts = node.adverts();
    let mut text = String::new();
    for (id, ranges) in led_by(node) {
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
    let served: u32 = led_ranges(node).iter().map(|(a, b, _)| u32::from(b - a) + 1).sum();
    let state = if served == u32::from(crate::shards::SLOTS) { "ok" } else { "fail" };
    let known = node.adverts().len();
    Reply::text(format!(
        "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:{served}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{known}\r\ncluster_size:{known}\r\n",
        u32::from(crate::shards::SLOTS) - served
    ))
}
