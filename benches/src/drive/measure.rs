//! Reads the machine: CPU, memory, threads and device bytes of a process from /proc, and the two floors of a durable
//! replicated write (a synced 4 KiB write, a ping-pong over the loopback).
//!
//! Invariant: floors are taken while nothing of ours runs.

use super::Failure;
use pontoon_server::harness;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Rounds of each floor.
const ROUNDS: usize = 500;

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

/// The floors, microseconds, p50.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floors {
    /// Ping-pong over TCP on the loopback.
    pub(crate) rtt_us: f64,
    /// 4 KiB written over a preallocated, already written file, and fdatasync.
    pub(crate) sync_us: f64,
}

impl Floors {
    /// Measured now, in `dir`.
    pub(crate) fn measure(dir: &Path) -> Result<Floors, Failure> {
        Ok(Floors { rtt_us: rtt_us()?, sync_us: sync_us(dir)? })
    }

    /// Of two measurements.
    pub(crate) fn mean(self, other: Floors) -> Floors {
        Floors { rtt_us: (self.rtt_us + other.rtt_us) / 2.0, sync_us: (self.sync_us + other.sync_us) / 2.0 }
    }
}

fn sync_us(dir: &Path) -> Result<f64, Failure> {
    let path = dir.join("floor");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    let page = [7_u8; 4096];
    (0..ROUNDS as u64).try_for_each(|i| file.write_all_at(&page, i * 4096))?;
    file.sync_all()?;
    let mut took = Vec::with_capacity(ROUNDS);
    for i in 0..ROUNDS as u64 {
        let began = Instant::now();
        file.write_all_at(&page, i * 4096)?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    fs::remove_file(path)?;
    Ok(median_us(took))
}

fn rtt_us() -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        peer.set_nodelay(true)?;
        let mut ball = [0; 64];
        for _ in 0..ROUNDS {
            peer.read_exact(&mut ball)?;
            peer.write_all(&ball)?;
        }
        Ok(())
    });
    let mut peer = TcpStream::connect(addr)?;
    peer.set_nodelay(true)?;
    let (mut ball, mut took) = ([0; 64], Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let began = Instant::now();
        peer.write_all(&ball)?;
        peer.read_exact(&mut ball)?;
        took.push(began.elapsed());
    }
    echo.join().map_err(|_| "the echo thread panicked")??;
    Ok(median_us(took))
}

fn median_us(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e6
}
