//! A table of values at places that are used again, in stretches: what is put there one after the other lies one after the
//! other, however mixed the order in which places became free.
//!
//! A table of what is under way is larger than a core's nearest memory when much is, and each place met in no order is waited
//! for. Leaves to others: telling a place's users apart. Invariant: a block that is neither open nor ready has fewer than
//! `READY` free places, so the table stays below twice of what it held at the most.

/// Places of a block: the bits of a mask.
const BLOCK: usize = u64::BITS as usize;
/// Free places that make a block worth opening again.
const READY: u32 = u64::BITS / 2;
/// Places that are looked at side by side.
const AT_ONCE: usize = 64;

/// See the file's head.
pub struct Slots<T> {
    values: Vec<T>,
    /// Free places by block, but those of `open`.
    free: Vec<u64>,
    /// Blocks with `READY` free places and more.
    ready: Vec<usize>,
    /// The block that is filled, and its places for that.
    open: (usize, u64),
    len: usize,
    most: usize,
}

impl<T: Copy> Slots<T> {
    /// An empty table for at most so many places, used or not.
    #[must_use]
    pub fn new(most: usize) -> Slots<T> {
        Slots { values: Vec::new(), free: Vec::new(), ready: Vec::new(), open: (0, 0), len: 0, most }
    }

    /// Values in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is nothing there?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a value there, made for its place; that place. `None`: the table is full.
    pub fn insert_with(&mut self, value: impl Fn(usize) -> T) -> Option<usize> {
        if self.open.1 == 0 {
            self.open_another(&value)?;
        }
        let (block, places) = self.open;
        let at = block * BLOCK + places.trailing_zeros() as usize;
        self.open.1 = places & (places - 1);
        self.values[at] = value(at);
        self.len += 1;
        Some(at)
    }

    /// What is at a place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&T> {
        if self.is_used(at) { self.values.get(at) } else { None }
    }

    /// Looks at the places of the first few that come, so that their memory is fetched side by side and not one after the other
    /// as they are taken. Returns of how many.
    pub fn look_ahead<C>(&self, coming: &[C], place: impl Fn(&C) -> usize) -> usize {
        let few = &coming[..coming.len().min(AT_ONCE)];
        for come in few {
            std::hint::black_box(self.values.get(place(come)).copied());
        }
        few.len()
    }

    /// Takes what is at a place.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let value = *self.get(at)?;
        let block = at / BLOCK;
        self.free[block] |= 1 << (at % BLOCK);
        self.len -= 1;
        // Counted up one at a time: it gets there once.
        if block != self.open.0 && self.free[block].count_ones() == READY {
            self.ready.push(block);
        }
        Some(value)
    }

    /// Places and values.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.values.iter().enumerate().filter(|(at, _)| self.is_used(*at))
    }

    fn is_used(&self, at: usize) -> bool {
        let (block, bit) = (at / BLOCK, 1 << (at % BLOCK));
        let kept_for_later = if block == self.open.0 { self.open.1 } else { 0 };
        self.free.get(block).is_some_and(|free| (free | kept_for_later) & bit == 0)
    }

    fn open_another(&mut self, filler: &impl Fn(usize) -> T) -> Option<()> {
        let closed = self.open.0;
        if self.free.get(closed).is_some_and(|free| free.count_ones() >= READY) {
            self.ready.push(closed);
        }
        let block = self.ready.pop().or_else(|| self.grow(filler))?;
        self.open = (block, std::mem::take(&mut self.free[block]));
        Some(())
    }

    fn grow(&mut self, filler: &impl Fn(usize) -> T) -> Option<usize> {
        let (block, places) = (self.free.len(), self.values.len() + BLOCK);
        if places > self.most.next_multiple_of(BLOCK) {
            return None;
        }
        self.values.extend((self.values.len()..places).map(filler));
        self.free.push(u64::MAX);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_comes_together_lies_together() {
        let mut slots = Slots::new(1 << 20);
        let places: Vec<usize> = (0..640).filter_map(|n| slots.insert_with(|_| n)).collect();
        assert_eq!(places, (0..640).collect::<Vec<_>>());
        // Freed in no order, all but some that stay.
        for at in (0..640).map(|n| n * 7 % 640).filter(|at| at % 5 > 0) {
            assert_eq!(slots.remove(at), Some(at));
        }
        let again: Vec<usize> = (0..512).filter_map(|n| slots.insert_with(|_| n)).collect();
        let steps = again.windows(2).filter(|two| two[1] > two[0] && two[1] - two[0] <= 2).count();
        assert!(steps > 500, "{steps} of 511 steps lead to the next free place of the same block");
        assert!(slots.values.len() <= 704, "and no block was added while others had room");
    }

    #[test]
    fn a_table_of_what_is_under_way() {
        let (mut slots, mut twin, mut rng) = (Slots::new(4096), BTreeMap::new(), 1_u64);
        for n in 0..50_000_u64 {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let goal = (n / 500 % 9 * 100) as usize;
            if twin.len() <= goal {
                let at = slots.insert_with(|_| n).expect("room");
                assert_eq!(twin.insert(at, n), None, "a place has one user");
            } else {
                let at = (rng >> 33) as usize % slots.values.len();
                assert_eq!(slots.get(at).copied(), twin.get(&at).copied());
                assert_eq!(slots.remove(at), twin.remove(&at));
            }
            assert_eq!(slots.len(), twin.len());
        }
        assert!(slots.iter().map(|(at, n)| (at, *n)).eq(twin));
        assert!(slots.values.len() <= 2 * 900, "{} places for 800 values", slots.values.len());
    }

    #[test]
    fn is_full_at_its_most() {
        let mut slots = Slots::new(64);
        let looked_at = [0, 9, 100].map(|n| slots.look_ahead(&vec![5_usize; n], |at| *at));
        assert_eq!(looked_at, [0, 9, AT_ONCE], "of places that are not there nothing is asked");
        assert!((0..64).all(|n| slots.insert_with(|_| n).is_some()) && slots.insert_with(|_| 64).is_none());
        assert_eq!((slots.remove(3), slots.remove(3), slots.remove(99)), (Some(3), None, None));
        assert_eq!(slots.insert_with(|_| 7), None, "a block is opened again once it is half free");
        assert_eq!((0..40).filter_map(|at| slots.remove(at)).count(), 39);
        assert_eq!((slots.insert_with(|_| 7), slots.len(), slots.is_empty()), (Some(0), 25, false));
    }
}
