//! The tracker's counting: both halves, learners left out, stack and heap alike.

use super::*;

fn tracker(incoming: &[u64], outgoing: &[u64], learners: &[u64]) -> Tracker {
    let mut tracker = Tracker::new(WindowLimits { max_msgs: 4, max_bytes: 0 });
    for (ids, role) in [(incoming, Roles::INCOMING), (outgoing, Roles::OUTGOING), (learners, Roles::LEARNER)] {
        for id in ids {
            tracker.entry(ReplicaId(*id), Index(1)).roles.insert(role);
        }
    }
    tracker
}

fn ack(tracker: &mut Tracker, acks: &[(u64, u64)]) {
    for (id, index) in acks {
        assert!(tracker.progress_mut(ReplicaId(*id)).expect("tracked").acked(Index(*index)));
    }
}

#[test]
fn members_are_walked_in_ascending_order() {
    let tracker = tracker(&[3, 1], &[2], &[9, 4]);
    assert_eq!(tracker.iter().map(|m| m.id.0).collect::<Vec<_>>(), [1, 2, 3, 4, 9]);
    assert_eq!(tracker.voters().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((tracker.len(), tracker.is_empty()), (5, false));
    assert!(Tracker::new(tracker.limits()).is_empty());
}

#[test]
fn commit_takes_both_halves_and_no_learner() {
    let mut tracker = tracker(&[1, 2, 3], &[3, 4, 5], &[6]);
    ack(&mut tracker, &[(1, 9), (2, 9), (6, 9)]);
    assert_eq!(tracker.committed(), Index(0));
    ack(&mut tracker, &[(4, 5), (5, 7)]);
    assert_eq!(tracker.committed(), Index(5));
}

#[test]
fn more_voters_than_the_stack_holds() {
    let ids: Vec<u64> = (1..=11).collect();
    let mut tracker = tracker(&ids, &[], &[]);
    ack(&mut tracker, &ids.iter().map(|id| (*id, 100 + id)).collect::<Vec<_>>());
    assert_eq!(tracker.committed(), Index(106));
}

#[test]
fn the_first_answer_counts_and_learners_do_not() {
    let mut tracker = tracker(&[1, 2, 3], &[], &[4]);
    for (id, granted) in [(1, true), (1, false), (4, true), (7, true)] {
        tracker.record_vote(ReplicaId(id), granted);
    }
    assert_eq!(tracker.tally(), Tally { granted: 1, rejected: 0, result: VoteResult::Pending });
    tracker.record_vote(ReplicaId(3), true);
    assert_eq!(tracker.tally().result, VoteResult::Won);
    tracker.reset_votes();
    assert_eq!(tracker.tally().granted, 0);
}

#[test]
fn activity_and_reads_take_both_halves() {
    let mut tracker = tracker(&[1, 2, 3], &[1], &[]);
    tracker.reset_progress(Index(3));
    for id in [2, 3] {
        tracker.progress_mut(ReplicaId(id)).expect("tracked").set_active(true);
        tracker.ack_read(ReplicaId(id), 5);
    }
    assert!(!tracker.is_quorum_active());
    assert_eq!(tracker.confirmed_read(), 0);
    tracker.progress_mut(ReplicaId(1)).expect("tracked").set_active(true);
    tracker.ack_read(ReplicaId(1), 4);
    assert!(tracker.is_quorum_active());
    assert_eq!(tracker.confirmed_read(), 4);
    tracker.reset_reads();
    assert_eq!(tracker.confirmed_read(), 0);
}
