//! What each Redis command is: its name, arity and keys in a table, its arguments turned into one `Command`.
//!
//! Leaves to others: executing (`lane` for keys, `conn` for the rest). Errors are in Redis's words.
//! A new command is a row here and a parser in the file of its family.

mod connection;
mod read;
mod server;
mod write;

pub(crate) use connection::ConnectionOp;
pub(crate) use read::ReadCommand;
pub(crate) use server::ServerOp;
pub(crate) use write::WriteCommand;

use crate::resp::Reply;
use crate::shards::slot_of;
use bytes::Bytes;

/// Longest key, bytes.
pub(crate) const KEY_CAP: usize = 64 << 10;

/// A request that makes sense.
#[derive(Debug)]
pub(crate) enum Command {
    /// About this connection.
    Connection(ConnectionOp),
    /// About this server or its cluster.
    Server(ServerOp),
    /// Reads keys of one slot.
    Read(ReadCommand),
    /// Changes keys of one slot.
    Write(WriteCommand),
}

type Parser = fn(&[Bytes]) -> Result<Command, Reply>;

/// One row: how Redis describes the command, and how it is parsed.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Arguments with the name; negative: at least that many.
    pub(crate) arity: i64,
    pub(crate) flags: &'static [&'static str],
    /// First key, last key (-1: the last argument), step; 0 if there are none.
    pub(crate) keys: (i64, i64, i64),
    parse: Parser,
}

const fn row(
    name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
    parse: Parser,
) -> Spec {
    Spec { name, arity, flags, keys, parse }
}

const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "denyoom", "fast"];
const ADMIN: &[&str] = &["loading", "stale", "fast"];
const NONE: (i64, i64, i64) = (0, 0, 0);

/// All commands, by name.
pub(crate) const TABLE: &[Spec] = &[
    row("append", 3, WRITE, (1, 1, 1), write::append),
    row("client", -2, ADMIN, NONE, connection::client),
    row("cluster", -2, ADMIN, NONE, server::cluster),
    row("command", -1, ADMIN, NONE, server::command),
    row("config", -2, ADMIN, NONE, server::config),
    row("decr", 2, WRITE, (1, 1, 1), write::decr),
    row("del", -2, WRITE, (1, -1, 1), write::del),
    row("echo", 2, ADMIN, NONE, connection::echo),
    row("exists", -2, READ, (1, -1, 1), read::exists),
    row("get", 2, READ, (1, 1, 1), read::get),
    row("hello", -1, ADMIN, NONE, connection::hello),
    row("incr", 2, WRITE, (1, 1, 1), write::incr),
    row("incrby", 3, WRITE, (1, 1, 1), write::incrby),
    row("info", -1, ADMIN, NONE, server::info),
    row("mget", -2, READ, (1, -1, 1), read::mget),
    row("mset", -3, WRITE, (1, -1, 2), write::mset),
    row("ping", -1, ADMIN, NONE, connection::ping),
    row("pontoon", -2, ADMIN, NONE, server::pontoon),
    row("quit", -1, ADMIN, NONE, connection::quit),
    row("readonly", 1, ADMIN, NONE, connection::readonly),
    row("readwrite", 1, ADMIN, NONE, connection::readwrite),
    row("select", 2, ADMIN, NONE, connection::select),
    row("set", -3, WRITE, (1, 1, 1), write::set),
    row("strlen", 2, READ, (1, 1, 1), read::strlen),
];

/// Turns a request into a command, or into the error that the client gets.
pub(crate) fn parse(args: &[Bytes]) -> Result<Command, Reply> {
    let name = args[0].to_ascii_lowercase();
    let Ok(at) = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(&name)) else {
        return Err(unknown(args));
    };
    let spec = &TABLE[at];
    let given = args.len() as i64;
    if (spec.arity >= 0 && given != spec.arity) || given < -spec.arity {
        return Err(wrong_arity(spec.name));
    }
    (spec.parse)(args)
}

fn unknown(args: &[Bytes]) -> Reply {
    let shown = |b: &Bytes| String::from_utf8_lossy(&b[..b.len().min(128)]).into_owned();
    let rest: String = args[1..].iter().take(3).map(|a| format!("'{}' ", shown(a))).collect();
    Reply::error(format!("ERR unknown command '{}', with args beginning with: {rest}", shown(&args[0])))
}

pub(crate) fn wrong_arity(name: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{name}' command"))
}

pub(crate) fn syntax_error() -> Reply {
    Reply::error("ERR syntax error")
}

/// The one slot of all keys; `CROSSSLOT` otherwise.
fn one_slot<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Result<u16, Reply> {
    let mut slot = None;
    for key in keys {
        if key.len() > KEY_CAP {
            return Err(Reply::error(format!("ERR key of {} bytes is over the limit of {KEY_CAP}", key.len())));
        }
        let of_key = slot_of(key);
        if *slot.get_or_insert(of_key) != of_key {
            return Err(Reply::error("CROSSSLOT Keys in request don't hash to the same slot"));
        }
    }
    slot.ok_or_else(syntax_error)
}

/// A decimal 64-bit number as Redis reads one.
fn integer(text: &[u8]) -> Result<i64, Reply> {
    let parsed = std::str::from_utf8(text).ok().filter(|t| !t.starts_with('+')).and_then(|t| t.parse().ok());
    parsed.ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|w| Bytes::copy_from_slice(w.as_bytes())).collect()
    }

    fn refusal(line: &str) -> String {
        match parse(&args(line)) {
            Err(Reply::Error(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.windows(2).all(|w| w[0].name < w[1].name));
    }

    #[test]
    fn refusals_in_redis_words() {
        let cases = [
            ("FLUSHALL now", "ERR unknown command 'FLUSHALL', with args beginning with: 'now' "),
            ("GET", "ERR wrong number of arguments for 'get' command"),
            ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("MGET a b", "CROSSSLOT Keys in request don't hash to the same slot"),
            ("SET k v NX XX", "ERR syntax error"),
            ("SET k v EX 10", "ERR syntax error"),
            ("INCRBY k ten", "ERR value is not an integer or out of range"),
            ("DECR", "ERR wrong number of arguments for 'decr' command"),
            ("SELECT 1", "ERR SELECT is not allowed in cluster mode"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
        ];
        for (line, want) in cases {
            assert_eq!(refusal(line), want, "{line}");
        }
    }

    #[test]
    fn names_are_case_blind_and_keys_are_found() {
        let Ok(Command::Write(set)) = parse(&args("sEt {a}1 v nx get")) else { panic!("not a write") };
        assert_eq!(set.slot, slot_of(b"a"));
        let Ok(Command::Read(mget)) = parse(&args("MGET {a}1 {a}2")) else { panic!("not a read") };
        assert_eq!(mget.keys.len(), 2);
    }

    #[test]
    fn an_oversize_key_is_refused() {
        let big = "x".repeat(KEY_CAP + 1);
        assert!(refusal(&format!("GET {big}")).starts_with("ERR key of 65537 bytes"));
    }
}
