//! Pieces of the log against plain lists, whatever the runs.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ids::{LogPos, Term};
use bytes::Bytes;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry { term: Term(1), index: Index(index), data: Bytes::from(vec![1; bytes]), ..Entry::default() }
}

/// What `read` must give: the longest prefix, at least one.
fn page(model: &[Entry], low: u64, high: u64, max_bytes: u64) -> Vec<Entry> {
    let mut size = 0;
    let wanted = model.iter().filter(|e| low <= e.index.0 && e.index.0 < high);
    let fits = |(at, e): &(usize, &Entry)| {
        size += e.encoded_size();
        *at == 0 || size <= max_bytes
    };
    wanted.enumerate().take_while(fits).map(|(_, e)| e.clone()).collect()
}

fn check(entries: &Entries, model: &[Entry]) {
    assert_eq!(entries.to_vec(), model);
    assert_eq!((entries.len(), entries.is_empty()), (model.len(), model.is_empty()));
    assert_eq!((entries.first(), entries.last()), (model.first(), model.last()));
    assert_eq!(entries.encoded_size(), model.iter().map(Entry::encoded_size).sum::<u64>());
    assert_eq!(entries.payload_size(), model.iter().map(Entry::payload_size).sum::<u64>());
    assert!(entries.runs().all(|r| !r.is_empty() && r.first_index() == r[0].index));
    assert_eq!(entries.to_run().to_vec(), model);
}

#[test]
fn agree_with_a_list() {
    let mut rng = Rng(5);
    for _ in 0..300 {
        let (mut entries, mut model) = (Entries::new(), Vec::<Entry>::new());
        let mut next = 1 + rng.below(20);
        for _ in 0..40 {
            let at = rng.below(60);
            match rng.below(6) {
                0 => {
                    entries.cut_from(Index(at));
                    model.retain(|e| e.index.0 < at);
                    next = model.last().map_or(next, |e| e.index.0 + 1);
                }
                1 => {
                    entries.drop_to(Index(at));
                    model.retain(|e| e.index.0 > at);
                }
                _ => {
                    let run: Vec<Entry> = (0..rng.below(5)).map(|n| entry(next + n, rng.below(9) as usize)).collect();
                    next += run.len() as u64;
                    entries.push(run.clone().into());
                    model.extend(run);
                }
            }
            check(&entries, &model);
            let front = model.first().map_or(next, |e| e.index.0);
            let low = (front + rng.below(8)).saturating_sub(2);
            let (high, max) = (low + rng.below(12), rng.below(80));
            let mut read = Entries::new();
            entries.read(Index(low), Index(high), max, &mut read);
            let want = if low < front { Vec::new() } else { page(&model, low, high, max) };
            assert_eq!(read.to_vec(), want, "[{low}, {high}) within {max} of {entries:?}");
            if let Some(run) = entries.single_run(Index(low), Index(high), max).filter(|r| !r.is_empty()) {
                assert_eq!(run.to_vec(), want);
            }
            assert_eq!(entries.get(Index(low)), model.iter().find(|e| e.index.0 == low));
        }
    }
}

#[test]
fn parts_share_and_placing_does_not_write_through() {
    let mut run: EntryRun = (0..3).map(|_| entry(0, 2)).collect();
    let before = run.clone();
    run.place(LogPos::new(Term(4), Index(7)));
    assert_eq!((before[0].term, before.first_index()), (Term(1), Index::NONE), "others keep what they had (S40)");
    let tail = run.between(Index(8), Index(10));
    assert_eq!(tail.iter().map(|e| e.index.0).collect::<Vec<_>>(), [8, 9]);
    assert_eq!(std::ptr::from_ref(&tail[0]), std::ptr::from_ref(&run[1]), "a part is the same memory");
    assert_eq!(
        [(0, false), (0, true), (2 * run[0].encoded_size(), false)].map(|(max, one)| run.prefix(max, one).len()),
        [0, 1, 2]
    );
    run.replace(1, Entry { replaced: true, ..Entry::default() });
    assert_eq!((tail[0].replaced, run.payload_size()), (false, 4));
}

#[test]
#[should_panic(expected = "a gap before 9")]
fn a_gap_is_refused() {
    let mut entries = Entries::from(vec![entry(7, 0)]);
    entries.push(vec![entry(9, 0)].into());
}

/// A proposal is measured where it gets its places, everything else where it is made: both find the same.
#[test]
fn a_placed_proposal_is_measured_like_any_run() {
    let mut rng = Rng(5);
    for first in [1, 120, 127, 128, 16_380, (1 << 21) - 3] {
        for len in 1..12 {
            let payload = |_| Bytes::from(vec![1; rng.below(300) as usize]);
            let mut placed = EntryRun::commands((0..len).map(payload));
            placed.place(LogPos::new(Term(first), Index(first)));
            let measured = EntryRun::from(placed.to_vec());
            assert_eq!(placed, measured);
            assert_eq!(placed.first_index(), measured.first_index());
            assert_eq!(placed.encoded_size(), measured.encoded_size(), "{len} from {first}");
            assert_eq!(placed.payload_size(), measured.payload_size());
            assert!(placed.is_ordered() && measured.is_ordered());
        }
    }
}

#[test]
fn a_run_knows_whether_its_entries_follow_one_another() {
    let run = |positions: &[(u64, u64)]| -> EntryRun {
        let at = |(term, index): &(u64, u64)| Entry { term: Term(*term), index: Index(*index), ..Entry::default() };
        positions.iter().map(at).collect()
    };
    for follows in [&[(1, 5)][..], &[(1, 5), (1, 6), (3, 7)], &[]] {
        assert!(run(follows).is_ordered(), "{follows:?}");
    }
    for gap in
        [&[(1, 5), (1, 7)][..], &[(1, 5), (1, 5)], &[(1, 6), (1, 5)], &[(2, 5), (1, 6)], &[(1, u64::MAX), (1, 2)]]
    {
        assert!(!run(gap).is_ordered(), "{gap:?}");
    }
    let broken = run(&[(1, 5), (1, 6), (1, 9), (1, 10)]);
    assert!(broken.part(0..2).is_ordered() && broken.part(2..4).is_ordered() && !broken.part(1..3).is_ordered());
}
