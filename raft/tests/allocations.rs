//! Memory in the steady state: one allocation per proposed batch, the run of its entries, and none for anything else:
//! no `Ready`, message, ack, commit, heartbeat or membership walk takes any, on leader or follower.
//!
//! Counted on this thread by a counting allocator. Leaves to others: speed (`benches/peers`), sizes (unit tests).
#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use bytes::Bytes;
use pontoon_raft::*;

/// A replica and what its driver uses again and again.
struct Node {
    raw: RawNode<MemStorage>,
    asynchronous: bool,
    ready: Ready,
    released: Vec<Message>,
    inbox: Vec<Message>,
    applied: usize,
}

impl Node {
    fn new(id: u64, asynchronous: bool) -> Node {
        let conf_state = ConfState::new((1..=3).map(ReplicaId).collect(), Vec::new());
        let meta = SnapshotMeta { index: Index(1), term: Term(1), conf_state };
        let mut storage = MemStorage::new();
        storage.install_snapshot(Snapshot { meta, ..Snapshot::default() }).unwrap();
        let config = Config {
            id: ReplicaId(id),
            election_tick: 1 << 20,
            check_quorum: true,
            pre_vote: true,
            strict: true,
            async_storage_writes: asynchronous,
            ..Config::default()
        };
        let raw = RawNode::new(&config, storage, 0).unwrap();
        Node { raw, asynchronous, ready: Ready::default(), released: Vec::new(), inbox: Vec::new(), applied: 0 }
    }

    /// Takes in what came and does the work until there is none; `out` gets what is to be sent.
    fn turn(&mut self, now: Tick, out: &mut Vec<Message>) {
        let Node { raw, asynchronous, ready, released, inbox, applied } = self;
        inbox.drain(..).for_each(|m| raw.step(now, m).unwrap());
        while raw.has_ready() {
            raw.ready_into(ready);
            raw.storage_mut().append(&ready.entries);
            out.append(&mut ready.messages);
            *applied += ready.committed_entries.len();
            if !*asynchronous {
                raw.advance(now);
                continue;
            }
            if ready.awaits_persist {
                raw.on_persisted(now, ready.number, released);
                out.append(released);
            }
            if let Some(last) = ready.committed_entries.last() {
                raw.on_applied(now, last.index);
            }
        }
    }
}

/// Three of them; the first leads.
struct Group {
    nodes: [Node; 3],
    out: Vec<Message>,
    now: Tick,
}

impl Group {
    fn new(asynchronous: bool) -> Group {
        let nodes = [1, 2, 3].map(|id| Node::new(id, asynchronous));
        let mut group = Group { nodes, out: Vec::new(), now: 0 };
        group.nodes[0].raw.campaign(0);
        group.settle();
        assert_eq!(group.nodes[0].raw.basic_status().role, StateRole::Leader);
        group
    }

    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            for node in &mut self.nodes {
                node.turn(self.now, &mut self.out);
            }
            busy = !self.out.is_empty();
            for m in self.out.drain(..) {
                self.nodes[m.to.0 as usize - 1].inbox.push(m);
            }
        }
    }

    /// Batches from proposal to applied everywhere, then a heartbeat to all.
    fn run(&mut self, batches: &mut Vec<Vec<Bytes>>) {
        while let Some(batch) = batches.pop() {
            self.nodes[0].raw.propose_batch(self.now, batch).unwrap();
            self.settle();
        }
        self.now += 1;
        self.nodes[0].raw.tick(self.now);
        self.settle();
    }

    fn compact(&mut self) {
        for node in &mut self.nodes {
            let upto = node.raw.basic_status().applied.prev();
            node.raw.storage_mut().compact(upto).unwrap();
        }
    }
}

fn batches(n: usize, of: usize) -> Vec<Vec<Bytes>> {
    vec![vec![Bytes::from_static(b"command"); of]; n]
}

#[test]
fn a_batch_takes_one_allocation_and_an_idle_round_none() {
    for (asynchronous, size) in [(true, 1), (true, 16), (true, 256), (false, 1), (false, 16), (false, 256)] {
        let mut group = Group::new(asynchronous);
        // Warm: every list has grown to what it needs, and swapped places with its twin.
        for _ in 0..4 {
            group.run(&mut batches(40, size));
            group.compact();
        }
        let mut work = batches(40, size);
        let counted = measure(|| group.run(&mut work));
        let what = format!("40 batches of {size}, asynchronous: {asynchronous}");
        assert!(group.nodes.iter().all(|n| n.applied == 1 + 200 * size), "{what}");
        assert_eq!(counted.count_total, 40, "{what}: {counted:?}");
        let idle = measure(|| group.run(&mut Vec::new()));
        assert_eq!(idle.count_total, 0, "a heartbeat to all: {idle:?}");
    }
}
