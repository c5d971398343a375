//! Every RocksDB option with its reason; read back from the OPTIONS file after open and compared.
//!
//! RocksDB changes settings silently when they do not go together (recycling is dropped under two of its four recovery
//! modes). Invariant: a store whose settings are not in effect does not open.

use crate::config::WalConfig;
use crate::error::{Doing, OpenError};
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};
use std::path::Path;

/// Never reached: a write stall stops elections. Throttling is by bytes of live log, above the store.
const OUT_OF_REACH: i32 = 1 << 30;

/// The options of every open.
pub(crate) fn build(config: &WalConfig) -> Result<Options, OpenError> {
    let mut base = Options::default();
    // The crate has no setters for these. After a background error RocksDB must not resume by itself: the latch decides
    // (it resumes from a full disk whatever is set, tried; the latch then still refuses). A group's blocks ascend, so the
    // memtable remembers per group (9 bytes of the key) where the last one went: appends of many groups cost a third
    // less (docs/adr/0001). Possible because one thread writes.
    let strings =
        base.get_options_from_string("max_bgerror_resume_count=0;memtable_insert_with_hint_prefix_extractor=fixed:9");
    let mut o = strings.map_err(|e| OpenError::Damaged(format!("options string: {e}")))?;
    set_durability(&mut o, config);
    set_memory(&mut o, config);
    set_tables(&mut o);
    Ok(o)
}

fn set_durability(o: &mut Options, config: &WalConfig) {
    // With recycling only PointInTime (or SkipAny) is possible. It ends recovery at the first record that makes no sense
    // and says nothing; the watermark turns that into a refusal (boot.md 9).
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Overwriting needs no block allocation in the file system at each sync.
    o.set_recycle_log_file_num(config.recycled_wals);
    // Overwritten pages are charged by whole folios of the page cache, which are as large as the write that made them: with
    // RocksDB's default of 1 MiB a synced batch of 2 MiB counts (and is throttled) as a fifth more than it writes.
    o.set_writable_file_max_buffer_size(128 << 10);
    // Not `track_and_verify_wals`: it noticed none of the damages tried, and it refuses a directory whose only, never
    // synced WAL file a power cut removed, which is no loss.
    // fdatasync, not fsync: the size of a recycled file does not change.
    o.set_use_fsync(false);
    // Every write reaches the kernel before it returns, so a killed process loses nothing.
    o.set_manual_wal_flush(false);
    // Checksums and lengths of entries are ours; compressing would cost the writer's time.
    o.set_wal_compression_type(DBCompressionType::None);
    // Damage of RocksDB's own files refuses instead of being worked around.
    o.set_paranoid_checks(true);
    // Only one column family: a WAL goes when its memtable is flushed. The limit is a backstop.
    o.set_max_total_wal_size((config.memtable_bytes as u64).saturating_mul(u64::from(config.memtables)));
}

fn set_memory(o: &mut Options, config: &WalConfig) {
    // Large, so that entries are truncated before they are flushed: a flush drops what a range tombstone covers.
    o.set_write_buffer_size(config.memtable_bytes);
    o.set_max_write_buffer_number(config.memtables as i32);
    // Two are flushed together: half as much of them is still alive. Costs one more memtable of memory, and of WAL at a restart.
    o.set_min_write_buffer_number_to_merge(2);
    // One thread writes: no locks in the memtable.
    o.set_allow_concurrent_memtable_write(false);
    o.set_enable_write_thread_adaptive_yield(false);
    o.set_level_zero_slowdown_writes_trigger(OUT_OF_REACH);
    o.set_level_zero_stop_writes_trigger(OUT_OF_REACH);
    o.set_soft_pending_compaction_bytes_limit(0);
    o.set_hard_pending_compaction_bytes_limit(0);
    // One flush and one compaction at a time leave the cores to the pollers.
    o.set_max_background_jobs(2);
    // Flushes write in small steps, so that they do not fill the disk's queue before a WAL sync.
    o.set_bytes_per_sync(1 << 20);
}

fn set_tables(o: &mut Options) {
    // What is flushed is read once at a restart, or by a follower that is far behind.
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(8 << 20));
    tables.set_block_size(64 << 10);
    o.set_block_based_table_factory(&tables);
    o.set_compression_type(DBCompressionType::None);
    // Files that a long-dead log left in the upper levels are few: compact late.
    o.set_level_zero_file_num_compaction_trigger(8);
    o.set_target_file_size_base(256 << 20);
    o.set_max_bytes_for_level_base(1 << 30);
    o.set_max_open_files(512);
    o.set_max_manifest_file_size(4 << 20);
    // RocksDB's own log: bounded.
    o.set_keep_log_file_num(4);
    o.set_max_log_file_size(4 << 20);
    o.set_stats_dump_period_sec(0);
}

/// Compares what safety rests on with the OPTIONS file that RocksDB wrote at open (after its own changes).
pub(crate) fn assert_in_effect(db: &Path, config: &WalConfig) -> Result<(), OpenError> {
    let text = newest_options_file(db)?;
    let wanted = [
        ("recycle_log_file_num", config.recycled_wals.to_string()),
        ("wal_recovery_mode", "kPointInTimeRecovery".to_owned()),
        ("use_fsync", "false".to_owned()),
        ("manual_wal_flush", "false".to_owned()),
        ("wal_compression", "kNoCompression".to_owned()),
        ("paranoid_checks", "true".to_owned()),
        ("max_bgerror_resume_count", "0".to_owned()),
        ("allow_mmap_writes", "false".to_owned()),
        ("two_write_queues", "false".to_owned()),
        ("unordered_write", "false".to_owned()),
        ("level0_stop_writes_trigger", OUT_OF_REACH.to_string()),
        ("level0_slowdown_writes_trigger", OUT_OF_REACH.to_string()),
        ("write_buffer_size", config.memtable_bytes.to_string()),
        ("max_write_buffer_number", config.memtables.to_string()),
    ];
    for (name, wanted) in wanted {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        if found != Some(&wanted) {
            return Err(OpenError::OptionNotInEffect { name, wanted, found: found.unwrap_or("nothing").to_owned() });
        }
    }
    Ok(())
}

fn newest_options_file(db: &Path) -> Result<String, OpenError> {
    let entries = std::fs::read_dir(db).doing(|| format!("list {}", db.display()))?;
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let number = |name: &String| name.strip_prefix("OPTIONS-").and_then(|n| n.parse::<u64>().ok());
    let newest = names.filter(|n| number(n).is_some()).max_by_key(number);
    let newest = newest.ok_or_else(|| OpenError::Damaged("RocksDB wrote no OPTIONS file".into()))?;
    std::fs::read_to_string(db.join(newest)).doing(|| "read the OPTIONS file".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::latch::Latch;

    #[test]
    fn options_are_in_effect_and_a_silent_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let config = WalConfig::default();
        let mut options = build(&config).unwrap();
        options.create_if_missing(true);
        drop(Latch::open(dir.path(), &options).unwrap());
        assert_in_effect(dir.path(), &config).unwrap();

        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        drop(Latch::open(dir.path(), &options).unwrap());
        let error = assert_in_effect(dir.path(), &config).unwrap_err();
        assert!(matches!(error, OpenError::OptionNotInEffect { name: "recycle_log_file_num", .. }), "{error}");
    }
}
