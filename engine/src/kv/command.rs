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
        let mut out = BytesMut::new();
        self.encode_to(&mut out)
    }

    /// The byte form, cut out of what `out` has left, or of a new piece of memory if that is too little. Who encodes many
    /// commands with one `out` (of some KiB: what pins a part pins all of it) allocates once for many.
    #[must_use]
    pub fn encode_to(&self, out: &mut BytesMut) -> Bytes {
        out.reserve(self.size_hint());
        out.put_u8(VERSION);
        match self {
            KvCommand::Set { key, value, when, get } => {
                out.put_u8(op::SET);
                out.put_u8(*when as u8 | u8::from(*get) << 2);
                put(out, key);
                put(out, value);
            }
            KvCommand::SetMany(pairs) => {
                out.put_u8(op::SET_MANY);
                for (key, value) in pairs {
                    put(out, key);
                    put(out, value);
                }
            }
            KvCommand::Delete(keys) => {
                out.put_u8(op::DELETE);
                keys.iter().for_each(|k| put(out, k));
            }
            KvCommand::IncrBy { key, by } => {
                out.put_u8(op::INCR_BY);
                out.put_i64_le(*by);
                put(out, key);
            }
            KvCommand::Append { key, value, limit } => {
                out.put_u8(op::APPEND);
                out.put_u32_le(*limit);
                put(out, key);
                put(out, value);
            }
        }
        out.split().freeze()
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

/// Key and value of a `Set` without condition and without an answer but "done", where they lie; `None`: something else, or
/// no command.
pub(super) fn plain_set(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, data) = split_field(data.strip_prefix(&[VERSION, op::SET, 0])?)?;
    let (value, rest) = split_field(data)?;
    rest.is_empty().then_some((key, value))
}

fn split_field(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, data) = data.split_first_chunk()?;
    data.split_at_checked(u32::from_le_bytes(*len) as usize)
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
    fn many_are_cut_out_of_one_buffer() {
        let mut buffer = BytesMut::with_capacity(1 << 10);
        let all: Vec<Bytes> = samples().iter().map(|c| c.encode_to(&mut buffer)).collect();
        assert!(all.iter().zip(samples()).all(|(wire, c)| *wire == c.encode()));
        assert!(all.windows(2).all(|w| w[0].as_ptr_range().end == w[1].as_ptr()), "side by side");
    }

    #[test]
    fn a_plain_set_is_read_where_it_lies_and_means_what_it_is_decoded_to() {
        let check = |wire: &[u8]| {
            let plain = plain_set(wire).map(|(k, v)| KvCommand::Set {
                key: Bytes::copy_from_slice(k),
                value: Bytes::copy_from_slice(v),
                when: When::Always,
                get: false,
            });
            let decoded = KvCommand::decode(Bytes::copy_from_slice(wire)).ok();
            let is_plain = matches!(decoded, Some(KvCommand::Set { when: When::Always, get: false, .. }));
            assert_eq!(plain, decoded.filter(|_| is_plain), "{wire:?}");
            is_plain
        };
        let plain = samples().iter().filter(|c| check(&c.encode())).count();
        assert_eq!(plain, 1);
        for wire in samples().iter().map(KvCommand::encode) {
            for at in 0..wire.len() {
                check(&wire[..at]);
                let mut flipped = wire.to_vec();
                flipped[at] ^= 1;
                check(&flipped);
            }
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
