//! Maps by group: every command and message is looked up by its group once or more, and the standard hash, made to
//! withstand chosen keys, costs more than all else of a look-up.
//!
//! Keys get in only by creating a group here, which peers cannot do at will; what they send is only looked up.
//! Invariant: the order of such a map decides nothing.

use crate::ids::GroupId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by group. Never iterated to decide anything.
pub(crate) type GroupMap<V> = HashMap<GroupId, V, GroupHash>;

/// For maps of other kinds.
pub(crate) type GroupHash = BuildHasherDefault<GroupHasher>;

/// Both halves of a product by an odd number, folded: each bit of the id reaches the high bits and the low ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupHasher(u64);

/// 2^64 over the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for GroupHasher {
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ (word << 32)) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    /// What tables use: the low bits for the place, the top 7 for a first comparison.
    #[test]
    fn usual_ids_spread_over_low_and_high_bits() {
        let ids: [fn(u64) -> u64; 4] = [|n| n, |n| n << 8, |n| n << 32, |n| n << 48 | 1];
        for (case, id) in ids.iter().enumerate() {
            let (mut low, mut high) = (vec![0_u32; 1024], vec![0_u32; 128]);
            for n in 0..10_240 {
                let hash = GroupHash::default().hash_one(GroupId(id(n)));
                low[(hash & 1023) as usize] += 1;
                high[(hash >> 57) as usize] += 1;
            }
            let worst = (low.iter().max().copied(), high.iter().max().copied());
            assert!(worst.0 <= Some(40) && worst.1 <= Some(160), "case {case}: {worst:?} of 10 and 80 on average");
        }
    }
}
