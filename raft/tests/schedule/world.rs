//! The group of a schedule: replicas, messages under way, and what the script's bytes make happen.
//!
//! Leaves to others: disks and machines (`replica`), judgement (`witness`).
//! Invariant: the core is called through `call` alone, so that nothing escapes the witness.

use crate::Script;
use crate::replica::{Disk, Replica, first_snapshot};
use crate::witness::Witness;
use bytes::Bytes;
use pontoon_raft::*;

/// Messages under way at most; the oldest are lost.
const MAX_SOUP: usize = 300;

pub struct World {
    replicas: Vec<Replica>,
    soup: Vec<Message>,
    /// Who is on the other side of a partition.
    aside: Vec<bool>,
    /// Whose disk does nothing.
    stalled: Vec<bool>,
    witness: Witness,
    seed: u64,
    /// Many elections and crashes in between.
    stormy: bool,
    proposals: u64,
    crashes: usize,
    stuck: usize,
    tell: bool,
}

/// How much happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    schedules: usize,
    committed: u64,
    crashes: usize,
    reads: usize,
    /// See `waits_for_removed`.
    stuck: usize,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.schedules += other.schedules;
        self.committed += other.committed;
        self.crashes += other.crashes;
        self.reads += other.reads;
        self.stuck += other.stuck;
    }

    pub fn is_lively(&self) -> bool {
        self.committed > 1_000 && self.crashes > 100 && self.reads > 100 && self.stuck * 50 < self.schedules
    }
}

impl World {
    pub fn new(seed: u64, tell: bool, script: &mut Script) -> World {
        let first = first_snapshot(if script.one_in(2) { &[1, 2, 3] } else { &[1, 2, 3, 4, 5] });
        let small = script.one_in(2);
        // With neither, a leader whose learners were taken to a higher term by a removed replica never hears of it.
        let pre_vote = script.one_in(2);
        let check_quorum = !pre_vote || script.one_in(2);
        let config = |id: u64| Config {
            id: ReplicaId(id),
            election_tick: 4,
            applied: Index(1),
            max_size_per_msg: if small { 30 } else { 1 << 20 },
            max_committed_size_per_ready: if small { 40 } else { 0 },
            max_inflight_msgs: if small { 2 } else { 64 },
            max_uncommitted_size: if small { 60 } else { 0 },
            check_quorum,
            pre_vote,
            step_down_on_removal: true,
            strict: true,
            async_storage_writes: true,
            seed: seed.wrapping_add(id),
            ..Config::default()
        };
        World {
            replicas: (1..=5).map(|id| Replica::new(config(id), &first)).collect(),
            soup: Vec::new(),
            aside: vec![false; 5],
            stalled: vec![false; 5],
            witness: Witness::new(&first),
            seed,
            stormy: script.one_in(4),
            proposals: 0,
            crashes: 0,
            stuck: 0,
            tell,
        }
    }

    pub fn summary(&self) -> Summary {
        let committed = self.witness.last_committed().0;
        Summary { schedules: 1, committed, crashes: self.crashes, reads: self.witness.answered, stuck: self.stuck }
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        if self.tell {
            crate::say(&what.to_string());
        }
    }

    fn call<R>(&mut self, at: usize, what: impl FnOnce(&mut RawNode<Disk>, Tick) -> R) -> R {
        let replica = &mut self.replicas[at];
        let result = what(&mut replica.raw, replica.now);
        self.witness.look(&mut self.replicas, at);
        result
    }

    /// One action.
    pub fn act(&mut self, script: &mut Script) {
        let (action, at) = (script.below(128), script.below(5));
        if self.replicas[at].down {
            if action < 60 {
                self.restart(at);
            }
            return;
        }
        match action {
            0..36 => (0..=script.below(4)).for_each(|_| self.deliver(script)),
            36..46 => self.work(at),
            46..54 => self.persist(at, 1 + script.below(3)),
            54..60 => self.apply(at, 1 + script.below(4)),
            60..66 => self.tick(at, 1 + script.below(2) as u64),
            66..78 => self.propose(at, script.below(20)),
            78..80 => self.propose_change(at, script),
            80..86 => self.read(at),
            86 if script.one_in(4) => self.call(at, |raw, now| raw.campaign(now)),
            86 => self.call(at, |raw, now| raw.forget_leader(now)),
            87 => {
                let to = ReplicaId(1 + script.below(5) as u64);
                self.call(at, |raw, now| raw.transfer_leader(now, to));
            }
            88..90 => self.lose(script),
            90..92 => self.repeat(script),
            92 => self.report(at, script),
            93 if script.one_in(4) => self.crash(at, script),
            94..96 => self.take_snapshot(at),
            96..98 => self.compact(at, script),
            98 if script.one_in(2) => self.aside[at] = !self.aside[at],
            99 if script.one_in(6) => self.aside.fill(false),
            102 => self.replicas[at].raw.storage_mut().cold = true,
            103..107 => self.fetch(at),
            107 => {
                let building = !script.one_in(3);
                self.replicas[at].raw.storage_mut().building = building;
            }
            108..110 if self.stormy => self.call(at, |raw, now| raw.campaign(now)),
            110 if self.stormy => {
                self.work(at);
                self.crash(at, script);
            }
            113 => self.stalled[at] = true,
            114..116 => self.stalled.fill(false),
            _ => self.turn(at),
        }
    }

    /// Everything that a replica has to do, at once.
    fn turn(&mut self, at: usize) {
        self.work(at);
        self.persist(at, usize::MAX);
        self.apply(at, usize::MAX);
    }

    /// Takes one `Ready`. Membership changes take effect at once, in the turn in which they are handed out: a
    /// snapshot that came between would replace the configuration that they belong to.
    fn work(&mut self, at: usize) {
        if self.replicas[at].down || !self.replicas[at].raw.has_ready() {
            return;
        }
        let mut ready = self.call(at, |raw, _| raw.ready());
        // Only the attempt to read what is to be applied shows that it is not in memory.
        let cold = self.replicas[at].raw.storage().cold;
        assert!(cold || !ready.is_empty(), "work was announced, there is none");
        self.tell(format_args!("{} {ready:?}", at + 1));
        let (messages, committed) = (std::mem::take(&mut ready.messages), ready.committed_entries.clone());
        let seen = Ready { messages: messages.clone(), ..ready.clone() };
        self.replicas[at].take_in(ready);
        self.witness.judge_ready(&self.replicas[at], &seen);
        self.send(messages);
        for entry in &committed {
            if let Some(change) = ConfChangeV2::from_entry(entry).unwrap() {
                let conf = self.call(at, |raw, now| raw.apply_conf_change(now, &change).unwrap());
                self.witness.judge_conf(entry.index, &conf);
            }
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.soup.extend(messages);
        let lost = self.soup.len().saturating_sub(MAX_SOUP);
        self.soup.drain(..lost);
    }

    /// The `count` oldest writes become durable.
    fn persist(&mut self, at: usize, count: usize) {
        let count = if self.stalled[at] { 0 } else { count };
        let mut reached = None;
        for _ in 0..count {
            let Some(write) = self.replicas[at].persist_one() else { break };
            write.snapshot.iter().for_each(|s| self.witness.judge_snapshot(s));
            reached = if write.awaited { Some(write.number) } else { reached };
        }
        let Some(number) = reached else { return };
        let mut out = Vec::new();
        self.call(at, |raw, now| raw.on_persisted(now, number, &mut out));
        self.tell(format_args!("{} durable {number:?}: {out:?}", at + 1));
        out.iter().for_each(|m| self.witness.judge_released(&self.replicas[at], m));
        self.send(out);
    }

    /// The state machine takes the `count` oldest entries.
    fn apply(&mut self, at: usize, count: usize) {
        let replica = &mut self.replicas[at];
        let count = count.min(replica.to_apply.len());
        let Some(last) = count.checked_sub(1).map(|i| replica.to_apply[i].index) else { return };
        for entry in replica.to_apply.drain(..count) {
            // A snapshot that was installed meanwhile may be ahead.
            if entry.index > replica.machine.at {
                replica.machine.apply(&entry);
                self.witness.judge_applied(&entry, replica.machine);
            }
        }
        self.call(at, |raw, now| raw.on_applied(now, last));
    }

    fn tick(&mut self, at: usize, ticks: u64) {
        self.replicas[at].now += ticks;
        if self.replicas[at].raw.next_deadline() <= self.replicas[at].now {
            self.call(at, |raw, now| raw.tick(now));
        }
    }

    fn propose(&mut self, at: usize, padding: usize) {
        self.proposals += 1;
        let data = [&self.proposals.to_le_bytes()[..], &vec![0; padding]].concat();
        match self.call(at, |raw, now| raw.propose(now, Bytes::from(data))) {
            Ok(_) | Err(StepError::ProposalDropped) => {}
            Err(other) => panic!("propose: {other}"),
        }
    }

    fn propose_change(&mut self, at: usize, script: &mut Script) {
        let kinds = [ConfChangeType::AddNode, ConfChangeType::AddLearnerNode, ConfChangeType::RemoveNode];
        let op =
            |script: &mut Script| ConfChangeSingle::new(kinds[script.below(3)], ReplicaId(1 + script.below(5) as u64));
        let changes = (0..script.below(4)).map(|_| op(script)).collect();
        let transitions =
            [ConfChangeTransition::Auto, ConfChangeTransition::JointImplicit, ConfChangeTransition::JointExplicit];
        let change = ConfChangeV2 { transition: transitions[script.below(3)], changes, context: Bytes::new() };
        match self.call(at, |raw, now| raw.propose_conf_change(now, change)) {
            Ok(_) | Err(StepError::ProposalDropped) => {}
            Err(other) => panic!("propose a change: {other}"),
        }
    }

    fn read(&mut self, at: usize) {
        let number = self.witness.open_read();
        let context = Bytes::copy_from_slice(&number.to_le_bytes());
        match self.call(at, |raw, now| raw.read_index(now, context)) {
            Ok(()) | Err(StepError::ReadDropped) => {}
            Err(other) => panic!("read: {other}"),
        }
    }

    /// Any message under way arrives, mostly an old one.
    fn deliver(&mut self, script: &mut Script) {
        if self.soup.is_empty() {
            return;
        }
        let old = if script.one_in(4) { self.soup.len() } else { self.soup.len().min(3) };
        let m = self.soup.remove(script.below(old));
        let (from, to) = (m.from.0 as usize - 1, m.to.0 as usize - 1);
        if self.aside[from] == self.aside[to] {
            self.arrive(m);
        }
    }

    fn arrive(&mut self, m: Message) {
        let at = m.to.0 as usize - 1;
        if self.replicas[at].down {
            return;
        }
        self.tell(format_args!("{} receives {m:?}", at + 1));
        match self.call(at, |raw, now| raw.step(now, m)) {
            Ok(()) | Err(StepError::PeerNotFound | StepError::ProposalDropped | StepError::ReadDropped) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn lose(&mut self, script: &mut Script) {
        if !self.soup.is_empty() {
            self.soup.remove(script.below(self.soup.len()));
        }
    }

    fn repeat(&mut self, script: &mut Script) {
        if !self.soup.is_empty() {
            let m = self.soup[script.below(self.soup.len())].clone();
            self.send(vec![m]);
        }
    }

    /// The transport says something, true or not.
    fn report(&mut self, at: usize, script: &mut Script) {
        let peer = ReplicaId(1 + script.below(5) as u64);
        match script.below(3) {
            0 => self.call(at, |raw, now| raw.report_unreachable(now, peer)),
            outcome => self.call(at, |raw, now| raw.report_snapshot(now, peer, outcome == 1)),
        }
    }

    /// The process ends. Of the writes that are queued a prefix reaches the disk.
    fn crash(&mut self, at: usize, script: &mut Script) {
        self.crashes += 1;
        let keep = script.below(self.replicas[at].writes.len() + 1);
        self.tell(format_args!("{} crashes, keeps {keep} of {} writes", at + 1, self.replicas[at].writes.len()));
        for _ in 0..keep {
            self.replicas[at].persist_one();
        }
        let replica = &mut self.replicas[at];
        // The state machine survives up to what it synced, or some more.
        let offered = replica.raw.storage().offered.as_ref().map_or(Index::NONE, |s| s.meta.index);
        let low = replica.synced.max(offered);
        let more = low.lag_to(replica.machine.at) as usize;
        replica.synced = low.plus(script.below(more + 1) as u64);
        replica.down = true;
        self.stalled[at] = false;
    }

    fn restart(&mut self, at: usize) {
        let (machine, conf) = self.witness.state_at(self.replicas[at].synced);
        let seed = self.seed ^ (self.crashes as u64) << 8 ^ at as u64;
        self.tell(format_args!("{} starts at {machine:?}", at + 1));
        self.replicas[at].restart(machine, conf, seed);
        self.witness.look(&mut self.replicas, at);
    }

    /// The state machine syncs, and its state is there for followers.
    fn take_snapshot(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let machine = replica.machine;
        replica.synced = machine.at;
        let (known, conf) = self.witness.state_at(machine.at);
        assert_eq!(known, machine);
        let term = self.witness.committed[&machine.at];
        replica.raw.storage_mut().offered = Some(machine.snapshot(term, conf));
    }

    /// Drops log that neither the own machine nor a follower needs.
    fn compact(&mut self, at: usize, script: &mut Script) {
        let replica = &mut self.replicas[at];
        let applied = replica.raw.basic_status().applied;
        let disk = replica.raw.storage_mut();
        let offered = disk.offered.as_ref().map_or(Index::NONE, |s| s.meta.index);
        let (base, upto) = (disk.first_index().prev(), offered.min(applied));
        let upto = base.plus(script.below(base.lag_to(upto) as usize + 1) as u64);
        if upto > base && disk.mem.compact(upto).is_ok() {
            replica.view = replica.view.split_off(&upto);
        }
        self.witness.look(&mut self.replicas, at);
    }

    /// What was not in memory is now.
    fn fetch(&mut self, at: usize) {
        self.replicas[at].raw.storage_mut().cold = false;
        for fetch in self.call(at, |raw, _| raw.take_fetches()) {
            self.call(at, |raw, now| raw.resume_append(now, fetch.to));
        }
    }

    /// Nothing fails any more: within a bounded time a leader commits something new, and all members apply it.
    pub fn heal(&mut self) {
        self.witness.judge_logs(&self.replicas);
        self.aside.fill(false);
        self.stalled.fill(false);
        for at in 0..self.replicas.len() {
            if self.replicas[at].down {
                self.restart(at);
            }
            self.replicas[at].raw.storage_mut().building = false;
        }
        let before = self.witness.last_committed();
        for round in 0..600 {
            self.settle();
            if round > 100 && self.has_caught_up(before) {
                self.witness.judge_logs(&self.replicas);
                return;
            }
            for at in 0..self.replicas.len() {
                if round % 10 == 0 && self.replicas[at].raw.basic_status().role == StateRole::Leader {
                    self.propose(at, 0);
                }
                // A snapshot's fate is known in the end.
                for peer in 1..=self.replicas.len() as u64 {
                    self.call(at, |raw, now| raw.report_snapshot(now, ReplicaId(peer), false));
                }
                self.take_snapshot(at);
                self.tick(at, 1);
            }
        }
        if self.waits_for_removed() {
            self.stuck += 1;
            return;
        }
        let statuses: Vec<Status> = self.replicas.iter().map(|r| r.raw.status()).collect();
        panic!("no progress after everything healed: {statuses:#?}");
    }

    /// Everything that can happen without time happens.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = self.soup.is_empty();
            for at in 0..self.replicas.len() {
                idle &= !self.replicas[at].raw.has_ready();
                self.turn(at);
                self.fetch(at);
            }
            for m in std::mem::take(&mut self.soup) {
                self.arrive(m);
            }
            if idle {
                return;
            }
        }
        panic!("messages bounce for ever");
    }

    /// The one way in which a group is known to stop (as etcd's does): a leader that is removed steps down as soon
    /// as it applies that, the news that it is committed gets lost, and the voters that do not know it need the
    /// vote of a removed replica whose log is longer than theirs.
    fn waits_for_removed(&self) -> bool {
        let conf = self.witness.newest_conf(self.witness.last_committed());
        let last =
            |r: &Replica| LogPos::new(*r.view.values().next_back().unwrap(), *r.view.keys().next_back().unwrap());
        let voter = |r: &&Replica| conf.is_voter(r.id());
        let newest = self.replicas.iter().filter(voter).map(last).max().unwrap();
        let unaware = self.replicas.iter().filter(voter).any(|r| !r.raw.status().conf.equivalent(conf));
        unaware && self.replicas.iter().any(|r| !conf.is_voter(r.id()) && last(r) > newest)
    }

    /// Has every member of the current configuration applied everything, and something new among it?
    fn has_caught_up(&self, before: Index) -> bool {
        let last = self.witness.last_committed();
        let conf = self.witness.newest_conf(last);
        let member = |r: &&Replica| conf.contains(r.id());
        last > before && self.replicas.iter().filter(member).all(|r| r.machine.at == last)
    }
}
