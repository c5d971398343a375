//! Fingerprints: a fast 64-bit hash of bytes and of anything that is `Hash`.
//!
//! Invariant: the same input gives the same number in every run, so that a search can be repeated.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Multiply and fold, word by word.
#[derive(Clone, Default)]
pub struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        const FACTOR: u128 = 0xa076_1d64_78bd_642f_e703_7ed1_a0b4_28db;
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(FACTOR);
        self.0 = (product as u64) ^ (product >> 64) as u64;
        self.0 = self.0.wrapping_mul(0x8ebc_6af0_9c88_c6e3).rotate_left(29);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn finish(&self) -> u64 {
        let z = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        z ^ (z >> 32)
    }
}

pub type Build = BuildHasherDefault<Mix>;

pub fn of_bytes(bytes: &[u8]) -> u64 {
    let mut mix = Mix::default();
    mix.write(bytes);
    mix.finish()
}

/// Fingerprints that were seen.
#[derive(Default)]
pub struct Seen(HashSet<u64, BuildHasherDefault<Plain>>);

impl Seen {
    /// True if `fingerprint` is new.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        self.0.insert(fingerprint)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A fingerprint is mixed already.
#[derive(Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept")
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
