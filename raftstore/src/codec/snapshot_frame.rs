//! The byte form of a snapshot stream: chunks one way, acks the other, on their own lane.
//!
//! Leaves to others: rate, spooling, verification (`snapshotter`). The first chunk carries the header, the last one
//! the digest of all contents. Invariant: a chunk that decodes lies within the size its stream can have.

use super::DecodeError;
use super::message::{decode_message, encode_message};
use super::wire::{Reader, put_blob, put_varint};
use crate::ids::StreamId;
use crate::task::GroupMessage;
use bytes::{BufMut, Bytes};
use pontoon_raft::Body;

const FRAME_V1: u8 = 1;
/// Most content bytes in one chunk.
pub const MAX_CHUNK: usize = 1 << 20;
/// Largest replica record in a header.
const MAX_RECORD: usize = 64 << 10;
/// Largest snapshot that can be told: a bound for sums, not a promise.
const MAX_SIZE: u64 = 1 << 60;

const CHUNK: u8 = 1;
const ACK: u8 = 2;

/// One frame of the snapshot lane.
#[derive(Clone, Debug, PartialEq)]
pub enum SnapshotFrame {
    /// Sender to receiver.
    Chunk(SnapshotChunk),
    /// Receiver to sender.
    Ack(SnapshotAck),
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotChunk {
    /// The stream, unique at its sender.
    pub stream: StreamId,
    /// Content bytes before this chunk.
    pub offset: u64,
    /// On the first chunk (offset 0) and only there.
    pub header: Option<Box<SnapshotHeader>>,
    /// Contents.
    pub data: Bytes,
    /// On the last chunk: `Digest` of all contents.
    pub digest: Option<u64>,
}

/// What a stream delivers.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotHeader {
    /// The `Snap` message that is stepped once the contents are verified.
    pub message: GroupMessage,
    /// Content bytes of the whole stream.
    pub size: u64,
    /// `ReplicaRecord` at the snapshot's position.
    pub record: Bytes,
}

/// How far a stream came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAck {
    /// The stream.
    pub stream: StreamId,
    /// Content bytes received in order.
    pub next: u64,
    /// What follows.
    pub status: AckStatus,
}

/// What a receiver says about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStatus {
    /// Go on from `next`.
    More,
    /// Whole and verified.
    Done,
    /// Not wanted or not possible now: end the stream.
    Refused,
    /// Contents did not match the digest: end the stream.
    Damaged,
}

impl SnapshotFrame {
    /// The frame body.
    ///
    /// # Panics
    /// If a header's message is of a local kind: the core never sends one.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FRAME_V1];
        match self {
            SnapshotFrame::Chunk(chunk) => put_chunk(&mut out, chunk),
            SnapshotFrame::Ack(ack) => put_ack(&mut out, ack),
        }
        out.into()
    }

    /// A frame from its body; contents are a slice of it.
    pub fn decode(body: Bytes) -> Result<SnapshotFrame, DecodeError> {
        let mut r = Reader::new("snapshot frame", body);
        r.version(FRAME_V1)?;
        let frame = match r.u8()? {
            CHUNK => SnapshotFrame::Chunk(take_chunk(&mut r)?),
            ACK => SnapshotFrame::Ack(take_ack(&mut r)?),
            unknown => return Err(r.error(format!("unknown kind {unknown}"))),
        };
        r.finish()?;
        Ok(frame)
    }
}

fn put_chunk(out: &mut Vec<u8>, chunk: &SnapshotChunk) {
    out.put_u8(CHUNK);
    put_varint(out, chunk.stream.0);
    put_varint(out, chunk.offset);
    out.put_u8(u8::from(chunk.header.is_some()));
    if let Some(header) = &chunk.header {
        encode_message(out, &header.message);
        put_varint(out, header.size);
        put_blob(out, &header.record);
    }
    put_blob(out, &chunk.data);
    out.put_u8(u8::from(chunk.digest.is_some()));
    if let Some(digest) = chunk.digest {
        out.put_u64_le(digest);
    }
}

fn take_chunk(r: &mut Reader) -> Result<SnapshotChunk, DecodeError> {
    let stream = StreamId(r.varint()?);
    let offset = r.varint()?;
    r.ensure(offset <= MAX_SIZE, "offset beyond any snapshot")?;
    let has_header = r.flag()?;
    r.ensure(has_header == (offset == 0), "header on the first chunk and only there")?;
    let header = if has_header { Some(Box::new(take_header(r)?)) } else { None };
    let data = r.blob(MAX_CHUNK)?;
    let digest = if r.flag()? { Some(r.fixed64()?) } else { None };
    r.ensure(!data.is_empty() || digest.is_some(), "empty chunk")?;
    Ok(SnapshotChunk { stream, offset, header, data, digest })
}

fn take_header(r: &mut Reader) -> Result<SnapshotHeader, DecodeError> {
    let message = decode_message(r)?;
    r.ensure(matches!(message.message.body, Body::Snap { .. }), "header without a snapshot message")?;
    let size = r.varint()?;
    r.ensure(size <= MAX_SIZE, "size beyond any snapshot")?;
    Ok(SnapshotHeader { message, size, record: r.blob(MAX_RECORD)? })
}

fn put_ack(out: &mut Vec<u8>, ack: &SnapshotAck) {
    out.put_u8(ACK);
    put_varint(out, ack.stream.0);
    put_varint(out, ack.next);
    out.put_u8(match ack.status {
        AckStatus::More => 0,
        AckStatus::Done => 1,
        AckStatus::Refused => 2,
        AckStatus::Damaged => 3,
    });
}

fn take_ack(r: &mut Reader) -> Result<SnapshotAck, DecodeError> {
    let (stream, next) = (StreamId(r.varint()?), r.varint()?);
    r.ensure(next <= MAX_SIZE, "offset beyond any snapshot")?;
    let status = match r.u8()? {
        0 => AckStatus::More,
        1 => AckStatus::Done,
        2 => AckStatus::Refused,
        3 => AckStatus::Damaged,
        unknown => return Err(r.error(format!("unknown status {unknown}"))),
    };
    Ok(SnapshotAck { stream, next, status })
}
