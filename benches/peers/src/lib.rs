//! raft-engine as a contestant of the append race.
//!
//! Leaves to others: the race (`pontoon_benches`). Invariant: the same entries and truncations as everybody, synced.

use pontoon_benches::append::Contestant;
use pontoon_raftstore::env::{GroupOp, LogBatch};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, MessageExt};
use std::path::Path;

/// Entries are messages whose value begins with the index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(e: &BytesValue) -> u64 {
        e.value.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }
}

/// raft-engine without compression, synced.
#[allow(missing_debug_implementations)]
pub struct RaftEngine(Engine);

impl RaftEngine {
    /// In an empty or absent directory.
    ///
    /// # Panics
    /// If it cannot be made there.
    #[must_use]
    pub fn new(dir: &Path) -> RaftEngine {
        let dir = dir.to_string_lossy().into_owned();
        let config = Config { dir, batch_compression_threshold: raft_engine::ReadableSize(0), ..Config::default() };
        RaftEngine(Engine::open(config).expect("a new directory"))
    }
}

impl Contestant for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine 0.4.2"
    }

    fn append(&mut self, batch: &LogBatch) {
        let mut out = raft_engine::LogBatch::default();
        for w in &batch.writes {
            let GroupOp::Append { entries, .. } = &w.op else { continue };
            let entries: Vec<BytesValue> = entries
                .iter()
                .map(|e| {
                    let mut value = BytesValue::default();
                    value.value = [&e.index.0.to_le_bytes(), &e.data[..]].concat();
                    value
                })
                .collect();
            out.add_entries::<Indexed>(w.group.0, &entries).expect("small entries");
        }
        self.0.write(&mut out, true).expect("disk has room");
    }

    fn truncate(&mut self, batch: &LogBatch) {
        let mut out = raft_engine::LogBatch::default();
        for w in &batch.writes {
            if let GroupOp::Truncate(t) = &w.op {
                out.add_command(w.group.0, Command::Compact { index: t.pos.index.0 + 1 });
            }
        }
        self.0.write(&mut out, false).expect("disk has room");
        let _ = self.0.purge_expired_files();
    }
}
