//! The only place that builds or splits a key of the log's RocksDB.
//!
//! Sort order (bytewise): node records, then every group's records by group, then all blocks by group and first
//! index. So one sequential pass meets a group's records before its blocks, and a group's log is one range.
//! Invariant: numbers in keys are big-endian, so that the order of bytes is the order of numbers.

use pontoon_raftstore::ids::{GroupId, Index};

/// First byte of a node record's key; its name follows.
const TAG_META: u8 = 1;
/// First byte of a group record's key; group and kind follow.
const TAG_RECORD: u8 = 2;
/// First byte of a block's key; group and first index follow.
const TAG_BLOCK: u8 = 3;

/// Length of a block's key.
pub(crate) const BLOCK_KEY: usize = 17;
/// Length of a group record's key.
pub(crate) const RECORD_KEY: usize = 10;

/// The records that stand beside a group's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RecordKind {
    /// Who lives here: the creation record, or a tombstone.
    Life,
    /// Where the log begins: truncation point and generation.
    Begin,
    /// An install that was begun.
    Intent,
    /// The hard state, unless a block carries a newer one.
    HardState,
}

impl RecordKind {
    /// Every kind, in key order.
    pub(crate) const ALL: [RecordKind; 4] =
        [RecordKind::Life, RecordKind::Begin, RecordKind::Intent, RecordKind::HardState];

    fn byte(self) -> u8 {
        match self {
            RecordKind::Life => 1,
            RecordKind::Begin => 2,
            RecordKind::Intent => 3,
            RecordKind::HardState => 4,
        }
    }
}

/// A key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// A record of the node.
    Meta(&'a [u8]),
    /// A record of a group.
    Record(GroupId, RecordKind),
    /// A block and its first index.
    Block(GroupId, Index),
}

/// Key of a node record.
pub(crate) fn meta(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(TAG_META);
    key.extend_from_slice(name);
    key
}

/// Key of a group record.
pub(crate) fn record(group: GroupId, kind: RecordKind) -> [u8; RECORD_KEY] {
    let mut key = [TAG_RECORD; RECORD_KEY];
    key[1..9].copy_from_slice(&group.0.to_be_bytes());
    key[9] = kind.byte();
    key
}

/// Key of the block that begins with `first`.
pub(crate) fn block(group: GroupId, first: Index) -> [u8; BLOCK_KEY] {
    let mut key = [TAG_BLOCK; BLOCK_KEY];
    key[1..9].copy_from_slice(&group.0.to_be_bytes());
    key[9..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// Behind every block of the group.
pub(crate) fn blocks_end(group: GroupId) -> [u8; BLOCK_KEY] {
    block(group, Index(u64::MAX))
}

/// Takes a key apart; `None`: no key of this store.
pub(crate) fn split(key: &[u8]) -> Option<Key<'_>> {
    let (tag, rest) = key.split_first()?;
    match *tag {
        TAG_META => Some(Key::Meta(rest)),
        TAG_RECORD => {
            let (group, kind) = rest.split_first_chunk::<8>()?;
            let [kind] = kind else { return None };
            let kind = RecordKind::ALL.into_iter().find(|k| k.byte() == *kind)?;
            Some(Key::Record(GroupId(u64::from_be_bytes(*group)), kind))
        }
        TAG_BLOCK => {
            let (group, first) = rest.split_first_chunk::<8>()?;
            let first: &[u8; 8] = first.try_into().ok()?;
            Some(Key::Block(GroupId(u64::from_be_bytes(*group)), Index(u64::from_be_bytes(*first))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_into_what_they_were_built_from() {
        assert_eq!(split(&meta(b"node")), Some(Key::Meta(b"node")));
        for kind in RecordKind::ALL {
            assert_eq!(split(&record(GroupId(7), kind)), Some(Key::Record(GroupId(7), kind)));
        }
        assert_eq!(split(&block(GroupId(7), Index(9))), Some(Key::Block(GroupId(7), Index(9))));
        for bad in [&b""[..], b"\x00", b"\x04abc", &record(GroupId(1), RecordKind::Life)[..9], &[2; 11], &[3; 18]] {
            assert_eq!(split(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn order_is_node_then_records_then_blocks() {
        let mut keys = vec![
            meta(b"a"),
            record(GroupId(1), RecordKind::Life).to_vec(),
            record(GroupId(1), RecordKind::HardState).to_vec(),
            record(GroupId(256), RecordKind::Life).to_vec(),
            block(GroupId(1), Index(255)).to_vec(),
            block(GroupId(1), Index(256)).to_vec(),
            blocks_end(GroupId(1)).to_vec(),
            block(GroupId(2), Index(0)).to_vec(),
        ];
        let sorted = keys.clone();
        keys.sort();
        assert_eq!(keys, sorted);
    }
}
