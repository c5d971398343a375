//! Makes a failing schedule small: fewer frames, then smaller bytes, as long as it fails.
//!
//! Leaves to others: what failing means. Invariant: the result fails, and is never longer than what was given.

use super::script::{FRAME, HEADER};

/// The smallest failing schedule found within `budget` runs.
pub fn shrink(bytes: &[u8], budget: usize, fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut search = Search { best: bytes.to_vec(), left: budget, fails };
    loop {
        let before = search.best.clone();
        search.cut_frames();
        search.lower_bytes();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search<F> {
    best: Vec<u8>,
    left: usize,
    fails: F,
}

impl<F: FnMut(&[u8]) -> bool> Search<F> {
    fn take_if_fails(&mut self, candidate: Vec<u8>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn frames(&self) -> usize {
        self.best.len().saturating_sub(HEADER).div_ceil(FRAME)
    }

    /// Cuts out runs of frames, long ones first, from the end.
    fn cut_frames(&mut self) {
        let mut run = self.frames();
        while run > 0 {
            let mut end = self.frames();
            while end > 0 {
                let start = end.saturating_sub(run);
                let mut candidate = self.best.clone();
                let (from, to) = (HEADER + start * FRAME, HEADER + end * FRAME);
                candidate.drain(from..to.min(candidate.len()));
                self.take_if_fails(candidate);
                end = start.min(self.frames());
            }
            run /= 2;
        }
    }

    /// Sets each byte to 0, or halves it.
    fn lower_bytes(&mut self) {
        for at in 0..self.best.len() {
            for to in [0, self.best[at] / 2, self.best[at].saturating_sub(1)] {
                if to < self.best[at] {
                    let mut candidate = self.best.clone();
                    candidate[at] = to;
                    if self.take_if_fails(candidate) && to == 0 {
                        break;
                    }
                }
            }
        }
    }
}
