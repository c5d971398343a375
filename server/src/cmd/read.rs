//! Commands that read keys of one slot: GET MGET EXISTS STRLEN.

use super::{Command, one_slot};
use crate::resp::Reply;
use bytes::Bytes;

/// A read: the values of `keys` make the reply.
#[derive(Debug)]
pub(crate) struct ReadCommand {
    pub(crate) slot: u16,
    pub(crate) keys: Vec<Bytes>,
    /// Turns the values, in the order of `keys`, into the reply.
    pub(crate) reply: fn(Vec<Option<Bytes>>) -> Reply,
}

fn read(keys: &[Bytes], reply: fn(Vec<Option<Bytes>>) -> Reply) -> Result<Command, Reply> {
    Ok(Command::Read(ReadCommand { slot: one_slot(keys)?, keys: keys.to_vec(), reply }))
}

fn first(mut values: Vec<Option<Bytes>>) -> Option<Bytes> {
    values.pop().flatten()
}

pub(super) fn get(args: &[Bytes]) -> Result<Command, Reply> {
    read(&args[1..], |values| Reply::opt(first(values)))
}

pub(super) fn mget(args: &[Bytes]) -> Result<Command, Reply> {
    read(&args[1..], |values| Reply::Array(values.into_iter().map(Reply::opt).collect()))
}

pub(super) fn exists(args: &[Bytes]) -> Result<Command, Reply> {
    read(&args[1..], |values| Reply::Int(values.iter().flatten().count() as i64))
}

pub(super) fn strlen(args: &[Bytes]) -> Result<Command, Reply> {
    read(&args[1..], |values| Reply::Int(first(values).map_or(0, |v| v.len() as i64)))
}
