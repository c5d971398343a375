//! What one frame of a schedule makes happen.
//!
//! Leaves to others: how it is done (`conduct`: messages and requests; `driver`: disk, machine, crash).
//! Invariant: byte 0 chooses the action and byte 1 the replica, so that a shrunk story stays readable; an action 0
//! is the most harmless one.

use super::group::Group;
use super::knobs::REPLICAS;
use super::script::Frame;
use pontoon_raft::{ReplicaId, StateRole};

impl Group {
    /// One action.
    pub fn act(&mut self, frame: &mut Frame) {
        let (action, choice) = (frame.below(128), frame.below(8));
        let at = self.choose(choice);
        if self.replicas[at].down {
            if action < 70 {
                self.restart(at);
            }
            return;
        }
        if self.paused[at] && action < 121 {
            self.paused[at] = action > 8;
            return;
        }
        match action {
            0..=11 => self.turn(at),
            12..=17 => self.calm(),
            18..=69 => self.conduct(action, at, frame),
            70..=105 => self.drive(action, at, frame),
            106..=107 => self.read(at),
            _ => self.disturb(action, at, frame),
        }
    }

    /// One of the replicas; of eight choices three go to whoever believes that it leads.
    fn choose(&self, choice: usize) -> usize {
        let leads = |at: &usize| self.replicas[*at].last_seen.role == StateRole::Leader && !self.replicas[*at].down;
        match choice.checked_sub(REPLICAS) {
            None => choice,
            Some(rank) => (0..REPLICAS).filter(leads).cycle().nth(rank).unwrap_or(rank),
        }
    }

    fn conduct(&mut self, action: usize, at: usize, frame: &mut Frame) {
        match action {
            18..=47 => (0..=frame.below(3)).for_each(|_| self.deliver(frame)),
            48..=57 => self.propose(at, frame.below(20)),
            58..=59 => self.propose_v1(at, frame),
            60..=62 => self.propose_v2(at, frame),
            63..=64 => self.transfer(at, ReplicaId(1 + frame.below(REPLICAS) as u64)),
            _ => self.read(at),
        }
    }

    fn drive(&mut self, action: usize, at: usize, frame: &mut Frame) {
        match action {
            70..=78 => self.work(at),
            79..=84 => self.persist(at, 1 + frame.below(3), !frame.one_in(4)),
            85..=86 => self.report_durable(at),
            87..=90 => self.apply(at, 1 + frame.below(4)),
            91..=99 => self.tick(at, 1 + frame.below(500) as u64),
            100..=101 => self.take_snapshot(at),
            102..=103 => {
                if !frame.one_in(3) {
                    self.take_snapshot(at);
                }
                self.compact(at, frame);
            }
            _ => self.fetch(at),
        }
    }

    fn disturb(&mut self, action: usize, at: usize, frame: &mut Frame) {
        match action {
            108 => self.campaign(at),
            109 => self.forget_leader(at),
            110 => self.lose(frame),
            111 => self.repeat(frame),
            112 => self.report(at, frame),
            113 if frame.one_in(2) => self.crash(at, frame),
            114 => self.aside[at] = !self.aside[at],
            115 => self.aside = [false; REPLICAS],
            116 => self.replicas[at].raw.storage_mut().cold = true,
            117 => self.replicas[at].raw.storage_mut().building = !frame.one_in(3),
            118 => self.stalled[at] = true,
            119 => self.stalled = [false; REPLICAS],
            120 if frame.one_in(2) => self.paused[at] = true,
            121 => self.paused = [false; REPLICAS],
            122 => self.coup(at, frame),
            123 if self.stormy => {
                self.work(at);
                self.crash(at, frame);
            }
            124 if self.stormy => self.transfer(at, ReplicaId(1 + frame.below(REPLICAS) as u64)),
            125 => self.let_time_pass(1 + frame.below(16)),
            126 => self.let_time_pass(1 + frame.below(4)),
            127 if self.stormy => self.brownout(at, frame),
            _ => self.turn(at),
        }
    }
}

/// What takes several things at once, and would hardly come about one by one.
impl Group {
    /// Somebody else is made leader behind the back of `at`, which serves reads before and while the news arrives.
    fn coup(&mut self, at: usize, frame: &mut Frame) {
        let (rival, kind, ticks) = (frame.below(REPLICAS), frame.below(4), frame.below(14));
        if rival == at {
            return;
        }
        self.tell(format_args!("{} is to take over from {}, by way {kind}", rival + 1, at + 1));
        if kind == 1 {
            self.transfer(at, ReplicaId(1 + rival as u64));
            self.turn(at);
        }
        self.paused[at] = true;
        if kind == 2 {
            self.brownout(at, frame);
        } else if kind == 3 {
            self.let_time_pass(ticks);
        }
        if !self.replicas[rival].down && kind != 1 {
            self.campaign(rival);
        }
        (0..4).for_each(|_| self.calm());
        self.paused[at] = false;
        self.read(at);
        self.turn(at);
        for _ in 0..4 {
            if let Some(first) = self.soup.iter().position(|m| m.to.0 as usize == at + 1) {
                let m = self.soup.remove(first);
                self.arrive(m);
                self.read(at);
                self.turn(at);
            }
        }
    }
}
