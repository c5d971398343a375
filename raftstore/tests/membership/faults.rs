//! Deaths, partitions, second thoughts, at every step of a change; sleepers; random schedules.
//!
//! A step is one turn of everything (`Cluster::step`), so "at every step" sees each entry of the change proposed, on its
//! way, committed here and not there. A tick passes now and then, for heartbeats. Leaves to others: what is on disk at a crash point (the simulator).

use crate::cluster::{Cluster, GROUP};
use crate::group::*;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::error::{AdminError, GroupError};
use pontoon_raftstore::ids::{NodeId, ReplicaId};
use pontoon_raftstore::proposal::AdminDone;
use pontoon_raftstore::testing::{KvOp, Replay, Rng, seeds};
use std::time::Duration;

/// More steps than any change here has.
const STEPS: u64 = 60;

/// A change under way: `steps` steps after it was asked for, at node 1.
fn under_way(
    n: u64,
    from: &[u64],
    to: &[u64],
    steps: u64,
) -> (Cluster, std::sync::Arc<pontoon_raftstore::testing::AdminCell>) {
    let mut c = cluster(n, from);
    lead_at(&mut c, from[0]);
    c.put("before", "1").unwrap();
    let cell = ask(&c, NodeId(from[0]), target(to, &[]));
    for n in 0..steps {
        if n % 12 == 11 {
            c.pass_tick();
        }
        c.step();
    }
    (c, cell)
}

#[test]
fn the_leader_dies_for_good_at_every_step() {
    // The leader is a member of both configurations, so either one of them must go on without it. Whoever is removed may
    // be needed until every member that could lead knows of the removal.
    for step in 0..STEPS {
        let (mut c, _) = under_way(5, &[3, 1, 2], &[3, 4, 5], step);
        c.cut_off.insert(NodeId(3));
        c.ticks(60);
        let leader = c.await_leader(GROUP);
        assert_ne!(leader, NodeId(3));
        c.put("after", "2").unwrap_or_else(|e| panic!("step {step}: {e:?}"));
        let s = status(&c, leader.0);
        assert!(s.conf_state.voters_outgoing.is_empty(), "step {step}: stuck in the joint configuration");
        let back = nodes(&[3]);
        c.cut_off.retain(|n| !back.contains(n));
        insist(&mut c, &target(&[3, 4, 5], &[]));
        c.ticks(60);
        expect_members(&mut c, &[3, 4, 5], &[]);
    }
}

#[test]
fn the_leader_crashes_at_every_step_and_nobody_asks_again() {
    for step in 0..STEPS {
        let (mut c, _) = under_way(4, &[1, 2, 3], &[2, 3, 4], step);
        c.crash_and_restart(NodeId(1));
        c.ticks(100);
        let (voters, learners) = members(&mut c);
        let done = voters == nodes(&[2, 3, 4]);
        assert!(done || voters == nodes(&[1, 2, 3]), "step {step}: {voters:?}");
        assert!(learners.is_empty(), "step {step}: {learners:?}");
        // The goal was committed, or it is as if it had never been asked for.
        assert!(done || step < 12, "step {step}: the group forgot its goal");
        insist(&mut c, &target(&[2, 3, 4], &[]));
        c.ticks(60);
        expect_members(&mut c, &[2, 3, 4], &[]);
    }
}

#[test]
fn every_node_crashes_at_every_fourth_step() {
    for victim in 2..=5 {
        for step in (0..STEPS).step_by(4) {
            let (mut c, _) = under_way(5, &[1, 2, 3], &[1, 4, 5], step);
            c.crash_and_restart(NodeId(victim));
            insist(&mut c, &target(&[1, 4, 5], &[]));
            c.ticks(60);
            expect_members(&mut c, &[1, 4, 5], &[]);
        }
    }
}

#[test]
fn the_leadership_moves_at_every_step() {
    for step in 0..STEPS {
        let (mut c, cell) = under_way(4, &[1, 2, 3], &[1, 2, 4], step);
        let leader = c.await_leader(GROUP);
        let next = if leader == NodeId(2) { NodeId(1) } else { NodeId(2) };
        let _done = c.transfer(leader, next);
        let told = answer(&mut c, &cell);
        let joined =
            matches!(told, Ok(AdminDone::Reconfigured(_)) | Err(AdminError::NotLeader { .. } | AdminError::TimedOut));
        assert!(joined, "step {step}: {told:?}");
        insist(&mut c, &target(&[1, 2, 4], &[]));
        c.ticks(60);
        expect_members(&mut c, &[1, 2, 4], &[]);
    }
}

#[test]
fn an_abort_at_every_step_ends_in_one_of_the_two() {
    let mut aborted = 0;
    let mut completed = 0;
    for step in 0..STEPS {
        let (mut c, cell) = under_way(4, &[1, 2, 3], &[1, 2, 4], step);
        let abort = abort(&c, NodeId(1));
        let (told, change) = (answer(&mut c, &abort), answer(&mut c, &cell));
        c.ticks(60);
        match (&told, &change) {
            (Ok(AdminDone::Aborted), Err(AdminError::Aborted)) => {
                aborted += 1;
                expect_members(&mut c, &[1, 2, 3], &[]);
            }
            (Err(AdminError::PastAbort | AdminError::NoReconfigure), Ok(AdminDone::Reconfigured(_))) => {
                completed += 1;
                expect_members(&mut c, &[1, 2, 4], &[]);
            }
            other => panic!("step {step}: {other:?}"),
        }
        change_back_and_forth(&mut c);
    }
    assert!(aborted > 5 && completed > 5, "{aborted} aborted, {completed} completed");
}

fn change_back_and_forth(c: &mut Cluster) {
    change(c, &[1, 2, 4], &[3]);
    change(c, &[1, 2, 3], &[]);
}

#[test]
fn a_group_of_five_loses_two_and_serves() {
    let mut c = cluster(5, &[1, 2, 3, 4, 5]);
    c.cut_off = nodes(&[4, 5]);
    c.ticks(40);
    c.put("k", "v").unwrap();
    insist(&mut c, &target(&[1, 2, 3], &[]));
    expect_members(&mut c, &[1, 2, 3], &[]);
    let term = {
        let leader = c.await_leader(GROUP);
        status(&c, leader.0).term
    };
    c.cut_off.clear();
    c.ticks(60);
    expect_members(&mut c, &[1, 2, 3], &[]);
    let leader = c.await_leader(GROUP);
    assert_eq!(status(&c, leader.0).term, term, "the removed ones disturbed nobody");
}

#[test]
fn a_change_to_voters_without_a_living_majority_is_given_up() {
    let mut c = cluster(3, &[1, 2, 3]);
    lead_at(&mut c, 1);
    c.cut_off.insert(NodeId(3));
    c.ticks(30);
    let cell = ask(&c, NodeId(1), target(&[1, 3], &[]));
    assert_eq!(answer(&mut c, &cell), Err(AdminError::NoProgress(NodeId(3))));
    expect_members(&mut c, &[1, 2, 3], &[]);
    c.cut_off.clear();
    change(&mut c, &[1, 3], &[]);
}

#[test]
fn a_removed_node_that_slept_is_told_and_disturbs_nobody() {
    let mut c = cluster(4, &[1, 2, 3]);
    lead_at(&mut c, 1);
    c.cut_off.insert(NodeId(3));
    change(&mut c, &[1, 2, 4], &[]);
    c.ticks(100);
    let term = status(&c, 1).term;
    c.cut_off.clear();
    c.ticks(60);
    expect_members(&mut c, &[1, 2, 4], &[]);
    assert_eq!(status(&c, 1).term, term);
    assert_eq!(c.nodes[&NodeId(3)].handle.status(GROUP), Err(GroupError::Destroyed(GROUP)));
}

/// Bug: a caller was told that his change was given up, which was done. Mechanism: he had asked for the same before, that
/// was given up, and his replica came past the end of the second by a snapshot: it told the end of the first.
/// Fix: the end of a change is forgotten when the same one begins again.
#[test]
fn a_caller_hears_of_his_own_change_and_not_of_the_one_before() {
    let config = Config { log_keep: 2 << 10, durable_every: Duration::from_millis(300), ..Config::default() };
    let mut c = cluster_with(4, &[1, 2, 3], config);
    lead_at(&mut c, 1);
    c.cut_off.insert(NodeId(4));
    let first = ask(&c, NodeId(1), target(&[1, 2, 3, 4], &[]));
    assert_eq!(answer(&mut c, &first), Err(AdminError::NoProgress(NodeId(4))));
    c.cut_off.clear();
    let again = ask(&c, NodeId(1), target(&[1, 2, 3, 4], &[]));
    for _ in 0..20 {
        if status(&c, 1).reconfigure.is_none() {
            c.step();
        }
    }
    c.cut_off.insert(NodeId(1));
    let mut load = Load::default();
    for _ in 0..80 {
        load.write(&c);
        c.ticks(1);
    }
    c.cut_off.clear();
    let answer = answer(&mut c, &again);
    assert!(matches!(answer, Ok(AdminDone::Reconfigured(_))), "{answer:?}");
    assert!(status(&c, 1).generation.0 > 0, "by a snapshot");
}

/// Bug: a group stood still for good. Mechanism: a leader whom a change leaves alone with the vote dies before its disk has
/// what it sent behind that change. It comes back without knowing that the change is committed, and needs the vote of a
/// replica that has lost its own by that change: whose log is longer, so it refuses, and which cannot lead. Fix: who has no
/// vote and hears of no leader tells what it knows to be committed.
#[test]
fn voters_who_forgot_a_commit_hear_of_it_from_those_without_a_vote() {
    for learners in [&[2][..], &[]] {
        for step in 0..STEPS {
            let mut c = cluster(2, &[1, 2]);
            lead_at(&mut c, 1);
            let _cell = ask(&c, NodeId(1), target(&[1], learners));
            steps(&mut c, step);
            c.nodes.get_mut(&NodeId(1)).unwrap().hung.insert("log_writer");
            let _slot = c.propose(NodeId(1), GROUP, &KvOp::Put(vec![("lost".into(), "1".into())]));
            steps(&mut c, 8);
            c.crash_and_restart(NodeId(1));
            c.ticks(60);
            assert!(c.leader(GROUP).is_some(), "step {step}, learners {learners:?}: nobody leads");
            insist(&mut c, &target(&[1], learners));
            c.ticks(30);
            expect_members(&mut c, &[1], learners);
        }
    }
}

fn steps(c: &mut Cluster, n: u64) {
    for _ in 0..n {
        c.step();
    }
}

/// Bug: a removed voter stayed on its node for ever, although it knew nodes of the group. Mechanism: it campaigned, and
/// asked nobody but voters; those who were voters when it fell asleep had all been removed, and the voters of today were
/// learners then. Fix: whoever hears of no leader asks all members.
#[test]
fn a_removed_voter_that_slept_is_told_by_the_learners_of_then() {
    let mut c = cluster(5, &[1, 2, 3]);
    lead_at(&mut c, 1);
    let to = target(&[4, 5], &[]);
    let _cell = ask(&c, NodeId(1), to.clone());
    for _ in 0..STEPS {
        if status(&c, 3).conf_state.learners.len() < 2 {
            c.step();
        }
    }
    let asleep = status(&c, 3).conf_state;
    assert!(asleep.learners.len() == 2 && !asleep.is_joint(), "{asleep:?}");
    c.cut_off.insert(NodeId(3));
    insist(&mut c, &to);
    c.ticks(60);
    c.cut_off.clear();
    c.ticks(60);
    expect_members(&mut c, &[4, 5], &[]);
}

/// Bug: a learner that slept through its removal stayed on its node for ever, and so did a new replica that was given up
/// before it had applied anything. Mechanism: a removed voter campaigns and is told when it is refused; without a vote
/// nobody campaigns, and only who had applied his removal asked. Fix: whoever has no vote and hears of no leader asks.
#[test]
fn a_removed_learner_that_slept_is_told() {
    let mut c = cluster(4, &[1, 2, 3]);
    change(&mut c, &[1, 2, 3], &[4]);
    c.cut_off.insert(NodeId(4));
    change(&mut c, &[1, 2, 3], &[]);
    assert!(c.nodes[&NodeId(4)].handle.status(GROUP).is_ok(), "still asleep");
    c.cut_off.clear();
    c.ticks(60);
    expect_members(&mut c, &[1, 2, 3], &[]);
}

#[test]
fn a_newborn_replica_that_was_given_up_in_its_sleep_is_told() {
    let mut c = cluster(4, &[1, 2, 3]);
    lead_at(&mut c, 1);
    let cell = ask(&c, NodeId(1), target(&[1, 2, 3, 4], &[]));
    while c.nodes[&NodeId(4)].handle.status(GROUP).is_err() {
        c.step();
        c.pass_tick();
    }
    c.cut_off.insert(NodeId(4));
    assert_eq!(answer(&mut c, &cell), Err(AdminError::NoProgress(NodeId(4))));
    assert_eq!(status(&c, 4).members.len(), 3, "it does not know itself");
    c.cut_off.clear();
    c.ticks(60);
    expect_members(&mut c, &[1, 2, 3], &[]);
}

#[test]
fn a_replica_that_slept_through_a_change_of_all_others_catches_up() {
    for keep in [64 << 20, 2 << 10] {
        let config = Config { log_keep: keep, durable_every: Duration::from_millis(300), ..Config::default() };
        let mut c = cluster_with(5, &[1, 2, 3], config);
        lead_at(&mut c, 2);
        c.cut_off.insert(NodeId(1));
        let mut load = Load::default();
        change(&mut c, &[1, 4, 5], &[]);
        for _ in 0..50 {
            load.write(&c);
            c.ticks(1);
        }
        c.cut_off.clear();
        c.ticks(60);
        expect_members(&mut c, &[1, 4, 5], &[]);
        assert_eq!(status(&c, 1).replica, ReplicaId(1));
        assert_eq!(status(&c, 1).generation.0 > 0, keep < 1 << 20, "by a snapshot if the log is gone");
        load.expect_all(&mut c);
        c.cut_off.insert(NodeId(4));
        c.ticks(40);
        c.put("it votes", "again").unwrap();
    }
}

#[test]
fn a_node_added_again_while_its_old_replica_sleeps_there() {
    let mut c = cluster(4, &[1, 2, 3]);
    lead_at(&mut c, 1);
    c.cut_off.insert(NodeId(3));
    change(&mut c, &[1, 2], &[]);
    let again = ask(&c, NodeId(1), target(&[1, 2, 3], &[]));
    c.ticks(3);
    assert_eq!(status(&c, 3).replica, ReplicaId(3), "still asleep");
    c.cut_off.clear();
    assert!(matches!(answer(&mut c, &again), Ok(AdminDone::Reconfigured(_))));
    c.ticks(30);
    expect_members(&mut c, &[1, 2, 3], &[]);
    assert_eq!(status(&c, 3).replica, ReplicaId(4));
}

/// Bug: a caller was told the index of a joint configuration as that of the one he had asked for. Mechanism: the leader he
/// asked slept in it, was removed, and was let go by the invitation of its node's next replica, which names no
/// configuration. Fix: he is sent to the leader.
#[test]
fn a_leader_that_slept_in_the_joint_configuration_does_not_call_it_the_new_one() {
    let mut c = cluster(3, &[1, 2, 3]);
    lead_at(&mut c, 3);
    let cell = ask(&c, NodeId(3), target(&[1, 2], &[]));
    for _ in 0..STEPS {
        if !status(&c, 3).conf_state.is_joint() {
            c.step();
        }
    }
    assert!(status(&c, 3).conf_state.is_joint());
    c.cut_off.insert(NodeId(3));
    c.ticks(40);
    insist(&mut c, &target(&[1, 2], &[]));
    let new = status(&c, 1).conf_index;
    let _added_again = ask_leader(&mut c, target(&[1, 2, 3], &[]));
    c.ticks(1);
    c.cut_off.clear();
    match answer(&mut c, &cell) {
        Ok(AdminDone::Reconfigured(at)) => assert!(at >= new, "{at} is joint, {new} is the new one"),
        other => assert!(matches!(other, Err(AdminError::NotLeader { .. })), "{other:?}"),
    }
}

#[test]
fn a_removed_replica_stays_until_the_removal_is_sealed() {
    // Joint, then the new members fall silent right after the leader has left the joint configuration.
    for step in 0..STEPS {
        let (c, _) = under_way(5, &[3, 1, 2], &[3, 4, 5], step);
        let s = status(&c, 3);
        let left = s.conf_state.voters_outgoing.is_empty() && s.conf_state.voters.contains(&ReplicaId(5));
        if left && s.reconfigure.is_some() {
            for removed in [1, 2] {
                assert!(c.nodes[&NodeId(removed)].handle.status(GROUP).is_ok(), "step {step}: node {removed} is gone");
            }
            return;
        }
    }
    panic!("no step between leaving and sealing was seen");
}

#[test]
fn members_change_at_random_and_nothing_is_lost() {
    let mut changes = 0;
    for seed in seeds(20) {
        let _replay = Replay { test: "membership", case: "members_change_at_random_and_nothing_is_lost", seed };
        let mut rng = Rng::new(seed);
        let config = Config { log_keep: 4 << 10, durable_every: Duration::from_millis(300), ..Config::default() };
        let mut c = cluster_with(5, &[1, 2, 3], config);
        let mut load = Load::default();
        let mut asked = Vec::new();
        for _ in 0..200 {
            load.write(&c);
            disturb(&mut c, &mut rng, &mut asked);
            c.ticks(1 + rng.below(3));
        }
        c.cut_off.clear();
        c.ticks(400);
        insist(&mut c, &target(&[1, 2, 3, 4, 5], &[]));
        c.ticks(60);
        expect_members(&mut c, &[1, 2, 3, 4, 5], &[]);
        load.expect_all(&mut c);
        changes += asked.iter().filter(|cell| matches!(cell.take(), Some(Ok(_)))).count();
    }
    assert!(changes > 20, "only {changes} changes were completed");
}

type Asked = Vec<std::sync::Arc<pontoon_raftstore::testing::AdminCell>>;

fn disturb(c: &mut Cluster, rng: &mut Rng, asked: &mut Asked) {
    let node = NodeId(1 + rng.below(5));
    match rng.below(16) {
        0 => c.crash_and_restart(node),
        1 => {
            c.cut_off.clear();
            c.cut_off.insert(node);
        }
        2..=4 => c.cut_off.clear(),
        5..=7 => {
            let Some(leader) = c.leader(GROUP) else { return };
            let mut voters = nodes(&[1 + rng.below(5)]);
            voters.extend((0..rng.below(5)).map(|_| NodeId(1 + rng.below(5))));
            let to = pontoon_raftstore::reconfigure::Target { voters, promote_lag: rng.below(9), ..target(&[], &[]) };
            asked.push(ask(c, leader, to));
        }
        8 => {
            if let Some(leader) = c.leader(GROUP) {
                let _cell = abort(c, leader);
            }
        }
        _ => {}
    }
}
