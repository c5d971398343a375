//! Who may speak to this replica, where its answers go, and what its envelopes say beside the messages.
//!
//! A leader's appends and heartbeats to a replica that it has not heard of in this term carry an invitation: that replica
//! may not be born yet (boot.md 3). Who was removed is refused, and told so once nobody needs it any more.
//! Leaves to others: birth and burial (lifecycle), when a removed replica is no longer needed (`membership`).
//! Invariant: unknown senders are stepped, as Raft demands; refused is only who was a member and is none any more.

use super::{Letter, Replica, Work};
use crate::env::{Destination, PeerIdentity};
use crate::events::Event;
use crate::ids::{Incarnation, Index, NodeId, ReplicaId, Tick};
use crate::task::{Aside, GroupMessage, Invitation, LifecycleMsg};
use bytes::Bytes;
use pontoon_raft::{Body, Message, StateRole};

/// Why a message is refused whose sender was created with another spec.
pub(super) const OTHER_BIRTH: &str = "other_birth";
/// Election timeouts between two events of one replica about members that were created with another spec.
const BIRTH_QUIET: Tick = 10;

/// Election timeouts without word from a leader after which a replica asks whether it may go.
const FORSAKEN: Tick = 2;

/// Senders remembered whom the replica map does not know.
const MAX_CONTACTS: usize = 16;

/// The others, as far as the replica map does not tell.
#[derive(Default)]
pub(super) struct Peers {
    /// Where unknown senders are: a replica that slept answers leaders that its map does not have yet. Newest last.
    contacts: Vec<(ReplicaId, NodeId)>,
    /// On a leader: whom it has heard of in this term.
    heard: Vec<ReplicaId>,
    /// When a removed replica is told so again.
    tell_at: Tick,
    /// When this replica, removed or forsaken, asks again whether it may go.
    ask_at: Tick,
    /// When a leader was heard of last, or the replica came up.
    led_at: Tick,
    /// When a member that was created with another spec is told of again.
    birth_at: Tick,
    /// This replica is let go: lifecycle knows.
    dismissed: bool,
}

impl Peers {
    /// A replica that comes up now.
    pub(super) fn new(now: Tick) -> Peers {
        Peers { led_at: now, ..Peers::default() }
    }

    /// See `Replica::look`.
    pub(super) fn look(&self) -> u64 {
        self.led_at ^ self.heard.first().map_or(0, |r| r.0)
    }

    /// A new leadership: nobody was heard of.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }
}

/// Digest of the spec that the sender was created with, where the message tells it: by itself until the sender has applied
/// its first entry, and in the invitation to who was not heard of yet. Who was created with another spec is never heard.
pub(super) fn born_as(message: &GroupMessage) -> Option<u64> {
    match &message.aside {
        _ if message.birth != 0 => Some(message.birth),
        Aside::Invitation(invitation) => Some(invitation.creation.digest),
        _ => None,
    }
}

impl Replica {
    /// The node of a replica: by the replica map, else where it was heard from.
    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.destination(replica).map(|d| d.node)
    }

    /// Where a replica is: node and disk by the replica map, else the node where it was heard from.
    pub(super) fn destination(&self, replica: ReplicaId) -> Option<Destination> {
        let contact = || self.peers.contacts.iter().find(|c| c.0 == replica).map(|c| c.1.into());
        self.machine.record.destination(replica).or_else(contact)
    }

    /// Law 8: older replica ids, removed replicas and wrong disks are refused; unknown senders are stepped.
    pub(super) fn admits(&self, from: PeerIdentity, message: &GroupMessage) -> Result<(), &'static str> {
        let m = &message.message;
        if self.closed().is_some() {
            return Err("stopped_replica");
        }
        let record = &self.machine.record;
        if record.has_removed(m.from) {
            return Err("removed_replica");
        }
        if m.to != self.id {
            return Err("stale_replica");
        }
        if message.epoch != 0 {
            return Err("stale_epoch");
        }
        if born_as(message).is_some_and(|digest| digest != self.creation.digest) {
            return Err(OTHER_BIRTH);
        }
        match record.members.iter().find(|member| member.0 == m.from) {
            Some((_, node, _)) if *node != from.node => Err("wrong_node"),
            Some((_, _, disk)) if *disk != Incarnation(0) && *disk != from.incarnation => Err("wrong_disk"),
            _ => Ok(()),
        }
    }

    /// What is refused because its sender was created with another spec is told: nothing mends it but people.
    pub(super) fn tell_other_birth(&mut self, node: NodeId, theirs: u64, work: &mut Work) {
        if work.now >= self.peers.birth_at {
            self.peers.birth_at = work.now + BIRTH_QUIET * self.limits.election_ticks;
            let (group, ours) = (self.group, self.creation.digest);
            work.events.push(Event::OtherBirth { group, node, ours, theirs });
        }
    }

    /// An admitted message came from here.
    pub(super) fn note_sender(&mut self, from: NodeId, message: &Message, now: Tick) {
        let replica = message.from;
        if message.body.is_from_leader() {
            self.peers.led_at = now;
        }
        if self.leading_now() && !self.peers.heard.contains(&replica) {
            self.peers.heard.push(replica);
        }
        let contacts = &mut self.peers.contacts;
        if self.machine.record.node_of(replica).is_some() || contacts.last() == Some(&(replica, from)) {
            return;
        }
        contacts.retain(|c| c.0 != replica);
        if contacts.len() == MAX_CONTACTS {
            contacts.remove(0);
        }
        contacts.push((replica, from));
    }

    /// A removed replica speaks: it is told, if it may go. At most one such word in a while, so that nobody can make
    /// this node send more than it receives.
    pub(super) fn tell_removed(&mut self, to: NodeId, replica: ReplicaId, work: &mut Work) {
        if self.machine.record.has_dismissed(replica) && work.now >= self.peers.tell_at {
            self.peers.tell_at = work.now + self.limits.heartbeat_ticks;
            self.say_removed(to, replica, work);
        }
    }

    /// Tells a replica that it may go.
    pub(super) fn say_removed(&self, to: NodeId, replica: ReplicaId, work: &mut Work) {
        let aside = Aside::Removed { conf: self.machine.record.conf_index };
        self.say(to, replica, aside, work);
    }

    /// A word between replicas that the core has no part in. The message says nothing: it is an answer to nobody.
    /// Whoever is stopped is silent: its tombstone may be durable before it hears of it.
    fn say(&self, node: NodeId, to: ReplicaId, aside: Aside, work: &mut Work) {
        if self.closed().is_some() {
            return;
        }
        let body = Body::HeartbeatResp { context: Bytes::new() };
        let message = Message { from: self.id, to, term: self.raft.basic_status().term, body };
        let birth = self.creation.digest;
        work.outbox.push(node.into(), &GroupMessage { group: self.group, epoch: 0, birth, aside, message });
    }

    /// Does this envelope say that this replica was removed and may go? By a word to it, or because another replica is
    /// invited to its node: a node gets a new replica id only after the removal of the older one was sealed.
    /// `Some`: the configuration's index as far as told.
    pub(super) fn dismissal(&self, message: &GroupMessage) -> Option<Index> {
        match &message.aside {
            Aside::Removed { conf } if message.message.to == self.id && message.birth == self.creation.digest => {
                Some(*conf)
            }
            Aside::Invitation(invitation)
                if message.message.to > self.id
                    && invitation.disk == self.disk
                    && invitation.creation.digest == self.creation.digest =>
            {
                Some(self.machine.record.conf_index)
            }
            _ => None,
        }
    }

    /// Nobody needs this replica any more: lifecycle destroys it.
    pub(super) fn be_dismissed(&mut self, conf: Index, work: &mut Work) {
        if std::mem::replace(&mut self.peers.dismissed, true) {
            return;
        }
        self.answer_dismissed(conf);
        let letter = LifecycleMsg::Dismissed { group: self.group, replica: self.id };
        work.letters.push(Letter::Lifecycle(letter));
    }

    /// This replica has applied its own removal. It still votes and acknowledges, for a member may not know of the
    /// removal yet and need it; so it waits for the word that it may go, and asks for it. Whoever hears of no
    /// leader asks, too: it may have slept through its removal. A voter campaigns, which would be answered with that word,
    /// but only by those who were voters when it fell asleep; and who has no vote does not.
    ///
    /// With the question goes what it knows to be committed. Where the voters have lost the knowledge that the change is
    /// committed which left them alone, they need the vote of one who is without by that change, and whose log may be
    /// longer than theirs: it cannot lead, and must refuse them. They can do without it once they know (docs/membership.md).
    pub(super) fn ask_whether_needed(&mut self, work: &mut Work) {
        if work.now < self.ask_deadline() {
            return;
        }
        self.peers.ask_at = work.now + self.limits.election_ticks;
        if self.machine.record.has_dismissed(self.id) {
            return self.be_dismissed(self.machine.record.conf_index, work);
        }
        let known = Aside::Committed(self.machine.handed);
        for (replica, node, _) in self.machine.record.members.iter().filter(|m| m.0 != self.id) {
            self.say(*node, *replica, known.clone(), work);
        }
    }

    /// When it asks again; never while it was not removed and leads or is led.
    pub(super) fn ask_deadline(&self) -> Tick {
        if self.peers.dismissed || self.leading_now() {
            return Tick::MAX;
        }
        let forsaken = self.peers.led_at + FORSAKEN * self.limits.election_ticks;
        let removed = self.machine.record.has_removed(self.id);
        if removed { self.peers.ask_at } else { self.peers.ask_at.max(forsaken) }
    }

    /// What goes with a message.
    pub(super) fn aside_for(&self, message: &Message) -> Aside {
        if !message.body.is_from_leader() || self.peers.heard.contains(&message.to) {
            return Aside::Nothing;
        }
        let member = self.machine.record.members.iter().find(|m| m.0 == message.to);
        let disk = member.map_or(Incarnation(0), |m| m.2);
        Aside::Invitation(Box::new(Invitation { creation: self.creation.clone(), disk }))
    }

    pub(super) fn leading_now(&self) -> bool {
        self.raft.basic_status().role == StateRole::Leader
    }
}
