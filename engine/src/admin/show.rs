//! What the admin endpoints show, as JSON: groups, peers, changes of members.
//!
//! Leaves to others: which of it is asked for (`mod`). Invariant: field names are stable; a new one may come.

use crate::engine::Peer;
use crate::reconfigure::members_of;
use pontoon_raftstore::env::LinkState;
use pontoon_raftstore::group_status::GroupStatus;
use pontoon_raftstore::ids::NodeId;
use pontoon_raftstore::reconfigure::{Phase, ReconfigureStatus};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A line of `/groups`.
pub(super) fn row(s: &GroupStatus) -> Value {
    let (voters, learners) = members_of(s);
    json!({
        "group": s.group.0,
        "kind": s.kind,
        "role": format!("{:?}", s.role).to_lowercase(),
        "leader": s.leader.map(|l| l.node.0),
        "term": s.term.0,
        "commit": s.commit.0,
        "applied": s.applied.0,
        "voters": ids(&voters),
        "learners": ids(&learners),
        "changing": s.reconfigure.as_ref().map(|r| phase(r.phase)["name"].clone()),
        "quarantined": s.quarantined,
    })
}

fn ids(nodes: &BTreeSet<NodeId>) -> Vec<u64> {
    nodes.iter().map(|n| n.0).collect()
}

/// `/groups/ID`.
pub(super) fn whole(s: &GroupStatus) -> Value {
    let members = s.members.iter().map(|(replica, node, disk)| {
        json!({ "replica": replica.0, "node": node.0, "incarnation": format!("{:016x}", disk.0) })
    });
    let followers = s.followers.iter().map(|f| {
        json!({
            "replica": f.replica.0,
            "node": f.node.map(|n| n.0),
            "match": f.matched.0,
            "state": format!("{:?}", f.flow),
            "recent_active": f.active,
            "learner": f.learner,
        })
    });
    let mut body = row(s);
    let more = json!({
        "replica": s.replica.0,
        "generation": s.generation.0,
        "first": s.first.0,
        "last": s.last.0,
        "log_bytes": s.log_bytes,
        "transferring": s.transferring.map(|n| n.0),
        "conf_state": format!("{:?}", s.conf_state),
        "conf_index": s.conf_index.0,
        "reconfigure": s.reconfigure.as_ref().map(under_way),
        "members": members.collect::<Vec<_>>(),
        "followers": followers.collect::<Vec<_>>(),
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// A line of `/peers`.
pub(super) fn peer(p: &Peer) -> Value {
    let link = match &p.link {
        LinkState::Up => "up".to_owned(),
        LinkState::Down => "down".to_owned(),
        LinkState::Refused(why) => format!("refused: {why}"),
    };
    let disk = p.disk.map(|d| format!("{:016x}", d.0));
    json!({ "node": p.node.0, "disk": disk, "address": p.address, "advert": String::from_utf8_lossy(&p.advert), "link": link })
}

/// A change of members under way.
pub(super) fn under_way(r: &ReconfigureStatus) -> Value {
    json!({
        "voters": ids(&r.voters),
        "learners": ids(&r.learners),
        "phase": phase(r.phase),
    })
}

/// How far it is.
pub(super) fn phase(phase: Phase) -> Value {
    match phase {
        Phase::CatchingUp { node, behind } => json!({ "name": "catching_up", "node": node.0, "behind": behind }),
        Phase::Joint => json!({ "name": "joint" }),
        Phase::Aborting => json!({ "name": "aborting" }),
        Phase::Done => json!({ "name": "done" }),
        other => json!({ "name": format!("{other:?}") }),
    }
}
