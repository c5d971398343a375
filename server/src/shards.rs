//! The 16,384 slots of Redis Cluster and which group owns which: contiguous ranges, fixed at founding.
//!
//! Leaves to others: where a group's leader is. Source: the Redis Cluster specification (key hash tags, CRC16 XMODEM).
//! Invariant: each slot belongs to exactly one group; ranges are in slot order and differ by at most one slot.

use pontoon::GroupId;

/// Number of slots.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16 of what stands between the first `{` and the next `}` if that is not empty, else of all.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|b| *b == b'{') else { return key };
    match key[open + 1..].iter().position(|b| *b == b'}') {
        Some(len) if len > 0 => &key[open + 1..open + 1 + len],
        _ => key,
    }
}

/// CRC16 XMODEM: polynomial 0x1021, initial value 0, no reflection.
fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0u16, |crc, b| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ b)])
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// The slots cut into as many ranges as there are groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    groups: u16,
}

impl Shards {
    /// 1 to 16,384 groups, with ids 1..=n.
    pub fn new(groups: u16) -> Option<Shards> {
        (1..=SLOTS).contains(&groups).then_some(Shards { groups })
    }

    /// How many groups share the slots.
    pub fn count(&self) -> u16 {
        self.groups
    }

    /// The group that owns a slot.
    pub fn group_of(&self, slot: u16) -> GroupId {
        GroupId(u64::from(slot) * u64::from(self.groups) / u64::from(SLOTS) + 1)
    }

    /// First and last slot of the `at`-th group (from 0).
    pub fn range(&self, at: u16) -> (u16, u16) {
        let first = |i: u32| (i * u32::from(SLOTS)).div_ceil(u32::from(self.groups)) as u16;
        (first(u32::from(at)), first(u32::from(at) + 1) - 1)
    }

    /// All groups with their ranges, in slot order.
    pub fn ranges(&self) -> impl Iterator<Item = (GroupId, u16, u16)> + '_ {
        (0..self.groups).map(|at| {
            let (first, last) = self.range(at);
            (GroupId(u64::from(at) + 1), first, last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn ranges_cover_every_slot_once() {
        for groups in [1, 2, 3, 7, 48, 100, 1000, 16_383, SLOTS] {
            let shards = Shards::new(groups).expect("in range");
            let mut next = 0u32;
            for (group, first, last) in shards.ranges() {
                assert_eq!(u32::from(first), next, "{groups} groups");
                assert!((first..=last).all(|s| shards.group_of(s) == group), "{groups} groups");
                next = u32::from(last) + 1;
            }
            assert_eq!(next, u32::from(SLOTS));
        }
        assert!(Shards::new(0).is_none() && Shards::new(SLOTS + 1).is_none());
    }
}
