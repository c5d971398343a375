//! The protobuf form of membership changes, by hand: four fields do not need a code generator.
//!
//! V1: type 2, node 3, context 4 (field 1, an id, is never written). V2: transition 1, operations 2,
//! context 3; an operation: type 1, node 2. Numbers are always written, a context only if not empty.
//! Invariant: unknown fields are skipped; what is cut off or of a wrong type is `BadConfChange`.

use super::{BadConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV1, ConfChangeV2};
use crate::ids::ReplicaId;
use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(super) fn encode_v1(cc: &ConfChangeV1) -> Bytes {
    let mut out = BytesMut::new();
    put_number(&mut out, 2, sign_extended(kind_number(cc.change.kind)));
    put_number(&mut out, 3, cc.change.id.0);
    put_context(&mut out, 4, &cc.context);
    out.freeze()
}

pub(super) fn encode_v2(cc: &ConfChangeV2) -> Bytes {
    let mut out = BytesMut::new();
    put_number(&mut out, 1, sign_extended(transition_number(cc.transition)));
    for change in &cc.changes {
        let mut single = BytesMut::new();
        put_number(&mut single, 1, sign_extended(kind_number(change.kind)));
        put_number(&mut single, 2, change.id.0);
        put_bytes(&mut out, 2, &single);
    }
    put_context(&mut out, 3, &cc.context);
    out.freeze()
}

pub(super) fn decode_v1(data: &Bytes) -> Result<ConfChangeV1, BadConfChange> {
    let mut cc = ConfChangeV1::default();
    let mut data = data.clone();
    while let Some((field, value)) = take_field(&mut data)? {
        match (field, value) {
            (2, Value::Number(n)) => cc.change.kind = kind(n),
            (3, Value::Number(n)) => cc.change.id = ReplicaId(n),
            (4, Value::Bytes(b)) => cc.context = b,
            (2..=4, _) => return Err(BadConfChange),
            _ => {}
        }
    }
    Ok(cc)
}

pub(super) fn decode_v2(data: &Bytes) -> Result<ConfChangeV2, BadConfChange> {
    let mut cc = ConfChangeV2::default();
    let mut data = data.clone();
    while let Some((field, value)) = take_field(&mut data)? {
        match (field, value) {
            (1, Value::Number(n)) => cc.transition = transition(n),
            (2, Value::Bytes(b)) => cc.changes.push(decode_single(b)?),
            (3, Value::Bytes(b)) => cc.context = b,
            (1..=3, _) => return Err(BadConfChange),
            _ => {}
        }
    }
    Ok(cc)
}

fn decode_single(mut data: Bytes) -> Result<ConfChangeSingle, BadConfChange> {
    let mut single = ConfChangeSingle::default();
    while let Some((field, value)) = take_field(&mut data)? {
        match (field, value) {
            (1, Value::Number(n)) => single.kind = kind(n),
            (2, Value::Number(n)) => single.id = ReplicaId(n),
            (1..=2, _) => return Err(BadConfChange),
            _ => {}
        }
    }
    Ok(single)
}

fn kind_number(kind: ConfChangeType) -> i32 {
    match kind {
        ConfChangeType::AddNode => 0,
        ConfChangeType::RemoveNode => 1,
        ConfChangeType::UpdateNode => 2,
        ConfChangeType::AddLearnerNode => 3,
        ConfChangeType::Unknown(n) => n,
    }
}

fn kind(number: u64) -> ConfChangeType {
    match number as i32 {
        0 => ConfChangeType::AddNode,
        1 => ConfChangeType::RemoveNode,
        2 => ConfChangeType::UpdateNode,
        3 => ConfChangeType::AddLearnerNode,
        n => ConfChangeType::Unknown(n),
    }
}

fn transition_number(transition: ConfChangeTransition) -> i32 {
    match transition {
        ConfChangeTransition::Auto => 0,
        ConfChangeTransition::JointImplicit => 1,
        ConfChangeTransition::JointExplicit => 2,
        ConfChangeTransition::Unknown(n) => n,
    }
}

fn transition(number: u64) -> ConfChangeTransition {
    match number as i32 {
        0 => ConfChangeTransition::Auto,
        1 => ConfChangeTransition::JointImplicit,
        2 => ConfChangeTransition::JointExplicit,
        n => ConfChangeTransition::Unknown(n),
    }
}

/// One field's value: the wire types that are used, and `Other` for those that are skipped.
enum Value {
    Number(u64),
    Bytes(Bytes),
    Other,
}

fn sign_extended(number: i32) -> u64 {
    i64::from(number) as u64
}

fn put_context(out: &mut BytesMut, field: u64, context: &Bytes) {
    if !context.is_empty() {
        put_bytes(out, field, context);
    }
}

fn put_number(out: &mut BytesMut, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

fn put_bytes(out: &mut BytesMut, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn put_varint(out: &mut BytesMut, mut v: u64) {
    while v >= 0x80 {
        out.put_u8(v as u8 | 0x80);
        v >>= 7;
    }
    out.put_u8(v as u8);
}

fn take_field(data: &mut Bytes) -> Result<Option<(u64, Value)>, BadConfChange> {
    if data.is_empty() {
        return Ok(None);
    }
    let tag = take_varint(data)?;
    let value = match tag & 7 {
        0 => Value::Number(take_varint(data)?),
        1 => take_bytes(data, 8).map(|_| Value::Other)?,
        2 => {
            let len = take_varint(data)?;
            Value::Bytes(take_bytes(data, len)?)
        }
        5 => take_bytes(data, 4).map(|_| Value::Other)?,
        _ => return Err(BadConfChange),
    };
    Ok(Some((tag >> 3, value)))
}

fn take_bytes(data: &mut Bytes, len: u64) -> Result<Bytes, BadConfChange> {
    match usize::try_from(len) {
        Ok(len) if len <= data.len() => Ok(data.split_to(len)),
        _ => Err(BadConfChange),
    }
}

fn take_varint(data: &mut Bytes) -> Result<u64, BadConfChange> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        if data.is_empty() {
            return Err(BadConfChange);
        }
        let byte = data.get_u8();
        v |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(v);
        }
    }
    Err(BadConfChange)
}
