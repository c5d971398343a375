//! What a host is told when it does something at the wrong time, with nonsense, or after the end. Nothing panics.

use crate::disk::{Log, Record};
use bytes::Bytes;
use pontoon_raft::{
    Body, ConfChangeType, ConfChangeV1, ConfChangeV2, Config, Entries, Entry, HardState, Index, InitialState, LogPos,
    MemStorage, Message, Peer, Ready, ReplicaId, Snapshot, Storage, StorageError, Term,
};
use pontoon_raftstore::error::{Halted, ReadyError, SoloError, Stopped};
use pontoon_raftstore::solo::{Node, Runner, WithoutLeader, start};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(600);

fn prepare(without_leader: WithoutLeader) -> (Node, Log, Runner) {
    let (config, log) = (Config { id: ReplicaId(1), ..Config::default() }, Log::default());
    let (node, runner) = start(config, Box::new(log.clone()), without_leader).unwrap();
    (node, log, runner)
}

fn found(mut runner: Runner, peers: u64) -> JoinHandle<Result<(), Halted>> {
    let peers: Vec<Peer> = (1..=peers).map(|id| Peer { id: ReplicaId(id), context: Bytes::new() }).collect();
    runner.bootstrap(&peers).unwrap();
    spawn(move || runner.run())
}

fn running(without_leader: WithoutLeader, peers: u64) -> (Node, JoinHandle<Result<(), Halted>>) {
    let (node, _log, runner) = prepare(without_leader);
    (node, found(runner, peers))
}

/// As the contract says.
fn serve(node: &Node, log: &Log, ready: Ready) {
    log.apply(Record { entries: ready.entries.to_vec(), hard_state: ready.hard_state, ..Record::default() });
    for entry in ready.committed_entries.to_vec() {
        let change = ConfChangeV2::from_entry(&entry).unwrap();
        change.into_iter().for_each(|change| drop(node.apply_conf_change(change).unwrap()));
    }
    node.advance().unwrap();
}

fn command() -> Entry {
    Entry::normal(Bytes::from_static(b"x"))
}

fn heartbeat(term: u64, commit: u64) -> Message {
    let body = Body::Heartbeat { commit: Index(commit), context: Bytes::new() };
    Message { from: ReplicaId(2), to: ReplicaId(1), term: Term(term), body }
}

fn add(id: u64) -> ConfChangeV2 {
    ConfChangeV1::new(ConfChangeType::AddNode, ReplicaId(id)).into()
}

/// The first `Ready` of a group of three, with its three membership changes.
fn first_ready(node: &Node) -> Ready {
    let ready = node.ready().recv().unwrap();
    assert_eq!(ready.committed_entries.len(), 3);
    ready
}

#[test]
fn advance_and_apply_belong_to_a_ready() {
    let (node, runner) = running(WithoutLeader::Wait, 3);
    assert_eq!(node.advance(), Err(ReadyError::NotDue));
    assert_eq!(node.apply_conf_change(add(1)), Err(ReadyError::NotDue));
    first_ready(&node);
    for left in [3, 2, 1] {
        assert_eq!(node.advance(), Err(ReadyError::Unapplied(left)));
        assert!(node.ready().try_recv().is_err(), "one Ready at a time");
        node.apply_conf_change(add(4 - left as u64)).unwrap();
    }
    assert_eq!(node.apply_conf_change(add(4)), Err(ReadyError::NotDue));
    node.advance().unwrap();
    assert_eq!(node.advance(), Err(ReadyError::NotDue));
    assert_eq!(node.status().unwrap().basic.applied, Index(3));
    node.stop();
    assert_eq!(runner.join().unwrap(), Ok(()));
}

/// A message that came between a membership change and its application could replace the membership it belongs to.
#[test]
fn messages_wait_for_membership_changes() {
    let (node, _runner) = running(WithoutLeader::Wait, 3);
    first_ready(&node);
    node.step(heartbeat(5, 0)).unwrap();
    for _ in 0..100 {
        assert_eq!(node.status().unwrap().basic.term, Term(1));
    }
    (1..=3).for_each(|id| drop(node.apply_conf_change(add(id)).unwrap()));
    let stepped = (0..1_000_000).any(|_| node.status().unwrap().basic.term == Term(5));
    assert!(stepped);
}

#[test]
fn without_a_leader_proposals_fail_or_wait_as_the_host_chose() {
    let (node, _runner) = running(WithoutLeader::Fail, 3);
    assert_eq!(node.propose(command(), LONG), Err(SoloError::NoLeader));
    let (node, _runner) = running(WithoutLeader::Wait, 3);
    assert_eq!(node.propose(command(), SHORT), Err(SoloError::OutcomeUnknown));
    let outcomes: Vec<_> = (0..300).map(|_| node.propose(command(), Duration::ZERO).unwrap_err()).collect();
    let unknown = outcomes.iter().filter(|e| **e == SoloError::OutcomeUnknown).count();
    assert_eq!(unknown, 255, "one waits since before, the line holds 256");
    assert_eq!(outcomes.last(), Some(&SoloError::Full));
}

#[test]
fn a_proposal_that_waits_is_made_once_there_is_a_leader() {
    let (node, log, runner) = prepare(WithoutLeader::Wait);
    let _running = found(runner, 1);
    let waiting = {
        let node = node.clone();
        spawn(move || node.propose(command(), LONG))
    };
    serve(&node, &log, node.ready().recv().unwrap());
    node.campaign().unwrap();
    while !waiting.is_finished() {
        node.ready().recv_timeout(SHORT).into_iter().for_each(|ready| serve(&node, &log, ready));
    }
    let at = waiting.join().unwrap().unwrap();
    assert_eq!(at, Some(LogPos { term: Term(2), index: Index(3) }));
}

#[test]
fn whoever_waits_is_answered_by_the_end() {
    let (node, runner) = running(WithoutLeader::Wait, 3);
    let propose = || {
        let node = node.clone();
        spawn(move || node.propose(command(), LONG))
    };
    let waiting = [propose(), propose(), propose()];
    let host = {
        let node = node.clone();
        spawn(move || {
            first_ready(&node);
            node.ready().recv()
        })
    };
    while node.apply_conf_change(add(1)).is_err() {}
    node.stop();
    assert_eq!(runner.join().unwrap(), Ok(()));
    for caller in waiting {
        assert_eq!(caller.join().unwrap(), Err(SoloError::Stopped(Stopped)));
    }
    assert!(host.join().unwrap().is_err(), "no Ready comes any more");
    assert_eq!(node.status(), Err(Stopped));
    assert_eq!(node.tick(), Err(SoloError::Stopped(Stopped)));
    assert_eq!(node.step(heartbeat(1, 0)), Err(SoloError::Stopped(Stopped)));
    assert_eq!(node.propose(command(), LONG), Err(SoloError::Stopped(Stopped)));
    assert_eq!(node.advance(), Err(ReadyError::Stopped(Stopped)));
    node.stop();
}

#[test]
fn nonsense_has_no_effect() {
    let (node, runner) = running(WithoutLeader::Fail, 3);
    let before = node.status().unwrap();
    let local = Message { from: ReplicaId(2), to: ReplicaId(1), term: Term(9), body: Body::Hup };
    let stranger =
        Message { from: ReplicaId(7), to: ReplicaId(1), term: Term(1), body: Body::VoteResp { reject: false } };
    let elsewhere = Message { to: ReplicaId(3), ..heartbeat(9, 0) };
    for message in [local, stranger, elsewhere, heartbeat(u64::MAX, 0)] {
        node.step(message).unwrap();
    }
    let unreadable = Entry { data: Bytes::from_static(b"\xff"), ..add(1).to_entry() };
    assert!(node.propose(unreadable, LONG).is_err());
    node.report_snapshot(ReplicaId(77), false).unwrap();
    node.report_unreachable(ReplicaId(1)).unwrap();
    node.transfer_leader(ReplicaId(0)).unwrap();
    node.forget_leader().unwrap();
    (0..100).for_each(|_| assert_eq!(node.status().unwrap(), before));
    drop(node);
    assert_eq!(runner.join().unwrap(), Ok(()), "the last handle ends the node");
}

#[test]
fn lost_data_ends_the_node() {
    let (node, runner) = running(WithoutLeader::Fail, 3);
    first_ready(&node);
    (1..=3).for_each(|id| drop(node.apply_conf_change(add(id)).unwrap()));
    node.advance().unwrap();
    node.step(heartbeat(2, 50)).unwrap();
    assert!(matches!(runner.join().unwrap(), Err(Halted::LostData(_))));
    assert_eq!(node.status(), Err(Stopped));
}

/// A storage that has its entries elsewhere.
struct Elsewhere(MemStorage);

impl Storage for Elsewhere {
    fn initial_state(&self) -> InitialState {
        self.0.initial_state()
    }

    fn entries(&self, _: Index, _: Index, _: u64, _: &mut Entries) -> Result<(), StorageError> {
        Err(StorageError::Uncached)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.0.term(index)
    }

    fn first_index(&self) -> Index {
        self.0.first_index()
    }

    fn last_index(&self) -> Index {
        self.0.last_index()
    }

    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError> {
        self.0.snapshot(to)
    }
}

#[test]
fn a_storage_that_breaks_its_contract_ends_the_node() {
    let mut stored = MemStorage::new();
    stored.append(&vec![Entry { term: Term(1), index: Index(1), ..add(1).to_entry() }].into());
    stored.set_hard_state(HardState { term: Term(1), vote: ReplicaId::NONE, commit: Index(1) });
    let config = Config { id: ReplicaId(1), ..Config::default() };
    let (node, runner) = start(config, Box::new(Elsewhere(stored)), WithoutLeader::Fail).unwrap();
    let runner = spawn(move || runner.run());
    assert!(node.ready().recv().unwrap().committed_entries.is_empty());
    // The next letter shows what the storage said.
    let _either = node.status();
    assert!(matches!(runner.join().unwrap(), Err(Halted::Uncached(_))));
}
