//! Commands that change keys of one slot: SET MSET DEL INCR DECR INCRBY APPEND. Each is one atomic `KvCommand`.

use super::{Command, integer, one_slot, syntax_error, wrong_arity};
use crate::resp::Reply;
use bytes::Bytes;
use pontoon::kv::{KvCommand, KvResponse, When};

/// Longest value that APPEND may make, bytes.
const VALUE_CAP: u32 = 8 << 20;

/// A write: proposed as it is, answered by the machine.
#[derive(Debug)]
pub(crate) struct WriteCommand {
    pub(crate) slot: u16,
    pub(crate) command: KvCommand,
}

impl WriteCommand {
    /// The reply to what the machine answered.
    pub(crate) fn reply(response: KvResponse) -> Reply {
        match response {
            KvResponse::Set(true) => Reply::OK,
            KvResponse::Set(false) => Reply::Nil,
            KvResponse::Previous(value) => Reply::opt(value),
            KvResponse::Deleted(n) | KvResponse::Length(n) => Reply::Int(n as i64),
            KvResponse::Int(n) => Reply::Int(n),
            KvResponse::NotANumber => Reply::error("ERR value is not an integer or out of range"),
            KvResponse::Overflow => Reply::error("ERR increment or decrement would overflow"),
            KvResponse::BadCommand => Reply::error("ERR the replicas do not know this command: upgrade them first"),
            KvResponse::TooLong => Reply::error("ERR string exceeds maximum allowed size"),
        }
    }
}

fn write(slot: u16, command: KvCommand) -> Result<Command, Reply> {
    Ok(Command::Write(WriteCommand { slot, command }))
}

pub(super) fn set(args: &[Bytes]) -> Result<Command, Reply> {
    let (mut when, mut get) = (When::Always, false);
    for option in &args[3..] {
        match option.to_ascii_lowercase().as_slice() {
            b"nx" if when == When::Always => when = When::Absent,
            b"xx" if when == When::Always => when = When::Present,
            b"get" if !get => get = true,
            _ => return Err(syntax_error()),
        }
    }
    write(one_slot([&args[1]])?, KvCommand::Set { key: args[1].clone(), value: args[2].clone(), when, get })
}

pub(super) fn mset(args: &[Bytes]) -> Result<Command, Reply> {
    let (pairs, rest) = args[1..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_arity("mset"));
    }
    let slot = one_slot(pairs.iter().map(|[key, _]| key))?;
    write(slot, KvCommand::SetMany(pairs.iter().map(|[k, v]| (k.clone(), v.clone())).collect()))
}

pub(super) fn del(args: &[Bytes]) -> Result<Command, Reply> {
    write(one_slot(&args[1..])?, KvCommand::Delete(args[1..].to_vec()))
}

fn add(key: &Bytes, by: i64) -> Result<Command, Reply> {
    write(one_slot([key])?, KvCommand::IncrBy { key: key.clone(), by })
}

pub(super) fn incr(args: &[Bytes]) -> Result<Command, Reply> {
    add(&args[1], 1)
}

pub(super) fn decr(args: &[Bytes]) -> Result<Command, Reply> {
    add(&args[1], -1)
}

pub(super) fn incrby(args: &[Bytes]) -> Result<Command, Reply> {
    add(&args[1], integer(&args[2])?)
}

pub(super) fn append(args: &[Bytes]) -> Result<Command, Reply> {
    let command = KvCommand::Append { key: args[1].clone(), value: args[2].clone(), limit: VALUE_CAP };
    write(one_slot([&args[1]])?, command)
}
