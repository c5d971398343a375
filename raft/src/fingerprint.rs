//! What decides what a replica does next, fed to a hasher: for searches that know states again.
//!
//! Leaves to others: the driver's half of the state (its queues and disk contents beyond the storage).
//! Invariant: each field is judged here (no `..` in a pattern); left out is what a search holds fixed: the clock with
//! what is drawn for it, the configuration, the trace. Numbers of `Ready`s are taken relative to the newest.

use crate::in_flight::{InFlight, Ticket};
use crate::raft::Raft;
use crate::raw_node::RawNode;
use crate::ready::ReadyNumber;
use crate::storage::Storage;
use std::hash::{Hash, Hasher};

impl<S: Storage + Hash> RawNode<S> {
    /// Two replicas of one id and configuration with equal fingerprints answer every call alike, as long as no
    /// deadline is fired.
    pub fn fingerprint(&self, state: &mut impl Hasher) {
        let RawNode { raft, in_flight } = self;
        raft.fingerprint(state);
        in_flight.fingerprint(state);
    }
}

impl<S: Hash> Raft<S> {
    fn fingerprint(&self, state: &mut impl Hasher) {
        let Raft {
            id,
            term,
            vote,
            lead,
            role,
            log,
            tracker,
            outbox,
            after_append,
            read_states,
            dropped_reads,
            fetches,
            config: _,
            now: _,
            election_start: _,
            election_timeout: _,
            votes_held_until: _,
            rng: _,
            trace: _,
        } = self;
        (id, term, vote, lead, role).hash(state);
        (log, tracker, outbox, after_append).hash(state);
        (read_states, dropped_reads, fetches).hash(state);
    }
}

impl InFlight {
    fn fingerprint(&self, state: &mut impl Hasher) {
        let InFlight { number, soft_state, hard_state, held, tickets, advance_due, applying } = self;
        let age = |n: ReadyNumber| number.0 - n.0;
        (soft_state, hard_state, advance_due, applying).hash(state);
        (held, tickets.len()).hash(state);
        for Ticket { number, messages, term, last, snapshot } in tickets {
            (age(*number), messages, term, last, snapshot).hash(state);
        }
    }
}
