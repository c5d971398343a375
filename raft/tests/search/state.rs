//! A state of the whole group: which nodes, which messages, which budgets are left, and what was seen so far.
//!
//! Nodes and messages are numbers into the tables of `explore`. What was seen (leaders, commits, floors of reads)
//! belongs to the state: the promises are about histories.
//! Invariant: equal states have equal bytes (`encode`).

use pontoon_raft::{Index, Term};

pub const NODES: usize = 3;
pub const TERMS: usize = 8;
pub const BUDGETS: usize = 10;

/// A committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub term: u8,
    /// Term of the leader that committed it.
    pub by: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub nodes: [u32; NODES],
    /// What may still be done how often (`scopes::Budget`).
    pub left: [u8; BUDGETS],
    /// Who led each term; 0 nobody.
    pub leaders: [u8; TERMS],
    /// Sorted.
    pub soup: Vec<u32>,
    /// From index 1 on.
    pub committed: Vec<Committed>,
    /// For each read that was asked for: what was committed then.
    pub floors: Vec<u8>,
}

impl State {
    pub fn last_committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    pub fn committed_term(&self, at: Index) -> Option<Term> {
        let place = at.0.checked_sub(1)?;
        self.committed.get(place as usize).map(|c| Term(u64::from(c.term)))
    }

    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        self.nodes.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        bytes.extend_from_slice(&self.left);
        bytes.extend_from_slice(&self.leaders);
        bytes.extend([self.soup.len() as u8, self.committed.len() as u8, self.floors.len() as u8]);
        self.soup.iter().for_each(|m| bytes.extend_from_slice(&m.to_le_bytes()));
        self.committed.iter().for_each(|c| bytes.extend([c.term, c.by]));
        bytes.extend_from_slice(&self.floors);
    }

    pub fn decode(bytes: &[u8]) -> State {
        let number = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
        let (head, rest) = bytes.split_at(4 * NODES + BUDGETS + TERMS + 3);
        let (nodes, more) = head.split_at(4 * NODES);
        let (left, more) = more.split_at(BUDGETS);
        let (leaders, lengths) = more.split_at(TERMS);
        let (soup, rest) = rest.split_at(4 * usize::from(lengths[0]));
        let (committed, floors) = rest.split_at(2 * usize::from(lengths[1]));
        State {
            nodes: std::array::from_fn(|at| number(&nodes[4 * at..4 * at + 4])),
            left: left.try_into().unwrap(),
            leaders: leaders.try_into().unwrap(),
            soup: soup.chunks(4).map(number).collect(),
            committed: committed.chunks(2).map(|c| Committed { term: c[0], by: c[1] }).collect(),
            floors: floors.to_vec(),
        }
    }
}
