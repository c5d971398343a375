//! The byte form of message batches: many groups' raft messages in one frame body.
//!
//! frame body := version, message*; message := group, epoch, birth digest, from, to, term, aside?, kind, body (`body`).
//! An aside (what the envelope says beside the message) begins with a kind byte of its own.
//! Leaves to others: length and checksum of the frame (transport), who may say it (router).
//! Invariant: what decodes is a message that may travel: no local kind, no impossible term, index or id.

use super::DecodeError;
use super::body::{put_body, take_body};
use super::state::{decode_creation, encode_creation, put_pos, take_pos};
use super::wire::{Reader, put_blob, put_varint};
use crate::ids::Incarnation;
use crate::task::{Aside, GroupMessage, Invitation};
use bytes::{BufMut, Bytes, BytesMut};
use pontoon_raft::Message;
use std::sync::Arc;

const BATCH_V1: u8 = 1;
/// Most messages in one frame.
pub const MAX_MESSAGES: usize = 1 << 16;
/// Least bytes that a message takes.
const MIN_MESSAGE: usize = 7;
/// Largest creation record in an invitation.
const MAX_CREATION: usize = 64 << 10;

// Of the same space as the kinds of bodies (`body`).
const INVITATION: u8 = 16;
const REMOVED: u8 = 17;
const COMMITTED: u8 = 18;

/// A frame body being filled.
#[derive(Debug, Default)]
pub struct MessageBatch {
    /// Version byte and messages; empty while there is none.
    out: BytesMut,
    /// Messages so far.
    count: usize,
    /// Size of the frames before: the next one's first guess, so that it seldom grows. Bytes.
    guess: usize,
}

impl MessageBatch {
    /// Appends a message. False, and nothing appended: the frame holds `MAX_MESSAGES` already.
    ///
    /// # Panics
    /// If the message is of a local kind: the core never sends one.
    #[must_use]
    pub fn push(&mut self, m: &GroupMessage) -> bool {
        if self.count == MAX_MESSAGES {
            return false;
        }
        if self.count == 0 {
            self.out.reserve(self.guess);
            self.out.put_u8(BATCH_V1);
        }
        encode_message(&mut self.out, m);
        self.count += 1;
        true
    }

    /// Messages so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// No message yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the frame body and begins a new one.
    #[must_use]
    pub fn take(&mut self) -> Bytes {
        self.count = 0;
        // A large frame is forgotten by and by, or every small one would take as much memory.
        self.guess = (self.guess / 2).max(self.out.len() + self.out.len() / 4);
        self.out.split().freeze()
    }
}

/// A frame body of these messages, at most `MAX_MESSAGES`.
#[must_use]
pub fn encode_messages(messages: &[GroupMessage]) -> Bytes {
    let mut batch = MessageBatch::default();
    let fitted = messages.iter().take_while(|m| batch.push(m)).count();
    assert!(fitted == messages.len(), "{} messages in one frame", messages.len());
    batch.take()
}

/// The messages of a frame body; payloads are slices of it.
pub fn decode_messages(body: Bytes) -> Result<Vec<GroupMessage>, DecodeError> {
    let mut r = Reader::new("message batch", body);
    r.version(BATCH_V1)?;
    let mut messages = Vec::with_capacity((r.remaining() / 64).min(MAX_MESSAGES));
    while r.remaining() > 0 {
        r.ensure(messages.len() < MAX_MESSAGES, "too many messages")?;
        r.ensure(r.remaining() >= MIN_MESSAGE, "cut short")?;
        messages.push(decode_message(&mut r)?);
    }
    r.ensure(!messages.is_empty(), "no message")?;
    Ok(messages)
}

/// Appends one message.
///
/// # Panics
/// If the message is of a local kind: the core never sends one.
pub fn encode_message(out: &mut impl BufMut, m: &GroupMessage) {
    put_varint(out, m.group.0);
    put_varint(out, m.epoch);
    put_varint(out, m.birth);
    put_varint(out, m.message.from.0);
    put_varint(out, m.message.to.0);
    put_varint(out, m.message.term.0);
    put_aside(out, &m.aside);
    put_body(out, &m.message.body);
}

fn put_aside(out: &mut impl BufMut, aside: &Aside) {
    match aside {
        Aside::Nothing => {}
        Aside::Invitation(invitation) => {
            out.put_u8(INVITATION);
            out.put_u64_le(invitation.disk.0);
            put_blob(out, &encode_creation(&invitation.creation));
        }
        Aside::Removed { conf } => {
            out.put_u8(REMOVED);
            put_varint(out, conf.0);
        }
        Aside::Committed(pos) => {
            out.put_u8(COMMITTED);
            put_pos(out, *pos);
        }
    }
}

/// Takes the aside, if there is one, and the kind byte of the body behind it.
fn take_aside(r: &mut Reader) -> Result<(Aside, u8), DecodeError> {
    let aside = match r.u8()? {
        INVITATION => {
            let disk = Incarnation(r.fixed64()?);
            let creation = Arc::new(decode_creation(r.blob(MAX_CREATION)?)?);
            Aside::Invitation(Box::new(Invitation { creation, disk }))
        }
        REMOVED => Aside::Removed { conf: r.index()? },
        COMMITTED => Aside::Committed(take_pos(r)?),
        kind => return Ok((Aside::Nothing, kind)),
    };
    Ok((aside, r.u8()?))
}

/// Takes one message.
pub fn decode_message(r: &mut Reader) -> Result<GroupMessage, DecodeError> {
    let group = r.group()?;
    let epoch = r.varint()?;
    let birth = r.varint()?;
    let (from, to, term) = (r.replica()?, r.replica()?, r.term()?);
    let (aside, kind) = take_aside(r)?;
    let body = take_body(r, kind, term)?;
    if from == to {
        return Err(r.error(format!("{:?} of replica {from} of group {group} to itself", body.kind())));
    }
    Ok(GroupMessage { group, epoch, birth, aside, message: Message { from, to, term, body } })
}
