//! The scopes of the search: what may happen, and how often.
//!
//! Base of all: index 1 of term 1 decided the configuration, as in the schedules; replicas 1 to 3.
//! Invariant: every budget is finite and terms are bounded, so that every scope has an end.

use super::node::Node;
use super::state::{BUDGETS, NODES};
use pontoon_raft::*;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Campaign,
    Propose,
    Crash,
    Repeat,
    Change,
    Transfer,
    Read,
    Forget,
    Compact,
    Report,
}

/// How large a search is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For the gate: a minute or two for all scopes.
    Gate,
    /// For the record: at least a million states each.
    Record,
}

pub struct Scope {
    pub name: &'static str,
    /// Budgets for the gate and for the record, and the highest term.
    gate: (&'static [(Budget, u8)], u64),
    record: (&'static [(Budget, u8)], u64),
    /// Who may campaign, as a bit set by id.
    pub campaigners: u32,
    set: fn(&mut Config),
    start: fn(Config) -> Node,
    changes: fn() -> Vec<ConfChangeV2>,
}

use Budget::{Campaign, Change, Compact, Crash, Propose, Read, Repeat, Report, Transfer};

/// All six.
pub const SCOPES: [Scope; 6] = [
    Scope {
        name: "elections with PreVote",
        gate: (&[(Campaign, 1), (Crash, 1)], 3),
        record: (&[(Campaign, 2)], 3),
        campaigners: 0b0110,
        set: |c| c.pre_vote = true,
        start: uneven,
        changes: Vec::new,
    },
    Scope {
        name: "replication, partial persistence, crash",
        gate: (&[(Campaign, 1), (Propose, 1), (Crash, 1)], 3),
        record: (&[(Campaign, 2), (Propose, 1), (Crash, 1)], 3),
        campaigners: 0b0010,
        set: |_| {},
        start: even,
        changes: Vec::new,
    },
    Scope {
        name: "joint change",
        gate: (&[(Campaign, 1), (Change, 2)], 3),
        record: (&[(Campaign, 2), (Change, 2)], 3),
        campaigners: 0b0110,
        set: |_| {},
        start: outsider,
        changes: swap_members,
    },
    Scope {
        name: "transfer",
        gate: (&[(Campaign, 1), (Transfer, 1)], 3),
        record: (&[(Campaign, 1), (Transfer, 1)], 3),
        campaigners: 0b0010,
        set: |c| (c.pre_vote, c.check_quorum) = (true, true),
        start: even,
        changes: Vec::new,
    },
    Scope {
        name: "ReadIndex",
        gate: (&[(Campaign, 1), (Read, 2)], 3),
        record: (&[(Campaign, 2), (Read, 1)], 3),
        campaigners: 0b0010,
        set: |_| {},
        start: even,
        changes: Vec::new,
    },
    Scope {
        name: "snapshot",
        gate: (&[(Campaign, 2), (Report, 1)], 3),
        record: (&[(Campaign, 2), (Crash, 1), (Report, 1), (Compact, 1)], 3),
        campaigners: 0b1010,
        set: |_| {},
        start: laggard,
        changes: Vec::new,
    },
];

impl Scope {
    fn bounds(&self, size: Size) -> &(&'static [(Budget, u8)], u64) {
        if size == Size::Gate { &self.gate } else { &self.record }
    }

    pub fn budgets(&self, size: Size) -> [u8; BUDGETS] {
        let mut left = [0; BUDGETS];
        self.bounds(size).0.iter().for_each(|(budget, n)| left[*budget as usize] = *n);
        left
    }

    pub fn max_term(&self, size: Size) -> Term {
        Term(self.bounds(size).1)
    }

    /// In words.
    pub fn bound(&self, size: Size) -> String {
        let (budgets, term) = self.bounds(size);
        let list: Vec<String> = budgets.iter().map(|(b, n)| format!("{n} {b:?}")).collect();
        format!("{}, term <= {term}", list.join(", "))
    }

    pub fn config(&self, id: u64) -> Config {
        let mut config = Config {
            id: ReplicaId(id),
            max_inflight_msgs: 2,
            disable_proposal_forwarding: true,
            step_down_on_removal: true,
            strict: true,
            async_storage_writes: true,
            ..Config::default()
        };
        (self.set)(&mut config);
        config
    }

    pub fn nodes(&self) -> [Node; NODES] {
        std::array::from_fn(|at| (self.start)(self.config(at as u64 + 1)))
    }

    pub fn changes(&self) -> Vec<ConfChangeV2> {
        (self.changes)()
    }
}

fn base(index: u64, voters: &[u64]) -> Snapshot {
    let voters = voters.iter().map(|id| ReplicaId(*id)).collect();
    let meta = SnapshotMeta { index: Index(index), term: Term(1), conf_state: ConfState::new(voters, Vec::new()) };
    Snapshot { meta, ..Snapshot::default() }
}

fn entry(index: u64) -> Entry {
    Entry { term: Term(1), index: Index(index), ..Entry::default() }
}

fn even(config: Config) -> Node {
    Node::new(config, base(1, &[1, 2, 3]), &[], Index(1))
}

/// Replica 2 has an entry that nobody else has.
fn uneven(config: Config) -> Node {
    let extra = if config.id == ReplicaId(2) { vec![entry(2)] } else { Vec::new() };
    Node::new(config, base(1, &[1, 2, 3]), &extra, Index(1))
}

/// Replica 3 is not a member yet.
fn outsider(config: Config) -> Node {
    Node::new(config, base(1, &[1, 2]), &[], Index(1))
}

/// Replica 3 has one entry that nobody keeps any more.
fn laggard(config: Config) -> Node {
    let at = if config.id == ReplicaId(3) { 1 } else { 2 };
    Node::new(config, base(at, &[1, 2, 3]), &[], Index(at))
}

/// {1, 2} to {1, 3} and out of the joint state.
fn swap_members() -> Vec<ConfChangeV2> {
    let change = |kind, id| ConfChangeSingle::new(kind, ReplicaId(id));
    let changes = vec![change(ConfChangeType::AddNode, 3), change(ConfChangeType::RemoveNode, 2)];
    let transition = ConfChangeTransition::JointExplicit;
    vec![ConfChangeV2 { transition, changes, ..ConfChangeV2::default() }, ConfChangeV2::leave_joint()]
}
