//! Keys of the database that the groups of a kind share (boot.md 6).
//!
//! A key is (group, replica, generation: 8 bytes each, big-endian), one byte of section, the rest. So one generation
//! of one replica is one range, its records come first, and another generation's contents are never in the way.
//! Invariant: keys sort by prefix, then section, then user key; the form is pinned by the test below.

use crate::state_machine::SmError;
use pontoon_raftstore::ids::{Generation, GroupId, ReplicaId};

/// Length of a prefix.
pub(super) const PREFIX: usize = 24;
/// Length of a prefix and a section: what a group's keys of one kind have in common.
pub(super) const HEAD: usize = PREFIX + 1;
/// Section of the meta pairs: the replica record among them.
const META: u8 = 0;
/// Section of user data.
const DATA: u8 = 1;
/// Behind every section.
const END: u8 = 0xff;

/// Whose contents: one generation of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) generation: Generation,
}

impl Owner {
    pub(super) fn prefix(self) -> [u8; PREFIX] {
        let mut out = [0; PREFIX];
        out[..8].copy_from_slice(&self.group.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.replica.0.to_be_bytes());
        out[16..].copy_from_slice(&self.generation.0.to_be_bytes());
        out
    }

    /// Of any key of the database.
    pub(super) fn of(key: &[u8]) -> Result<Owner, SmError> {
        let word = |at: usize| key.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        match (word(0), word(8), word(16)) {
            (Some(group), Some(replica), Some(generation)) => {
                Ok(Owner { group: GroupId(group), replica: ReplicaId(replica), generation: Generation(generation) })
            }
            _ => Err(SmError::Corruption(format!("a key of {} bytes in the machines' database", key.len()))),
        }
    }

    /// Everything of this owner: from, to (exclusive).
    pub(super) fn range(self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix().to_vec(), self.key(END, b""))
    }

    /// All meta pairs.
    pub(super) fn meta_range(self) -> (Vec<u8>, Vec<u8>) {
        (self.key(META, b""), self.key(DATA, b""))
    }

    /// All user data.
    pub(super) fn data_range(self) -> (Vec<u8>, Vec<u8>) {
        (self.key(DATA, b""), self.key(DATA + 1, b""))
    }

    pub(super) fn meta(self, key: &[u8]) -> Vec<u8> {
        self.key(META, key)
    }

    pub(super) fn data(self, key: &[u8]) -> Vec<u8> {
        self.key(DATA, key)
    }

    /// `data`, written over `out`.
    pub(super) fn data_into(self, key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        self.write_key(DATA, key, out);
    }

    fn key(self, section: u8, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + key.len());
        self.write_key(section, key, &mut out);
        out
    }

    fn write_key(self, section: u8, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix());
        out.push(section);
        out.extend_from_slice(key);
    }
}

/// The part behind prefix and section.
pub(super) fn suffix(key: &[u8]) -> &[u8] {
    key.get(HEAD..).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_pinned_and_sorts_by_owner_then_section() {
        let owner = Owner { group: GroupId(0x0102), replica: ReplicaId(3), generation: Generation(4) };
        let golden = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1, b'k'];
        assert_eq!(owner.data(b"k"), golden);
        assert_eq!(owner.meta(b"k")[PREFIX], 0);
        assert_eq!(Owner::of(&golden).unwrap(), owner);
        assert_eq!(suffix(&golden), b"k");
        assert!(Owner::of(&golden[..23]).is_err());

        let next = Owner { generation: Generation(5), ..owner };
        let (from, to) = owner.range();
        for key in [owner.meta(b""), owner.data(b""), owner.data(&[0xff; 40])] {
            assert!(from <= key && key < to && to < next.prefix().to_vec());
        }
    }
}
