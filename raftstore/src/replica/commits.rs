//! Word of a commit that nothing else tells: held back while this node writes and for a moment after, because the next append
//! tells it anyway.
//!
//! An append without entries to a member that is fed by a stream says only what is committed; no caller waits for it. It
//! leaves once the poller has had no write on its way for that moment, or not at all if an append or a heartbeat has said as
//! much before.
//! Leaves to others: what is committed and who is told (the core), when the poller is quiet (the poller).
//! Invariant: at most one message per member is held, of the current term, and none while a change of members is under
//! way: who leaves must hear of it. A held one that the core repeats after a heartbeat interval leaves: it may be what
//! finds out that an append was lost.

use super::{Replica, Work};
use crate::ids::Tick;
use pontoon_raft::{Body, Message};

/// What is held back.
#[derive(Default)]
pub(super) struct HeldCommits {
    /// Since when, and what.
    messages: Vec<(Tick, Message)>,
}

impl Replica {
    /// Is word of a commit held back?
    #[must_use]
    pub fn holds_commits(&self) -> bool {
        !self.held.messages.is_empty()
    }

    /// The poller has had no write on its way for a moment: what is held back leaves.
    pub fn release_commits(&mut self, work: &mut Work) {
        let term = self.raft.basic_status().term;
        for (_, message) in std::mem::take(&mut self.held.messages) {
            if message.term == term && self.closed().is_none() {
                self.send(message, work);
            }
        }
    }

    /// The message, unless it is held back. What it says need not be said again.
    pub(super) fn hold_commit(&mut self, message: Message, now: Tick) -> Option<Message> {
        let (Body::Append(_) | Body::Heartbeat { .. }) = message.body else { return Some(message) };
        let before = self.held.messages.iter().position(|held| held.1.to == message.to);
        match &message.body {
            Body::Append(append) if append.entries.is_empty() && self.may_wait(&message) => {
                let since = before.map_or(now, |at| self.held.messages.swap_remove(at).0);
                if now >= since + self.limits.heartbeat_ticks {
                    return Some(message);
                }
                self.held.messages.push((since, message));
                None
            }
            body => {
                let said = |held: &Message| matches!(body, Body::Append(_)) || commit_of(body) >= commit_of(&held.body);
                if let Some(at) = before.filter(|at| said(&self.held.messages[*at].1)) {
                    self.held.messages.swap_remove(at);
                }
                Some(message)
            }
        }
    }

    /// Is it only word of a commit, and nobody in a hurry for it?
    fn may_wait(&self, message: &Message) -> bool {
        let record = &self.machine.record;
        record.goal.is_none() && !record.conf_state.is_joint() && self.raft.is_streaming_to(message.to)
    }
}

fn commit_of(body: &Body) -> u64 {
    match body {
        Body::Append(append) => append.commit.0,
        Body::Heartbeat { commit, .. } => commit.0,
        _ => 0,
    }
}
