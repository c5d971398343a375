//! What peers sent: each message to its replica.
//!
//! Leaves to others: what a message means (`replica`), groups without a replica here (the router asks lifecycle).
//! Invariant: messages of one frame are taken in order; a heartbeat changes no list of the turn, unless its replica has more
//! to do.

use super::{AT_ONCE, Poller};
use crate::env::PeerIdentity;
use crate::ids::NodeId;
use crate::task::GroupMessage;

impl Poller {
    pub(super) fn on_peer(&mut self, from: PeerIdentity, messages: Vec<GroupMessage>) {
        self.disks.insert(from.node, from.incarnation);
        let mut messages = messages.into_iter();
        while !messages.as_slice().is_empty() {
            let some = messages.as_slice().iter().take(AT_ONCE);
            self.look_at(some.filter_map(|m| self.places.get(&m.group).copied()));
            for message in messages.by_ref().take(AT_ONCE) {
                match self.places.get(&message.group).copied() {
                    Some(place) => self.on_message(place, from, message),
                    None => self.parts.router.on_stray(from, message),
                }
            }
        }
    }

    fn on_message(&mut self, place: u32, from: PeerIdentity, message: GroupMessage) {
        let Some(replica) = self.replicas[place as usize].as_mut() else { return };
        let beats = message.is_heartbeat();
        replica.on_message(from, message, &mut self.work);
        // What a heartbeat calls for leaves while the replica is at hand; other turns end together.
        if !(beats && (replica.touched || replica.settle_heartbeats(&mut self.work))) {
            self.touch_place(place);
        }
    }

    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        for place in 0..self.replicas.len() as u32 {
            let mut there = false;
            self.with(place, |r, work| there = r.on_node_unreachable(node, work));
            if there {
                self.touch_place(place);
            }
        }
    }
}
