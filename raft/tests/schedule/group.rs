//! The group of a schedule: replicas, messages under way, and what is broken at the moment.
//!
//! Leaves to others: what happens (`action`, `conduct`, `driver`, `healing`), judgement (`witness`).
//! Invariant: the core is called through `call` alone, so that nothing escapes the witness.

use super::knobs::{Clock, Knobs, REPLICAS};
use super::replica::{Disk, Replica, first_snapshot};
use super::script::Script;
use super::summary::Summary;
use super::witness::Witness;
use pontoon_raft::*;

/// Messages under way at most; the oldest are lost.
const MAX_SOUP: usize = 200;

pub struct Group {
    pub replicas: Vec<Replica>,
    pub soup: Vec<Message>,
    /// Who is on the other side of a partition.
    pub aside: [bool; REPLICAS],
    /// Whose disk does nothing.
    pub stalled: [bool; REPLICAS],
    /// Who does nothing at all for a while.
    pub paused: [bool; REPLICAS],
    pub witness: Witness,
    /// Hundredths of a tick.
    pub time: u64,
    clocks: Option<[Clock; REPLICAS]>,
    pub seed: u64,
    pub stormy: bool,
    pub proposals: u64,
    pub crashes: usize,
    pub transfers: usize,
    pub rounds: usize,
    pub stuck: usize,
    tell: bool,
}

impl Group {
    pub fn new(script: &mut Script<'_>, tell: bool) -> Group {
        let knobs = Knobs::read(&mut script.header());
        let first = first_snapshot(&knobs.voters);
        let config = |id: u64| {
            let seed = knobs.config.seed.wrapping_add(id);
            Config { id: ReplicaId(id), seed, ..knobs.config.clone() }
        };
        let mut group = Group {
            replicas: (1..=REPLICAS as u64).map(|id| Replica::new(config(id), &first)).collect(),
            soup: Vec::new(),
            aside: [false; REPLICAS],
            stalled: [false; REPLICAS],
            paused: [false; REPLICAS],
            witness: Witness::new(&first),
            time: 0,
            clocks: knobs.clocks,
            seed: knobs.config.seed,
            stormy: knobs.stormy,
            proposals: 0,
            crashes: 0,
            transfers: 0,
            rounds: 0,
            stuck: 0,
            tell,
        };
        group.tell(format_args!("{} voters, {:?}, clocks {:?}", knobs.voters.len(), knobs.config, knobs.clocks));
        if knobs.warm {
            group.warm_up();
        }
        group
    }

    fn warm_up(&mut self) {
        // Behind the time in which a restarted voter holds its vote.
        self.pass_time(2_000);
        self.call(0, |raw, now| raw.campaign(now));
        self.settle();
    }

    pub fn summary(&self, actions: usize) -> Summary {
        let Group { crashes, transfers, rounds, stuck, witness, .. } = self;
        let mut summary = witness.summary();
        (summary.schedules, summary.actions) = (1, actions);
        (summary.crashes, summary.transfers, summary.rounds, summary.stuck) = (*crashes, *transfers, *rounds, *stuck);
        summary
    }

    pub fn tell(&self, what: std::fmt::Arguments<'_>) {
        if self.tell {
            super::say(&what.to_string());
        }
    }

    /// The only way to the core.
    pub fn call<R>(&mut self, at: usize, what: impl FnOnce(&mut RawNode<Disk>, Tick) -> R) -> R {
        self.read_clock(at);
        let replica = &mut self.replicas[at];
        let result = what(&mut replica.raw, replica.now);
        self.witness.look(&mut self.replicas, at);
        result
    }

    pub fn read_clock(&mut self, at: usize) {
        if let Some(clocks) = &self.clocks {
            let replica = &mut self.replicas[at];
            replica.now = replica.now.max(clocks[at].at(self.time));
        }
    }

    /// `hundredths` of a tick for everybody.
    pub fn pass_time(&mut self, hundredths: u64) {
        self.time += hundredths;
        if self.clocks.is_none() {
            self.replicas.iter_mut().for_each(|r| r.now += hundredths / 100);
        }
    }

    /// `at` looks at its clock; without bounds on clocks only its own goes on.
    pub fn tick(&mut self, at: usize, hundredths: u64) {
        if self.clocks.is_some() {
            self.time += hundredths;
        } else {
            self.replicas[at].now += hundredths / 100;
        }
        self.fire(at);
    }

    pub fn fire(&mut self, at: usize) {
        self.read_clock(at);
        let replica = &self.replicas[at];
        if !replica.down && replica.raw.next_deadline() <= replica.now {
            self.tell(format_args!("{} fires at {}", at + 1, replica.now));
            self.call(at, |raw, now| raw.tick(now));
        }
    }

    pub fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.soup.extend(messages);
        let lost = self.soup.len().saturating_sub(MAX_SOUP);
        self.soup.drain(..lost);
    }

    /// Whoever can does his work, and everything under way arrives.
    pub fn calm(&mut self) {
        for at in 0..REPLICAS {
            if !self.replicas[at].down && !self.paused[at] {
                self.turn(at);
            }
        }
        for m in std::mem::take(&mut self.soup) {
            let (from, to) = (m.from.0 as usize - 1, m.to.0 as usize - 1);
            if self.paused[to] {
                self.soup.push(m);
            } else if self.aside[from] == self.aside[to] {
                self.arrive(m);
            }
        }
    }

    /// So many ticks for everybody, with calm between them.
    pub fn let_time_pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.pass_time(100);
            for at in (0..REPLICAS).filter(|at| !self.paused[*at]).collect::<Vec<_>>() {
                self.fire(at);
            }
            self.calm();
        }
    }

    /// Everything that can happen without time happens.
    pub fn settle(&mut self) {
        for _ in 0..2_000 {
            let mut idle = self.soup.is_empty();
            for at in 0..self.replicas.len() {
                idle &= !self.has_work(at);
                self.turn(at);
                self.fetch(at);
            }
            if idle {
                return;
            }
            for m in std::mem::take(&mut self.soup) {
                self.arrive(m);
            }
        }
        panic!("messages bounce for ever");
    }
}
