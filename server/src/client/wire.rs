//! Commands out, replies in: RESP2 as a client sees it.
//!
//! Invariant: a reply is parsed whole or not at all; nesting is capped.

use bytes::{Buf, Bytes, BytesMut};

/// Deepest nesting of arrays in a reply.
const DEPTH: usize = 8;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:n`
    Int(i64),
    /// `$..`
    Bulk(Bytes),
    /// `$-1`, `*-1`
    Nil,
    /// `*..`
    Array(Vec<Value>),
}

impl Value {
    /// The error's text, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        if let Value::Error(text) = self { Some(text) } else { None }
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode_command(args: &[&[u8]], out: &mut BytesMut) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes one whole reply from the front of `buf`; `Ok(None)`: read more; `Err`: not RESP2.
pub(crate) fn take_reply(buf: &mut BytesMut) -> Result<Option<Value>, String> {
    let mut at = 0;
    let value = parse(buf, &mut at, DEPTH)?;
    if value.is_some() {
        buf.advance(at);
    }
    Ok(value)
}

fn parse(buf: &[u8], at: &mut usize, depth: usize) -> Result<Option<Value>, String> {
    let Some((kind, text)) = line(buf, at) else { return Ok(None) };
    let number = || text.parse::<i64>().map_err(|_| format!("bad number {text:?}"));
    Ok(Some(match kind {
        b'+' => Value::Simple(text.to_owned()),
        b'-' => Value::Error(text.to_owned()),
        b':' => Value::Int(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Value::Nil,
            Ok(len) => {
                let Some(data) = buf.get(*at..*at + len + 2) else { return Ok(None) };
                *at += len + 2;
                Value::Bulk(Bytes::copy_from_slice(&data[..len]))
            }
        },
        b'*' if depth > 0 => match usize::try_from(number()?) {
            Err(_) => Value::Nil,
            Ok(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    let Some(item) = parse(buf, at, depth - 1)? else { return Ok(None) };
                    items.push(item);
                }
                Value::Array(items)
            }
        },
        other => return Err(format!("unexpected byte {other:#x}")),
    }))
}

fn line<'a>(buf: &'a [u8], at: &mut usize) -> Option<(u8, &'a str)> {
    let rest = buf.get(*at..)?;
    let end = rest.windows(2).position(|w| w == b"\r\n")?;
    *at += end + 2;
    let text = std::str::from_utf8(rest.get(1..end)?).unwrap_or("?");
    Some((*rest.first()?, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn replies_arrive_in_pieces() {
        let wire = b"*3\r\n$2\r\nab\r\n:-5\r\n*1\r\n$-1\r\n-ERR x\r\n";
        let mut buf = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            buf.extend_from_slice(&[*byte]);
            seen.extend(take_reply(&mut buf).unwrap());
        }
        let inner = Value::Array(vec![Value::Nil]);
        let array = Value::Array(vec![Value::Bulk(Bytes::from_static(b"ab")), Value::Int(-5), inner]);
        assert_eq!(seen, [array, Value::Error("ERR x".into())]);
    }
}
