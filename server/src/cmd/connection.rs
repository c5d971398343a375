//! Commands about the connection itself: PING ECHO HELLO SELECT CLIENT QUIT READONLY READWRITE.

use super::{Command, syntax_error, wrong_arity};
use crate::resp::{Protocol, Reply};
use bytes::Bytes;

/// What the connection does.
#[derive(Debug, PartialEq)]
pub(crate) enum ConnectionOp {
    /// Answers this.
    Reply(Reply),
    /// Speaks this protocol from now on (if given), then says who it is.
    Hello(Option<Protocol>),
    /// Serves reads from this node's replica, or goes back to the leader.
    ReadOnly(bool),
    /// Answers its id.
    ClientId,
    /// Answers its name.
    GetName,
    /// Remembers its name.
    SetName(Bytes),
    /// Answers, then closes.
    Quit,
}

fn op(op: ConnectionOp) -> Result<Command, Reply> {
    Ok(Command::Connection(op))
}

pub(super) fn ping(args: &[Bytes]) -> Result<Command, Reply> {
    match args {
        [_] => op(ConnectionOp::Reply(Reply::Simple("PONG"))),
        [_, text] => op(ConnectionOp::Reply(Reply::Bulk(text.clone()))),
        _ => Err(wrong_arity("ping")),
    }
}

pub(super) fn echo(args: &[Bytes]) -> Result<Command, Reply> {
    op(ConnectionOp::Reply(Reply::Bulk(args[1].clone())))
}

pub(super) fn hello(args: &[Bytes]) -> Result<Command, Reply> {
    let Some(version) = args.get(1) else { return op(ConnectionOp::Hello(None)) };
    let protocol = match version.as_ref() {
        b"2" => Protocol::Resp2,
        b"3" => Protocol::Resp3,
        _ => return Err(Reply::error("NOPROTO unsupported protocol version")),
    };
    match &args[2..] {
        [] => op(ConnectionOp::Hello(Some(protocol))),
        [setname, _] if setname.eq_ignore_ascii_case(b"setname") => op(ConnectionOp::Hello(Some(protocol))),
        [auth, ..] if auth.eq_ignore_ascii_case(b"auth") => {
            Err(Reply::error("ERR AUTH is not supported: this server has no users"))
        }
        _ => Err(syntax_error()),
    }
}

pub(super) fn select(args: &[Bytes]) -> Result<Command, Reply> {
    match super::integer(&args[1])? {
        0 => op(ConnectionOp::Reply(Reply::OK)),
        _ => Err(Reply::error("ERR SELECT is not allowed in cluster mode")),
    }
}

pub(super) fn client(args: &[Bytes]) -> Result<Command, Reply> {
    let sub = args[1].to_ascii_lowercase();
    match (sub.as_slice(), &args[2..]) {
        (b"id", []) => op(ConnectionOp::ClientId),
        (b"getname", []) => op(ConnectionOp::GetName),
        (b"setname", [name]) if name.iter().any(|b| !(b'!'..=b'~').contains(b)) || name.len() > 256 => {
            Err(Reply::error("ERR Client names cannot contain spaces, newlines or special characters."))
        }
        (b"setname", [name]) => op(ConnectionOp::SetName(name.clone())),
        (b"setinfo", [_, _]) | (b"no-evict" | b"no-touch", [_]) => op(ConnectionOp::Reply(Reply::OK)),
        (b"id" | b"getname" | b"setname" | b"setinfo" | b"no-evict" | b"no-touch", _) => Err(wrong_arity("client")),
        _ => Err(Reply::error(
            "ERR unknown subcommand or wrong number of arguments for CLIENT: ID, GETNAME, SETNAME, SETINFO are there",
        )),
    }
}

pub(super) fn quit(_: &[Bytes]) -> Result<Command, Reply> {
    op(ConnectionOp::Quit)
}

pub(super) fn readonly(_: &[Bytes]) -> Result<Command, Reply> {
    op(ConnectionOp::ReadOnly(true))
}

pub(super) fn readwrite(_: &[Bytes]) -> Result<Command, Reply> {
    op(ConnectionOp::ReadOnly(false))
}
