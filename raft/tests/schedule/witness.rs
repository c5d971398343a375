//! Sees all replicas at once and judges what each call of the core led to.
//!
//! Promises: election safety, log matching, leader completeness, state machine safety, leaders only append (Raft,
//! figure 3); commit means durable on a quorum and never changes; purged <= snapshot <= applied <= commit <= last; term,
//! commit and applied never fall; an ack or a vote that leaves names only durable state; one membership change is
//! pending at most, and quorums of neighbouring configurations overlap; a read's index covers everything that was
//! committed when it was asked for.

use super::replica::{Machine, Replica};
use super::summary::Summary;
use pontoon_raft::*;
use std::collections::{BTreeMap, BTreeSet};

/// An entry as it was first seen, and the term of the one before it.
struct Seen {
    before: Term,
    kind: EntryKind,
    data: bytes::Bytes,
}

#[derive(Clone, Copy)]
struct Committed {
    term: Term,
    /// Term of the leader that committed it.
    by: Term,
}

/// What is known about the group from outside.
pub struct Witness {
    leaders: BTreeMap<Term, ReplicaId>,
    /// Leaders whose log was compared with what was committed before.
    judged: BTreeSet<Term>,
    /// Each entry that was ever in a log.
    entries: BTreeMap<(Index, Term), Seen>,
    /// Each committed entry, from `start` on.
    committed: Vec<Committed>,
    start: Index,
    /// The state after each applied entry.
    digests: BTreeMap<Index, u64>,
    /// The configuration after each change.
    confs: BTreeMap<Index, ConfState>,
    /// What was committed when a read was asked for, by the read's number.
    reads: Vec<Index>,
    answered: usize,
    installs: usize,
}

impl Witness {
    pub fn new(first: &Snapshot) -> Witness {
        let at = first.meta.index;
        Witness {
            leaders: BTreeMap::new(),
            judged: BTreeSet::new(),
            entries: BTreeMap::new(),
            committed: vec![Committed { term: first.meta.term, by: first.meta.term }],
            start: at,
            digests: BTreeMap::from([(at, Machine::of(first).digest)]),
            confs: BTreeMap::from([(at, first.meta.conf_state.clone())]),
            reads: Vec::new(),
            answered: 0,
            installs: 0,
        }
    }

    pub fn summary(&self) -> Summary {
        Summary {
            committed: self.last_committed().0,
            leaders: self.leaders.len(),
            reads: self.answered,
            changes: self.confs.len() - 1,
            installs: self.installs,
            ..Summary::default()
        }
    }

    pub fn last_committed(&self) -> Index {
        self.start.plus(self.committed.len() as u64 - 1)
    }

    /// Term of a committed entry.
    pub fn committed_term(&self, at: Index) -> Term {
        self.term_if_committed(at).unwrap()
    }

    fn term_if_committed(&self, at: Index) -> Option<Term> {
        let place = at.0.checked_sub(self.start.0)?;
        self.committed.get(place as usize).map(|c| c.term)
    }

    /// State and configuration at an applied index.
    pub fn state_at(&self, at: Index) -> (Machine, ConfState) {
        (Machine { at, digest: self.digests[&at] }, self.newest_conf(at).clone())
    }

    /// The configuration that took effect last, up to `at`.
    pub fn newest_conf(&self, at: Index) -> &ConfState {
        self.confs.range(..=at).next_back().unwrap().1
    }

    /// A read is asked for now; returns its number.
    pub fn open_read(&mut self) -> u64 {
        self.reads.push(self.last_committed());
        self.reads.len() as u64 - 1
    }
}

/// After each call.
impl Witness {
    /// After every call of replica `at`'s core.
    pub fn look(&mut self, replicas: &mut [Replica], at: usize) {
        let replica = &replicas[at];
        replica.raw.assert_invariants();
        let (now, before) = (replica.raw.basic_status(), replica.last_seen);
        assert!(now.term >= before.term && now.commit >= before.commit && now.applied >= before.applied, "{now:?}");
        let kept = now.term > before.term || before.vote.is_none() || now.vote == before.vote;
        assert!(kept, "a second vote in one term: {before:?} {now:?}");
        assert_order(replica, now);
        if now.role == StateRole::Leader {
            self.look_at_leader(replica, now, before);
        }
        if now.commit > self.last_committed() {
            self.judge_commit(replicas, at, now);
        }
        replicas[at].last_seen = now;
    }

    fn look_at_leader(&mut self, replica: &Replica, now: BasicStatus, before: BasicStatus) {
        let leader = *self.leaders.entry(now.term).or_insert(now.id);
        assert_eq!(leader, now.id, "election safety in term {}", now.term);
        if before.role == StateRole::Leader && before.term == now.term {
            assert!(now.last_index >= before.last_index, "a leader's log became shorter: {before:?} {now:?}");
        } else {
            assert!(replica.raw.status().conf.is_voter(now.id), "{} leads and has no vote", now.id);
        }
    }

    /// Only a leader learns first that something is committed, and then a quorum of both halves has it on disk.
    fn judge_commit(&mut self, replicas: &[Replica], at: usize, now: BasicStatus) {
        let leader = &replicas[at];
        assert_eq!(now.role, StateRole::Leader, "a commit that no leader made: {now:?}");
        for index in self.last_committed().next().0..=now.commit.0 {
            self.committed.push(Committed { term: leader.view[&Index(index)], by: now.term });
        }
        let pos = LogPos::new(self.committed_term(now.commit), now.commit);
        assert_eq!(pos.term, now.term, "entries of earlier terms are not counted (Raft 5.4.2)");
        let conf = leader.raw.status().conf;
        for half in [&conf.voters, &conf.voters_outgoing] {
            let durable = half.iter().filter(|id| replicas.iter().any(|r| r.id() == **id && r.holds(pos))).count();
            assert!(half.is_empty() || durable > half.len() / 2, "{pos:?} is durable on {durable} of {half:?}");
        }
    }
}

/// purged <= snapshot <= applied <= commit <= last.
fn assert_order(replica: &Replica, now: BasicStatus) {
    let disk = replica.raw.storage();
    let purged = disk.mem.first_index().prev();
    let offered = disk.offered.as_ref().map_or(purged, |s| s.meta.index);
    let ordered = purged <= offered && offered <= replica.machine.at && replica.machine.at <= now.commit;
    assert!(ordered, "purged {purged}, snapshot {offered}, machine {}, {now:?}", replica.machine.at);
}

/// What a `Ready` says.
impl Witness {
    /// Before `replica` takes in the `Ready`.
    pub fn judge_entries(&mut self, replica: &Replica, ready: &Ready) {
        let status = replica.raw.basic_status();
        let leads = status.role == StateRole::Leader;
        let snapshot = ready.snapshot.as_ref().map(|s| s.meta.pos());
        let mut before = ready.entries.first().map(|first| {
            let known = replica.view.get(&first.index.prev()).copied();
            snapshot.filter(|s| s.index == first.index.prev()).map(|s| s.term).or(known).expect("no gap in a log")
        });
        for entry in &ready.entries {
            let own = leads && replica.view.get(&entry.index) == Some(&status.term);
            assert!(!own, "a leader overwrites its own entry at {}", entry.index);
            let last = before.replace(entry.term).unwrap_or_default();
            self.judge_entry(entry, last);
        }
        for read in &ready.read_states {
            let number = u64::from_le_bytes(read.context[..].try_into().unwrap()) as usize;
            let floor = self.reads[number];
            assert!(read.index >= floor, "stale read {number}: {floor} was committed before, answered {}", read.index);
            self.answered += 1;
        }
    }

    /// Index and term name one entry, and everything before it (by induction).
    fn judge_entry(&mut self, entry: &Entry, before: Term) {
        let seen = || Seen { before, kind: entry.kind, data: entry.data.clone() };
        let known = self.entries.entry((entry.index, entry.term)).or_insert_with(seen);
        let same = (known.before, known.kind, &known.data) == (before, entry.kind, &entry.data);
        assert!(same, "log matching at {:?}", entry.pos());
    }

    /// Pages stay within their limit, over all that are not reported (raft-core 13.2).
    pub fn judge_page(&self, replica: &Replica, ready: &Ready) {
        if ready.committed_entries.len() < 2 {
            return;
        }
        let config = &replica.config;
        let set = config.max_committed_size_per_ready;
        let limit = if set == 0 { config.max_size_per_msg } else { set };
        let out: u64 = replica.to_apply.iter().chain(&ready.committed_entries).map(Entry::encoded_size).sum();
        assert!(out <= limit, "{out} bytes are handed out for applying, {limit} may be");
    }

    /// After `replica` took in a `Ready`, whose messages leave at once.
    pub fn judge_taken(&mut self, replica: &Replica, messages: &[Message]) {
        for m in messages {
            let rests = m.body.is_after_append() || matches!(m.body, Body::Vote(_));
            // A stuck leader's answer says nothing but the term.
            assert!(!rests, "{m:?} leaves before the write");
        }
        let pending = replica.changes.iter().filter(|at| **at > self.last_committed()).count();
        assert!(pending <= 1, "{pending} membership changes are pending at {}", replica.id());
        let status = replica.raw.basic_status();
        if status.role == StateRole::Leader && self.judged.insert(status.term) {
            self.judge_leader(replica, status.term);
        }
    }

    /// Leader completeness: what leaders of earlier terms committed is in the leader's log.
    fn judge_leader(&self, replica: &Replica, leads: Term) {
        let base = *replica.view.keys().next().unwrap();
        for (committed, index) in self.committed.iter().zip((self.start.0..).map(Index)) {
            if committed.by < leads && index >= base {
                let own = replica.view.get(&index).copied();
                assert_eq!(own, Some(committed.term), "leader completeness at {index}, leader {}", replica.id());
            }
        }
    }

    /// A message leaves after replica `at` reported its writes as durable.
    pub fn judge_released(&self, replicas: &[Replica], at: usize, m: &Message) {
        let mem = &replicas[at].raw.storage().mem;
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
                self.judge_ack(replicas, at, m, *index);
            }
            _ => assert!(durable.term >= m.term, "{m:?} leaves, durable is {durable:?}"),
        }
    }

    /// An ack says that the log up to there is the leader's.
    fn judge_ack(&self, replicas: &[Replica], at: usize, m: &Message, index: Index) {
        let mem = &replicas[at].raw.storage().mem;
        if mem.hard_state().term > m.term {
            return;
        }
        let leads = |r: &&Replica| r.last_seen.role == StateRole::Leader && r.last_seen.term == m.term && !r.down;
        let Some(leader) = replicas.iter().find(|r| r.id() == m.to && leads(r)) else { return };
        if let (Some(wanted), Ok(found)) = (leader.view.get(&index), mem.term(index)) {
            assert_eq!(*wanted, found, "{m:?} acknowledges another entry");
        }
    }
}

/// What machines and memberships come to.
impl Witness {
    /// The machine of `replica` has just applied `entry`.
    pub fn judge_applied(&mut self, replica: &Replica, entry: &Entry) {
        let (index, machine) = (entry.index, replica.machine);
        assert_eq!(self.term_if_committed(index), Some(entry.term), "applied, but not committed: {entry:?}");
        assert!(replica.holds(entry.pos()), "applied, but not durable here: {entry:?}");
        let known = *self.digests.entry(index).or_insert(machine.digest);
        assert_eq!(known, machine.digest, "state machine safety at {index}");
    }

    /// A change took effect somewhere.
    pub fn judge_conf(&mut self, at: Index, conf: &ConfState) {
        if let Some(known) = self.confs.get(&at) {
            assert!(known.equivalent(conf), "configuration after {at}: {known:?} and {conf:?}");
            return;
        }
        let before = self.newest_conf(at);
        assert!(overlap(before, conf), "two quorums have nobody in common: {before:?} and {conf:?}");
        self.confs.insert(at, conf.clone());
    }

    /// A snapshot was installed somewhere.
    pub fn judge_snapshot(&mut self, by: ReplicaId, snapshot: &Snapshot) {
        let at = snapshot.meta.index;
        assert!(snapshot.meta.conf_state.contains(by), "{by} installs a snapshot that does not list it");
        assert_eq!(self.term_if_committed(at), Some(snapshot.meta.term), "a snapshot of what is not committed");
        let (machine, conf) = self.state_at(at);
        assert_eq!(machine, Machine::of(snapshot), "state machine safety by snapshot");
        assert!(conf.equivalent(&snapshot.meta.conf_state), "{conf:?} and {snapshot:?}");
        self.installs += 1;
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

/// Does every quorum of `a` share a member with every quorum of `b`? By brute force.
fn overlap(a: &ConfState, b: &ConfState) -> bool {
    let is_quorum = |conf: &ConfState, of: u32| {
        let wins = |half: &Vec<ReplicaId>| {
            let in_favour = half.iter().filter(|id| of >> id.0 & 1 == 1).count();
            half.is_empty() || in_favour > half.len() / 2
        };
        wins(&conf.voters) && wins(&conf.voters_outgoing)
    };
    let all = 0b11_1110;
    (0..=all).filter(|of| of & !all == 0 && is_quorum(a, *of)).all(|of| !is_quorum(b, all & !of))
}
