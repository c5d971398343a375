//! The log-store contract on the real store: after a killed process (an image taken while it is open) and after a clean
//! stop; with memtables so small that every case flushes, and with large ones.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod common;

use pontoon_raftstore::env::{LogBatch, LogStore};
use pontoon_raftstore::ids::StoreSeq;
use pontoon_raftstore::mem::Image;
use pontoon_raftstore::testing::log_batches::Writer;
use pontoon_raftstore::testing::log_store_contract::{self, LogStoreFixture};
use pontoon_raftstore::testing::{Replay, Rng, seeds};
use pontoon_wal::{WalConfig, WalStore};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
enum Stop {
    Killed,
    Clean,
}

struct World {
    base: tempfile::TempDir,
    config: WalConfig,
    stop: Stop,
    opened: u32,
    store: Option<Arc<WalStore>>,
}

impl World {
    fn new(config: WalConfig, stop: Stop) -> World {
        let mut world = World { base: tempfile::tempdir().unwrap(), config, stop, opened: 0, store: None };
        world.open();
        world
    }

    fn dir(&self) -> PathBuf {
        self.base.path().join(self.opened.to_string())
    }

    fn open(&mut self) {
        self.store = Some(Arc::new(WalStore::open(&self.dir(), &self.config).unwrap()));
    }
}

impl LogStoreFixture for World {
    fn store(&self) -> Arc<dyn LogStore> {
        self.store.clone().unwrap()
    }

    fn crash_and_reopen(&mut self) {
        if matches!(self.stop, Stop::Killed) {
            let old = self.dir();
            self.opened += 1;
            common::image(&old, &self.dir());
            self.store = None;
            std::fs::remove_dir_all(old).unwrap();
        }
        self.store = None;
        self.open();
    }
}

#[test]
fn every_case() {
    for (stop, config) in [(Stop::Killed, common::small()), (Stop::Clean, WalConfig::default())] {
        for (name, case) in log_store_contract::CASES {
            println!("{name} {stop:?} {config:?}");
            case(&mut World::new(config.clone(), stop));
        }
    }
}

/// Random batches with crashes, store against image: longer runs than the contract's own, mixed sync and no sync.
#[test]
fn differential() {
    for seed in seeds(6) {
        let _replay = Replay { test: "contract", case: "differential", seed };
        let mut rng = Rng::new(seed);
        let (mut image, mut writer) = (Image::default(), Writer::default());
        let stop = *rng.pick(&[Stop::Killed, Stop::Clean]);
        let mut world = World::new(common::small(), stop);
        for round in 0..400 {
            let batch = LogBatch { sync: rng.chance(700), ..writer.batch(&mut rng, &image) };
            let _proof = world.store().write(&batch).unwrap();
            image.apply(StoreSeq(round), &batch);
            if rng.chance(40) {
                world.crash_and_reopen();
            }
            if rng.chance(100) {
                compare(&image, world.store.as_ref().unwrap());
            }
        }
    }
}

fn compare(image: &Image, store: &WalStore) {
    let found = store.load().unwrap();
    let expected = image.recovered();
    assert_eq!(found.groups, expected.groups, "payload bytes included");
    assert_eq!(found.tombstones, expected.tombstones);
    assert_eq!(found.meta, expected.meta);
    for group in &expected.groups {
        let (low, high) = (group.truncated.pos.index.next(), group.last.index.next());
        let fetch = pontoon_raftstore::env::Fetch { group: group.group, low, high, max_bytes: 100 };
        let (ours, theirs) = (store.read(&[fetch]).remove(0), image.read(&fetch));
        assert_eq!(ours.ok(), theirs.ok(), "log of group {}", group.group);
    }
}
