//! Reads CPU, memory, threads and device bytes of a process from /proc.
//!
//! Leaves to others: the machine's floors (`probes`). Invariant: nothing here changes what it looks at.

use super::Failure;
use pontoon_server::harness;
use std::fs;

/// What /proc says about a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time since its start, microseconds.
    pub(crate) cpu_us: f64,
    /// Resident memory, bytes.
    pub(crate) rss: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Bytes that it caused to be written to the device.
    pub(crate) device_bytes: u64,
}

impl Usage {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Usage, Failure> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        Ok(Usage {
            cpu_us: cpu_us(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?,
            rss: field(&status, "VmRSS:")? * 1024,
            threads: field(&status, "Threads:")?,
            device_bytes: field(&io, "write_bytes:")?,
        })
    }
}

/// Calls of this process's allocator that took memory: allocations and reallocations of Rust code. What RocksDB takes in
/// C++ is not seen. `None` unless built with the feature `allocations`.
#[cfg(feature = "allocations")]
pub(crate) fn allocator_calls() -> Option<u64> {
    let seen = stats_alloc::INSTRUMENTED_SYSTEM.stats();
    Some((seen.allocations + seen.reallocations) as u64)
}

/// Not counted.
#[cfg(not(feature = "allocations"))]
pub(crate) fn allocator_calls() -> Option<u64> {
    None
}

/// CPU of one thread of this process (see `thread_id`), microseconds.
pub(crate) fn thread_cpu_us(thread: &str) -> Result<f64, Failure> {
    cpu_us(&fs::read_to_string(format!("/proc/self/task/{thread}/stat"))?)
}

/// The calling thread, for `thread_cpu_us`.
pub(crate) fn thread_id() -> Result<String, Failure> {
    let link = fs::read_link("/proc/thread-self")?;
    let name = link.file_name().ok_or("/proc/thread-self names no thread")?;
    Ok(name.to_string_lossy().into_owned())
}

fn cpu_us(stat: &str) -> Result<f64, Failure> {
    Ok(harness::cpu_us(stat).ok_or("a short /proc stat")?)
}

fn field(text: &str, name: &str) -> Result<u64, Failure> {
    let line = text.lines().find_map(|l| l.strip_prefix(name)).ok_or_else(|| format!("no {name} in /proc"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}
