//! Requests: an incremental parser over the bytes received so far.
//!
//! Each byte is looked at once: what is understood of an unfinished request is kept. Errors are Redis's words.
//! Invariant: memory follows bytes that arrived, never a length that a client announced.

use bytes::{Buf, Bytes, BytesMut};

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one argument.
    pub(crate) bulk: usize,
    /// Arguments of one request.
    pub(crate) args: usize,
    /// Bytes of all arguments of one request together.
    pub(crate) request: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bulk: 8 << 20, args: 1 << 16, request: 32 << 20 }
    }
}

/// Longest line of a header or of an inline command, bytes.
const LINE_CAP: usize = 64 << 10;

/// The client does not speak the protocol: it gets the text, then the connection closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    BadArgCount,
    #[error("Protocol error: invalid bulk length")]
    BadBulkLength,
    #[error("Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    #[error("Protocol error: too big inline request")]
    LineTooLong,
    #[error("Protocol error: expected CRLF after an argument")]
    MissingCrLf,
    #[error("Protocol error: request over the limit of {0} bytes")]
    RequestTooLarge(usize),
}

/// The parser's state between two reads.
#[derive(Debug)]
pub(crate) struct RequestParser {
    limits: Limits,
    /// Arguments still to come; `None` between requests.
    missing: Option<usize>,
    /// Length of the argument whose header was read.
    bulk: Option<usize>,
    /// Arguments so far.
    args: Vec<Bytes>,
    /// Their bytes.
    size: usize,
    /// Bytes of the buffer already searched for a line's end.
    searched: usize,
}

impl RequestParser {
    pub(crate) fn new(limits: Limits) -> RequestParser {
        RequestParser { limits, missing: None, bulk: None, args: Vec::new(), size: 0, searched: 0 }
    }

    /// The next whole request in `buf`; `None`: read more. An empty request is skipped, as Redis does.
    pub(crate) fn poll(&mut self, buf: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.missing.is_none() && !self.begin(buf)? {
                return Ok(None);
            }
            while self.missing.is_some_and(|m| m > 0) {
                if !self.argument(buf)? {
                    return Ok(None);
                }
            }
            self.missing = None;
            self.size = 0;
            let args = std::mem::take(&mut self.args);
            if !args.is_empty() {
                return Ok(Some(args));
            }
        }
    }

    /// Reads the first line of a request. False: not there yet.
    fn begin(&mut self, buf: &mut BytesMut) -> Result<bool, ProtocolError> {
        if buf.is_empty() {
            return Ok(false);
        }
        let multibulk = buf[0] == b'*';
        let Some(line) = self.line(buf)? else { return Ok(false) };
        if multibulk {
            let count =
                number(&line[1..]).filter(|n| *n <= self.limits.args as i64).ok_or(ProtocolError::BadArgCount)?;
            self.missing = Some(usize::try_from(count).unwrap_or(0));
        } else {
            self.args =
                line.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty()).map(Bytes::copy_from_slice).collect();
            self.missing = Some(0);
        }
        Ok(true)
    }

    /// Reads one argument. False: not there yet.
    fn argument(&mut self, buf: &mut BytesMut) -> Result<bool, ProtocolError> {
        let len = match self.bulk {
            Some(len) => len,
            None => {
                let Some(line) = self.line(buf)? else { return Ok(false) };
                let len = self.bulk_length(&line)?;
                self.bulk = Some(len);
                len
            }
        };
        if buf.len() < len + 2 {
            return Ok(false);
        }
        if &buf[len..len + 2] != b"\r\n" {
            return Err(ProtocolError::MissingCrLf);
        }
        self.args.push(buf.split_to(len).freeze());
        buf.advance(2);
        self.bulk = None;
        self.missing = self.missing.map(|m| m - 1);
        Ok(true)
    }

    fn bulk_length(&mut self, line: &[u8]) -> Result<usize, ProtocolError> {
        if line.first() != Some(&b'$') {
            return Err(ProtocolError::ExpectedBulk(line.first().map_or('\n', |b| char::from(*b))));
        }
        let len = number(&line[1..]).and_then(|n| usize::try_from(n).ok()).ok_or(ProtocolError::BadBulkLength)?;
        if len > self.limits.bulk {
            return Err(ProtocolError::BadBulkLength);
        }
        self.size += len;
        if self.size > self.limits.request {
            return Err(ProtocolError::RequestTooLarge(self.limits.request));
        }
        Ok(len)
    }

    /// One line without its end, `\r\n` or `\n`.
    fn line(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let from = self.searched.min(buf.len());
        let Some(at) = buf[from..].iter().position(|b| *b == b'\n').map(|p| p + from) else {
            self.searched = buf.len();
            return if buf.len() > LINE_CAP { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        self.searched = 0;
        let mut line = buf.split_to(at + 1);
        line.truncate(if at > 0 && line[at - 1] == b'\r' { at - 1 } else { at });
        Ok(Some(line.freeze()))
    }
}

/// A decimal number as Redis writes it: no plus sign, no blanks.
fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 20 || text[0] == b'+' {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parser() -> RequestParser {
        RequestParser::new(Limits { bulk: 100, args: 10, request: 150 })
    }

    fn texts(args: Option<Vec<Bytes>>) -> Vec<String> {
        args.unwrap().iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    }

    #[test]
    fn a_pipeline_split_at_any_byte_gives_the_same_requests() {
        let wire = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nb \r\nPING hello\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\n";
        for cut in 0..wire.len() {
            let (mut p, mut buf, mut seen) = (parser(), BytesMut::new(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                buf.extend_from_slice(part);
                while let Some(args) = p.poll(&mut buf).unwrap() {
                    seen.push(texts(Some(args)));
                }
            }
            let all = vec![vec!["SET", "k", "a\r\nb "], vec!["PING", "hello"], vec!["PING"]];
            assert_eq!(seen, all, "cut at {cut}");
            assert!(buf.is_empty());
        }
    }

    #[test]
    fn nonsense_is_refused_in_redis_words() {
        let cases: [(&[u8], ProtocolError); 8] = [
            (b"*x\r\n", ProtocolError::BadArgCount),
            (b"*11\r\n", ProtocolError::BadArgCount),
            (b"*1\r\n:5\r\n", ProtocolError::ExpectedBulk(':')),
            (b"*1\r\n$-1\r\n", ProtocolError::BadBulkLength),
            (b"*1\r\n$101\r\n", ProtocolError::BadBulkLength),
            (b"*1\r\n$+1\r\n", ProtocolError::BadBulkLength),
            (b"*1\r\n$1\r\nabc", ProtocolError::MissingCrLf),
            (b"*2\r\n$100\r\n", ProtocolError::RequestTooLarge(150)),
        ];
        for (wire, want) in cases {
            let mut buf = BytesMut::from(wire);
            if want == ProtocolError::RequestTooLarge(150) {
                buf.extend_from_slice(&[b'x'; 100]);
                buf.extend_from_slice(b"\r\n$51\r\n");
            }
            assert_eq!(parser().poll(&mut buf).unwrap_err(), want);
        }
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let mut buf = BytesMut::from(&vec![b'x'; LINE_CAP + 1][..]);
        assert_eq!(parser().poll(&mut buf).unwrap_err(), ProtocolError::LineTooLong);
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut buf = BytesMut::new();
            for _ in 0..24 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                buf.extend_from_slice(&[b"*$\r\n0123-x "[(seed >> 33) as usize % 11]]);
            }
            let mut p = parser();
            while let Ok(Some(_)) = p.poll(&mut buf) {}
        }
    }
}
