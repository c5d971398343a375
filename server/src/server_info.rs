//! HELLO, INFO and PONTOON DIGEST: what this server says about itself.
//!
//! Leaves to others: metrics (the admin endpoint has them all; INFO keeps to what Redis clients look for).

use crate::node::ServerNode;
use crate::resp::{Protocol, Reply};
use pontoon::GroupId;
use std::sync::atomic::Ordering;

/// Redis's version that clients are told: the commands here are those of 7.0's.
const REDIS_VERSION: &str = "7.0.0";

pub(crate) fn hello(node: &ServerNode, connection: u64, protocol: Protocol) -> Reply {
    let version = match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    Reply::Map(vec![
        (Reply::text("server"), Reply::text("pontoon")),
        (Reply::text("version"), Reply::text(REDIS_VERSION)),
        (Reply::text("proto"), Reply::Int(version)),
        (Reply::text("id"), Reply::Int(connection as i64)),
        (Reply::text("mode"), Reply::text("cluster")),
        (Reply::text("role"), Reply::text("master")),
        (Reply::text("modules"), Reply::Array(Vec::new())),
        (Reply::text("node"), Reply::Int(node.me.0 as i64)),
    ])
}

pub(crate) fn info(node: &ServerNode, section: Option<&str>) -> Reply {
    let led = node.all_routes().iter().flatten().filter(|r| r.leader == node.me).count();
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{REDIS_VERSION}\r\npontoon_version:{}\r\nredis_mode:cluster\r\nprocess_id:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id()
            ),
        ),
        ("Stats", format!("total_commands_processed:{}\r\n", node.commands.load(Ordering::Relaxed))),
        ("Replication", format!("role:master\r\npontoon_node:{}\r\npontoon_groups_led:{led}\r\n", node.me)),
        ("Cluster", "cluster_enabled:1\r\n".to_owned()),
    ];
    let wanted = |name: &str| {
        matches!(section, None | Some("all" | "default" | "everything"))
            || section.is_some_and(|s| s.eq_ignore_ascii_case(name))
    };
    Reply::text(
        sections.iter().filter(|(n, _)| wanted(n)).map(|(n, text)| format!("# {n}\r\n{text}\r\n")).collect::<String>(),
    )
}

/// Applied index of each group's replica here; 0 where none is.
pub(crate) fn applied(node: &ServerNode) -> Reply {
    let at = |id| node.engine.status(GroupId(id)).map_or(0, |s| s.applied.0);
    Reply::Array((1..=u64::from(node.shards.count())).map(|id| Reply::Int(at(id) as i64)).collect())
}

/// (applied index, hash of the group's contents at it) of this node's replica, whatever its lag.
pub(crate) fn digest(node: &ServerNode, group: u64) -> Reply {
    let Some(group) = node.group(group) else { return Reply::error("ERR no such group") };
    match group
        .local_reader()
        .and_then(|reader| reader.digest().map_err(|e| pontoon::GroupError::Quarantined(e.to_string())))
    {
        Ok(digest) => {
            Reply::Array(vec![Reply::Int(digest.applied.0 as i64), Reply::text(format!("{:016x}", digest.hash))])
        }
        Err(error) => Reply::error(format!("ERR {error}")),
    }
}
