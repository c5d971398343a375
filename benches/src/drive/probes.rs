//! The two floors of a durable replicated write on this machine: a synced write of 4 KiB, and a ping-pong over the loopback.
//!
//! Invariant: `Floors` are taken while nothing of ours runs; `Background` beside the load, ten times a second, so that it is none.

use super::Failure;
use hdrhistogram::Histogram;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Rounds of each floor.
const ROUNDS: usize = 500;
/// Between two rounds in the background.
const EVERY: Duration = Duration::from_millis(100);
const PAGE: [u8; 4096] = [7; 4096];

/// 4 KiB written over a preallocated, already written file, and fdatasync.
struct Sync {
    file: File,
    path: PathBuf,
    next: u64,
}

impl Drop for Sync {
    fn drop(&mut self) {
        // The directory goes, too.
        let _gone = fs::remove_file(&self.path);
    }
}

impl Sync {
    fn new(dir: &Path) -> Result<Sync, Failure> {
        let path = dir.join("floor");
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        (0..ROUNDS as u64).try_for_each(|i| file.write_all_at(&PAGE, i * PAGE.len() as u64))?;
        file.sync_all()?;
        Ok(Sync { file, path, next: 0 })
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        self.file.write_all_at(&PAGE, self.next % ROUNDS as u64 * PAGE.len() as u64)?;
        self.file.sync_data()?;
        self.next += 1;
        Ok(began.elapsed())
    }
}

/// 64 bytes there and back.
struct PingPong {
    peer: TcpStream,
}

impl PingPong {
    /// The other side's thread ends with the connection.
    fn new() -> Result<PingPong, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        thread::spawn(move || -> std::io::Result<()> {
            let (mut peer, _) = listener.accept()?;
            peer.set_nodelay(true)?;
            let mut ball = [0; 64];
            loop {
                peer.read_exact(&mut ball)?;
                peer.write_all(&ball)?;
            }
        });
        let peer = TcpStream::connect(addr)?;
        peer.set_nodelay(true)?;
        Ok(PingPong { peer })
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let (mut ball, began) = ([0; 64], Instant::now());
        self.peer.write_all(&ball)?;
        self.peer.read_exact(&mut ball)?;
        Ok(began.elapsed())
    }
}

/// The floors, microseconds, p50.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floors {
    pub(crate) rtt_us: f64,
    pub(crate) sync_us: f64,
}

impl Floors {
    /// Measured now, in `dir`.
    pub(crate) fn measure(dir: &Path) -> Result<Floors, Failure> {
        let (mut ping, mut sync) = (PingPong::new()?, Sync::new(dir)?);
        Ok(Floors { rtt_us: median_us(|| ping.once())?, sync_us: median_us(|| sync.once())? })
    }

    /// Of two measurements.
    pub(crate) fn mean(self, other: Floors) -> Floors {
        Floors { rtt_us: (self.rtt_us + other.rtt_us) / 2.0, sync_us: (self.sync_us + other.sync_us) / 2.0 }
    }
}

fn median_us(mut once: impl FnMut() -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let mut took = (0..ROUNDS).map(|_| once()).collect::<Result<Vec<Duration>, Failure>>()?;
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1e6)
}

/// Both, measured on and on beside a load.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tails, Failure>>,
}

/// What the background saw, microseconds.
pub(crate) struct Tails {
    pub(crate) rtt: Histogram<u64>,
    pub(crate) sync: Histogram<u64>,
    /// The longest that a sleep of this process was late: it had no processor, or was stopped.
    pub(crate) late: Duration,
}

impl Background {
    /// In `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Background, Failure> {
        let (mut ping, mut sync) = (PingPong::new()?, Sync::new(dir)?);
        let mut tails = Tails { rtt: Histogram::new(3)?, sync: Histogram::new(3)?, late: Duration::ZERO };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                tails.rtt.record(ping.once()?.as_micros() as u64)?;
                tails.sync.record(sync.once()?.as_micros() as u64)?;
                let began = Instant::now();
                thread::sleep(EVERY);
                tails.late = tails.late.max(began.elapsed().saturating_sub(EVERY));
            }
            Ok(tails)
        });
        Ok(Background { stop, thread })
    }

    /// What was seen.
    pub(crate) fn finish(self) -> Result<Tails, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the floors' thread panicked")?
    }
}
