//! What every value begins with: version, checksum, identity.
//!
//! `version u8 | crc32c u32 | store u64 | replica varint | generation varint | body`, little-endian. The checksum runs
//! over key, version and everything behind the checksum, so a value under a wrong key is as damaged as a flipped bit.
//! Invariant: nothing reads a body before checksum and store are known to be right.

use bytes::{BufMut, Bytes};
use pontoon_raftstore::codec::{DecodeError, Reader, put_varint};
use pontoon_raftstore::ids::{Generation, ReplicaId};
use std::fmt;

/// Format of the values that this build writes.
pub(crate) const VERSION: u8 = 1;
/// Bytes before the identity.
const HEAD: usize = 5;

/// Random name of a store: a value of another one is damage (a file copied between directories).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) u64);

/// Whose value it is. The order is that of succession: a lower owner's value is garbage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The replica; 0 for the node's own records.
    pub(crate) replica: ReplicaId,
    /// Generation of its contents.
    pub(crate) generation: Generation,
}

/// What is wrong with a value: expected and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Too short to be anything.
    Short(usize),
    /// Written by another build.
    Version(u8),
    /// Stored and computed.
    Checksum(u32, u32),
    /// Expected and found.
    Store(StoreId, StoreId),
    /// The body makes no sense.
    Body(DecodeError),
}

impl From<DecodeError> for Fault {
    fn from(e: DecodeError) -> Fault {
        Fault::Body(e)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Short(len) => write!(f, "value of {len} bytes is too short"),
            Fault::Version(found) => write!(f, "version {found}, this build reads {VERSION}"),
            Fault::Checksum(stored, computed) => write!(f, "checksum {stored:#010x}, contents give {computed:#010x}"),
            Fault::Store(own, found) => write!(f, "value of store {:016x} in store {:016x}", found.0, own.0),
            Fault::Body(e) => e.fmt(f),
        }
    }
}

/// Builds a value in `out` (cleared first).
pub(crate) fn seal(out: &mut Vec<u8>, key: &[u8], store: StoreId, owner: Owner, body: impl FnOnce(&mut Vec<u8>)) {
    out.clear();
    out.put_u8(VERSION);
    out.put_u32_le(0);
    out.put_u64_le(store.0);
    put_varint(out, owner.replica.0);
    put_varint(out, owner.generation.0);
    body(out);
    let crc = checksum(key, out);
    out[1..HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a value and gives its owner and body.
pub(crate) fn open(what: &'static str, key: &[u8], value: Bytes, store: StoreId) -> Result<(Owner, Reader), Fault> {
    if value.len() < HEAD + 8 {
        return Err(Fault::Short(value.len()));
    }
    if value[0] != VERSION {
        return Err(Fault::Version(value[0]));
    }
    let stored = u32::from_le_bytes([value[1], value[2], value[3], value[4]]);
    let computed = checksum(key, &value);
    if stored != computed {
        return Err(Fault::Checksum(stored, computed));
    }
    let mut r = Reader::new(what, value.slice(HEAD..));
    let found = StoreId(r.fixed64()?);
    if found != store {
        return Err(Fault::Store(store, found));
    }
    let owner = Owner { replica: r.replica_or_none()?, generation: Generation(r.varint()?) };
    Ok((owner, r))
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value[..1]);
    crc32c::crc32c_append(crc, &value[HEAD..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_flipped_bit_and_a_wrong_key_are_noticed() {
        let owner = Owner { replica: ReplicaId(3), generation: Generation(300) };
        let mut value = Vec::new();
        seal(&mut value, b"key", StoreId(9), owner, |out| out.put_slice(b"body"));
        let (found, mut r) = open("test", b"key", value.clone().into(), StoreId(9)).unwrap();
        assert_eq!((found, r.array().unwrap()), (owner, *b"body"));
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            open("test", b"key", bad.into(), StoreId(9)).unwrap_err();
        }
        open("test", b"kex", value.clone().into(), StoreId(9)).unwrap_err();
        assert_eq!(open("test", b"key", value.into(), StoreId(8)).unwrap_err(), Fault::Store(StoreId(8), StoreId(9)));
    }
}
