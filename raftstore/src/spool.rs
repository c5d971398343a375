//! The snapshot: header, replica record, chunks with checksums, trailer with a digest of the whole. What is sent is a file of
//! one; what a node keeps for its volatile machines lies one behind the other in one file (a round).
//!
//! Written by `SpoolBuilder` from a machine's handle, sent as it is, verified and read by `SpoolInput`; `walk` finds
//! where each begins. Leaves to others: names, syncing, publishing (`snapshotter`), what the chunks mean (the machine).
//! Invariant: nothing is handed out that its checksum does not cover; what has no trailer is no snapshot, and no length
//! field is believed beyond the snapshot's own length.
//!
//! Layout, little-endian: `magic`, then frames of `tag u8, length u32, body, digest u64 of tag, length and body`:
//! one record, any number of chunks, one trailer (`chunks u64, content bytes u64, digest u64 of all before it`). A snapshot
//! that was given up ends with a frame without body in place of the trailer: what follows is the next one.

mod walk;

pub(crate) use walk::{Walk, walk};

use crate::codec::{Digest, ReplicaRecord};
use crate::env::{Meta, SmError, SnapshotInput, SnapshotOutput, SnapshotPart, SpoolReader, SpoolWriter};
use crate::ids::{Generation, ReplicaId};
use bytes::Bytes;
use std::io;

/// Format and version.
const MAGIC: &[u8; 8] = b"pntnspl1";
const RECORD: u8 = 1;
const CHUNK: u8 = 2;
// 3 is reserved for parts that are files.
const TRAILER: u8 = 4;
const VOID: u8 = 5;
const FRAME_HEAD: usize = 5;
const FRAME_SUM: usize = 8;
/// Most bytes of one logical chunk (`SnapshotOutput::chunk`).
pub(crate) const MAX_PART: usize = 16 << 20;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

/// Where a snapshot lies in its file. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
}

impl Extent {
    /// The byte behind it.
    #[must_use]
    pub fn end(self) -> u64 {
        self.at + self.len
    }
}

/// A staged file that takes one snapshot after the other.
pub(crate) struct SpoolFile {
    /// The file.
    file: Box<dyn SpoolWriter>,
    /// Not written yet.
    buffer: Vec<u8>,
    /// Bytes appended.
    len: u64,
    /// A write failed, or it was given up: nobody knows what the file holds.
    is_broken: bool,
}

impl SpoolFile {
    /// An empty file.
    pub(crate) fn new(file: Box<dyn SpoolWriter>) -> SpoolFile {
        SpoolFile { file, buffer: Vec::new(), len: 0, is_broken: false }
    }

    /// Bytes appended.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Is the file of no use?
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What was appended last is only part of something: nobody may use the file.
    pub(crate) fn give_up(&mut self) {
        self.is_broken = true;
    }

    /// Appends.
    pub(crate) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(data);
        self.len += data.len() as u64;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// What was appended can be read.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write to this snapshot file failed"));
        }
        let written = self.file.write(&self.buffer);
        self.is_broken = written.is_err();
        self.buffer.clear();
        written
    }
}

/// Writes a snapshot behind what a file holds.
pub(crate) struct SpoolBuilder<'a> {
    /// The staged file.
    file: &'a mut SpoolFile,
    /// Where it begins there.
    at: u64,
    /// Of everything written.
    digest: Digest,
    /// Chunks written.
    chunks: u64,
    /// Bytes of their contents.
    content: u64,
}

impl<'a> SpoolBuilder<'a> {
    /// Begins a snapshot with the record at its position.
    pub(crate) fn begin(file: &'a mut SpoolFile, record: &ReplicaRecord) -> io::Result<SpoolBuilder<'a>> {
        let at = file.len();
        let mut builder = SpoolBuilder { file, at, digest: Digest::default(), chunks: 0, content: 0 };
        builder.put(MAGIC)?;
        builder.frame(RECORD, &record.encode())?;
        Ok(builder)
    }

    /// Ends it. Not synced.
    pub(crate) fn finish(mut self) -> io::Result<Extent> {
        let mut body = Vec::with_capacity(24);
        body.extend(self.chunks.to_le_bytes());
        body.extend(self.content.to_le_bytes());
        body.extend(self.digest.clone().finish().to_le_bytes());
        self.frame(TRAILER, &body)?;
        Ok(Extent { at: self.at, len: self.file.len() - self.at })
    }

    /// Gives it up; another may follow.
    pub(crate) fn abandon(mut self) -> io::Result<()> {
        self.frame(VOID, &[])
    }

    fn frame(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        let head = frame_head(tag, body.len());
        self.put(&head)?;
        self.put(body)?;
        self.put(&frame_sum(&head, body).to_le_bytes())
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.append(data)?;
        self.digest.update(data);
        Ok(())
    }
}

impl SnapshotOutput for SpoolBuilder<'_> {
    fn chunk(&mut self, data: Bytes) -> Result<(), SmError> {
        if data.len() > MAX_PART {
            let why = format!("a snapshot chunk has {} bytes, {MAX_PART} at most", data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why).into());
        }
        self.chunks += 1;
        self.content += data.len() as u64;
        Ok(self.frame(CHUNK, &data)?)
    }
}

fn frame_head(tag: u8, len: usize) -> [u8; FRAME_HEAD] {
    let len = u32::try_from(len).expect("parts are 16 MiB at most, records far less").to_le_bytes();
    [tag, len[0], len[1], len[2], len[3]]
}

fn frame_sum(head: &[u8], body: &[u8]) -> u64 {
    let mut sum = Digest::default();
    sum.update(head);
    sum.update(body);
    sum.finish()
}

/// Reads a snapshot, each frame checked before it is handed out.
pub(crate) struct SpoolInput {
    /// The file.
    file: Box<dyn SpoolReader>,
    /// Where in it the snapshot ends.
    end: u64,
    /// Next byte to read, in the file.
    at: u64,
    /// Of everything read.
    digest: Digest,
    /// Chunks read.
    chunks: u64,
    /// Bytes of their contents.
    content: u64,
    /// The trailer was read and agrees.
    done: bool,
    /// The record in the file, or as adopted.
    record: ReplicaRecord,
    /// What the machine writes with the contents.
    meta: Meta,
}

impl SpoolInput {
    /// The only snapshot of a file: reads magic and record.
    pub(crate) fn open(mut file: Box<dyn SpoolReader>) -> Result<SpoolInput, SmError> {
        let len = file.len()?;
        SpoolInput::open_at(file, Extent { at: 0, len })
    }

    /// One of several.
    pub(crate) fn open_at(file: Box<dyn SpoolReader>, extent: Extent) -> Result<SpoolInput, SmError> {
        let mut input = SpoolInput {
            file,
            end: extent.end(),
            at: extent.at,
            digest: Digest::default(),
            chunks: 0,
            content: 0,
            done: false,
            record: ReplicaRecord::default(),
            meta: Meta::new(),
        };
        let magic = input.take(MAGIC.len())?;
        if magic != MAGIC {
            return Err(damaged("not a snapshot file of this version"));
        }
        let (tag, body) = input.frame()?;
        if tag != RECORD {
            return Err(damaged("no record where it must be"));
        }
        let record = ReplicaRecord::decode(body).map_err(|e| damaged(&e.to_string()))?;
        input.set_record(record);
        Ok(input)
    }

    /// The replica record at the snapshot's position.
    pub(crate) fn record(&self) -> &ReplicaRecord {
        &self.record
    }

    /// From now on the record and the meta pairs are those of this replica and generation: the file may have been
    /// written by another replica.
    pub(crate) fn adopt(&mut self, replica: ReplicaId, generation: Generation) {
        let record = ReplicaRecord { replica, generation, ..self.record.clone() };
        self.set_record(record);
    }

    /// Reads to the end: is every byte what was written?
    pub(crate) fn verify(mut self) -> Result<ReplicaRecord, SmError> {
        while self.next()?.is_some() {}
        Ok(self.record)
    }

    fn set_record(&mut self, record: ReplicaRecord) {
        self.meta = vec![(Bytes::from_static(ReplicaRecord::META_KEY), record.encode())];
        self.record = record;
    }

    fn frame(&mut self) -> Result<(u8, Bytes), SmError> {
        let head = self.take(FRAME_HEAD)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > MAX_PART {
            return Err(damaged("a frame is longer than any can be"));
        }
        let body = self.take(len)?;
        let sum = self.take(FRAME_SUM)?;
        if frame_sum(&head, &body).to_le_bytes() != sum[..] {
            return Err(damaged("a frame's checksum does not match"));
        }
        Ok((head[0], body.into()))
    }

    fn trailer(&mut self, body: &[u8], before: u64) -> Result<(), SmError> {
        let mut expected = Vec::with_capacity(24);
        for n in [self.chunks, self.content, before] {
            expected.extend(n.to_le_bytes());
        }
        if body != expected {
            return Err(damaged("the trailer does not match the contents"));
        }
        if self.at != self.end {
            return Err(damaged("something follows the trailer"));
        }
        self.done = true;
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>, SmError> {
        if (n as u64) > self.end.saturating_sub(self.at) {
            return Err(damaged("the file ends early"));
        }
        let mut data = vec![0; n];
        let mut filled = 0;
        while filled < n {
            match self.file.read_at(self.at + filled as u64, &mut data[filled..])? {
                0 => return Err(damaged("the file ends early")),
                more => filled += more,
            }
        }
        self.at += n as u64;
        self.digest.update(&data);
        Ok(data)
    }
}

impl SnapshotInput for SpoolInput {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn next(&mut self) -> Result<Option<SnapshotPart>, SmError> {
        if self.done {
            return Ok(None);
        }
        let before = self.digest.clone().finish();
        match self.frame()? {
            (CHUNK, body) => {
                self.chunks += 1;
                self.content += body.len() as u64;
                Ok(Some(SnapshotPart::Chunk(body)))
            }
            (TRAILER, body) => self.trailer(&body, before).map(|()| None),
            (tag, _) => Err(damaged(&format!("unknown frame {tag}"))),
        }
    }
}

fn damaged(what: &str) -> SmError {
    SmError::Corruption(format!("snapshot file: {what}"))
}
