//! Elections: Raft 5.2 and 5.4.1; thesis 3.10 (transfer), 6.2 (quorum check), 9.6 (prevote).

use crate::group::*;
use bytes::Bytes;
use pontoon_raft::*;

fn vote(from: u64, to: u64, term: u64, last: LogPos) -> Message {
    message(from, to, term, Body::Vote(VoteRequest { last, transfer: false }))
}

fn answers(group: &mut Group, n: u64) -> Vec<Body> {
    group.work(n);
    group.soup.drain(..).map(|m| m.body).collect()
}

/// 5.2: each server votes for at most one candidate per term, first come first served; and remembers it (figure 2).
#[test]
fn one_vote_per_term_even_after_a_crash() {
    let mut group = Group::of(3);
    group.raw(3).step(0, vote(1, 3, 5, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 3), [Body::VoteResp { reject: false }]);
    group.restart(3);
    group.raw(3).step(0, vote(2, 3, 5, pos(1, 1))).unwrap();
    group.raw(3).step(0, vote(1, 3, 5, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 3), [Body::VoteResp { reject: true }, Body::VoteResp { reject: false }]);
}

/// Figure 2: a request of a lower term is refused, and the answer names the term. (The original is silent: one that cannot
/// win, for it does not know the newest members or entries, may then stay ahead of the only one that can.)
#[test]
fn a_candidate_that_is_behind_learns_the_term() {
    let mut group = Group::of(3);
    group.raw(3).step(0, vote(1, 3, 5, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 3), [Body::VoteResp { reject: false }]);
    group.raw(3).step(0, vote(2, 3, 4, pos(1, 1))).unwrap();
    group.work(3);
    let answer = group.soup.pop_front().unwrap();
    assert_eq!((answer.term, &answer.body), (Term(5), &Body::VoteResp { reject: true }));
    group.raw(2).step(0, answer).unwrap();
    assert_eq!(group.status(2).term, Term(5));
}

/// 5.2: a vote counts only once it cannot be forgotten. The answer waits for the disk (S6).
#[test]
fn a_vote_waits_for_the_disk() {
    let mut group = Group::of(3);
    group.node(3).stalled = true;
    group.raw(3).step(0, vote(1, 3, 5, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 3), []);
    group.flush(3);
    assert_eq!(group.soup.pop_front().unwrap().body, Body::VoteResp { reject: false });
}

/// Figure 2: a candidate's term and vote are durable before anybody is asked. Otherwise one that wins by the others'
/// votes and crashes before its own disk is done could win the same term again, with other entries.
#[test]
fn a_vote_request_waits_for_the_disk() {
    let mut group = Group::of(3);
    group.node(1).stalled = true;
    group.raw(1).campaign(0);
    group.work(1);
    assert!(group.soup.is_empty(), "{:?}", group.soup);
    group.flush(1);
    assert_eq!(group.soup.len(), 2);
    group.settle();
    assert_eq!(group.status(1).role, StateRole::Leader);
}

/// 5.4.1: a voter denies its vote if its own log is more up-to-date: by last term, then by length.
#[test]
fn a_stale_log_cannot_win() {
    let mut group = Group::of(3);
    group.elect(1);
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.settle();
    group.heal();
    let now = group.now;
    group.raw(3).campaign(now);
    group.settle();
    assert_eq!(group.status(3).role, StateRole::Follower);
    assert_eq!(group.status(1).role, StateRole::Follower, "the higher term deposed it");
    group.elect(1);
    assert_eq!(group.data(3), ["a"]);
}

/// 5.2: a candidate that hears the leader of its term follows it; and keeps its vote for itself (S1).
#[test]
fn a_candidate_gives_way_and_keeps_its_vote() {
    let snapshot = Box::new(storage(&voters(&[1, 2, 3])).snapshot(id(1)).unwrap());
    for word in [
        Body::Append(Append { prev: pos(1, 1), ..Append::default() }),
        Body::Heartbeat { commit: Index(1), context: Bytes::new() },
        Body::Snap { snapshot },
    ] {
        let mut group = Group::of(3);
        group.raw(1).campaign(0);
        assert_eq!(group.status(1).role, StateRole::Candidate);
        group.raw(1).step(0, message(2, 1, 1, word)).unwrap();
        let status = group.status(1);
        assert_eq!((status.role, status.lead, status.vote), (StateRole::Follower, id(2), id(1)));
    }
}

/// 5.2: a candidate leads nobody, and campaigns already.
#[test]
fn a_candidate_takes_no_proposals() {
    let mut group = Group::of(3);
    group.raw(1).campaign(0);
    assert_eq!(group.propose(1, "a"), Err(StepError::ProposalDropped));
    group.raw(1).take_trace();
    group.raw(1).step(0, message(2, 1, 1, Body::TimeoutNow)).unwrap();
    let ignored = Trace::TimeoutNowIgnored { term: Term(1), role: StateRole::Candidate, from: id(2) };
    assert_eq!(group.raw(1).take_trace(), [ignored]);
}

/// Raft 5.2: timeouts are drawn from [n, 2n); thesis 9.6: a prevote touches neither clock nor draw.
#[test]
fn deadlines_are_drawn_and_prevotes_leave_them() {
    let mut drawn = Vec::new();
    for seed in 0..50 {
        let conf = voters(&[1, 2, 3]);
        let config = Config { seed, pre_vote: true, ..config(1) };
        let mut raw = RawNode::new(&config, storage(&conf), 0).unwrap();
        let deadline = raw.next_deadline();
        assert!((10..20).contains(&deadline), "{deadline}");
        raw.tick(deadline - 1);
        assert_eq!(raw.basic_status().role, StateRole::Follower);
        raw.campaign(deadline - 1);
        assert_eq!(raw.basic_status().role, StateRole::PreCandidate);
        assert_eq!(raw.next_deadline(), deadline, "neither clock nor draw changed");
        raw.tick(deadline + 1_000);
        assert_eq!(raw.next_deadline(), 2 * deadline + 1_000, "a late call fires once");
        drawn.push(deadline);
    }
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 5, "{drawn:?}");
}

/// Thesis 9.6, S35: a vote that comes late is no prevote, though its term is the own.
#[test]
fn a_precandidate_counts_prevotes_only() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| c.pre_vote = true);
    let answers = [Body::PreVoteResp { reject: false }, Body::VoteResp { reject: false }];
    for (answer, role) in answers.into_iter().zip([StateRole::Candidate, StateRole::PreCandidate]) {
        group.raw(1).campaign(0);
        group.work(1);
        assert_eq!(group.status(1).role, StateRole::PreCandidate);
        group.raw(1).step(0, message(2, 1, 1, answer)).unwrap();
        assert_eq!((group.status(1).role, group.status(1).term), (role, Term(1)));
        group.work(1);
    }
}

/// Thesis 9.6: a server that was cut off does not depose the leader when it comes back.
#[test]
fn prevote_does_not_disturb() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| (c.pre_vote, c.check_quorum) = (true, true));
    group.elect(1);
    group.isolate(3);
    group.tick_all(60);
    assert_eq!(group.status(3).role, StateRole::PreCandidate);
    group.heal();
    group.tick_all(3);
    let (lead, back) = (group.status(1), group.status(3));
    assert_eq!((lead.role, lead.term, back.term, back.lead), (StateRole::Leader, Term(1), Term(1), id(1)));
}

/// Thesis 6.2: a leader without a quorum's answers within an election timeout steps down.
#[test]
fn a_leader_without_quorum_steps_down() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| c.check_quorum = true);
    group.elect(1);
    group.tick_all(30);
    assert_eq!(group.status(1).role, StateRole::Leader);
    group.isolate(1);
    group.tick_all(20);
    assert_eq!(group.status(1).role, StateRole::Follower);
}

/// Raft 6 and thesis 6.2: both halves of a joint configuration must be active, and each check starts anew.
#[test]
fn activity_needs_both_halves() {
    let conf = ConfState { voters_outgoing: ids(&[1, 4, 5]), ..voters(&[1, 2, 3]) };
    let mut group = Group::new(&conf, &[1, 2, 3, 4, 5], |c| c.check_quorum = true);
    group.elect(1);
    group.tick_all(25);
    assert_eq!(group.status(1).role, StateRole::Leader);
    group.isolate(4);
    group.tick_all(25);
    assert_eq!(group.status(1).role, StateRole::Leader, "1 and 5 are a quorum of the outgoing half");
    group.isolate(5);
    group.tick_all(20);
    assert_eq!(group.status(1).role, StateRole::Follower);
}

/// Thesis 4.2.3: votes are ignored while a leader is heard from; a transfer passes. Held after a start if wished.
#[test]
fn leases_ignore_votes_but_not_transfers() {
    let mut group = Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], |c| {
        (c.check_quorum, c.hold_votes_after_start) = (true, true);
    });
    group.raw(2).step(9, vote(1, 2, 1, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 2), [], "it may have supported a lease before it started");
    group.now = 10;
    group.elect(1);
    group.raw(2).step(12, vote(3, 2, 9, pos(9, 9))).unwrap();
    assert_eq!(answers(&mut group, 2), []);
    assert_eq!(group.status(2).term, Term(1));
    group.raw(1).transfer_leader(12, id(3));
    group.settle();
    assert_eq!((group.status(3).role, group.status(3).term), (StateRole::Leader, Term(2)));
}

/// Thesis 4.2.3: a lease ends with the tick in which the next election may begin, and so does the promise after a start.
#[test]
fn a_lease_ends_on_its_tick() {
    let term_when_asked = |group: &mut Group, at| {
        group.raw(2).step(at, vote(3, 2, 9, pos(9, 9))).unwrap();
        group.status(2).term
    };
    let group = || {
        let set = |c: &mut Config| (c.check_quorum, c.hold_votes_after_start) = (true, true);
        Group::new(&voters(&[1, 2, 3]), &[1, 2, 3], set)
    };
    let mut started = group();
    assert_eq!([9, 10].map(|at| term_when_asked(&mut started, at)), [Term(0), Term(9)]);
    let mut led = group();
    led.now = 10;
    led.elect(1);
    assert_eq!([19, 20].map(|at| term_when_asked(&mut led, at)), [Term(1), Term(9)]);
}

/// Thesis 3.10: while it hands over, the leader takes no requests, and gives up after an election timeout.
#[test]
fn a_transfer_blocks_proposals_and_times_out() {
    let mut group = Group::of(3);
    group.elect(1);
    group.isolate(3);
    let now = group.now;
    group.raw(1).transfer_leader(now, id(3));
    assert_eq!(group.status(1).transferee, id(3));
    assert_eq!(group.propose(1, "a"), Err(StepError::ProposalDropped));
    group.tick_all(10);
    assert_eq!(group.status(1).transferee, ReplicaId::NONE);
    assert!(group.propose(1, "a").unwrap().is_some());
}

/// Thesis 3.10: the target is brought up to date first, and told in the same step in which its ack commits.
#[test]
fn a_transferee_catches_up_first() {
    let mut group = Group::of(3);
    group.elect(1);
    group.isolate(3);
    group.propose(1, "a").unwrap();
    group.settle();
    group.heal();
    let now = group.now;
    group.raw(1).transfer_leader(now, id(3));
    group.settle();
    group.tick_all(1);
    assert_eq!(group.status(3).role, StateRole::Leader);
    assert_eq!(group.data(3), ["a"]);
}

/// Raft 6, thesis 4.2.2: learners answer vote requests (S22), but their answers do not count.
#[test]
fn learners_answer_without_counting() {
    let conf = ConfState::new(ids(&[1, 2, 3]), ids(&[4]));
    let mut group = Group::new(&conf, &[1, 2, 3, 4], |_| {});
    group.raw(4).step(0, vote(1, 4, 1, pos(1, 1))).unwrap();
    assert_eq!(answers(&mut group, 4), [Body::VoteResp { reject: false }]);
    group.raw(1).campaign(0);
    group.work(1);
    group.soup.clear();
    group.raw(1).step(0, message(4, 1, 1, Body::VoteResp { reject: false })).unwrap();
    assert_eq!(group.status(1).role, StateRole::Candidate);
    let stranger = message(9, 1, 1, Body::VoteResp { reject: false });
    assert_eq!(group.raw(1).step(0, stranger), Err(StepError::PeerNotFound));
    group.raw(1).step(0, message(2, 1, 1, Body::VoteResp { reject: false })).unwrap();
    assert_eq!(group.status(1).role, StateRole::Leader);
}

/// A message that was forwarded with a term already is not forwarded again (raft-core 18).
#[test]
fn a_wandering_transfer_ends() {
    let mut group = Group::of(3);
    group.elect(1);
    group.raw(2).step(0, message(3, 2, 1, Body::TransferLeader)).unwrap();
    group.work(2);
    assert!(group.soup.is_empty());
    group.raw(2).transfer_leader(0, id(3));
    group.settle();
    assert_eq!(group.status(3).role, StateRole::Leader, "the first hop is taken");
}
