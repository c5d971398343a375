//! Snapshots of one group: O(1) to take, read out beside later writes, written back under a new generation.
//!
//! A RocksDB snapshot borrows its database, and safe code cannot own both in one value. So one thread, the keeper,
//! owns a handle on the database and holds all snapshots; a `KvSnapshot` is a number in its table.
//! Form of a chunk: version byte, then per pair key length and value length (u32 little-endian), key, value.
//! Invariant: the keeper's table holds exactly the snapshots whose `KvSnapshot` is alive.

use super::db::{Db, View, scan};
use super::keys::{Owner, suffix};
use crate::state_machine::{Part, SmError, SnapshotSink, SnapshotSource, SnapshotStream};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Bytes of a chunk, roughly: a larger pair makes a larger chunk.
const CHUNK: usize = 256 << 10;
const VERSION: u8 = 1;

enum Ask {
    /// Hold the state as of now; answered with its number.
    Take { reply: Sender<u64> },
    /// The next chunk behind `from`; answered with it and where to go on, or nothing at the end.
    Read { id: u64, range: (Vec<u8>, Vec<u8>), reply: Sender<Result<Option<Chunk>, SmError>> },
    /// Let it go.
    Drop(u64),
    /// End.
    Stop,
}

struct Chunk {
    data: Bytes,
    next: Vec<u8>,
}

/// Way to the keeper's thread.
pub(super) struct Keeper {
    ask: Sender<Ask>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    pub(super) fn start(db: Arc<Db>) -> io::Result<Keeper> {
        // Unbounded, but each letter is answered before its sender goes on, and drops follow takes.
        let (ask, asked) = unbounded();
        let thread = thread::Builder::new().name("pontoon-kv-snap".to_owned()).spawn(move || keep(&db, &asked))?;
        Ok(Keeper { ask, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn take(&self, owner: Owner) -> Result<KvSnapshot, SmError> {
        let (reply, answer) = bounded(1);
        self.ask.send(Ask::Take { reply }).map_err(|_| SmError::Cancelled)?;
        let id = answer.recv().map_err(|_| SmError::Cancelled)?;
        Ok(KvSnapshot { id, owner, ask: self.ask.clone() })
    }

    /// Ends the thread and lets go of its hold on the database.
    pub(super) fn stop(&self) {
        let _ended = self.ask.send(Ask::Stop);
        if let Some(thread) = self.thread.lock().take() {
            let _panicked = thread.join();
        }
    }
}

/// A thread that let go of the database later, while the process ends, would find its locks gone.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(db: &Db, asked: &Receiver<Ask>) {
    let mut held: HashMap<u64, View<'_>> = HashMap::new();
    let mut next = 0;
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Take { reply } => {
                next += 1;
                held.insert(next, db.snapshot());
                if reply.send(next).is_err() {
                    held.remove(&next);
                }
            }
            Ask::Read { id, range, reply } => {
                let chunk = held.get(&id).ok_or(SmError::Cancelled).and_then(|view| read_chunk(view, range));
                let _gave_up = reply.send(chunk);
            }
            Ask::Drop(id) => drop(held.remove(&id)),
            Ask::Stop => return,
        }
    }
}

fn read_chunk(view: &View<'_>, range: (Vec<u8>, Vec<u8>)) -> Result<Option<Chunk>, SmError> {
    let mut data = BytesMut::new();
    let mut next = Vec::new();
    scan(view, range, |key, value| {
        if data.is_empty() {
            data.put_u8(VERSION);
        }
        put_pair(&mut data, suffix(key), value);
        if data.len() < CHUNK {
            return true;
        }
        next = [key, &[0]].concat();
        false
    })?;
    Ok((!data.is_empty()).then(|| Chunk { data: data.freeze(), next }))
}

fn put_pair(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    out.reserve(8 + key.len() + value.len());
    for part in [key, value] {
        out.put_u32_le(u32::try_from(part.len()).expect("keys and values came in commands of at most 64 MiB"));
    }
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// A state of one group.
pub struct KvSnapshot {
    id: u64,
    owner: Owner,
    ask: Sender<Ask>,
}

impl SnapshotSource for KvSnapshot {
    fn write_to(self, out: &mut SnapshotSink<'_>) -> Result<(), SmError> {
        let (mut from, to) = self.owner.data_range();
        loop {
            let (reply, answer) = bounded(1);
            let ask = Ask::Read { id: self.id, range: (from, to.clone()), reply };
            self.ask.send(ask).map_err(|_| SmError::Cancelled)?;
            let Some(chunk) = answer.recv().map_err(|_| SmError::Cancelled)?? else { return Ok(()) };
            out.chunk(chunk.data)?;
            if chunk.next.is_empty() {
                return Ok(());
            }
            from = chunk.next;
        }
    }
}

impl Drop for KvSnapshot {
    fn drop(&mut self) {
        let _stopped = self.ask.send(Ask::Drop(self.id));
    }
}

/// Hands each pair of a snapshot to `put`.
pub(super) fn read_pairs(
    from: &mut SnapshotStream<'_>,
    mut put: impl FnMut(&[u8], &[u8]) -> Result<(), SmError>,
) -> Result<(), SmError> {
    while let Some(Part::Chunk(mut data)) = from.next()? {
        if data.try_get_u8().ok() != Some(VERSION) {
            return Err(bad("version"));
        }
        while data.has_remaining() {
            let key = data.try_get_u32_le().map_err(|_| bad("key length"))? as usize;
            let value = data.try_get_u32_le().map_err(|_| bad("value length"))? as usize;
            if key.checked_add(value).is_none_or(|sum| sum > data.len()) {
                return Err(bad("pair"));
            }
            let (key, value) = (data.split_to(key), data.split_to(value));
            put(&key, &value)?;
        }
    }
    Ok(())
}

fn bad(what: &str) -> SmError {
    SmError::Corruption(format!("key-value snapshot: bad {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_chunk_is_pinned() {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        put_pair(&mut out, b"k", b"val");
        assert_eq!(&out[..], [1, 1, 0, 0, 0, 3, 0, 0, 0, b'k', b'v', b'a', b'l']);
    }
}
