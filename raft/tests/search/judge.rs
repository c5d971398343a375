//! Judges a step of the whole group: figure 3's promises, with what was seen before.
//!
//! Leaves to others: what one replica can break alone (`node`).
//! Invariant: judging hangs on the states before and after alone.

use super::node::{Node, View};
use super::state::{Committed, State};
use pontoon_raft::*;

/// What the judge needs of a node, computed once.
#[derive(Debug)]
pub struct Facts {
    pub id: ReplicaId,
    pub basic: BasicStatus,
    pub view: View,
    pub durable: HardState,
    /// The log on disk.
    pub disk: View,
    pub applied: Index,
    pub writes: usize,
    /// Does it answer a leader of a lower term?
    answers_lower: bool,
    /// Does it answer a candidate of a lower term?
    answers_lower_votes: bool,
}

impl Facts {
    pub fn of(node: &Node, config: &Config) -> Facts {
        let mem = &node.raw.storage().mem;
        let base = mem.first_index().prev();
        let seen = |e: &Entry| super::node::Seen { term: e.term, data: 0, change: e.kind != EntryKind::Normal };
        let entries = mem.all_entries().iter().map(seen).collect();
        let basic = node.raw.basic_status();
        Facts {
            id: basic.id,
            basic,
            view: node.view.clone(),
            durable: node.durable(),
            disk: View { base, base_term: mem.term(base).unwrap(), entries },
            applied: node.applied,
            writes: node.writes(),
            answers_lower: config.check_quorum || config.pre_vote,
            answers_lower_votes: config.strict && !config.pre_vote,
        }
    }

    /// Is this entry durable here? What was compacted was committed.
    fn holds(&self, pos: LogPos) -> bool {
        pos.index < self.disk.base || self.disk.term(pos.index) == Some(pos.term)
    }
}

/// Will nobody ever listen to this message? Terms never fall below the durable one, and the leader or candidate of
/// a term that it has left does not come back to it.
pub fn is_dead(m: &Message, to: &Facts) -> bool {
    let past = m.term < to.durable.term;
    let left = m.term == to.durable.term && m.term == to.basic.term;
    match m.body {
        Body::Append(_) | Body::Heartbeat { .. } => past && !to.answers_lower,
        Body::PreVote(_) => false,
        Body::Vote(_) => past && !to.answers_lower_votes,
        Body::VoteResp { .. } => past || (left && to.basic.role != StateRole::Candidate),
        Body::AppendResp(_) | Body::HeartbeatResp { .. } => {
            past || (left && matches!(to.basic.role, StateRole::Follower | StateRole::PreCandidate))
        }
        _ => past && m.term != Term::NONE,
    }
}

/// A rise of the commit index, and the configuration that it took place in.
pub type Commits = [(Index, ConfState)];

/// `at` went from `before` to `all[at]`. Updates what was seen.
pub fn judge(state: &mut State, at: usize, before: &Facts, all: &[&Facts], commits: &Commits, crashed: bool) {
    let facts = all[at];
    let (now, was) = (&facts.basic, &before.basic);
    if !crashed {
        assert!(now.term >= was.term && now.commit >= was.commit && now.applied >= was.applied, "{was:?} {now:?}");
        let kept = now.term > was.term || was.vote.is_none() || now.vote == was.vote;
        assert!(kept, "a second vote in one term: {was:?} {now:?}");
    }
    assert!(facts.disk.base <= facts.applied && facts.applied <= now.commit, "{facts:?}");
    if now.role == StateRole::Leader {
        judge_leader(state, facts);
    }
    for (commit, conf) in commits.iter().filter(|(commit, _)| *commit > before.basic.commit) {
        if *commit > state.last_committed() {
            judge_commit(state, facts, all, *commit, conf);
        }
    }
    judge_prefix(state, facts);
    all.iter().filter(|other| other.id != facts.id).for_each(|other| judge_matching(facts, other));
}

fn judge_leader(state: &mut State, facts: &Facts) {
    let term = facts.basic.term;
    let known = &mut state.leaders[term.0 as usize];
    let id = facts.id.0 as u8;
    assert!(*known == 0 || *known == id, "election safety in term {term}: {known} and {id}");
    *known = id;
    for (committed, index) in state.committed.iter().zip((1..).map(Index)) {
        if u64::from(committed.by) < term.0 && index >= facts.view.base {
            let found = facts.view.term(index);
            assert_eq!(found, Some(Term(u64::from(committed.term))), "leader completeness at {index}: {facts:?}");
        }
    }
}

/// Only a leader learns first that something is committed, and then a quorum of both halves has it on disk.
fn judge_commit(state: &mut State, facts: &Facts, all: &[&Facts], commit: Index, conf: &ConfState) {
    let now = &facts.basic;
    // A leader that removed itself in this very step has stepped down by now.
    let led = state.leaders[now.term.0 as usize] == facts.id.0 as u8;
    assert!(led, "a commit that no leader made: {now:?}");
    let pos = LogPos { term: facts.view.term(commit).unwrap(), index: commit };
    assert_eq!(pos.term, now.term, "entries of earlier terms are not counted (Raft 5.4.2)");
    for half in [&conf.voters, &conf.voters_outgoing] {
        let durable = half.iter().filter(|id| all.iter().any(|f| f.id == **id && f.holds(pos))).count();
        assert!(half.is_empty() || durable > half.len() / 2, "{pos:?} is durable on {durable} of {half:?}");
    }
    for index in (state.last_committed().next().0..=commit.0).map(Index) {
        let term = facts.view.term(index).unwrap().0 as u8;
        state.committed.push(Committed { term, by: now.term.0 as u8 });
    }
}

/// What a replica takes for committed is what was committed; at most one membership change is behind that.
fn judge_prefix(state: &State, facts: &Facts) {
    for index in (facts.view.base.0.max(1)..=facts.basic.commit.0).map(Index) {
        let (own, known) = (facts.view.term(index), state.committed_term(index));
        assert_eq!(own, known, "committed at {index} is another entry: {facts:?}");
    }
    let behind = (state.last_committed().next().0..=facts.view.last().0).map(Index);
    let pending = behind.filter(|index| facts.view.get(*index).is_some_and(|seen| seen.change)).count();
    assert!(pending <= 1, "{pending} membership changes are pending: {facts:?}");
}

/// Two logs that agree on one entry agree on it wholly, and on everything before it.
fn judge_matching(a: &Facts, b: &Facts) {
    let (low, high) = (a.view.base.max(b.view.base).0 + 1, a.view.last().min(b.view.last()).0);
    let mut agreed = false;
    for index in (low..=high).rev().map(Index) {
        let (x, y) = (a.view.get(index), b.view.get(index));
        let same_term = x.map(|s| s.term) == y.map(|s| s.term);
        assert!(!same_term || x == y, "one term, two entries at {index}: {a:?} {b:?}");
        assert!(same_term || !agreed, "log matching at {index}: {a:?} {b:?}");
        agreed |= same_term;
    }
}

/// Does every quorum of `a` share a member with every quorum of `b`? By brute force.
pub fn overlap(a: &ConfState, b: &ConfState) -> bool {
    let is_quorum = |conf: &ConfState, of: u32| {
        let wins = |half: &Vec<ReplicaId>| {
            let in_favour = half.iter().filter(|id| of >> id.0 & 1 == 1).count();
            half.is_empty() || in_favour > half.len() / 2
        };
        wins(&conf.voters) && wins(&conf.voters_outgoing)
    };
    let all = 0b1110;
    (0..=all).filter(|of| of & !all == 0 && is_quorum(a, *of)).all(|of| !is_quorum(b, all & !of))
}
