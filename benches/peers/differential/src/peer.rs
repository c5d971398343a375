//! What the two cores have in common: one member of a group, seen from its driver, and what is compared of it.
//!
//! Leaves to others: the cores themselves (`ours`, `theirs`), the network between members (`group`).
//! Invariant: nothing here depends on which core answers.

use std::fmt;

/// Ticks without a leader before a campaign, at least; twice as many at most.
pub const ELECTION_TICK: u64 = 10;
/// Ticks between heartbeats.
pub const HEARTBEAT_TICK: u64 = 1;

/// A membership operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    AddVoter,
    AddLearner,
    Remove,
}

/// How a membership change is left again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    Auto,
    Implicit,
    Explicit,
}

/// A membership change; no operations: leave the joint configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub transition: Transition,
    pub operations: Vec<(Operation, u64)>,
}

/// A vote request or its answer, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    pub kind: &'static str,
    pub from: u64,
    pub to: u64,
    pub term: u64,
    /// Term and index of the candidate's last entry; 0 in answers.
    pub last: (u64, u64),
    pub reject: bool,
}

/// An applied entry, or all that a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub term: u64,
    pub index: u64,
    pub what: String,
}

/// The membership as a replica knows it, lists ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<u64>,
    pub outgoing: Vec<u64>,
    pub learners: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}

/// What is compared at a quiet point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub role: String,
    pub leader: u64,
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
    pub membership: Membership,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let State { role, leader, term, vote, commit, membership: m } = self;
        write!(f, "{role} of {leader} at term {term}, vote {vote}, commit {commit}, {:?}", m.voters)?;
        write!(
            f,
            " && {:?}, learners {:?} next {:?}{}",
            m.outgoing,
            m.learners,
            m.learners_next,
            if m.auto_leave { ", leaves" } else { "" }
        )
    }
}

/// One member with its storage. Calls return false where the core refuses.
pub trait Member: Sized {
    type Message;
    const NAME: &'static str;

    fn new(id: u64, voters: &[u64]) -> Self;
    fn tick(&mut self);
    /// Both cores draw timeouts from generators of their own: overwrite what was drawn.
    fn pin_timeout(&mut self, ticks: u64);
    fn campaign(&mut self);
    fn propose(&mut self, data: Vec<u8>) -> bool;
    fn change(&mut self, change: &Change) -> bool;
    fn transfer(&mut self, to: u64);
    fn step(&mut self, m: Self::Message);
    fn report_snapshot(&mut self, peer: u64, ok: bool);
    /// Persists, sends and applies what is due. False if nothing was.
    fn turn(&mut self, out: &mut Vec<Self::Message>) -> bool;
    /// The stored log up to what is applied gives way to a snapshot.
    fn compact(&mut self);
    /// Loses everything that is not stored.
    fn restart(self) -> Self;
    fn state(&self) -> State;
    fn applied(&mut self) -> &mut Vec<Applied>;
    /// Index of a snapshot that was just installed: its contents come from elsewhere.
    fn take_installed(&mut self) -> Option<u64>;

    /// Sender and receiver.
    fn route(m: &Self::Message) -> (u64, u64);
    fn vote(m: &Self::Message) -> Option<Vote>;
    fn is_snapshot(m: &Self::Message) -> bool;
}
