//! The quorum arithmetic against a twin that is slow and obvious: it counts.

use super::{INFINITE, VoteResult, joint, majority};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Tries every value that was reported, and 0: the largest that more than half have reached.
fn slow_reached(values: &[u64]) -> u64 {
    if values.is_empty() {
        return INFINITE;
    }
    let enough = |v: u64| 2 * values.iter().filter(|x| **x >= v).count() > values.len();
    values.iter().copied().chain([0]).filter(|v| enough(*v)).max().expect("all have reached 0")
}

/// Tries every way in which the missing answers could still arrive.
fn slow_vote(votes: &[Option<bool>]) -> VoteResult {
    let missing: Vec<usize> = (0..votes.len()).filter(|i| votes[*i].is_none()).collect();
    let wins = (0..1u32 << missing.len()).filter(|answers| {
        let late = |i| missing.iter().position(|m| *m == i).is_some_and(|at| answers >> at & 1 == 1);
        let yes = (0..votes.len()).filter(|i| votes[*i].unwrap_or_else(|| late(*i))).count();
        votes.is_empty() || 2 * yes > votes.len()
    });
    match wins.count() {
        0 => VoteResult::Lost,
        n if n == 1 << missing.len() => VoteResult::Won,
        _ => VoteResult::Pending,
    }
}

fn fast_vote(votes: &[Option<bool>]) -> VoteResult {
    let count = |answer| votes.iter().filter(|v| **v == Some(answer)).count();
    majority::vote(count(true), count(false), votes.len())
}

#[test]
fn reached_agrees_with_counting() {
    let mut rng = Rng(7);
    for round in 0..50_000 {
        let half = |rng: &mut Rng| (0..rng.below(9)).map(|_| rng.below(6)).collect::<Vec<u64>>();
        let (mut a, mut b) = (half(&mut rng), half(&mut rng));
        let slow = slow_reached(&a).min(slow_reached(&b));
        assert_eq!(majority::reached(&mut a.clone()), slow_reached(&a), "round {round}: {a:?}");
        assert_eq!(joint::reached(&mut a, &mut b), slow, "round {round}: {a:?} {b:?}");
    }
}

#[test]
fn vote_agrees_with_every_future() {
    let mut rng = Rng(11);
    for round in 0..50_000 {
        let half = |rng: &mut Rng| {
            (0..rng.below(7)).map(|_| [None, Some(true), Some(false)][rng.below(3) as usize]).collect::<Vec<_>>()
        };
        let (a, b) = (half(&mut rng), half(&mut rng));
        let (ra, rb) = (fast_vote(&a), fast_vote(&b));
        assert_eq!(ra, slow_vote(&a), "round {round}: {a:?}");
        let both = match (slow_vote(&a), slow_vote(&b)) {
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            _ => VoteResult::Pending,
        };
        assert_eq!(joint::vote(ra, rb), both, "round {round}: {a:?} {b:?}");
    }
}
