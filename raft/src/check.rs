//! Judges messages from outside before they reach the state machine.
//!
//! Leaves to others: terms, membership, roles. Invariant: what passes cannot make the core overflow, leave a gap
//! in the log, or take itself for somebody else.

use crate::error::StepError;
use crate::ids::{LogPos, ReplicaId, Term};
use crate::message::{Append, Body, Message};

/// Terms and indexes above this were not reached by counting.
const MAX_NUMBER: u64 = 1 << 62;

/// Refuses what contradicts itself. `strict`: also what the original accepts without need (term 0).
pub(crate) fn check(m: &Message, own: ReplicaId, strict: bool) -> Result<(), StepError> {
    let to_me = m.to == own || m.to.is_none();
    require(to_me, "a message to somebody else")?;
    require(m.term.0 <= MAX_NUMBER, "a term out of reach")?;
    let from_member = m.from.is_valid_member();
    match &m.body {
        Body::Propose { entries } => return require(!entries.is_empty(), "a proposal without entries"),
        Body::ReadIndex { entries } => return require(entries.len() == 1, "a read without one context"),
        Body::Append(append) => {
            require(from_member, "an append from nobody")?;
            check_append(append, m.term)?;
        }
        Body::Heartbeat { commit, .. } => require(from_member && commit.0 <= MAX_NUMBER, "an impossible heartbeat")?,
        Body::Snap { snapshot } => require(from_member && in_reach(snapshot.meta.pos()), "an impossible snapshot")?,
        Body::Vote(request) | Body::PreVote(request) => {
            require(from_member && in_reach(request.last) && m.term.0 > 0, "an impossible vote request")?;
        }
        Body::VoteResp { .. } | Body::PreVoteResp { .. } => require(m.term.0 > 0, "a vote without term")?,
        Body::AppendResp(answer) => {
            let hint = answer.reject.unwrap_or_default();
            require(answer.index.0 <= MAX_NUMBER && in_reach(hint), "an impossible ack")?;
        }
        Body::ReadIndexResp { index, .. } => require(index.0 <= MAX_NUMBER, "a read index out of reach")?,
        _ => {}
    }
    require(!strict || m.term.0 > 0 || m.body.is_local(), "no term")
}

fn check_append(append: &Append, term: Term) -> Result<(), StepError> {
    require(in_reach(append.prev) && append.commit.0 <= MAX_NUMBER, "an append out of reach")?;
    let (entries, prev) = (&append.entries, append.prev);
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let follow = entries.is_ordered() && first.index == prev.index.next() && first.term >= prev.term;
    require(follow, "entries that do not follow one another")?;
    require(term == Term::NONE || last.term <= term, "entries of a future term")
}

fn in_reach(pos: LogPos) -> bool {
    pos.term.0 <= MAX_NUMBER && pos.index.0 <= MAX_NUMBER
}

fn require(kept: bool, else_it_is: &'static str) -> Result<(), StepError> {
    if kept { Ok(()) } else { Err(StepError::Malformed(else_it_is)) }
}
