//! Founding a group without a snapshot: every founder writes the same first entries, one per member.
//!
//! Leaves to others: founding from a storage that holds a snapshot with a configuration (nothing to do then), and
//! joining a group that exists (an empty storage, and the leader sends what it takes).
//! Invariant: the entries depend on the set of peers only, so that founders who were given it in different orders do
//! not contradict one another.

use crate::conf_change::{ConfChangeType, ConfChangeV1, ConfChangeV2};
use crate::confchange::ConfChangeError;
use crate::entry::Entry;
use crate::ids::{Index, ReplicaId, Term};
use crate::raw_node::RawNode;
use crate::state::HardState;
use crate::storage::Storage;
use bytes::Bytes;

/// A founder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: ReplicaId,
    /// Goes with its entry, opaque to the core: an address, say.
    pub context: Bytes,
}

/// Why a group cannot be founded here. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// A group has at least one member.
    #[error("must provide at least one peer to Bootstrap")]
    NoPeers,
    /// This replica has a history: restart it instead.
    #[error("can't bootstrap a nonempty Storage: it ends at {last}")]
    NotEmpty {
        /// Last index of the log.
        last: Index,
    },
    /// No member can have this id, or it is listed twice.
    #[error("{0} is no member's id, or is listed twice")]
    BadPeer(ReplicaId),
    /// The configuration cannot be built.
    #[error(transparent)]
    Membership(#[from] ConfChangeError),
}

impl<S: Storage> RawNode<S> {
    /// Founds a group of `peers` (raft-core 15). All founders must be given the same set. The first `Ready` carries
    /// one membership change per peer, committed at term 1: apply them like any other. A replica may campaign then.
    pub fn bootstrap(&mut self, peers: &[Peer]) -> Result<(), BootstrapError> {
        let last = self.raft.log.last_index();
        if last != Index::NONE || !self.raft.hard_state().is_empty() {
            return Err(BootstrapError::NotEmpty { last });
        }
        let founding = founding(peers)?;
        self.raft.become_follower(Term(1), ReplicaId::NONE);
        self.raft.log.append(founding.iter().zip(1..).map(|(cc, index)| placed(cc, Index(index))).collect());
        assert!(self.raft.log.commit_to(self.raft.log.last_index()), "the log reaches its own end");
        // The configuration counts at once; the application sees the changes again as committed entries.
        for change in founding {
            self.raft.apply_conf_change(&ConfChangeV2::from(change))?;
        }
        self.in_flight.hard_state = HardState::default();
        Ok(())
    }
}

/// One change per peer, ascending: the order in which a host lists them must not matter.
fn founding(peers: &[Peer]) -> Result<Vec<ConfChangeV1>, BootstrapError> {
    let mut peers: Vec<&Peer> = peers.iter().collect();
    peers.sort_by_key(|p| p.id);
    if peers.is_empty() {
        return Err(BootstrapError::NoPeers);
    }
    let twice = peers.windows(2).find(|two| two[0].id == two[1].id).map(|two| two[0].id);
    let invalid = peers.iter().map(|p| p.id).find(|id| !id.is_valid_member());
    if let Some(bad) = twice.or(invalid) {
        return Err(BootstrapError::BadPeer(bad));
    }
    let add = |p: &Peer| {
        let change = ConfChangeV1::new(ConfChangeType::AddNode, p.id);
        ConfChangeV1 { context: p.context.clone(), ..change }
    };
    Ok(peers.into_iter().map(add).collect())
}

fn placed(change: &ConfChangeV1, index: Index) -> Entry {
    Entry { term: Term(1), index, ..change.to_entry() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::entry::EntryKind;
    use crate::mem_storage::MemStorage;
    use crate::state::{ConfState, StateRole};

    fn peers(ids: &[u64]) -> Vec<Peer> {
        ids.iter().map(|id| Peer { id: ReplicaId(*id), context: Bytes::from(id.to_string()) }).collect()
    }

    fn fresh(id: u64) -> RawNode<MemStorage> {
        let config = Config { id: ReplicaId(id), strict: true, ..Config::default() };
        RawNode::new(&config, MemStorage::new(), 0).unwrap()
    }

    /// Persists, applies and advances once.
    fn turn(node: &mut RawNode<MemStorage>) -> crate::Ready {
        let ready = node.ready();
        node.storage_mut().append(&ready.entries);
        if let Some(hard_state) = ready.hard_state {
            node.storage_mut().set_hard_state(hard_state);
        }
        for entry in &ready.committed_entries {
            if let Some(change) = ConfChangeV2::from_entry(entry).unwrap() {
                node.apply_conf_change(0, &change).unwrap();
            }
        }
        node.advance(0);
        ready
    }

    #[test]
    fn the_first_ready_shows_the_founding() {
        let mut node = fresh(1);
        node.bootstrap(&peers(&[1, 2, 3])).unwrap();
        assert_eq!(node.basic_status().commit, Index(3));
        let ready = turn(&mut node);
        let hard_state = HardState { term: Term(1), vote: ReplicaId::NONE, commit: Index(3) };
        assert_eq!(ready.hard_state, Some(hard_state));
        assert_eq!((ready.entries.len(), ready.must_sync), (3, true));
        assert_eq!(ready.committed_entries, ready.entries);
        assert!(ready.entries.iter().all(|e| e.term == Term(1) && e.kind == EntryKind::ConfChange));
        assert_eq!(node.status().conf, ConfState::new(vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)], vec![]));
        assert_eq!(node.basic_status().applied, Index(3));
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let founded = |ids: &[u64]| {
            let mut node = fresh(1);
            node.bootstrap(&peers(ids)).unwrap();
            node.ready().entries
        };
        assert_eq!(founded(&[3, 1, 2]), founded(&[1, 2, 3]));
    }

    #[test]
    fn a_lone_founder_leads_after_its_first_ready() {
        let mut node = fresh(1);
        node.bootstrap(&peers(&[1])).unwrap();
        turn(&mut node);
        node.campaign(0);
        while node.has_ready() {
            turn(&mut node);
        }
        assert_eq!(node.basic_status().role, StateRole::Leader);
        assert_eq!((node.basic_status().term, node.basic_status().commit), (Term(2), Index(2)));
    }

    #[test]
    fn refusals_change_nothing() {
        let mut node = fresh(1);
        assert_eq!(node.bootstrap(&[]), Err(BootstrapError::NoPeers));
        assert_eq!(node.bootstrap(&peers(&[1, 0])), Err(BootstrapError::BadPeer(ReplicaId::NONE)));
        assert_eq!(node.bootstrap(&peers(&[2, 1, 2])), Err(BootstrapError::BadPeer(ReplicaId(2))));
        assert!(!node.has_ready());
        node.bootstrap(&peers(&[1])).unwrap();
        assert_eq!(node.bootstrap(&peers(&[1])), Err(BootstrapError::NotEmpty { last: Index(1) }));
    }
}
