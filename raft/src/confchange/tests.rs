//! Random sequences of changes keep the rules of raft-core 10.1, and every configuration on the way can
//! be stored and restored.

use super::{BrokenConfig, Changer, ConfChangeError, restore};
use crate::conf_change::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use crate::ids::{Index, ReplicaId};
use crate::state::ConfState;
use crate::tracker::{Roles, Tracker, WindowLimits};
use std::collections::BTreeSet;

const LIMITS: WindowLimits = WindowLimits { max_msgs: 10, max_bytes: 0 };

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn ids(list: &[ReplicaId]) -> BTreeSet<u64> {
    list.iter().map(|id| id.0).collect()
}

/// The rules once more, on the stored form.
fn judge(tracker: &Tracker) {
    let cs = tracker.conf_state();
    let [voters, outgoing, learners, next] =
        [&cs.voters, &cs.voters_outgoing, &cs.learners, &cs.learners_next].map(|l| ids(l));
    assert!(!voters.is_empty(), "{cs:?}");
    assert!(learners.is_disjoint(&voters) && learners.is_disjoint(&outgoing), "{cs:?}");
    assert!(next.is_subset(&outgoing) && next.is_disjoint(&learners), "{cs:?}");
    assert!(!outgoing.is_empty() || !cs.auto_leave, "{cs:?}");
    let tracked: BTreeSet<u64> = tracker.iter().map(|m| m.id.0).collect();
    let members: BTreeSet<u64> = [voters, outgoing, learners].iter().flatten().copied().collect();
    assert_eq!(tracked, members, "{cs:?}");
    let restored = restore(&cs, Index(7), LIMITS).expect("a configuration that was reached");
    assert_eq!(restored.conf_state(), cs);
}

fn random_change(rng: &mut Rng) -> ConfChangeV2 {
    let kinds = [
        ConfChangeType::AddNode,
        ConfChangeType::AddLearnerNode,
        ConfChangeType::RemoveNode,
        ConfChangeType::UpdateNode,
    ];
    let op = |rng: &mut Rng| {
        let kind = if rng.below(60) == 0 { ConfChangeType::Unknown(9) } else { kinds[rng.below(4) as usize] };
        ConfChangeSingle::new(kind, ReplicaId(rng.below(7)))
    };
    let transition =
        [ConfChangeTransition::Auto, ConfChangeTransition::JointImplicit, ConfChangeTransition::JointExplicit]
            [rng.below(3) as usize];
    let changes = (0..rng.below(5)).map(|_| op(rng)).collect();
    ConfChangeV2 { transition, changes, ..ConfChangeV2::default() }
}

#[test]
fn random_changes_keep_the_rules() {
    let mut rng = Rng(5);
    let mut refused = 0;
    for _ in 0..500 {
        let first = ConfState::new(vec![ReplicaId(1)], Vec::new());
        let mut tracker = restore(&first, Index(1), LIMITS).expect("one voter");
        for step in 0..60 {
            let before = tracker.clone();
            match Changer::new(&tracker, Index(step)).apply(&random_change(&mut rng)) {
                Ok(next) => tracker = next,
                Err(ConfChangeError::Broken(rule)) => panic!("{rule} from {before:?}"),
                Err(_) => refused += 1,
            }
            judge(&tracker);
        }
    }
    assert!(refused > 1_000, "the errors were met, too: {refused}");
}

#[test]
fn a_known_member_keeps_its_progress() {
    let first = ConfState::new(vec![ReplicaId(1), ReplicaId(2)], Vec::new());
    let mut tracker = restore(&first, Index(1), LIMITS).expect("two voters");
    assert!(tracker.progress_mut(ReplicaId(2)).expect("tracked").acked(Index(9)));
    let demote = [ConfChangeSingle::new(ConfChangeType::AddLearnerNode, ReplicaId(2))];
    let joint = Changer::new(&tracker, Index(9)).enter_joint(false, &demote).expect("legal");
    assert!(joint.is_voter(ReplicaId(2)) && !joint.is_learner(ReplicaId(2)), "until the leave");
    let left = Changer::new(&joint, Index(9)).leave_joint().expect("joint");
    assert!(left.is_learner(ReplicaId(2)));
    assert_eq!(left.progress(ReplicaId(2)).expect("tracked").matched(), Index(9));
}

#[test]
fn a_forged_configuration_is_an_error() {
    let two = vec![ReplicaId(1), ReplicaId(2)];
    let forged = [
        ConfState { learners: vec![ReplicaId(1)], ..ConfState::default() },
        ConfState::new(two.clone(), vec![ReplicaId(2)]),
        ConfState::new(vec![ReplicaId(1), ReplicaId(1)], Vec::new()),
        ConfState::new(vec![ReplicaId(0), ReplicaId(1)], Vec::new()),
        ConfState { auto_leave: true, ..ConfState::new(two.clone(), Vec::new()) },
        ConfState { learners_next: vec![ReplicaId(3)], ..ConfState::new(two.clone(), Vec::new()) },
        ConfState { voters_outgoing: two, ..ConfState::default() },
    ];
    for conf_state in forged {
        assert!(restore(&conf_state, Index(1), LIMITS).is_err(), "{conf_state:?}");
    }
}

/// No change leads there; whoever finds one nevertheless is told which rule it breaks.
#[test]
fn a_configuration_that_contradicts_itself_is_an_error() {
    type Broken = fn(ReplicaId) -> BrokenConfig;
    let broken: [(&[Roles], Broken); 5] = [
        (&[], BrokenConfig::Roleless),
        (&[Roles::LEARNER_NEXT], BrokenConfig::NextNotOutgoing),
        (&[Roles::LEARNER_NEXT, Roles::OUTGOING, Roles::LEARNER], BrokenConfig::NextIsLearner),
        (&[Roles::LEARNER, Roles::OUTGOING], BrokenConfig::LearnerOutgoing),
        (&[Roles::LEARNER, Roles::INCOMING], BrokenConfig::LearnerIncoming),
    ];
    let voter = restore(&ConfState::new(vec![ReplicaId(1)], Vec::new()), Index(1), LIMITS).expect("one voter");
    for (roles, rule) in broken {
        let mut tracker = voter.clone();
        let member = tracker.entry(ReplicaId(2), Index(1));
        roles.iter().for_each(|role| member.roles.insert(*role));
        assert_eq!(Changer::new(&tracker, Index(1)).simple(&[]), Err(rule(ReplicaId(2)).into()));
    }
    let mut tracker = voter;
    tracker.auto_leave = true;
    assert_eq!(Changer::new(&tracker, Index(1)).simple(&[]), Err(BrokenConfig::AutoLeaveNotJoint.into()));
}
