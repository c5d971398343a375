//! A schedule's bytes: a header that sets the group up, then frames of one action each.
//!
//! Leaves to others: what the bytes mean (`knobs`, `action`).
//! Invariant: a frame's length is fixed, so that cutting one out leaves all others as they are; what is missing at
//! the end is 0.

/// Bytes of the header.
pub const HEADER: usize = 24;

/// Bytes of one action.
pub const FRAME: usize = 6;

/// A schedule as it is consumed.
pub struct Script<'a> {
    bytes: &'a [u8],
}

/// The bytes of one thing to be decided. Behind its end everything is 0.
pub struct Frame {
    bytes: [u8; HEADER],
    at: usize,
}

impl<'a> Script<'a> {
    pub fn new(bytes: &'a [u8]) -> Script<'a> {
        Script { bytes }
    }

    /// The header, always there.
    pub fn header(&mut self) -> Frame {
        self.take(HEADER)
    }

    /// The next action's bytes.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.bytes.is_empty() { None } else { Some(self.take(FRAME)) }
    }

    fn take(&mut self, length: usize) -> Frame {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        let mut bytes = [0; HEADER];
        bytes[..taken.len()].copy_from_slice(taken);
        Frame { bytes, at: 0 }
    }
}

impl Frame {
    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) * n / 256
    }

    /// True once in `n`; a 0 says no, so that what is cut short does little.
    pub fn one_in(&mut self, n: usize) -> bool {
        usize::from(self.byte()) * n / 256 == n - 1
    }
}

/// The schedule of a seed: SplitMix64.
pub fn from_seed(seed: u64, actions: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(HEADER + FRAME * actions + 8);
    while bytes.len() < HEADER + FRAME * actions {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(HEADER + FRAME * actions);
    bytes
}

/// A schedule as people pass it on.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads what `to_hex` wrote.
pub fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.trim().chars().map(|c| c.to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}
