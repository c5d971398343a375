//! Founding, joining and refusals (boot.md 1 and 2): identities on twin disks that shake hands, crash, are wiped and
//! copied. Each refusal is provoked; a random founding with crashes ends in one cluster.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use pontoon_raftstore::env::{Admission, Gatekeeper, Listing, LogBatch, LogStore, MetaWrite, Refusal, meta_keys};
use pontoon_raftstore::error::BootError;
use pontoon_raftstore::identity::{Identity, IdentityOptions, Start};
use pontoon_raftstore::ids::{ClusterId, Incarnation, NodeId};
use pontoon_raftstore::mem::{MemDisk, Power};
use pontoon_raftstore::testing::{Replay, Rng, seeds};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

struct Node {
    disk: Arc<MemDisk>,
    log: Arc<dyn LogStore>,
    identity: Arc<Identity>,
}

fn options(node: u64, start: Start, rng: &mut Rng) -> IdentityOptions {
    IdentityOptions {
        node: NodeId(node),
        start,
        cluster: None,
        listen: format!("host{node}:1"),
        advert: Bytes::from(format!("advert{node}")),
        digest: 33,
        entropy: std::array::from_fn(|_| rng.next_u64()),
    }
}

fn found(n: u64) -> Start {
    Start::Found { peers: (1..=n).map(|i| (NodeId(i), format!("host{i}:1"))).collect() }
}

fn open_with(disk: &Arc<MemDisk>, power: Arc<Power>, options: IdentityOptions) -> Result<Node, BootError> {
    let log: Arc<dyn LogStore> = Arc::new(disk.open(power));
    let meta = log.load()?.meta;
    Ok(Node { disk: disk.clone(), identity: Identity::open(log.clone(), &meta, options)?, log })
}

fn open(disk: &Arc<MemDisk>, options: IdentityOptions) -> Result<Node, BootError> {
    open_with(disk, Arc::default(), options)
}

fn fresh(node: u64, start: Start, rng: &mut Rng) -> Node {
    open(&Arc::default(), options(node, start, rng)).unwrap()
}

/// One handshake as a transport makes it: both judge, each learns the other's verdict.
fn shake(a: &Node, b: &Node) -> (Admission, Admission) {
    let (from_a, from_b) = (a.identity.hello(), b.identity.hello());
    let of_a = b.identity.admit(&from_a);
    let of_b = a.identity.admit(&from_b);
    for (who, peer, verdict) in [(a, &from_b, &of_a), (b, &from_a, &of_b)] {
        match verdict {
            Admission::Welcome => who.identity.on_welcome(peer),
            Admission::Refused(why) => who.identity.on_refused(peer, why),
        }
    }
    (of_a, of_b)
}

fn shake_all(nodes: &[&Node]) {
    for (i, a) in nodes.iter().enumerate() {
        for b in &nodes[i + 1..] {
            let _verdicts = shake(a, b);
        }
    }
    for a in nodes {
        for b in nodes.iter().filter(|b| b.identity.me() != a.identity.me()) {
            b.identity.on_beacon(a.identity.me().node, a.identity.beacon());
        }
    }
}

fn founded(n: u64, rng: &mut Rng) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=n).map(|i| fresh(i, found(n), rng)).collect();
    shake_all(&nodes.iter().collect::<Vec<_>>());
    assert!(nodes.iter().all(|n| n.identity.wait_admitted(NOW).unwrap()));
    nodes
}

fn write_something(node: &Node) {
    let meta = vec![MetaWrite { key: "x".into(), value: Some("y".into()) }];
    let _proof = node.log.write(&LogBatch { writes: Vec::new(), meta, sync: true }).unwrap();
}

#[test]
fn founding_waits_for_every_listed_peer() {
    let mut rng = Rng::new(1);
    let nodes: Vec<Node> = (1..=3).map(|i| fresh(i, found(3), &mut rng)).collect();
    shake(&nodes[0], &nodes[1]);
    shake(&nodes[1], &nodes[2]);
    assert!(nodes.iter().all(|n| !n.identity.wait_admitted(NOW).unwrap()), "1 and 3 have not met");
    shake(&nodes[0], &nodes[2]);
    assert!(nodes[0].identity.is_admitted(), "the lowest id mints");
    assert!(!nodes[1].identity.is_admitted(), "nobody told it yet");
    shake_all(&nodes.iter().collect::<Vec<_>>());
    let clusters: Vec<_> = nodes.iter().map(|n| n.identity.cluster().unwrap()).collect();
    assert!(nodes.iter().all(|n| n.identity.is_admitted()) && clusters.iter().all(|c| *c == clusters[0]));
    let view = &nodes[0].identity.peers()[1];
    assert_eq!((view.node, view.listen.as_str(), &view.advert[..]), (NodeId(3), "host3:1", &b"advert3"[..]));
}

#[test]
fn one_node_founds_alone() {
    let node = fresh(1, found(1), &mut Rng::new(2));
    assert!(node.identity.is_admitted() && node.identity.cluster().is_some());
}

#[test]
fn a_restart_keeps_identity_and_counts_boots() {
    let mut rng = Rng::new(3);
    let nodes = founded(3, &mut rng);
    let before = nodes[1].identity.hello();
    let again = open(&nodes[1].disk, options(2, Start::Existing, &mut rng)).unwrap();
    let after = again.identity.hello();
    assert!(again.identity.is_admitted());
    assert_eq!((after.incarnation, after.cluster), (before.incarnation, before.cluster));
    assert_eq!(after.epoch.counter, before.epoch.counter + 1);
    assert_eq!(shake(&again, &nodes[0]), (Admission::Welcome, Admission::Welcome));
}

#[test]
fn a_wiped_disk_is_refused_for_good() {
    for known_by in [1, 3] {
        let mut rng = Rng::new(4);
        let nodes: Vec<Node> = (1..=3).map(|i| fresh(i, found(3), &mut rng)).collect();
        if known_by == 3 {
            shake_all(&nodes.iter().collect::<Vec<_>>());
        } else {
            shake(&nodes[1], &nodes[0]); // in the middle of the founding
        }
        for _twice in 0..2 {
            let wiped = fresh(2, found(3), &mut rng);
            let (verdict, _) = shake(&wiped, &nodes[0]);
            assert!(matches!(verdict, Admission::Refused(Refusal::OtherDisk { .. })), "{verdict:?}");
            assert!(matches!(wiped.identity.wait_admitted(NOW), Err(BootError::Refused { by: NodeId(1), .. })));
            // It cannot be founded either, whomever it meets later.
            shake(&wiped, &nodes[2]);
            assert!(!wiped.identity.is_admitted());
        }
    }
}

#[test]
fn copies_of_a_directory_are_refused() {
    let mut rng = Rng::new(5);
    let nodes = founded(3, &mut rng);
    let copy = nodes[1].disk.copy();
    // Taken running: the original and the copy start from the same counter with different nonces.
    let original = open(&nodes[1].disk, options(2, Start::Existing, &mut rng)).unwrap();
    assert_eq!(shake(&original, &nodes[0]).0, Admission::Welcome);
    let twin = open(&copy, options(2, Start::Existing, &mut rng)).unwrap();
    let (verdict, _) = shake(&twin, &nodes[0]);
    assert!(matches!(verdict, Admission::Refused(Refusal::OldCopy { .. })), "{verdict:?}");
    assert!(matches!(twin.identity.fatal(), Some(BootError::Refused { .. })));
    // Older by several boots: also refused, although it counted up itself.
    let old = nodes[2].disk.copy();
    for _ in 0..3 {
        let boot = open(&nodes[2].disk, options(3, Start::Existing, &mut rng)).unwrap();
        assert_eq!(shake(&boot, &nodes[0]).0, Admission::Welcome);
    }
    let old = open(&old, options(3, Start::Existing, &mut rng)).unwrap();
    assert!(matches!(shake(&old, &nodes[0]).0, Admission::Refused(Refusal::OldCopy { .. })));
}

#[test]
fn lost_log_is_seen_by_the_watermark() {
    let mut rng = Rng::new(6);
    let nodes = founded(3, &mut rng);
    let copy = nodes[1].disk.copy();
    for _ in 0..5 {
        write_something(&nodes[1]);
    }
    nodes[0].identity.on_beacon(NodeId(2), nodes[1].identity.beacon());
    nodes[0].identity.write_watermarks().unwrap();
    // The judge restarts: the watermark was synced.
    let judge = open(&nodes[0].disk, options(1, Start::Existing, &mut rng)).unwrap();
    let rolled_back = open(&copy, options(2, Start::Existing, &mut rng)).unwrap();
    let (verdict, _) = shake(&rolled_back, &judge);
    assert!(matches!(verdict, Admission::Refused(Refusal::LostLog { .. })), "{verdict:?}");
    assert!(rolled_back.identity.fatal().is_some());
}

#[test]
fn founders_that_differ_stay_out_and_name_both() {
    let mut rng = Rng::new(7);
    let one = fresh(1, found(2), &mut rng);
    let two = open(&Arc::default(), IdentityOptions { digest: 44, ..options(2, found(2), &mut rng) }).unwrap();
    let (verdict, _) = shake(&one, &two);
    assert_eq!(verdict, Admission::Refused(Refusal::OtherDigest { ours: 44, theirs: 33 }));
    assert!(!one.identity.wait_admitted(NOW).unwrap() && !two.identity.wait_admitted(NOW).unwrap());
    let shown = one.identity.peers()[0].refusal.clone().unwrap().to_string();
    assert!(shown.contains("0x2c") && shown.contains("0x21"), "{shown}");
    // Put right, the same directories found.
    let two = open(&two.disk, options(2, found(2), &mut rng)).unwrap();
    shake_all(&[&one, &two]);
    assert!(one.identity.is_admitted() && two.identity.is_admitted());
    // An outsider with another digest is told for good by a cluster that stands.
    let three = open(&Arc::default(), IdentityOptions { digest: 44, ..options(3, found(3), &mut rng) }).unwrap();
    shake(&three, &one);
    assert!(matches!(three.identity.wait_admitted(NOW), Err(BootError::Refused { .. })));
    assert!(one.identity.fatal().is_none());
}

#[test]
fn another_cluster_ends_the_link_only() {
    let mut rng = Rng::new(8);
    let (ours, theirs) = (founded(3, &mut rng), founded(3, &mut rng));
    let (verdict, back) = shake(&ours[0], &theirs[1]);
    assert!(matches!(verdict, Admission::Refused(Refusal::OtherCluster { .. })));
    assert!(matches!(back, Admission::Refused(Refusal::OtherCluster { .. })));
    assert!(ours[0].identity.fatal().is_none() && theirs[1].identity.fatal().is_none());
}

#[test]
fn joining_adopts_the_cluster_of_a_member() {
    let mut rng = Rng::new(9);
    let nodes = founded(3, &mut rng);
    let joiner = open(&Arc::default(), IdentityOptions { digest: 0, ..options(4, Start::Join, &mut rng) }).unwrap();
    assert!(!joiner.identity.wait_admitted(NOW).unwrap());
    shake(&joiner, &nodes[1]);
    assert!(joiner.identity.is_admitted());
    assert_eq!(joiner.identity.cluster(), nodes[0].identity.cluster());
    // Restarted, it is admitted at once; wiped, it is refused.
    assert!(open(&joiner.disk, options(4, Start::Existing, &mut rng)).unwrap().identity.is_admitted());
    let wiped = fresh(4, Start::Join, &mut rng);
    shake(&wiped, &nodes[1]);
    assert!(wiped.identity.fatal().is_some());
    // One that asks for another cluster does not take what it finds.
    let wanted = Some(ClusterId([7; 16]));
    let other = IdentityOptions { cluster: wanted, digest: 0, ..options(5, Start::Join, &mut rng) };
    let other = open(&Arc::default(), other).unwrap();
    shake(&other, &nodes[1]);
    assert!(!other.identity.is_admitted());
}

#[test]
fn a_joiner_keeps_to_members_and_takes_no_digest() {
    let mut rng = Rng::new(12);
    let founders: Vec<Node> = (1..=2).map(|i| fresh(i, found(2), &mut rng)).collect();
    let joiner = fresh(4, Start::Join, &mut rng);
    assert_eq!(joiner.identity.hello().digest, 0, "whatever was given: it founds nothing");
    let (_, back) = shake(&joiner, &founders[0]);
    assert_eq!(back, Admission::Refused(Refusal::NotAMember { node: NodeId(1) }));
    assert!(!joiner.identity.is_admitted() && founders[0].identity.fatal().is_none());
    // The founding goes on undisturbed, and then there is a member to join through.
    shake_all(&founders.iter().collect::<Vec<_>>());
    assert!(founders.iter().all(|f| f.identity.is_admitted()));
    shake(&joiner, &founders[0]);
    assert!(joiner.identity.is_admitted());
    // A directory whose founding was never completed may join instead; one that joined never founds.
    let left = fresh(5, found(5), &mut rng);
    let left = open(&left.disk, options(5, Start::Join, &mut rng)).unwrap();
    shake(&left, &founders[1]);
    assert_eq!(left.identity.cluster(), founders[0].identity.cluster());
    let again = open(&joiner.disk, options(4, Start::Join, &mut rng)).unwrap();
    assert!(again.identity.is_admitted(), "no member needs to be up");
}

/// Lets `to` hear what is new at `from`.
fn tell(from: &Node, to: &Node, since: &mut u64) -> usize {
    let mut pages = 0;
    loop {
        let (page, next) = from.identity.listings(*since);
        *since = next;
        if page.is_empty() {
            return pages;
        }
        assert!(page.len() <= 64, "{} listings on a page", page.len());
        pages += 1;
        to.identity.on_listings(from.identity.me().node, page);
    }
}

fn address(of: u64, at: &Node) -> Option<String> {
    at.identity.peers().into_iter().find(|p| p.node == NodeId(of)).map(|p| p.listen)
}

#[test]
fn running_nodes_learn_where_a_joiner_listens_and_which_disk_it_has() {
    let mut rng = Rng::new(13);
    let nodes = founded(3, &mut rng);
    let joiner = fresh(4, Start::Join, &mut rng);
    shake(&joiner, &nodes[0]);
    let (mut upto, mut back) = (0, 0);
    tell(&nodes[0], &nodes[1], &mut upto);
    assert_eq!(address(4, &nodes[1]).as_deref(), Some("host4:1"));
    let disk = nodes[1].identity.peers().into_iter().find(|p| p.node == NodeId(4)).unwrap().disk;
    assert_eq!(disk, Some(joiner.identity.me().incarnation));
    // It learns of the others from the one that it met; and nobody is told about itself.
    tell(&nodes[0], &joiner, &mut back);
    assert_eq!([2, 3].map(|n| address(n, &joiner).unwrap()), ["host2:1", "host3:1"]);
    assert_eq!(address(4, &joiner), None);
    // News are told once.
    assert_eq!(tell(&nodes[0], &nodes[1], &mut upto), 0);

    // It moves: whom it meets first passes the new address on, and an older one changes nothing.
    let (old, _) = nodes[0].identity.listings(0);
    let moved = IdentityOptions { listen: "elsewhere:1".into(), ..options(4, Start::Existing, &mut rng) };
    let joiner = open(&joiner.disk, moved).unwrap();
    shake(&joiner, &nodes[0]);
    assert_eq!(tell(&nodes[0], &nodes[1], &mut upto), 1);
    nodes[1].identity.on_listings(NodeId(3), old);
    assert_eq!(address(4, &nodes[1]).as_deref(), Some("elsewhere:1"));

    // Wiped, it is refused by a node that never met it.
    let wiped = fresh(4, Start::Join, &mut rng);
    let (verdict, _) = shake(&wiped, &nodes[1]);
    assert!(matches!(verdict, Admission::Refused(Refusal::OtherDisk { .. })), "{verdict:?}");
    assert!(matches!(wiped.identity.wait_admitted(NOW), Err(BootError::Refused { .. })));
    // Hearsay never replaces what a node has shown itself.
    let other = Listing { node: NodeId(3), incarnation: Incarnation(1), boot: u64::MAX, listen: "evil:1".into() };
    nodes[1].identity.on_listings(NodeId(1), vec![other]);
    assert_eq!(address(3, &nodes[1]).as_deref(), Some("host3:1"));
    assert_eq!(shake(&nodes[2], &nodes[1]), (Admission::Welcome, Admission::Welcome));
}

#[test]
fn tables_travel_in_bounded_pages_and_nonsense_is_left_out() {
    let mut rng = Rng::new(14);
    let nodes = founded(2, &mut rng);
    let listing =
        |node: u64, listen: String| Listing { node: NodeId(node), incarnation: Incarnation(node), boot: 1, listen };
    nodes[0].identity.on_listings(NodeId(2), (100..300).map(|n| listing(n, format!("host{n}:1"))).collect());
    let bad = [listing(0, "zero:1".into()), listing(900, String::new()), listing(901, "x".repeat(256))];
    nodes[0].identity.on_listings(NodeId(2), bad.into());
    assert_eq!(nodes[0].identity.peers().len(), 201);
    let far = fresh(7, Start::Join, &mut rng);
    assert_eq!(tell(&nodes[0], &far, &mut 0), 4, "201 listings, 64 to a page");
    assert_eq!(far.identity.peers().len(), 201);
}

#[test]
fn wrong_directories_are_told_apart() {
    let mut rng = Rng::new(10);
    let nodes = founded(3, &mut rng);
    let disk = &nodes[1].disk;
    let refused = |o: IdentityOptions| open(&disk.copy(), o).err().unwrap().to_string();
    let why = refused(options(3, Start::Existing, &mut rng));
    assert!(why.contains("node 2") && why.contains("node 3"), "{why}");
    let cluster = Some(ClusterId([9; 16]));
    let why = refused(IdentityOptions { cluster, ..options(2, Start::Existing, &mut rng) });
    assert!(why.contains("0909"), "{why}");
    let why = refused(IdentityOptions { digest: 34, ..options(2, found(3), &mut rng) });
    assert!(why.contains("0x21") && why.contains("0x22"), "{why}");
    let empty = open(&Arc::default(), options(2, Start::Existing, &mut rng)).err().unwrap();
    assert!(matches!(empty, BootError::WrongIdentity { .. }));
    let unfinished = fresh(2, found(3), &mut rng);
    assert!(open(&unfinished.disk, options(2, Start::Existing, &mut rng)).is_err());
    let doubled = Start::Found { peers: vec![(NodeId(1), "a".into()), (NodeId(1), "b".into())] };
    let BootError::Config(problems) = open(&Arc::default(), options(5, doubled, &mut rng)).err().unwrap() else {
        panic!()
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn damaged_node_records_refuse() {
    let mut rng = Rng::new(11);
    for (key, value) in [(meta_keys::NODE, Some("junk")), (meta_keys::EPOCH, None), (b"peer/x", Some("junk"))] {
        let nodes = founded(3, &mut rng);
        let meta = vec![MetaWrite { key: key.into(), value: value.map(Bytes::from) }];
        let _proof = nodes[0].log.write(&LogBatch { writes: Vec::new(), meta, sync: true }).unwrap();
        let error = open(&nodes[0].disk, options(1, Start::Existing, &mut rng)).err().unwrap();
        assert!(matches!(error, BootError::Load(_)), "{error}");
    }
}

/// Every node is killed at random moments of its first start, with whatever it had not synced: the founding still
/// ends, in one cluster, and nobody who was admitted forgets it.
#[test]
fn a_founding_survives_crashes_at_every_step() {
    for seed in seeds(300) {
        let _replay = Replay { test: "identity", case: "a_founding_survives_crashes_at_every_step", seed };
        let mut rng = Rng::new(seed);
        let n = 2 + rng.below(3);
        let mut nodes: Vec<Node> = (1..=n).map(|i| fresh(i, found(n), &mut rng)).collect();
        let mut clusters = vec![None; n as usize];
        let mut linked = BTreeSet::new(); // beacons need a link, and a link a handshake
        for step in 0..120 {
            let (a, b) = (rng.below(n) as usize, rng.below(n) as usize);
            if step < 60 && rng.chance(250) {
                linked.retain(|(x, y)| *x != a && *y != a);
                nodes[a].disk.crash(&mut rng);
                nodes[a] = open(&nodes[a].disk, options(a as u64 + 1, found(n), &mut rng)).unwrap();
            } else if a != b && rng.chance(600) {
                shake(&nodes[a], &nodes[b]);
                linked.extend([(a, b), (b, a)]);
            } else if linked.contains(&(a, b)) {
                nodes[b].identity.on_beacon(NodeId(a as u64 + 1), nodes[a].identity.beacon());
            }
            for (node, cluster) in nodes.iter().zip(&mut clusters) {
                assert!(node.identity.fatal().is_none(), "{:?}", node.identity.fatal());
                let now = node.identity.is_admitted().then(|| node.identity.cluster().unwrap());
                assert!(cluster.is_none() || *cluster == now, "admitted to {cluster:?}, now {now:?}");
                *cluster = now;
            }
        }
        for _ in 0..3 {
            shake_all(&nodes.iter().collect::<Vec<_>>());
        }
        let first = nodes[0].identity.cluster();
        assert!(nodes.iter().all(|n| n.identity.is_admitted() && n.identity.cluster() == first));
    }
}
