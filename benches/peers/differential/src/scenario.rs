//! What happens in a run: a seed's actions, told in words that fit both cores.
//!
//! Leaves to others: carrying them out (`main`). Invariant: the same seed and the same states give the
//! same actions; no membership change is proposed that cannot work.

use crate::peer::{Change, ELECTION_TICK, Membership, Operation, State, Transition};

/// Members that exist; the later ones begin outside the group.
pub const MEMBERS: usize = 6;

/// One action, followed by a quiet point.
#[derive(Clone, Debug)]
pub enum Action {
    Campaign(u64),
    /// That many entries at once.
    Propose(u64, u64),
    Change(u64, Change),
    Transfer(u64, u64),
    Restart(u64),
    Compact(u64),
    /// Who is on the other side; nobody: healed.
    Part(Vec<bool>),
    /// Ticks for everybody, and new timeouts in front of them.
    Ticks(u64, Vec<u64>),
}

/// SplitMix64: the same numbers everywhere.
pub struct Dice {
    state: u64,
    /// Somebody is on the other side.
    is_parted: bool,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed, is_parted: false }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn member(&mut self) -> u64 {
        1 + self.below(MEMBERS as u64)
    }

    /// Election timeouts, all different: no split votes by chance.
    pub fn timeouts(&mut self) -> Vec<u64> {
        let mut left: Vec<u64> = (ELECTION_TICK..2 * ELECTION_TICK).collect();
        (0..MEMBERS).map(|_| left.swap_remove(self.below(left.len() as u64) as usize)).collect()
    }

    pub fn action(&mut self, states: &[State]) -> Action {
        let leader = self.leader(states);
        match self.below(20) {
            0..=1 => self.campaign(states).unwrap_or(Action::Propose(leader, 1)),
            2..=8 => Action::Propose(leader, 1 + self.below(5)),
            9..=12 => Action::Change(leader, self.change(leader, &states[leader as usize - 1].membership)),
            13 => Action::Transfer(leader, self.member()),
            14 => Action::Restart(self.member()),
            15 => Action::Compact(leader),
            16 => self.part(3),
            17 => self.part(0),
            _ => Action::Ticks(1 + self.below(2 * ELECTION_TICK + 5), self.timeouts()),
        }
    }

    /// Each member goes to the other side with a chance of one in `n`; 0: nobody does.
    fn part(&mut self, n: u64) -> Action {
        let aside: Vec<bool> = (0..MEMBERS).map(|_| n > 0 && self.one_in(n)).collect();
        self.is_parted = aside.contains(&true);
        Action::Part(aside)
    }

    /// Of a voter: raft-rs lets strangers campaign by hand, too, and panics when one wins.
    fn campaign(&mut self, states: &[State]) -> Option<Action> {
        let at = self.member();
        let Membership { voters, outgoing, .. } = &states[at as usize - 1].membership;
        (voters.contains(&at) || outgoing.contains(&at)).then_some(Action::Campaign(at))
    }

    /// Mostly a leader, sometimes anybody.
    fn leader(&mut self, states: &[State]) -> u64 {
        let is_leader = |at: &usize| states[*at].role == "Leader";
        let leaders: Vec<usize> = (0..states.len()).filter(is_leader).collect();
        if leaders.is_empty() || self.one_in(10) {
            return self.member();
        }
        leaders[self.below(leaders.len() as u64) as usize] as u64 + 1
    }

    /// Leaves the leader and somebody who votes alone: raft-rs panics in a leader that was removed, and what keeps a
    /// voter cannot fail.
    fn change(&mut self, leader: u64, now: &Membership) -> Change {
        let count = [1, 1, 1, 2, 3][self.below(5) as usize];
        let mut transition = [Transition::Auto, Transition::Implicit, Transition::Explicit][self.below(3) as usize];
        if self.is_parted {
            // raft-rs appends the entry that leaves by itself also during a transfer, and tells nobody at once:
            // with messages lost, that shows.
            transition = Transition::Explicit;
        }
        let leave = if now.outgoing.is_empty() { self.one_in(20) } else { !self.one_in(4) };
        if leave {
            return Change { transition: Transition::Auto, operations: Vec::new() };
        }
        let mut operations = Vec::new();
        for _ in 0..count {
            let what = [Operation::AddVoter, Operation::AddVoter, Operation::AddLearner, Operation::Remove]
                [self.below(4) as usize];
            operations.push((what, self.member()));
        }
        let anchor = now.voters.first().copied().unwrap_or(leader);
        operations.retain(|(_, id)| *id != leader && *id != anchor);
        if operations.is_empty() {
            operations.push((Operation::AddVoter, anchor));
        }
        Change { transition, operations }
    }
}
