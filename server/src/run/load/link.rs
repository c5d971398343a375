//! A client's connection to one node: commands go out in a pipeline, replies come back in order through the client's inbox.
//!
//! Leaves to others: what a reply means (`client`). Invariant: after the first fault the connection is used up.

use crate::client::{Value, encode_command, take_reply};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a connection's reader tells: which connection, and the replies, or why there are no more.
pub(super) struct Heard {
    pub(super) link: u64,
    pub(super) replies: Result<Vec<Value>, String>,
}

/// See the file's head. `O` is an operation.
pub(super) struct Link<O> {
    pub(super) id: u64,
    stream: TcpStream,
    /// Encoded and not yet sent.
    out: BytesMut,
    /// Waiting for their replies, and since when.
    sent: VecDeque<(O, Instant)>,
    reader: Option<JoinHandle<()>>,
}

impl<O> Link<O> {
    /// Connects. `deadline` holds for connecting and for sending.
    pub(super) fn open(id: u64, addr: &str, deadline: Duration, inbox: Sender<Heard>) -> io::Result<Link<O>> {
        let addr = addr.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect_timeout(&addr, deadline)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(deadline))?;
        let replies = stream.try_clone()?;
        let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || read(id, replies, &inbox))?;
        Ok(Link { id, stream, out: BytesMut::new(), sent: VecDeque::new(), reader: Some(reader) })
    }

    /// Puts a command behind those that wait to be sent.
    pub(super) fn push(&mut self, operation: O, args: &[&[u8]], now: Instant) {
        encode_command(args, &mut self.out);
        self.sent.push_back((operation, now));
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The operation that the next reply answers.
    pub(super) fn take_answered(&mut self) -> Option<O> {
        self.sent.pop_front().map(|(operation, _)| operation)
    }

    /// All that were never answered.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = O> {
        std::mem::take(&mut self.sent).into_iter().map(|(operation, _)| operation)
    }

    /// Since when the longest waiting one waits.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.sent.front().map(|(_, since)| *since)
    }
}

impl<O> Drop for Link<O> {
    fn drop(&mut self) {
        // A socket that is broken already cannot be shut down; its reader has ended, too.
        let _broken = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

fn read(link: u64, mut stream: TcpStream, inbox: &Sender<Heard>) {
    let (mut unread, mut chunk) = (BytesMut::new(), vec![0; 64 << 10]);
    loop {
        let replies = more(&mut stream, &mut unread, &mut chunk);
        let ended = replies.is_err();
        if inbox.send(Heard { link, replies }).is_err() || ended {
            return;
        }
    }
}

/// Whole replies, after one more read.
fn more(stream: &mut TcpStream, unread: &mut BytesMut, chunk: &mut [u8]) -> Result<Vec<Value>, String> {
    let len = stream.read(chunk).map_err(|e| e.to_string())?;
    if len == 0 {
        return Err("closed by the server".to_owned());
    }
    unread.extend_from_slice(&chunk[..len]);
    let mut replies = Vec::new();
    while let Some(reply) = take_reply(unread)? {
        replies.push(reply);
    }
    Ok(replies)
}
