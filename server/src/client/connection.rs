//! One connection to one node: commands in a pipeline, replies in order, each with a deadline.
//!
//! Invariant: after any error the connection is used up; what was sent on it and not answered is unknown.

use super::wire::{Value, encode_command, take_reply};
use bytes::BytesMut;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The socket failed or was closed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The peer does not speak RESP2.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// A connection with its unread bytes.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: BytesMut,
    deadline: Duration,
}

impl Connection {
    /// Connects; `deadline` holds for connecting and for each reply.
    ///
    /// # Errors
    /// The socket's, or `TimedOut`.
    pub async fn open(addr: &str, deadline: Duration) -> Result<Connection, ConnectionError> {
        let stream = timeout(deadline, TcpStream::connect(addr)).await.map_err(|_| ConnectionError::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, unread: BytesMut::with_capacity(16 << 10), deadline })
    }

    /// Sends bytes that `encode_command` made.
    ///
    /// # Errors
    /// The socket's, or `TimedOut`.
    pub async fn send(&mut self, wire: &[u8]) -> Result<(), ConnectionError> {
        timeout(self.deadline, self.stream.write_all(wire)).await.map_err(|_| ConnectionError::TimedOut)??;
        Ok(())
    }

    /// The next reply.
    ///
    /// # Errors
    /// The socket's (closed by the peer: `UnexpectedEof`), `TimedOut`, `Protocol`.
    pub async fn receive(&mut self) -> Result<Value, ConnectionError> {
        loop {
            if let Some(value) = take_reply(&mut self.unread).map_err(ConnectionError::Protocol)? {
                return Ok(value);
            }
            let read = timeout(self.deadline, self.stream.read_buf(&mut self.unread)).await;
            if read.map_err(|_| ConnectionError::TimedOut)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// One command and its reply.
    ///
    /// # Errors
    /// As `send` and `receive`.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, ConnectionError> {
        let mut wire = BytesMut::new();
        encode_command(args, &mut wire);
        self.send(&wire).await?;
        self.receive().await
    }
}
