//! Frames over the loopback: throughput by body size, round trip of a lone heartbeat, and the same heartbeat while
//! a snapshot fills its lane. Beside each figure its floor: a bare socket in the same run.
//!
//! `cargo bench -p pontoon-benches --bench transport [-- --seconds 2]`. Gates nothing.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use pontoon_raftstore::env::{Admission, BadFrame, Beacon, Gatekeeper, Hello, Inbound, Lane, PeerIdentity, Refusal};
use pontoon_raftstore::env::{LinkState, Listing, Transport};
use pontoon_raftstore::ids::NodeId;
use pontoon_transport::{Config, StaticResolver, TcpTransport};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Admits everybody, counts what arrives, answers urgent frames.
struct End {
    node: NodeId,
    bytes: AtomicU64,
    frames: AtomicU64,
    net: OnceLock<Arc<TcpTransport>>,
    answers: Mutex<mpsc::Sender<()>>,
}

impl Gatekeeper for End {
    fn hello(&self) -> Hello {
        Hello { node: self.node, ..Hello::default() }
    }
    fn admit(&self, _: &Hello) -> Admission {
        Admission::Welcome
    }
    fn on_welcome(&self, _: &Hello) {}
    fn on_refused(&self, _: &Hello, _: &Refusal) {}
    fn beacon(&self) -> Beacon {
        Beacon::default()
    }
    fn on_beacon(&self, _: NodeId, _: Beacon) {}
    fn listings(&self, since: u64) -> (Vec<Listing>, u64) {
        (Vec::new(), since)
    }
    fn on_listings(&self, _: NodeId, _: Vec<Listing>) {}
}

impl Inbound for End {
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame> {
        self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
        if lane == Lane::Urgent && self.node == B {
            let _ = self.net.get().unwrap().send(from.into(), lane, body);
        } else if lane == Lane::Urgent {
            let _ = self.answers.lock().unwrap().send(());
        }
        Ok(())
    }
    fn on_link_up(&self, _: PeerIdentity) {}
    fn on_link_down(&self, _: NodeId) {}
}

struct Pair {
    a: Arc<TcpTransport>,
    b: Arc<TcpTransport>,
    there: Arc<End>,
    answers: mpsc::Receiver<()>,
}

impl Pair {
    fn new() -> Pair {
        let (answers, answered) = mpsc::channel();
        let end = |node| {
            let (bytes, frames, net, answers) =
                (AtomicU64::new(0), AtomicU64::new(0), OnceLock::new(), Mutex::new(answers.clone()));
            Arc::new(End { node, bytes, frames, net, answers })
        };
        let (here, there) = (end(A), end(B));
        let nobody = Arc::new(StaticResolver::default());
        let b = TcpTransport::start(Config::loopback(B), None, nobody, there.clone(), there.clone()).unwrap();
        let book = StaticResolver(BTreeMap::from([(B, b.local_addr().to_string())]));
        let a = TcpTransport::start(Config::loopback(A), None, Arc::new(book), here.clone(), here).unwrap();
        assert!(there.net.set(b.clone()).is_ok());
        a.set_peers(vec![B]);
        while a.link(B) != LinkState::Up || b.link(A) != LinkState::Up {
            thread::yield_now();
        }
        Pair { a, b, there, answers: answered }
    }

    /// Bodies per second, and bytes per second, as received.
    fn throughput(&self, size: usize, time: Duration) -> (f64, f64) {
        let body = Bytes::from(vec![7; size]);
        let (frames, bytes) = (self.there.frames.load(Ordering::SeqCst), self.there.bytes.load(Ordering::SeqCst));
        let start = Instant::now();
        while start.elapsed() < time {
            if self.a.send(B.into(), Lane::Append, body.clone()).is_err() {
                thread::sleep(Duration::from_micros(200));
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let got = |now: u64, before: u64| (now - before) as f64 / seconds;
        let result = (
            got(self.there.frames.load(Ordering::SeqCst), frames),
            got(self.there.bytes.load(Ordering::SeqCst), bytes),
        );
        while self.a.links()[0].queued != [0; 3] {
            thread::yield_now();
        }
        result
    }

    /// Round trips of urgent frames, one at a time.
    fn round_trips(&self, time: Duration) -> Vec<Duration> {
        let (start, mut all) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let one = Instant::now();
            self.a.send(B.into(), Lane::Urgent, Bytes::from_static(&[1; 64])).unwrap();
            self.answers.recv().unwrap();
            all.push(one.elapsed());
        }
        all
    }

    fn round_trips_under_snapshot(&self, time: Duration) -> Vec<Duration> {
        let (stop, net) = (Arc::new(AtomicBool::new(false)), self.a.clone());
        let stopped = stop.clone();
        let flood = thread::spawn(move || {
            let chunk = Bytes::from(vec![9; 1 << 20]);
            while !stopped.load(Ordering::Relaxed) {
                if net.send(B.into(), Lane::Snapshot, chunk.clone()).is_err() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        let all = self.round_trips(time);
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        all
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.a.shutdown_blocking();
        self.b.shutdown_blocking();
    }
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// Bytes per second of blocking writes of 256 KiB.
fn bare_throughput(time: Duration) -> f64 {
    let (mut near, mut far) = sockets();
    let sink = thread::spawn(move || {
        let (mut buf, mut sum) = (vec![0; 64 << 10], 0u64);
        while let Ok(n @ 1..) = far.read(&mut buf) {
            sum += n as u64;
        }
        sum
    });
    let (start, piece) = (Instant::now(), vec![7; 256 << 10]);
    while start.elapsed() < time {
        near.write_all(&piece).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(near);
    sink.join().unwrap() as f64 / seconds
}

fn bare_round_trips(time: Duration) -> Vec<Duration> {
    let (mut near, mut far) = sockets();
    let echo = thread::spawn(move || {
        let mut buf = [0; 88];
        while far.read_exact(&mut buf).is_ok() {
            far.write_all(&buf).unwrap();
        }
    });
    let (start, mut all, mut buf) = (Instant::now(), Vec::new(), [0; 88]);
    while start.elapsed() < time {
        let one = Instant::now();
        near.write_all(&buf).unwrap();
        near.read_exact(&mut buf).unwrap();
        all.push(one.elapsed());
    }
    drop(near);
    echo.join().unwrap();
    all
}

fn print_quantiles(what: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |q: f64| all[((all.len() - 1) as f64 * q) as usize];
    println!("  {what:<34} p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}  n {}", at(0.5), at(0.99), at(1.0), all.len());
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seconds = args.iter().position(|a| a == "--seconds").map_or(1.0, |i| args[i + 1].parse().unwrap());
    let time = Duration::from_secs_f64(seconds);
    let pair = Pair::new();
    println!("throughput, one direction, one link");
    println!("  {:<34} {:>28.0} MB/s", "floor: bare socket, 256 KiB writes", bare_throughput(time) / 1e6);
    for size in [64, 1 << 10, 16 << 10, 256 << 10] {
        let (frames, bytes) = pair.throughput(size, time);
        println!("  bodies of {size:<24} {frames:>13.0} frames/s {:>6.0} MB/s", bytes / 1e6);
    }
    println!("round trip of a 64-byte urgent frame");
    print_quantiles("floor: bare socket, blocking", bare_round_trips(time));
    print_quantiles("idle link", pair.round_trips(time));
    print_quantiles("under a stream of 1 MiB chunks", pair.round_trips_under_snapshot(time));
}
