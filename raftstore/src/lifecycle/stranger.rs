//! Messages for groups that no replica runs here: who is born by them (boot.md 3), whom they end.
//!
//! Leaves to others: writing the birth (`lifecycle`), what is sent to the unborn (`replica/peers`).
//! Invariant: a vote never gives birth, nor does anything for a replica id below the tombstone, for a kind that is not
//! registered, or for another disk than this one. Births by message are bounded per second and in flight.

use super::{Life, Lifecycle};
use crate::env::{Instant, PeerIdentity};
use crate::group_spec::GroupSpec;
use crate::ids::{Incarnation, ReplicaId};
use crate::task::{Aside, GroupMessage, Invitation};

/// Births by message whose record is being written.
const MAX_IN_FLIGHT: usize = 256;
/// Births by message in one second.
const MAX_PER_SECOND: usize = 1024;

/// What a message for an unknown group comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// Votes, answers and everything else that no leader sends.
    NotByThis,
    /// A replica of this id, or a higher one, was destroyed here.
    Buried,
    /// It says nothing of the group: an invitation follows, or `create`.
    Uninvited,
    /// Its invitation contradicts itself, or is for another node or disk.
    Contradicted,
    /// The group's kind is not registered here.
    UnknownKind,
    /// It may be born.
    Invited,
}

impl Birth {
    /// For counting.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Birth::NotByThis => "unknown_group",
            Birth::Buried => "destroyed",
            Birth::Uninvited => "not_created",
            Birth::Contradicted => "bad_invitation",
            Birth::UnknownKind => "unknown_kind",
            Birth::Invited => "born",
        }
    }
}

/// Judges a message for a group without a replica on this node (`me`); `tombstone` is the lowest id that may be born.
pub fn judge_stranger(
    me: PeerIdentity,
    from: PeerIdentity,
    message: &GroupMessage,
    tombstone: Option<ReplicaId>,
    knows_kind: impl Fn(&str) -> bool,
) -> Birth {
    let to = message.message.to;
    if tombstone.is_some_and(|lowest| to < lowest) {
        return Birth::Buried;
    }
    if !message.message.body.is_from_leader() || !to.is_valid_member() {
        return Birth::NotByThis;
    }
    let Aside::Invitation(invitation) = &message.aside else { return Birth::Uninvited };
    if !is_meant(me, from, message, invitation) {
        return Birth::Contradicted;
    }
    if knows_kind(&invitation.creation.kind) { Birth::Invited } else { Birth::UnknownKind }
}

/// Does an invitation agree with itself, its sender and this disk? A member at birth is known by its node; whoever came
/// later, by the disk that the configuration names.
fn is_meant(me: PeerIdentity, from: PeerIdentity, message: &GroupMessage, invitation: &Invitation) -> bool {
    let Some(spec) = GroupSpec::of(message.group, &invitation.creation) else { return false };
    let node_at_birth = |replica: ReplicaId| invitation.creation.members.iter().find(|m| m.0 == replica).map(|m| m.1);
    let at_birth = message.message.to < spec.next_replica();
    let named = invitation.disk == me.incarnation;
    let unnamed_at_birth = at_birth && invitation.disk == Incarnation(0);
    (named || unnamed_at_birth)
        && (!at_birth || node_at_birth(message.message.to) == Some(me.node))
        && node_at_birth(message.message.from).is_none_or(|node| node == from.node)
}

/// Bounds births by message: they come again.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Being written.
    in_flight: usize,
    /// The second that is counted.
    second: u64,
    /// Births in it.
    count: usize,
}

impl Quota {
    fn take(&mut self, now: Instant) -> bool {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.count) = (second, 0);
        }
        let fits = self.in_flight < MAX_IN_FLIGHT && self.count < MAX_PER_SECOND;
        if fits {
            self.in_flight += 1;
            self.count += 1;
        }
        fits
    }

    pub(super) fn on_born(&mut self, by_message: bool) {
        self.in_flight -= usize::from(by_message);
    }
}

impl Lifecycle {
    /// What is not born now is asked for again by the leader's next heartbeat.
    pub(super) fn on_stranger(&mut self, now: Instant, from: PeerIdentity, message: &GroupMessage) {
        let (group, to) = (message.group, message.message.to);
        match self.lives.get(&group) {
            Some(Life::Standing { digest, replica, runs: false }) => {
                if let Some(replica) = ends(self.me, message, *digest, *replica) {
                    self.on_dismissed(group, replica);
                }
                return;
            }
            Some(_) => return,
            None if self.closed.is_some() => return,
            None => {}
        }
        let tombstone = self.tombstones.get(&group).copied();
        let birth = judge_stranger(self.me, from, message, tombstone, |kind| self.kinds.contains_key(kind));
        tracing::debug!(node = %from.node, %group, replica = %to, ?birth, "message for a group that is not here");
        let Aside::Invitation(invitation) = &message.aside else { return refused(birth.reason()) };
        if birth != Birth::Invited {
            return refused(birth.reason());
        }
        if !self.quota.take(now) {
            return refused("too_many_births");
        }
        self.write_birth(group, to, (*invitation.creation).clone(), false, None);
    }
}

/// The replica that stands still here and that this message lets go, as a running one judges it (`replica/peers`).
fn ends(me: PeerIdentity, message: &GroupMessage, digest: u64, replica: ReplicaId) -> Option<ReplicaId> {
    let to = message.message.to;
    let gone = match &message.aside {
        Aside::Nothing | Aside::Committed(_) => false,
        Aside::Removed { .. } => to == replica && message.birth == digest,
        Aside::Invitation(i) => to > replica && i.disk == me.incarnation && i.creation.digest == digest,
    };
    gone.then_some(replica)
}

fn refused(reason: &'static str) {
    metrics::counter!("pontoon_messages_rejected_total", "reason" => reason).increment(1);
}
