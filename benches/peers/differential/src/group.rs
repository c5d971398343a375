//! A group of one core's members: links that lose what a partition cuts, turns until nothing moves.
//!
//! Leaves to others: what happens (`scenario`), judgement (`main`).
//! Invariant: everything is delivered in order of sending, so that equal calls give equal runs.

use crate::peer::{Applied, Member, Vote};
use std::collections::VecDeque;

/// Turns of all members after which messages must be bouncing for ever.
const MAX_ROUNDS: usize = 2_000;

pub struct Group<P: Member> {
    members: Vec<Option<P>>,
    queue: VecDeque<P::Message>,
    /// Who is on the other side of a partition.
    aside: Vec<bool>,
    timeouts: Vec<u64>,
    /// Vote requests and answers sent since the last quiet point, lost ones included.
    pub votes: Vec<Vote>,
}

impl<P: Member> Group<P> {
    /// Members 1 to `members`; the first `voters` of them vote.
    pub fn new(members: usize, voters: usize, timeouts: &[u64]) -> Group<P> {
        let voters: Vec<u64> = (1..=voters as u64).collect();
        let members: Vec<Option<P>> = (1..=members as u64).map(|id| Some(P::new(id, &voters))).collect();
        let aside = vec![false; members.len()];
        let mut group =
            Group { members, queue: VecDeque::new(), aside, timeouts: timeouts.to_vec(), votes: Vec::new() };
        group.pin_all();
        group
    }

    pub fn member(&mut self, id: u64) -> &mut P {
        self.members[id as usize - 1].as_mut().expect("taken out only while it restarts")
    }

    /// Calls one member, then overwrites what it may have drawn.
    pub fn call<R>(&mut self, id: u64, what: impl FnOnce(&mut P) -> R) -> R {
        let timeout = self.timeouts[id as usize - 1];
        let member = self.member(id);
        let result = what(member);
        member.pin_timeout(timeout);
        result
    }

    pub fn restart(&mut self, id: u64) {
        let slot = &mut self.members[id as usize - 1];
        *slot = slot.take().map(P::restart);
        self.call(id, |_| ());
    }

    pub fn set_timeouts(&mut self, timeouts: &[u64]) {
        self.timeouts = timeouts.to_vec();
        self.pin_all();
    }

    pub fn part(&mut self, aside: &[bool]) {
        self.aside = aside.to_vec();
    }

    fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.members.len() as u64
    }

    fn pin_all(&mut self) {
        self.ids().for_each(|id| self.call(id, |_| ()));
    }

    /// One tick for everybody.
    pub fn tick(&mut self) {
        for id in self.ids() {
            self.call(id, P::tick);
            self.settle();
        }
    }

    /// Turns and deliveries until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for id in self.ids() {
                moved |= self.turn(id);
            }
            moved |= !self.queue.is_empty();
            while let Some(m) = self.queue.pop_front() {
                self.deliver(m);
            }
            if !moved {
                return;
            }
        }
        panic!("{}: still moving after {MAX_ROUNDS} rounds", P::NAME);
    }

    fn turn(&mut self, id: u64) -> bool {
        let mut out = Vec::new();
        let moved = self.call(id, |member| member.turn(&mut out));
        self.votes.extend(out.iter().filter_map(P::vote));
        self.queue.extend(out);
        if let Some(index) = self.member(id).take_installed() {
            let contents = self.contents_up_to(index);
            *self.member(id).applied() = contents;
        }
        moved
    }

    /// What a snapshot at `index` stands for: somebody applied it all.
    fn contents_up_to(&mut self, index: u64) -> Vec<Applied> {
        let source = self
            .ids()
            .find(|id| self.member(*id).applied().last().is_some_and(|last| last.index >= index))
            .expect("whoever made the snapshot applied what is in it");
        self.member(source).applied().iter().filter(|a| a.index <= index).cloned().collect()
    }

    /// What a partition cuts is lost in silence: after a report of it, an ack that says nothing new frees our
    /// probe, but not raft-rs's (raft-core S16), and a transfer that was lost is sent again.
    fn deliver(&mut self, m: P::Message) {
        let (from, to) = P::route(&m);
        let exists = self.ids().contains(&to);
        let is_cut = !exists || self.aside[from as usize - 1] != self.aside[to as usize - 1];
        let is_snapshot = P::is_snapshot(&m);
        if !is_cut {
            self.call(to, |member| member.step(m));
        }
        if is_snapshot {
            self.call(from, |member| member.report_snapshot(to, !is_cut));
        }
    }
}
