//! Messages for groups without a replica here: who may be born by a message (boot.md 3).
//!
//! Leaves to others: joining a running group, which comes with membership change; until then nobody is born this way.
//! Invariant: a vote never gives birth, nor does anything for a replica id below the tombstone.

use super::Lifecycle;
use crate::env::PeerIdentity;
use crate::ids::ReplicaId;
use crate::task::GroupMessage;
use pontoon_raft::Body;

/// What a message for an unknown group comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// Votes, answers and everything else that no leader sends.
    NotByThis,
    /// A replica of this id, or a higher one, was destroyed here.
    Buried,
    /// A member is awaited here that nobody has created yet: it will be by `create`, or by joining once that exists.
    NotYet,
}

impl Birth {
    /// For counting.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Birth::NotByThis => "unknown_group",
            Birth::Buried => "destroyed",
            Birth::NotYet => "not_created",
        }
    }
}

/// Judges a message for a group without a replica here; `tombstone` is the lowest id that may be born.
#[must_use]
pub fn judge_stranger(message: &GroupMessage, tombstone: Option<ReplicaId>) -> Birth {
    let to = message.message.to;
    if tombstone.is_some_and(|lowest| to < lowest) {
        return Birth::Buried;
    }
    match message.message.body {
        Body::Append(_) | Body::Heartbeat { .. } | Body::Snap { .. } if to.is_valid_member() => Birth::NotYet,
        _ => Birth::NotByThis,
    }
}

impl Lifecycle {
    /// Dropped and counted. What a message for a group that is being created asks for comes again.
    pub(super) fn on_stranger(&self, from: PeerIdentity, message: &GroupMessage) {
        let birth = judge_stranger(message, self.tombstones.get(&message.group).copied());
        tracing::debug!(node = %from.node, group = %message.group, ?birth, "message for a group that is not here");
        metrics::counter!("pontoon_messages_rejected_total", "reason" => birth.reason()).increment(1);
    }
}
