//! Random schedules: losses, partitions, crashes, slow disks, membership changes; figure 3's properties hold.
//!
//! `PONTOON_SEED=n` runs one seed alone; a failure prints its seed.

use crate::group::*;
use pontoon_raft::*;
use std::collections::BTreeMap;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What only somebody outside can see.
#[derive(Default)]
struct Witness {
    leaders: BTreeMap<Term, ReplicaId>,
    applied: BTreeMap<Index, Entry>,
    /// How many entries of each replica were looked at.
    seen: BTreeMap<u64, usize>,
}

impl Witness {
    fn look(&mut self, group: &mut Group) {
        for node in &group.nodes {
            let status = node.raw.basic_status();
            if status.role == StateRole::Leader {
                let known = *self.leaders.entry(status.term).or_insert(status.id);
                assert_eq!(known, status.id, "election safety in term {}", status.term);
            }
            assert_eq!(node.quarantined, None, "replica {}", status.id);
            let seen = self.seen.entry(status.id.0).or_default();
            for entry in &node.applied[(*seen).min(node.applied.len())..] {
                let mut entry = entry.clone();
                entry.replaced = false;
                let known = self.applied.entry(entry.index).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "state machine safety at replica {}", status.id);
            }
            *seen = node.applied.len();
        }
    }
}

const MEMBERS: [u64; 5] = [1, 2, 3, 4, 5];

fn disturb(group: &mut Group, rng: &mut Rng, witness: &mut Witness) {
    let n = MEMBERS[rng.below(5) as usize];
    let now = group.now;
    match rng.below(120) {
        0..=29 => group.tick(n),
        30..=49 => drop(group.propose(n, "x")),
        50..=52 => group.isolate(n),
        53..=57 => group.heal(),
        58..=60 => {
            group.restart(n);
            witness.seen.insert(n, 0);
        }
        61..=66 => group.node(n).stalled = true,
        67..=76 => group.flush(n),
        77..=79 => group.compact(n),
        80..=82 => group.raw(n).transfer_leader(now, id(MEMBERS[rng.below(5) as usize])),
        83..=86 => {
            let kinds = [ConfChangeType::AddNode, ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode];
            let op = |rng: &mut Rng| change(kinds[rng.below(3) as usize], MEMBERS[rng.below(5) as usize]);
            let list = (0..rng.below(4)).map(|_| op(rng)).collect();
            let _ = group.raw(n).propose_conf_change(now, changes(list));
        }
        87..=89 => group.raw(n).report_unreachable(now, id(MEMBERS[rng.below(5) as usize])),
        90..=92 => group.raw(n).report_snapshot(now, id(MEMBERS[rng.below(5) as usize]), rng.below(2) == 0),
        93..=95 => drop(group.soup.remove(rng.below(9) as usize)),
        96..=99 => {
            if let Some(m) = group.soup.get(rng.below(9) as usize).cloned() {
                group.soup.push_back(m);
            }
        }
        // A candidate whose disk is slow: may it win and crash before its own term is durable?
        104..=108 => {
            group.node(n).stalled = true;
            group.raw(n).campaign(now);
        }
        109..=110 => {
            let leader = group.nodes.iter().find(|x| x.raw.basic_status().role == StateRole::Leader);
            if let Some(n) = leader.map(|x| x.config.id.0) {
                group.restart(n);
                witness.seen.insert(n, 0);
            }
        }
        100..=103 => group.soup.rotate_left((rng.below(3) as usize).min(group.soup.len())),
        _ => {
            let _ = group.raw(n).read_index(now, bytes::Bytes::from_static(b"r"));
        }
    }
}

fn run(seed: u64) -> usize {
    let mut rng = Rng(seed);
    for _ in 0..4 {
        rng.below(2);
    }
    let (pre_vote, check_quorum, step_down) = (rng.below(2) == 0, rng.below(2) == 0, rng.below(2) == 0);
    let small = rng.below(2) == 0;
    let mut group = Group::new(&voters(&[1, 2, 3]), &MEMBERS, |c| {
        (c.pre_vote, c.check_quorum, c.step_down_on_removal) = (pre_vote, check_quorum, step_down);
        (c.election_tick, c.seed) = (4, c.seed ^ seed);
        if small {
            (c.max_size_per_msg, c.max_committed_size_per_ready, c.max_inflight_msgs) = (20, 20, 2);
        }
    });
    let mut witness = Witness::default();
    for _ in 0..2_500 {
        disturb(&mut group, &mut rng, &mut witness);
        for n in MEMBERS {
            if rng.below(2) == 0 {
                group.work(n);
            }
        }
        for _ in 0..rng.below(4) {
            group.deliver_one();
        }
        witness.look(&mut group);
    }
    witness.applied.len()
}

/// Figure 3: election safety, log matching, leader completeness, state machine safety.
#[test]
fn figure_3_holds_on_random_schedules() {
    let only = std::env::var("PONTOON_SEED").ok().map(|s| s.parse().unwrap());
    let seeds = only.map_or(0..250, |s: u64| s..s + 1);
    let mut applied = 0;
    // 1112 found the original's early vote requests (see `Raft::post`) when this file was written.
    for seed in seeds.chain(only.is_none().then_some(1112)) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "replay: PONTOON_SEED={seed} cargo test -p pontoon-raft --test paper figure_3");
        applied += outcome.unwrap_or(0);
    }
    assert!(only.is_some() || applied > 5_000, "the groups did little: {applied}");
}
