//! One log entry: position, kind, payload.
//!
//! The payload is one shared `Bytes` from the caller to the socket, the log batch and the state
//! machine. Its byte form belongs to the layers above; only its *size* matters here (limits).

use crate::ids::{Index, LogPos, Term};
use bytes::Bytes;

/// What an entry's payload means to the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command of the user; empty for a leader's first entry (thesis 3.6.2).
    #[default]
    Normal,
    /// A membership change in the old, single-operation form.
    ConfChange,
    /// A membership change with any number of operations (joint consensus, Raft 6).
    ConfChangeV2,
}

/// One entry of the replicated log. Immutable once appended or sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
    /// What `data` means.
    pub kind: EntryKind,
    /// True iff this empty normal entry took the place of a refused membership change. Counts in the
    /// encoded size only (two bytes), as in etcd raft; is not part of the entry's identity on disk or wire.
    pub replaced: bool,
    /// The command.
    pub data: Bytes,
}

impl Entry {
    /// A normal entry that still waits for its position.
    #[must_use]
    #[inline]
    pub fn normal(data: Bytes) -> Entry {
        Entry { data, ..Entry::default() }
    }

    /// Term and index together.
    #[must_use]
    pub fn pos(&self) -> LogPos {
        LogPos { term: self.term, index: self.index }
    }

    /// Bytes of payload: the unit of the in-flight and uncommitted limits.
    #[must_use]
    pub fn payload_size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Size in etcd raft's protobuf form: the unit of message and page limits
    /// (type 2 if present, term and index 1 + varint, data 1 + varint + length if present).
    #[must_use]
    pub fn encoded_size(&self) -> u64 {
        self.encoded_payload() + 1 + varint_len(self.term.0) + 1 + varint_len(self.index.0)
    }

    /// The part of the encoded size that does not hang on the position.
    pub(crate) fn encoded_payload(&self) -> u64 {
        let kind = if self.kind != EntryKind::Normal || self.replaced { 2 } else { 0 };
        let data = match self.payload_size() {
            0 => 0,
            n => 1 + varint_len(n) + n,
        };
        kind + data
    }
}

/// Bytes that a base-128 varint of `v` takes (1 to 10).
#[must_use]
#[inline]
pub fn varint_len(v: u64) -> u64 {
    if v < 0x80 { 1 } else { u64::from((70 - v.leading_zeros()) / 7) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_lengths_at_their_steps() {
        for (v, len) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            assert_eq!(varint_len(v), len, "{v}");
        }
    }

    #[test]
    fn sizes_confirmed_against_the_original() {
        let at = |data: &'static [u8], replaced| Entry {
            term: Term(1),
            index: Index(12),
            replaced,
            data: Bytes::from_static(data),
            ..Entry::default()
        };
        assert_eq!(at(b"foo", false).encoded_size(), 9);
        assert_eq!(at(b"", false).encoded_size(), 4);
        assert_eq!(at(b"", true).encoded_size(), 6);
    }
}
