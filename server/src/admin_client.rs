//! HTTP to a node's admin endpoint: one request a connection, bounded in size and time.
//!
//! Leaves to others: what is asked (`run::admin`, `harness`). Invariant: whether a request was sent at all is told by the
//! error, so that the caller knows what may have happened.

use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Largest answer, bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Nothing was sent.
    #[error("cannot reach {addr}: {error}")]
    Unreachable { addr: String, error: io::Error },
    /// Sent, and no whole answer came.
    #[error("no answer from {addr}: {error}")]
    Lost { addr: String, error: io::Error },
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; `Null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Asks one node after the other.
#[derive(Clone, Debug)]
pub(crate) struct AdminClient {
    /// Shown as a bearer token.
    pub(crate) token: Option<String>,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl AdminClient {
    pub(crate) async fn get(&self, addr: &str, path: &str) -> Result<Answer, NoAnswer> {
        self.ask(addr, &self.head("GET", addr, path, 0), b"").await
    }

    pub(crate) async fn post(&self, addr: &str, path: &str, body: &Value) -> Result<Answer, NoAnswer> {
        let body = body.to_string();
        self.ask(addr, &self.head("POST", addr, path, body.len()), body.as_bytes()).await
    }

    fn head(&self, method: &str, addr: &str, path: &str, length: usize) -> String {
        let token = self.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {addr}\r\n{token}Content-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    }

    async fn ask(&self, addr: &str, head: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let connected = timeout(CONNECT, TcpStream::connect(addr)).await.unwrap_or_else(|_| Err(late()));
        let stream = connected.map_err(|error| NoAnswer::Unreachable { addr: addr.to_owned(), error })?;
        let answer = timeout(self.patience, exchange(stream, head, body)).await.unwrap_or_else(|_| Err(late()));
        answer.map_err(|error| NoAnswer::Lost { addr: addr.to_owned(), error })
    }
}

async fn exchange(mut stream: TcpStream, head: &str, body: &[u8]) -> io::Result<Answer> {
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut page = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut page).await?;
    parse(&page).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP, or broke off"))
}

/// Status and body of a whole response.
fn parse(page: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(page).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (length == Some(body.len())).then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_are_answers() {
        let page = b"HTTP/1.1 404 Not Found\r\ncontent-type: x\r\nContent-Length: 4\r\n\r\ntrue";
        let answer = parse(page).map(|a| (a.status, a.json()));
        assert_eq!(answer, Some((404, Value::Bool(true))));
        for bad in [&page[..page.len() - 1], b"", b"HTTP/1.1 x\r\n\r\n", b"-ERR unknown command\r\n", b"\xff\r\n\r\n"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
