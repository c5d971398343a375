//! Sees all replicas at once and judges what each call of the core led to.
//!
//! Promises: election safety, log matching, leader completeness, state machine safety (Raft, figure 3);
//! commit means durable on a quorum; term, commit and applied never fall; an ack or a vote that leaves names
//! only durable state; a read's index covers everything that was committed when it was asked for.

use crate::replica::{Machine, Replica};
use pontoon_raft::*;
use std::collections::{BTreeMap, BTreeSet};

/// What is known about the group from outside.
pub struct Witness {
    leaders: BTreeMap<Term, ReplicaId>,
    /// Leaders whose log was compared with what was committed before.
    judged: BTreeSet<Term>,
    /// Each entry that was ever in a log.
    entries: BTreeMap<(Index, Term), Entry>,
    /// Term of each committed entry.
    pub committed: BTreeMap<Index, Term>,
    /// The state after each applied entry.
    digests: BTreeMap<Index, u64>,
    /// The configuration after each change.
    confs: BTreeMap<Index, ConfState>,
    /// What was committed when a read was asked for, by the read's number.
    reads: Vec<Index>,
    pub answered: usize,
}

impl Witness {
    pub fn new(first: &Snapshot) -> Witness {
        let at = first.meta.index;
        Witness {
            leaders: BTreeMap::new(),
            judged: BTreeSet::new(),
            entries: BTreeMap::new(),
            committed: BTreeMap::from([(at, first.meta.term)]),
            digests: BTreeMap::from([(at, Machine::of(first).digest)]),
            confs: BTreeMap::from([(at, first.meta.conf_state.clone())]),
            reads: Vec::new(),
            answered: 0,
        }
    }

    pub fn last_committed(&self) -> Index {
        *self.committed.keys().next_back().unwrap()
    }

    /// State and configuration at an applied index.
    pub fn state_at(&self, at: Index) -> (Machine, ConfState) {
        (Machine { at, digest: self.digests[&at] }, self.newest_conf(at).clone())
    }

    /// The configuration that took effect last, up to `at`.
    pub fn newest_conf(&self, at: Index) -> &ConfState {
        self.confs.range(..=at).next_back().unwrap().1
    }

    /// After every call of replica `at`'s core.
    pub fn look(&mut self, replicas: &mut [Replica], at: usize) {
        replicas[at].raw.assert_invariants();
        let (now, before) = (replicas[at].raw.basic_status(), replicas[at].last_seen);
        assert!(now.term >= before.term && now.commit >= before.commit && now.applied >= before.applied, "{now:?}");
        let kept = now.term > before.term || before.vote.is_none() || now.vote == before.vote;
        assert!(kept, "a second vote in one term: {before:?} {now:?}");
        if now.role == StateRole::Leader {
            let leader = *self.leaders.entry(now.term).or_insert(now.id);
            assert_eq!(leader, now.id, "election safety in term {}", now.term);
        }
        if now.commit > self.last_committed() {
            self.judge_commit(replicas, at, now);
        }
        replicas[at].last_seen = now;
    }

    /// Only a leader learns first that something is committed, and then a quorum of both halves has it on disk.
    fn judge_commit(&mut self, replicas: &[Replica], at: usize, now: BasicStatus) {
        let leader = &replicas[at];
        assert_eq!(now.role, StateRole::Leader, "a commit that no leader made: {now:?}");
        for index in self.last_committed().next().0..=now.commit.0 {
            self.committed.insert(Index(index), leader.view[&Index(index)]);
        }
        let pos = LogPos::new(self.committed[&now.commit], now.commit);
        assert_eq!(pos.term, now.term, "entries of earlier terms are not counted (Raft 5.4.2)");
        let conf = leader.raw.status().conf;
        for half in [&conf.voters, &conf.voters_outgoing] {
            let durable = half.iter().filter(|id| replicas.iter().any(|r| r.id() == **id && r.holds(pos))).count();
            assert!(half.is_empty() || durable > half.len() / 2, "{pos:?} is durable on {durable} of {half:?}");
        }
    }

    /// A `Ready` of `replica`, whose view has its entries already.
    pub fn judge_ready(&mut self, replica: &Replica, ready: &Ready) {
        for entry in &ready.entries {
            let known = self.entries.entry((entry.index, entry.term)).or_insert_with(|| entry.clone());
            assert_eq!((known.kind, &known.data), (entry.kind, &entry.data), "log matching at {:?}", entry.pos());
        }
        for m in &ready.messages {
            let rests = m.body.is_after_append() || matches!(m.body, Body::Vote(_));
            assert!(!rests, "{m:?} leaves before the write");
        }
        for read in &ready.read_states {
            let number = u64::from_le_bytes(read.context[..].try_into().unwrap()) as usize;
            let floor = self.reads[number];
            assert!(read.index >= floor, "stale read: {} was committed before, answered {}", floor, read.index);
            self.answered += 1;
        }
        let status = replica.raw.basic_status();
        if status.role == StateRole::Leader && self.judged.insert(status.term) {
            self.judge_leader(replica, status.term);
        }
    }

    /// Leader completeness: what was committed in earlier terms is in the leader's log.
    fn judge_leader(&self, replica: &Replica, leads: Term) {
        let base = *replica.view.keys().next().unwrap();
        for (index, term) in self.committed.range(base..).filter(|(_, term)| **term < leads) {
            assert_eq!(replica.view.get(index), Some(term), "leader completeness at {index}, leader {}", replica.id());
        }
    }

    /// A message leaves after `replica` reported its writes as durable.
    pub fn judge_released(&self, replica: &Replica, m: &Message) {
        let mem = &replica.raw.storage().mem;
        let durable = mem.hard_state();
        match &m.body {
            Body::PreVoteResp { .. } => {}
            // A request rests on the own vote: else a crash would let the same term be won twice.
            Body::VoteResp { reject: false } | Body::Vote(_) => {
                let whom = if matches!(m.body, Body::Vote(_)) { m.from } else { m.to };
                let voted = durable.term > m.term || (durable.term == m.term && durable.vote == whom);
                assert!(voted, "{m:?} leaves, durable is {durable:?}");
            }
            Body::AppendResp(AppendResp { index, reject: None }) => {
                let there = durable.term > m.term || (durable.term == m.term && mem.last_index() >= *index);
                assert!(there, "{m:?} leaves, durable is {durable:?} up to {}", mem.last_index());
            }
            _ => assert!(durable.term >= m.term, "{m:?} leaves, durable is {durable:?}"),
        }
    }

    /// An entry was applied somewhere.
    pub fn judge_applied(&mut self, entry: &Entry, machine: Machine) {
        assert_eq!(self.committed.get(&entry.index), Some(&entry.term), "applied, but not committed: {entry:?}");
        let known = *self.digests.entry(entry.index).or_insert(machine.digest);
        assert_eq!(known, machine.digest, "state machine safety at {}", entry.index);
    }

    /// A change took effect somewhere.
    pub fn judge_conf(&mut self, at: Index, conf: &ConfState) {
        let known = self.confs.entry(at).or_insert_with(|| conf.clone());
        assert!(known.equivalent(conf), "configuration after {at}: {known:?} and {conf:?}");
    }

    /// A snapshot was installed somewhere.
    pub fn judge_snapshot(&self, snapshot: &Snapshot) {
        let at = snapshot.meta.index;
        assert_eq!(self.committed.get(&at), Some(&snapshot.meta.term), "a snapshot of what is not committed");
        let (machine, conf) = self.state_at(at);
        assert_eq!(machine, Machine::of(snapshot), "state machine safety by snapshot");
        assert!(conf.equivalent(&snapshot.meta.conf_state), "{conf:?} and {snapshot:?}");
    }

    /// A read is asked for now; returns its number.
    pub fn open_read(&mut self) -> u64 {
        self.reads.push(self.last_committed());
        self.reads.len() as u64 - 1
    }

    /// Two logs that agree on one entry agree on everything before it.
    pub fn judge_logs(&self, replicas: &[Replica]) {
        for (at, a) in replicas.iter().enumerate() {
            for b in &replicas[at + 1..] {
                let (a, b) = (&a.raw.storage().mem, &b.raw.storage().mem);
                let low = a.first_index().max(b.first_index()).0;
                let high = a.last_index().min(b.last_index()).0;
                let mut agreed = false;
                for index in (low..=high).rev().map(Index) {
                    let same = a.term(index) == b.term(index);
                    assert!(same || !agreed, "log matching at {index}");
                    agreed = same;
                }
            }
        }
    }
}
