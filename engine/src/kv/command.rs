//! The commands of a `KvStore` and their byte form: what a proposal carries and what apply decides.
//!
//! Form: version byte, operation byte, then length-prefixed fields (u32 little-endian); docs/on-disk-format.md.
//! Leaves to others: where keys live (`keys`), read-your-stage (`stage`). Invariant: `decode(encode(c)) == c`; anything
//! else is refused whole, never half applied.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;

/// When a `Set` takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Always.
    #[default]
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
}

/// A change of one group's data; atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvCommand {
    /// Sets one key.
    Set {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Condition.
        when: When,
        /// Answer with the value before.
        get: bool,
    },
    /// Sets several keys at once.
    SetMany(Vec<(Bytes, Bytes)>),
    /// Deletes keys.
    Delete(Vec<Bytes>),
    /// Adds to a decimal number; a missing key counts as 0.
    IncrBy {
        /// The key.
        key: Bytes,
        /// What to add.
        by: i64,
    },
    /// Appends to a value; a missing key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What to append.
        value: Bytes,
        /// Longest value that may result, bytes.
        limit: u32,
    },
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvResponse {
    /// `Set` without `get`, `SetMany`: did the condition hold?
    Set(bool),
    /// `Set` with `get`: the value before, whether or not the condition held.
    Previous(Option<Bytes>),
    /// `Delete`: how many keys existed.
    Deleted(u64),
    /// `IncrBy`: the new number.
    Int(i64),
    /// `Append`: the new length.
    Length(u64),
    /// `IncrBy`: the value is no decimal 64-bit number. Nothing changed.
    NotANumber,
    /// `IncrBy`: the result does not fit. Nothing changed.
    Overflow,
    /// `Append`: the result is over the limit. Nothing changed.
    TooLong,
    /// The bytes were no command of this version. Nothing changed.
    BadCommand,
}

/// Bytes that are no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key-value command: {0}")]
pub struct BadCommand(pub &'static str);

mod op {
    pub(super) const SET: u8 = 1;
    pub(super) const SET_MANY: u8 = 2;
    pub(super) const DELETE: u8 = 3;
    pub(super) const INCR_BY: u8 = 4;
    pub(super) const APPEND: u8 = 5;
}

impl KvCommand {
    /// The byte form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        out.put_u8(VERSION);
        match self {
            KvCommand::Set { key, value, when, get } => {
                out.put_u8(op::SET);
                out.put_u8(*when as u8 | u8::from(*get) << 2);
                put(&mut out, key);
                put(&mut out, value);
            }
            KvCommand::SetMany(pairs) => {
                out.put_u8(op::SET_MANY);
                for (key, value) in pairs {
                    put(&mut out, key);
                    put(&mut out, value);
                }
            }
            KvCommand::Delete(keys) => {
                out.put_u8(op::DELETE);
                keys.iter().for_each(|k| put(&mut out, k));
            }
            KvCommand::IncrBy { key, by } => {
                out.put_u8(op::INCR_BY);
                out.put_i64_le(*by);
                put(&mut out, key);
            }
            KvCommand::Append { key, value, limit } => {
                out.put_u8(op::APPEND);
                out.put_u32_le(*limit);
                put(&mut out, key);
                put(&mut out, value);
            }
        }
        out.freeze()
    }

    fn size_hint(&self) -> usize {
        let fields = match self {
            KvCommand::Set { key, value, .. } | KvCommand::Append { key, value, .. } => key.len() + value.len() + 8,
            KvCommand::SetMany(pairs) => pairs.iter().map(|(k, v)| k.len() + v.len() + 8).sum(),
            KvCommand::Delete(keys) => keys.iter().map(|k| k.len() + 4).sum(),
            KvCommand::IncrBy { key, .. } => key.len() + 4,
        };
        fields + 16
    }

    /// Reads the byte form; payloads are slices of `data`.
    ///
    /// # Errors
    /// `BadCommand`: written by a newer version, or not a command at all.
    pub fn decode(mut data: Bytes) -> Result<KvCommand, BadCommand> {
        if data.len() < 2 {
            return Err(BadCommand("too short"));
        }
        if data.get_u8() != VERSION {
            return Err(BadCommand("unknown version"));
        }
        let command = match data.get_u8() {
            op::SET => decode_set(&mut data)?,
            op::SET_MANY => {
                let mut pairs = Vec::new();
                while data.has_remaining() {
                    pairs.push((take(&mut data)?, take(&mut data)?));
                }
                KvCommand::SetMany(pairs)
            }
            op::DELETE => {
                let mut keys = Vec::new();
                while data.has_remaining() {
                    keys.push(take(&mut data)?);
                }
                KvCommand::Delete(keys)
            }
            op::INCR_BY => {
                let by = data.try_get_i64_le().map_err(|_| BadCommand("too short"))?;
                KvCommand::IncrBy { by, key: take(&mut data)? }
            }
            op::APPEND => {
                let limit = data.try_get_u32_le().map_err(|_| BadCommand("too short"))?;
                KvCommand::Append { limit, key: take(&mut data)?, value: take(&mut data)? }
            }
            _ => return Err(BadCommand("unknown operation")),
        };
        if data.has_remaining() { Err(BadCommand("trailing bytes")) } else { Ok(command) }
    }
}

fn decode_set(data: &mut Bytes) -> Result<KvCommand, BadCommand> {
    let flags = data.try_get_u8().map_err(|_| BadCommand("too short"))?;
    let when = match flags & 3 {
        0 => When::Always,
        1 => When::Absent,
        2 => When::Present,
        _ => return Err(BadCommand("unknown condition")),
    };
    if flags >> 3 != 0 {
        return Err(BadCommand("unknown flag"));
    }
    Ok(KvCommand::Set { when, get: flags & 4 != 0, key: take(data)?, value: take(data)? })
}

fn put(out: &mut BytesMut, field: &[u8]) {
    out.put_u32_le(u32::try_from(field.len()).expect("commands are capped far below 4 GiB before they are encoded"));
    out.extend_from_slice(field);
}

fn take(data: &mut Bytes) -> Result<Bytes, BadCommand> {
    let len = data.try_get_u32_le().map_err(|_| BadCommand("too short"))? as usize;
    if len > data.len() {
        return Err(BadCommand("field longer than the command"));
    }
    Ok(data.split_to(len))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn samples() -> Vec<KvCommand> {
        let b = Bytes::from_static;
        let mut all = vec![
            KvCommand::SetMany(vec![(b(b"a"), b(b"1")), (b(b""), b(b""))]),
            KvCommand::Delete(vec![b(b"a"), b(b"bc")]),
            KvCommand::IncrBy { key: b(b"n"), by: i64::MIN },
            KvCommand::Append { key: b(b"k"), value: b(b"tail"), limit: 1 << 20 },
        ];
        for when in [When::Always, When::Absent, When::Present] {
            all.extend([false, true].map(|get| KvCommand::Set { key: b(b"k"), value: b(b"v"), when, get }));
        }
        all
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for command in samples() {
            assert_eq!(KvCommand::decode(command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn damage_is_refused_or_another_command_but_never_a_panic() {
        for command in samples() {
            let wire = command.encode();
            for cut in 0..wire.len() {
                if let Ok(other) = KvCommand::decode(wire.slice(..cut)) {
                    assert_eq!(other.encode(), wire.slice(..cut), "a prefix that is a command must be one to the byte");
                }
                let mut flipped = wire.to_vec();
                flipped[cut] ^= 0x80;
                let _ = KvCommand::decode(Bytes::from(flipped));
            }
        }
    }
}
