//! A 64-bit digest for what must be equal on two nodes: foundings, snapshot streams.
//!
//! Not cryptographic: it meets accidents, not enemies. Stable for ever (it is on disk and on the wire).
//! Invariant: the value depends on the bytes only, not on how they were cut into `update` calls.

/// A running digest.
#[derive(Clone, Debug)]
pub struct Digest {
    /// Mixed words so far.
    state: u64,
    /// Bytes that do not fill a word yet.
    partial: [u8; 8],
    /// All bytes so far.
    len: u64,
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for Digest {
    fn default() -> Digest {
        Digest { state: 0x706f_6e74_6f6f_6e31, partial: [0; 8], len: 0 }
    }
}

impl Digest {
    /// Takes bytes in.
    pub fn update(&mut self, mut data: &[u8]) {
        let held = (self.len % 8) as usize;
        self.len = self.len.wrapping_add(data.len() as u64);
        if held > 0 {
            let take = data.len().min(8 - held);
            self.partial[held..held + take].copy_from_slice(&data[..take]);
            data = &data[take..];
            if held + take < 8 {
                return;
            }
            self.mix(u64::from_le_bytes(self.partial));
        }
        let (words, rest) = data.as_chunks::<8>();
        words.iter().for_each(|w| self.mix(u64::from_le_bytes(*w)));
        self.partial[..rest.len()].copy_from_slice(rest);
    }

    /// Takes a number in.
    pub fn update_u64(&mut self, v: u64) {
        self.update(&v.to_le_bytes());
    }

    /// The digest; never 0, which stands for "none" on the wire.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        let held = (self.len % 8) as usize;
        self.partial[held..].fill(0);
        self.mix(u64::from_le_bytes(self.partial));
        self.mix(self.len);
        let mut h = self.state;
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (h ^ (h >> 31)).max(1)
    }

    // A bijection of the state for every word, and of the word for every state: one changed word always shows.
    fn mix(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
}
