//! Gauges of a RocksDB, the log store's or a state machine's: where its memory and disk are, and whether it holds writes up.
//!
//! Leaves to others: when they are set (about once a second). Invariant: reads counters of RocksDB only, no I/O.

use rocksdb::{DB, properties as p};

/// What a gauge shows, and RocksDB's name of it.
const BYTES: [(&str, &rocksdb::properties::PropName); 5] = [
    ("memtables", p::SIZE_ALL_MEM_TABLES),
    ("tables", p::TOTAL_SST_FILES_SIZE),
    ("table_readers", p::ESTIMATE_TABLE_READERS_MEM),
    ("block_cache", p::BLOCK_CACHE_USAGE),
    ("compaction_debt", p::ESTIMATE_PENDING_COMPACTION_BYTES),
];

/// Sets the gauges of `db` under the label `db = name`:
/// `pontoon_rocksdb_bytes{kind}` (bytes), `pontoon_rocksdb_memtables_waiting` (for their flush),
/// `pontoon_rocksdb_write_stall` (0 none, 1 writes are slowed down, 2 they are stopped), `pontoon_rocksdb_errors` (background
/// errors since it was opened). What RocksDB does not tell keeps its last value.
pub fn set_gauges(name: &'static str, db: &DB) {
    let told = |property| db.property_int_value(property).ok().flatten();
    for (kind, property) in BYTES {
        if let Some(bytes) = told(property) {
            metrics::gauge!("pontoon_rocksdb_bytes", "db" => name, "kind" => kind).set(bytes as f64);
        }
    }
    if let Some(waiting) = told(p::NUM_IMMUTABLE_MEM_TABLE) {
        metrics::gauge!("pontoon_rocksdb_memtables_waiting", "db" => name).set(waiting as f64);
    }
    if let Some(errors) = told(p::BACKGROUND_ERRORS) {
        metrics::gauge!("pontoon_rocksdb_errors", "db" => name).set(errors as f64);
    }
    if let (Some(stopped), Some(slowed)) = (told(p::IS_WRITE_STOPPED), told(p::ACTUAL_DELAYED_WRITE_RATE)) {
        let stall = if stopped > 0 { 2.0 } else { f64::from(u8::from(slowed > 0)) };
        metrics::gauge!("pontoon_rocksdb_write_stall", "db" => name).set(stall);
    }
}
