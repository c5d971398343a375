//! Replies, written in the protocol that the connection chose with HELLO.
//!
//! Leaves to others: which reply a command gives. Invariant: an error's text holds no line break.

use bytes::{BufMut, Bytes, BytesMut};

/// RESP2 until HELLO 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Resp2,
    Resp3,
}

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// `+text`
    Simple(&'static str),
    /// `-text`; begins with an upper-case code.
    Error(String),
    /// `:n`
    Int(i64),
    /// `$len data`
    Bulk(Bytes),
    /// No value.
    Nil,
    /// `*n`
    Array(Vec<Reply>),
    /// A map; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    pub(crate) const OK: Reply = Reply::Simple("OK");

    pub(crate) fn error(text: impl Into<String>) -> Reply {
        Reply::Error(text.into())
    }

    pub(crate) fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    pub(crate) fn opt(value: Option<Bytes>) -> Reply {
        value.map_or(Reply::Nil, Reply::Bulk)
    }

    /// Appends the wire form.
    pub(crate) fn write(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Reply::Simple(text) => line(out, b'+', text.as_bytes()),
            Reply::Error(text) => {
                let clean: Vec<u8> = text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }).collect();
                line(out, b'-', &clean);
            }
            Reply::Int(n) => line(out, b':', n.to_string().as_bytes()),
            Reply::Bulk(data) => {
                header(out, b'$', data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Nil if protocol == Protocol::Resp3 => out.extend_from_slice(b"_\r\n"),
            Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
            Reply::Array(items) => {
                header(out, b'*', items.len());
                items.iter().for_each(|i| i.write(protocol, out));
            }
            Reply::Map(pairs) => {
                match protocol {
                    Protocol::Resp3 => header(out, b'%', pairs.len()),
                    Protocol::Resp2 => header(out, b'*', pairs.len() * 2),
                }
                for (k, v) in pairs {
                    k.write(protocol, out);
                    v.write(protocol, out);
                }
            }
        }
    }
}

fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.put_u8(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut BytesMut, kind: u8, n: usize) {
    line(out, kind, n.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.write(protocol, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn both_protocols() {
        let map = Reply::Map(vec![(Reply::text("a"), Reply::Int(-1))]);
        let all = Reply::Array(vec![Reply::OK, Reply::Nil, map, Reply::error("ERR a\r\nb")]);
        assert_eq!(wire(&all, Protocol::Resp2), "*4\r\n+OK\r\n$-1\r\n*2\r\n$1\r\na\r\n:-1\r\n-ERR a  b\r\n");
        assert_eq!(wire(&all, Protocol::Resp3), "*4\r\n+OK\r\n_\r\n%1\r\n$1\r\na\r\n:-1\r\n-ERR a  b\r\n");
    }
}
