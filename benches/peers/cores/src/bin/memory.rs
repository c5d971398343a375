//! Memory of one replica of a group of three: its own struct and everything that it holds on the heap.
//!
//! `cargo run --release -p pontoon-peers-cores --bin memory` in `benches/peers`. A program of its own, because its counting
//! allocator would cost the race time.
//!
//! Fresh: as started, its empty storage included. After use: after 64 batches of 256 entries, the storage's entries
//! not counted (a host keeps them elsewhere); the larger of leader and follower.

#![allow(clippy::print_stdout)]

use allocation_counter::measure;
use pontoon_peers_cores::group::{Group, Replica};
use pontoon_peers_cores::ours::{self, Asynchronous};
use pontoon_peers_cores::theirs::{self, Theirs};
use pontoon_raft::RawNode;
use raft::storage::{MemStorage, MemStorageCore};

/// Bytes of one replica.
struct Held {
    /// Its own struct.
    own: usize,
    /// The heap of a fresh one.
    fresh: i64,
    /// The heap of a used one.
    used: i64,
}

fn ours() -> Held {
    let mut kept = None;
    let fresh = measure(|| kept = RawNode::new(&ours::config(1, true), ours::storage(), 0).ok()).bytes_current;
    let used = used::<Asynchronous, _>(|replica| {
        let mut core = replica.into_core();
        *core.storage_mut() = pontoon_raft::MemStorage::new();
        core
    });
    Held { own: size_of::<RawNode<pontoon_raft::MemStorage>>(), fresh, used }
}

fn theirs() -> Held {
    let (mut kept, logger) = (None, theirs::logger());
    let fresh =
        measure(|| kept = raft::RawNode::new(&theirs::config(1), theirs::storage(), &logger).ok()).bytes_current;
    let used = used::<Theirs, _>(|replica| {
        let (core, storage) = replica.into_core();
        *storage.wl() = MemStorageCore::default();
        core
    });
    Held { own: size_of::<raft::RawNode<MemStorage>>(), fresh, used }
}

/// Heap of the largest replica of a used group: what is freed when `core` of it is dropped.
fn used<R: Replica, C>(core: impl Fn(R) -> C) -> i64 {
    let mut group = Group::<R>::default();
    group.run(64, 256);
    let cores = group.into_replicas().map(core);
    cores.into_iter().map(|core| -measure(|| drop(core)).bytes_current).max().unwrap_or_default()
}

fn print(name: &str, Held { own, fresh, used }: Held) {
    println!("| {name} | {own} | {} | {} |", own as i64 + fresh, own as i64 + used);
}

fn main() {
    println!("| bytes of a RawNode of three | struct | fresh, all included | after use |\n|---|---|---|---|");
    print("ours", ours());
    print("raft-rs 0.7", theirs());
}
