//! Randomness from a seed, the list of seeds of a property test, and the line that replays a failing one.
//!
//! Invariant: the same seed gives the same numbers on every machine and for ever.

use std::ops::Range;

/// A small generator (splitmix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    /// Counter that is scrambled on its way out.
    state: u64,
}

impl Rng {
    /// A generator of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed ^ 0x5eed_0f0f_c0de_1234 }
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, n)`; 0 for `n = 0`.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64 }
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of the range.
    pub fn range(&mut self, r: Range<u64>) -> u64 {
        r.start + self.below(r.end.saturating_sub(r.start))
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of the list.
    ///
    /// # Panics
    /// If the list is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }

    /// A generator that is independent of what this one gives later.
    #[must_use]
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.next_u64())
    }
}

/// Seeds `0..n`, or the one of `PONTOON_SEED`, or the range `from..to` of `PONTOON_SEEDS`.
///
/// # Panics
/// If a variable is set to something else.
#[must_use]
pub fn seeds(n: u64) -> Range<u64> {
    if let Ok(one) = std::env::var("PONTOON_SEED") {
        let seed = one.parse().expect("PONTOON_SEED is a number");
        return seed..seed + 1;
    }
    match std::env::var("PONTOON_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("PONTOON_SEEDS is from..to");
            let number = |s: &str| s.parse().expect("PONTOON_SEEDS is from..to");
            number(from)..number(to)
        }
        Err(_) => 0..n,
    }
}

/// Prints how to run one seed alone, if the test panics while this lives.
#[derive(Debug)]
pub struct Replay {
    /// File of the test.
    pub test: &'static str,
    /// Its function.
    pub case: &'static str,
    /// The seed.
    pub seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay { test, case, seed } = self;
            #[expect(clippy::print_stderr, reason = "the replay line of a failing test")]
            {
                eprintln!("replay: PONTOON_SEED={seed} cargo test -p pontoon-raftstore --test {test} {case}");
            }
        }
    }
}
