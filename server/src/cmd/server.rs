//! Commands about the server and its cluster: COMMAND INFO CONFIG CLUSTER PONTOON.

use super::{Command, TABLE, wrong_arity};
use crate::resp::Reply;
use crate::shards::slot_of;
use bytes::Bytes;

/// What the server is asked.
#[derive(Debug, PartialEq)]
pub(crate) enum ServerOp {
    /// Answers this.
    Reply(Reply),
    /// INFO [section].
    Info(Option<String>),
    /// CLUSTER SLOTS.
    Slots,
    /// CLUSTER SHARDS.
    Shards,
    /// CLUSTER NODES.
    Nodes,
    /// CLUSTER INFO.
    ClusterInfo,
    /// CLUSTER MYID.
    MyId,
    /// PONTOON DIGEST group: (applied index, hash of the group's contents there) of this node's replica.
    Digest(u64),
    /// PONTOON APPLIED: applied index of each group's replica here, in slot order.
    Applied,
    /// Who leads and holds the groups that are here.
    Routes,
}

fn op(op: ServerOp) -> Result<Command, Reply> {
    Ok(Command::Server(op))
}

pub(super) fn command(args: &[Bytes]) -> Result<Command, Reply> {
    let sub = args.get(1).map(|a| a.to_ascii_lowercase());
    let reply = match sub.as_deref() {
        None => Reply::Array(TABLE.iter().map(describe).collect()),
        Some(b"count") => Reply::Int(TABLE.len() as i64),
        Some(b"docs") => Reply::Map(Vec::new()),
        Some(b"info") => Reply::Array(args[2..].iter().map(info_of).collect()),
        Some(b"list") => Reply::Array(TABLE.iter().map(|s| Reply::text(s.name)).collect()),
        Some(_) => return Err(Reply::error("ERR unknown subcommand of COMMAND: COUNT, DOCS, INFO, LIST are there")),
    };
    op(ServerOp::Reply(reply))
}

fn info_of(name: &Bytes) -> Reply {
    TABLE.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name)).map_or(Reply::Nil, describe)
}

fn describe(spec: &super::Spec) -> Reply {
    let (first, last, step) = spec.keys;
    let flags = spec.flags.iter().map(|f| Reply::Simple(f)).collect();
    let numbers = [first, last, step].map(Reply::Int);
    let mut fields = vec![Reply::text(spec.name), Reply::Int(spec.arity), Reply::Array(flags)];
    fields.extend(numbers);
    Reply::Array(fields)
}

/// Settings that clients ask for, with what is true here.
const SETTINGS: &[(&str, &str)] = &[
    ("appendfsync", "always"),
    ("appendonly", "yes"),
    ("cluster-enabled", "yes"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("save", ""),
];

pub(super) fn config(args: &[Bytes]) -> Result<Command, Reply> {
    if !args[1].eq_ignore_ascii_case(b"get") {
        return Err(Reply::error("ERR only CONFIG GET is there: settings are flags of `pontoon serve`"));
    }
    if args.len() < 3 {
        return Err(wrong_arity("config|get"));
    }
    let asked = |name: &str| args[2..].iter().any(|a| a.as_ref() == b"*" || a.eq_ignore_ascii_case(name.as_bytes()));
    let found = SETTINGS.iter().filter(|(name, _)| asked(name));
    op(ServerOp::Reply(Reply::Map(found.map(|(n, v)| (Reply::text(*n), Reply::text(*v))).collect())))
}

pub(super) fn info(args: &[Bytes]) -> Result<Command, Reply> {
    op(ServerOp::Info(args.get(1).map(|s| String::from_utf8_lossy(s).to_ascii_lowercase())))
}

pub(super) fn cluster(args: &[Bytes]) -> Result<Command, Reply> {
    let sub = args[1].to_ascii_lowercase();
    match (sub.as_slice(), &args[2..]) {
        (b"slots", []) => op(ServerOp::Slots),
        (b"shards", []) => op(ServerOp::Shards),
        (b"nodes", []) => op(ServerOp::Nodes),
        (b"info", []) => op(ServerOp::ClusterInfo),
        (b"myid", []) => op(ServerOp::MyId),
        (b"keyslot", [key]) => op(ServerOp::Reply(Reply::Int(i64::from(slot_of(key))))),
        (b"slots" | b"shards" | b"nodes" | b"info" | b"myid" | b"keyslot", _) => Err(wrong_arity("cluster")),
        _ => {
            Err(Reply::error("ERR unknown subcommand of CLUSTER: SLOTS, SHARDS, NODES, INFO, KEYSLOT, MYID are there"))
        }
    }
}

pub(super) fn pontoon(args: &[Bytes]) -> Result<Command, Reply> {
    match &args[1..] {
        [sub, group] if sub.eq_ignore_ascii_case(b"digest") => {
            let group = super::integer(group)?;
            op(ServerOp::Digest(u64::try_from(group).map_err(|_| super::syntax_error())?))
        }
        [sub] if sub.eq_ignore_ascii_case(b"applied") => op(ServerOp::Applied),
        [sub] if sub.eq_ignore_ascii_case(b"routes") => op(ServerOp::Routes),
        _ => Err(Reply::error("ERR unknown subcommand of PONTOON: DIGEST group, APPLIED, ROUTES are there")),
    }
}
