//! What `drive` and `pontoon load` write into their JSON (docs/load-driver.md).
#![allow(unreachable_pub)]

/// Exactly these.
pub const KEYS: [&str; 19] = [
    "groups",
    "inflight",
    "bytes",
    "machine",
    "writes_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "cpu_us_per_write",
    "driver_cpu_us_per_write",
    "entries_per_sync",
    "syncs_per_s",
    "log_bytes_per_payload_byte",
    "device_bytes_per_payload_byte",
    "messages_per_write",
    "rss_per_replica_bytes",
    "floor_rtt_us",
    "floor_sync_us",
    "allocations_per_write",
];
