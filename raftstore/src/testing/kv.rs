//! The commands of the twins' state machine: small, but each kind of answer that a real store gives.
//!
//! The same `apply` runs in the machine twin and in the linearizability checker's model.
//! Invariant: a command names its keys; nothing else is read or written by it.

use crate::codec::{DecodeError, Reader, put_blob, put_varint};
use bytes::{BufMut, Bytes};
use std::collections::BTreeMap;

/// Contents.
pub type Map = BTreeMap<Bytes, Bytes>;

/// One operation on contents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvOp {
    /// Values of keys (`GET`, `MGET`). Never in the log.
    Get(Vec<Bytes>),
    /// Sets pairs (`SET`, `MSET`).
    Put(Vec<(Bytes, Bytes)>),
    /// Adds to a number (`INCRBY`).
    Add(Bytes, i64),
    /// Appends bytes (`APPEND`).
    Append(Bytes, Bytes),
    /// Sets if the key's presence is as asked (`SET NX`, `SET XX`).
    PutIf(Bytes, Bytes, bool),
    /// Deletes keys (`DEL`).
    Delete(Vec<Bytes>),
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvRet {
    /// Of `Get`.
    Values(Vec<Option<Bytes>>),
    /// Of `Put`.
    Done,
    /// New number, new length, or keys deleted.
    Number(i64),
    /// Of `PutIf`: was it set?
    Set(bool),
    /// Of `Add`, on a value that is no number.
    NotANumber,
}

impl KvOp {
    /// Does it change nothing?
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, KvOp::Get(_))
    }

    /// The keys it names.
    #[must_use]
    pub fn keys(&self) -> Vec<&Bytes> {
        match self {
            KvOp::Get(keys) | KvOp::Delete(keys) => keys.iter().collect(),
            KvOp::Put(pairs) => pairs.iter().map(|p| &p.0).collect(),
            KvOp::Add(key, _) | KvOp::Append(key, _) | KvOp::PutIf(key, _, _) => vec![key],
        }
    }

    /// Does it to contents.
    pub fn apply(&self, map: &mut Map) -> KvRet {
        match self {
            KvOp::Get(keys) => KvRet::Values(keys.iter().map(|k| map.get(k).cloned()).collect()),
            KvOp::Put(pairs) => {
                map.extend(pairs.iter().cloned());
                KvRet::Done
            }
            KvOp::Add(key, by) => add(map, key, *by),
            KvOp::Append(key, tail) => {
                let mut value = map.get(key).map(|v| v.to_vec()).unwrap_or_default();
                value.extend_from_slice(tail);
                let len = value.len() as i64;
                map.insert(key.clone(), value.into());
                KvRet::Number(len)
            }
            KvOp::PutIf(key, value, present) => {
                let set = map.contains_key(key) == *present;
                if set {
                    map.insert(key.clone(), value.clone());
                }
                KvRet::Set(set)
            }
            KvOp::Delete(keys) => KvRet::Number(keys.iter().filter(|k| map.remove(*k).is_some()).count() as i64),
        }
    }

    /// The command's bytes, as they stand in the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut list = |tag: u8, parts: &[&[u8]]| {
            out.put_u8(tag);
            put_varint(&mut out, parts.len() as u64);
            parts.iter().for_each(|p| put_blob(&mut out, p));
        };
        match self {
            KvOp::Get(keys) => list(0, &keys.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
            KvOp::Put(pairs) => {
                list(1, &pairs.iter().flat_map(|(k, v)| [k.as_ref(), v.as_ref()]).collect::<Vec<_>>());
            }
            KvOp::Add(key, by) => list(2, &[key, &by.to_le_bytes()]),
            KvOp::Append(key, tail) => list(3, &[key, tail]),
            KvOp::PutIf(key, value, present) => list(4, &[key, value, &[u8::from(*present)]]),
            KvOp::Delete(keys) => list(5, &keys.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
        }
        out.into()
    }

    /// A command from its bytes.
    pub fn decode(bytes: Bytes) -> Result<KvOp, DecodeError> {
        let mut r = Reader::new("kv command", bytes);
        let tag = r.u8()?;
        let n = r.count(1 << 16, 1)?;
        let parts = (0..n).map(|_| r.blob(1 << 24)).collect::<Result<Vec<_>, _>>()?;
        let op = match (tag, parts.as_slice()) {
            (0, _) => KvOp::Get(parts),
            (1, _) if n % 2 == 0 => KvOp::Put(parts.chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect()),
            (2, [key, by]) => {
                let by = by.as_ref().try_into().map_err(|_| r.error("a number has 8 bytes"))?;
                KvOp::Add(key.clone(), i64::from_le_bytes(by))
            }
            (3, [key, tail]) => KvOp::Append(key.clone(), tail.clone()),
            (4, [key, value, present]) => KvOp::PutIf(key.clone(), value.clone(), present.as_ref() == [1]),
            (5, _) => KvOp::Delete(parts),
            _ => return Err(r.error(format!("command {tag} with {n} parts"))),
        };
        r.finish()?;
        Ok(op)
    }
}

fn add(map: &mut Map, key: &Bytes, by: i64) -> KvRet {
    let old = match map.get(key) {
        None => Some(0),
        Some(v) => std::str::from_utf8(v).ok().and_then(|s| s.parse::<i64>().ok()),
    };
    match old.and_then(|n| n.checked_add(by)) {
        Some(n) => {
            map.insert(key.clone(), n.to_string().into());
            KvRet::Number(n)
        }
        None => KvRet::NotANumber,
    }
}
