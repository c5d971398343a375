//! Primitive forms: bytes, flags, varints, length-prefixed blobs; a reader that trusts nothing.
//!
//! Leaves to others: what the numbers mean. Blobs are slices of the buffer that came in, not copies.
//! Invariant: every read is checked against what remains, and a varint has exactly one form.

use super::DecodeError;
use crate::ids::{GroupId, Index, NodeId, ReplicaId, Term};
use bytes::{Buf, BufMut, Bytes};

/// Appends a base-128 varint.
#[inline]
pub fn put_varint(out: &mut impl BufMut, v: u64) {
    if v < 0x80 {
        return out.put_u8(v as u8);
    }
    let mut bytes = [0; MAX_VARINT];
    let len = varint_into(&mut bytes, 0, v);
    out.put_slice(&bytes[..len]);
}

/// Longest varint.
pub(super) const MAX_VARINT: usize = 10;

/// Writes a varint at `at`; returns where it ends.
#[inline]
pub(super) fn varint_into(bytes: &mut [u8], mut at: usize, mut v: u64) -> usize {
    while v >= 0x80 {
        bytes[at] = (v & 0x7f) as u8 | 0x80;
        (at, v) = (at + 1, v >> 7);
    }
    bytes[at] = v as u8;
    at + 1
}

/// The varint at `at`, which must be in its shortest form, and where it ends.
#[inline]
pub(super) fn varint_at(bytes: &[u8], at: usize) -> Result<(u64, usize), &'static str> {
    match bytes.get(at) {
        Some(byte) if *byte < 0x80 => Ok((u64::from(*byte), at + 1)),
        _ => long_varint_at(bytes, at),
    }
}

fn long_varint_at(bytes: &[u8], mut at: usize) -> Result<(u64, usize), &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at).ok_or("cut short")?;
        at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("varint over 64 bits");
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return if shortest { Ok((value, at)) } else { Err("varint not in its shortest form") };
        }
    }
    Err("varint over 64 bits")
}

/// Appends a length-prefixed blob.
pub fn put_blob(out: &mut impl BufMut, data: &[u8]) {
    put_varint(out, data.len() as u64);
    out.put_slice(data);
}

/// Takes values off the front of a buffer; `what` names the record in errors.
#[derive(Clone, Debug)]
pub struct Reader {
    /// What is left.
    buf: Bytes,
    /// Name of the record for errors.
    what: &'static str,
}

impl Reader {
    /// Reads `buf`, which should hold a `what`.
    #[must_use]
    pub fn new(what: &'static str, buf: Bytes) -> Reader {
        Reader { buf, what }
    }

    /// An error about this record.
    #[must_use]
    pub fn error(&self, why: impl Into<String>) -> DecodeError {
        DecodeError { what: self.what, why: why.into() }
    }

    /// `Err(why)` unless `ok`.
    #[inline]
    pub fn ensure(&self, ok: bool, why: &str) -> Result<(), DecodeError> {
        if ok { Ok(()) } else { Err(self.error(why)) }
    }

    /// Bytes left.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// What is left.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buf
    }

    /// The next `n` bytes; shares the buffer.
    pub(super) fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        self.need(n)?;
        Ok(self.buf.split_to(n))
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        self.ensure(self.buf.is_empty(), "trailing bytes")
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.buf.get_u8())
    }

    /// Eight bytes, little-endian: digests and random names.
    pub fn fixed64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.buf.get_u64_le())
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.error(format!("flag of value {other}"))),
        }
    }

    /// A version byte that must be `known`.
    pub fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let found = self.u8()?;
        if found == known { Ok(()) } else { Err(self.error(format!("version {found}, this build knows {known}"))) }
    }

    /// A varint in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, len) = varint_at(&self.buf, 0).map_err(|why| self.error(why))?;
        self.buf.advance(len);
        Ok(value)
    }

    /// A count of things that each take at least `each` bytes: never more than fit into what is left.
    #[inline]
    pub fn count(&mut self, max: usize, each: usize) -> Result<usize, DecodeError> {
        let n = self.varint()?;
        let fits = n <= max as u64 && n.saturating_mul(each as u64) <= self.remaining() as u64;
        if fits { Ok(n as usize) } else { Err(self.error(format!("count of {n} is too large"))) }
    }

    /// A length-prefixed blob of at most `max` bytes; shares the buffer.
    #[inline]
    pub fn blob(&mut self, max: usize) -> Result<Bytes, DecodeError> {
        let len = self.count(max, 1)?;
        Ok(self.buf.split_to(len))
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.need(N)?;
        let mut out = [0; N];
        self.buf.copy_to_slice(&mut out);
        Ok(out)
    }

    /// A length-prefixed string of at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<String, DecodeError> {
        let raw = self.blob(max)?;
        std::str::from_utf8(&raw).map(str::to_owned).map_err(|_| self.error("text is not UTF-8"))
    }

    /// A term; the last one is refused, so that `next` always exists.
    pub fn term(&mut self) -> Result<Term, DecodeError> {
        self.below_max("term").map(Term)
    }

    /// An index; the last ones are refused, so that `next` always exists.
    pub fn index(&mut self) -> Result<Index, DecodeError> {
        self.below_max("index").map(Index)
    }

    /// A member's id.
    pub fn replica(&mut self) -> Result<ReplicaId, DecodeError> {
        let id = ReplicaId(self.varint()?);
        self.ensure(id.is_valid_member(), "replica id that no member has")?;
        Ok(id)
    }

    /// A member's id or nobody.
    pub fn replica_or_none(&mut self) -> Result<ReplicaId, DecodeError> {
        let id = ReplicaId(self.varint()?);
        self.ensure(!id.is_local_target(), "replica id that no member has")?;
        Ok(id)
    }

    /// A group.
    pub fn group(&mut self) -> Result<GroupId, DecodeError> {
        let id = self.below_max("group id")?;
        self.ensure(id != 0, "group id 0")?;
        Ok(GroupId(id))
    }

    /// A node.
    pub fn node(&mut self) -> Result<NodeId, DecodeError> {
        let id = self.below_max("node id")?;
        self.ensure(id != 0, "node id 0")?;
        Ok(NodeId(id))
    }

    #[inline]
    fn below_max(&mut self, name: &str) -> Result<u64, DecodeError> {
        let v = self.varint()?;
        // Half the range stays free, so that sums of two checked numbers never overflow.
        if v <= u64::MAX / 2 { Ok(v) } else { Err(self.error(format!("{name} {v} is beyond the range"))) }
    }

    #[inline]
    fn need(&self, n: usize) -> Result<(), DecodeError> {
        self.ensure(self.buf.len() >= n, "cut short")
    }
}
