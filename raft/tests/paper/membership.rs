//! Membership changes: Raft 6 (joint consensus), thesis 4.1 and 4.2.

use crate::group::*;
use pontoon_raft::*;

fn propose(group: &mut Group, n: u64, cc: ConfChangeV2) -> Result<Option<LogPos>, StepError> {
    let now = group.now;
    group.raw(n).propose_conf_change(now, cc)
}

fn refusals(group: &mut Group, n: u64) -> Vec<ConfChangeRefusal> {
    let trace = group.raw(n).take_trace().into_iter();
    trace.filter_map(|t| if let Trace::ConfChangeIgnored { reason, .. } = t { Some(reason) } else { None }).collect()
}

/// 6: in a joint configuration agreement takes majorities of both; the leader leaves it by itself.
#[test]
fn a_replacement_goes_through_both_majorities() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3, 4, 5], |_| {});
    group.elect(1);
    group.cut = vec![(1, 4), (1, 5)];
    let swap = vec![
        change(ConfChangeType::RemoveNode, 2),
        change(ConfChangeType::RemoveNode, 3),
        change(ConfChangeType::AddNode, 4),
        change(ConfChangeType::AddNode, 5),
    ];
    propose(&mut group, 1, changes(swap)).unwrap();
    group.settle();
    let conf = group.node(1).conf.clone();
    assert_eq!((&conf.voters, &conf.voters_outgoing), (&ids(&[1, 4, 5]), &ids(&[1, 2, 3])));
    let commit = group.status(1).commit;
    group.propose(1, "a").unwrap();
    group.tick_all(3);
    assert_eq!(group.status(1).commit, commit, "1 alone is no majority of the new half");
    group.heal();
    group.tick_all(3);
    assert_eq!(group.node(1).conf, voters(&[1, 4, 5]));
    assert_eq!(group.data(4), ["a"]);
}

/// 4.1: one change at a time: not before the last one is applied, and not two in one proposal.
#[test]
fn one_change_at_a_time() {
    let mut group = Group::of(3);
    group.elect(1);
    let add = |n| changes(vec![change(ConfChangeType::AddLearnerNode, n)]);
    propose(&mut group, 1, add(4)).unwrap();
    let at = propose(&mut group, 1, add(5)).unwrap().unwrap();
    let pending = Index(at.index.0 - 1);
    assert_eq!(refusals(&mut group, 1), [ConfChangeRefusal::Unapplied { pending, applied: Index(2) }]);
    group.settle();
    assert_eq!(group.node(2).conf.learners, ids(&[4]));
    let replaced = group.node(2).applied.iter().find(|e| e.index == at.index).unwrap().clone();
    assert_eq!((replaced.kind, replaced.data.len(), replaced.replaced), (EntryKind::Normal, 0, true));
    let twice = vec![entry(0, 0, "a"), add(6).to_entry(), add(7).to_entry()];
    group.raw(1).step(0, message(2, 1, 0, Body::Propose { entries: twice })).unwrap();
    group.settle();
    assert_eq!(group.node(2).conf.learners, ids(&[4, 6]));
}

/// Log matching (5.3): what is committed anywhere is committed wherever the log has that very entry. A leader counts itself.
#[test]
fn a_commit_is_learnt_where_the_log_has_that_entry() {
    let mut group = Group::of(3);
    group.elect(1);
    let (term, before) = (group.status(1).term, group.status(2).commit);
    group.cut = vec![(2, 1), (3, 1)];
    group.propose(1, "a").unwrap();
    group.settle();
    let at = before.next();
    let learn = |group: &mut Group, n, pos| {
        let now = group.now;
        group.raw(n).learn_commit(now, pos);
        group.settle();
        group.status(n).commit
    };
    assert_eq!(learn(&mut group, 2, LogPos::new(Term(term.0 - 1), at)), before, "another entry");
    assert_eq!(learn(&mut group, 2, LogPos::new(term, at.next())), before, "none yet");
    assert_eq!(learn(&mut group, 1, LogPos::new(term, at)), before, "a leader");
    assert_eq!(learn(&mut group, 2, LogPos::new(term, at)), at);
    assert_eq!(learn(&mut group, 2, LogPos::new(term, before)), at, "never back");
    assert_eq!(group.data(2), ["a"]);
}

/// raft-core 4.11, 13.2: the type byte of a replaced change and of the leave entry counts in encoded sizes.
#[test]
fn encoded_sizes_of_special_entries() {
    let replaced = Entry { replaced: true, term: Term(1), index: Index(9), ..Entry::default() };
    let leave = Entry { kind: EntryKind::ConfChangeV2, term: Term(1), index: Index(9), ..Entry::default() };
    assert_eq!((replaced.encoded_size(), leave.encoded_size()), (6, 6));
}

/// S30: a change that could not be applied is refused when it is proposed, not when it is too late.
#[test]
fn what_would_fail_is_refused() {
    let mut group = Group::of(3);
    group.elect(1);
    let all = (1..=3).map(|n| change(ConfChangeType::RemoveNode, n)).collect();
    propose(&mut group, 1, changes(all)).unwrap();
    assert_eq!(refusals(&mut group, 1), [ConfChangeRefusal::WouldFail(ConfChangeError::NoVoters)]);
    group.settle();
    propose(&mut group, 1, changes(Vec::new())).unwrap();
    assert_eq!(refusals(&mut group, 1), [ConfChangeRefusal::NotJoint]);
    group.settle();
    let explicit = ConfChangeV2 {
        transition: ConfChangeTransition::JointExplicit,
        ..changes(vec![change(ConfChangeType::AddLearnerNode, 3)])
    };
    propose(&mut group, 1, explicit.clone()).unwrap();
    group.settle();
    assert_eq!(group.node(2).conf.learners_next, ids(&[3]));
    assert_eq!(refusals(&mut group, 1), []);
    // The original takes this for a leave when proposed and for an enter when applied.
    propose(&mut group, 1, ConfChangeV2 { changes: Vec::new(), ..explicit }).unwrap();
    assert_eq!(refusals(&mut group, 1), [ConfChangeRefusal::WouldFail(ConfChangeError::AlreadyJoint)]);
    propose(&mut group, 1, ConfChangeV2::leave_joint()).unwrap();
    group.settle();
    assert_eq!(group.node(3).conf, ConfState::new(ids(&[1, 2]), ids(&[3])));
}

/// 4.2.2: a leader that is removed steps down once the change is committed (here: applied).
#[test]
fn a_removed_leader_steps_down() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| c.step_down_on_removal = true);
    group.elect(1);
    propose(&mut group, 1, changes(vec![change(ConfChangeType::RemoveNode, 1)])).unwrap();
    group.settle();
    assert_eq!(group.status(1).role, StateRole::Follower);
    group.elect(2);
    assert_eq!(group.node(2).conf, voters(&[2, 3]));
}

/// S29: no campaign with a committed change that is not applied; counted from applied, not from handed out.
#[test]
fn no_election_with_an_unapplied_change() {
    let mut disk = storage(&voters(&[1, 2, 3]));
    let add = changes(vec![change(ConfChangeType::AddNode, 4)]);
    disk.append(&vec![Entry { term: Term(1), index: Index(2), ..add.to_entry() }].into());
    disk.set_hard_state(HardState { term: Term(1), vote: ReplicaId::NONE, commit: Index(2) });
    let mut raw = RawNode::new(&config(1), disk, 0).unwrap();
    assert_eq!(raw.ready().committed_entries.len(), 1);
    raw.campaign(0);
    assert_eq!(raw.basic_status().role, StateRole::Follower, "handed out is not applied");
    raw.apply_conf_change(0, &add).unwrap();
    raw.on_applied(0, Index(2));
    raw.campaign(0);
    assert_eq!(raw.basic_status().role, StateRole::Candidate);
}

/// S31: leaving by itself survives a transfer that was running when it was due.
#[test]
fn leaving_is_tried_again_after_a_transfer() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |_| {});
    group.elect(1);
    group.cut = vec![(1, 3)];
    let implicit = ConfChangeV2 {
        transition: ConfChangeTransition::JointImplicit,
        ..changes(vec![change(ConfChangeType::AddLearnerNode, 3)])
    };
    propose(&mut group, 1, implicit).unwrap();
    let now = group.now;
    group.raw(1).transfer_leader(now, id(3));
    group.settle();
    assert!(!group.node(1).conf.voters_outgoing.is_empty());
    let refused = group.raw(1).take_trace().iter().any(|t| matches!(t, Trace::AutoLeaveRefused { .. }));
    assert!(refused);
    group.heal();
    group.tick_all(12);
    group.elect(2);
    group.propose(2, "a").unwrap();
    group.settle();
    assert_eq!(group.node(2).conf, ConfState::new(ids(&[1, 2]), ids(&[3])));
}
