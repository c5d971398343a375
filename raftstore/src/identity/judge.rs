//! The decision table of boot.md 1: what a peer shows, against what is known of it.
//!
//! Pure. Leaves to others: keeping and syncing what is known (`book`), what a refusal does (`mod`).
//! Invariant: a peer is welcome only if what it shows neither replaces a disk that had a vote, nor goes back in time,
//! nor belongs to another cluster.

use crate::codec::PeerRecord;
use crate::env::{Hello, Refusal};
use crate::ids::{ClusterId, Incarnation, NodeId};

/// What the judging node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    /// Its id.
    pub(super) node: NodeId,
    /// Its cluster, once minted or heard of.
    pub(super) cluster: Option<ClusterId>,
    /// Digest of what it was founded with; 0: not known (joined).
    pub(super) digest: u64,
    /// It joins, and is not admitted yet.
    pub(super) joining: bool,
}

/// What the judging node knows of the peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    /// What is synced of it.
    pub(super) record: Option<&'a PeerRecord>,
    /// Its disk as others say. Counts only while nothing is synced.
    pub(super) heard: Option<Incarnation>,
}

/// Why the peer is refused; `None`: it is welcome.
pub(super) fn judge(own: &Judge, known: Known<'_>, shown: &Hello) -> Option<Refusal> {
    if shown.node == own.node || shown.node == NodeId(0) {
        return Some(Refusal::Protocol(format!(
            "a peer shows itself as node {}, which is this one's name",
            shown.node
        )));
    }
    // The cluster comes first: only a peer of the same cluster may stop the other's node.
    if let (Some(ours), Some(theirs)) = (own.cluster, shown.cluster)
        && ours != theirs
    {
        return Some(Refusal::OtherCluster { ours, theirs });
    }
    let disk = match known.record {
        Some(record) => judge_disk(record, shown),
        None => judge_hearsay(known.heard, shown),
    };
    disk.or_else(|| judge_digest(own, shown)).or_else(|| judge_member(own, shown))
}

/// A disk that others know under another incarnation had a vote, too.
fn judge_hearsay(heard: Option<Incarnation>, shown: &Hello) -> Option<Refusal> {
    let known = heard.filter(|known| *known != shown.incarnation)?;
    Some(Refusal::OtherDisk { node: shown.node, known, shown: shown.incarnation })
}

/// A joiner adopts the cluster of a member and of nobody else.
fn judge_member(own: &Judge, shown: &Hello) -> Option<Refusal> {
    (own.joining && !(shown.admitted && shown.cluster.is_some())).then_some(Refusal::NotAMember { node: shown.node })
}

fn judge_disk(known: &PeerRecord, shown: &Hello) -> Option<Refusal> {
    let node = shown.node;
    if known.incarnation != shown.incarnation {
        return Some(Refusal::OtherDisk { node, known: known.incarnation, shown: shown.incarnation });
    }
    let back = shown.epoch.counter < known.epoch.counter;
    let twin = shown.epoch.counter == known.epoch.counter && shown.epoch.nonce != known.epoch.nonce;
    if back || twin {
        return Some(Refusal::OldCopy { node, known: known.epoch, shown: shown.epoch });
    }
    if shown.epoch != known.epoch && shown.recovered < known.synced {
        return Some(Refusal::LostLog { node, recovered: shown.recovered, synced: known.synced });
    }
    None
}

fn judge_digest(own: &Judge, shown: &Hello) -> Option<Refusal> {
    let told = own.digest != 0 && shown.digest != 0;
    (told && own.digest != shown.digest).then_some(Refusal::OtherDigest { ours: own.digest, theirs: shown.digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BootEpoch, StoreSeq};

    const OURS: ClusterId = ClusterId([1; 16]);
    const THEIRS: ClusterId = ClusterId([2; 16]);

    fn expected(
        cluster: [Option<ClusterId>; 2],
        disk: u64,
        counter: u64,
        nonce: u64,
        lost: bool,
        digest: u64,
    ) -> &'static str {
        // The table of boot.md 1, row by row; a peer is known with disk 7, boot (5, 50), synced 100.
        match (cluster, disk, (counter, nonce), lost, digest) {
            ([Some(a), Some(b)], ..) if a != b => "cluster",
            (_, 8, ..) => "disk",
            (_, _, (4, _) | (5, 51), ..) => "copy",
            (_, _, (6, _), true, _) => "lost",
            (.., 44) => "digest",
            _ => "welcome",
        }
    }

    fn verdict(refusal: Option<Refusal>) -> &'static str {
        match refusal {
            None => "welcome",
            Some(Refusal::OtherCluster { .. }) => "cluster",
            Some(Refusal::OtherDisk { .. }) => "disk",
            Some(Refusal::OldCopy { .. }) => "copy",
            Some(Refusal::LostLog { .. }) => "lost",
            Some(Refusal::OtherDigest { .. }) => "digest",
            Some(Refusal::NotAMember { .. }) => "no member",
            Some(Refusal::Protocol(_)) => "protocol",
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let known = PeerRecord {
            incarnation: Incarnation(7),
            epoch: BootEpoch { counter: 5, nonce: 50 },
            synced: StoreSeq(100),
            listen: String::new(),
        };
        let mut rows = 0;
        for ours in [None, Some(OURS)] {
            for theirs in [None, Some(OURS), Some(THEIRS)] {
                for disk in [7, 8] {
                    for (counter, nonce) in [(4, 50), (4, 40), (5, 50), (5, 51), (6, 50), (6, 60)] {
                        for recovered in [99, 100, 101] {
                            for digest in [0, 33, 44] {
                                let own = Judge { node: NodeId(1), cluster: ours, digest: 33, joining: false };
                                let shown = Hello {
                                    cluster: theirs,
                                    node: NodeId(2),
                                    incarnation: Incarnation(disk),
                                    epoch: BootEpoch { counter, nonce },
                                    digest,
                                    recovered: StoreSeq(recovered),
                                    ..Hello::default()
                                };
                                let found = verdict(judge(
                                    &own,
                                    Known { record: Some(&known), heard: Some(Incarnation(8)) },
                                    &shown,
                                ));
                                let lost = recovered < 100;
                                assert_eq!(
                                    found,
                                    expected([ours, theirs], disk, counter, nonce, lost, digest),
                                    "{shown:?}"
                                );
                                rows += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(rows, 6 * 2 * 6 * 3 * 3);
    }

    #[test]
    fn an_unknown_peer_is_welcome_unless_founded_otherwise() {
        let own = Judge { node: NodeId(1), cluster: None, digest: 33, joining: false };
        let none = Known::default();
        let shown = Hello { node: NodeId(9), digest: 33, ..Hello::default() };
        assert_eq!(verdict(judge(&own, none, &shown)), "welcome");
        assert_eq!(verdict(judge(&own, none, &Hello { digest: 34, ..shown.clone() })), "digest");
        assert_eq!(verdict(judge(&own, none, &Hello { node: NodeId(1), ..shown })), "protocol");
    }

    /// The rows of joining (boot.md 2): whom a joiner takes for a member, whatever its digest.
    #[test]
    fn a_joiner_keeps_to_members_of_the_cluster_it_wants() {
        for (cluster, admitted, wanted, want) in [
            (None, false, None, "no member"),
            (Some(OURS), false, None, "no member"),
            (Some(OURS), true, None, "welcome"),
            (Some(OURS), true, Some(OURS), "welcome"),
            (Some(THEIRS), true, Some(OURS), "cluster"),
        ] {
            let own = Judge { node: NodeId(4), cluster: wanted, digest: 0, joining: true };
            let shown = Hello { cluster, admitted, node: NodeId(1), digest: 33, ..Hello::default() };
            assert_eq!(verdict(judge(&own, Known::default(), &shown)), want, "{shown:?}");
        }
    }

    #[test]
    fn a_disk_that_others_know_otherwise_is_refused() {
        let own = Judge { node: NodeId(1), cluster: Some(OURS), digest: 33, joining: false };
        let shown = Hello { node: NodeId(9), incarnation: Incarnation(7), cluster: Some(OURS), ..Hello::default() };
        let heard = |disk| Known { record: None, heard: Some(Incarnation(disk)) };
        assert_eq!(verdict(judge(&own, heard(7), &shown)), "welcome");
        assert_eq!(verdict(judge(&own, heard(8), &shown)), "disk");
    }
}
