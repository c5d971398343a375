//! Clients that write through kills: each owns its keys, so what must be read back later is known without a checker.
//!
//! A client writes ever higher numbers to its keys, one command in flight. Per key the last acknowledged number and those
//! of unknown outcome after it are kept. Invariant: a key is written by one client only, in order.

use crate::client::{Answer, ClusterClient};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const KEYS_PER_CLIENT: u64 = 256;
const DEADLINE: Duration = Duration::from_secs(8);
const BACK_OFF: Duration = Duration::from_millis(10);

/// What is known of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyHistory {
    /// Highest acknowledged number.
    pub(super) acknowledged: Option<u64>,
    /// Numbers of unknown outcome written after it.
    pub(super) unknown: Vec<u64>,
}

/// What all clients together know at the end.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) keys: BTreeMap<String, KeyHistory>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

/// Counters that the live line reads.
#[derive(Debug)]
pub(super) struct Load {
    stop: AtomicBool,
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    /// Microseconds since the last line.
    latencies: Mutex<Histogram<u64>>,
    clients: Mutex<JoinSet<BTreeMap<String, KeyHistory>>>,
}

impl Load {
    /// Starts the clients.
    pub(super) fn start(seeds: &[String], clients: u64) -> Arc<Load> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds are valid");
        let load = Arc::new(Load {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            latencies: Mutex::new(histogram),
            clients: Mutex::new(JoinSet::new()),
        });
        let mut running = load.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for client in 0..clients {
            running.spawn(Arc::clone(&load).client(client, seeds.to_vec()));
        }
        drop(running);
        load
    }

    /// Lets the clients finish their last command, and collects.
    pub(super) async fn stop(&self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let mut history = History {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            ..History::default()
        };
        while let Some(Ok(keys)) = clients.join_next().await {
            history.keys.extend(keys);
        }
        history.acknowledged = self.acknowledged.load(Ordering::Relaxed);
        history
    }

    /// (p50, p99) in microseconds since the last call.
    pub(super) fn take_latencies(&self) -> (u64, u64) {
        let mut histogram = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let found = (histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99));
        histogram.reset();
        found
    }

    async fn client(self: Arc<Load>, client: u64, seeds: Vec<String>) -> BTreeMap<String, KeyHistory> {
        let mut connection = ClusterClient::new(seeds, DEADLINE);
        let mut keys: BTreeMap<String, KeyHistory> = BTreeMap::new();
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let key = format!("demo:{client}:{}", number % KEYS_PER_CLIENT);
            let value = number.to_string();
            let began = Instant::now();
            let answer = connection.call(key.as_bytes(), &[b"SET", key.as_bytes(), value.as_bytes()]).await;
            let known = keys.entry(key).or_default();
            match answer {
                Answer::Done(_) => {
                    *known = KeyHistory { acknowledged: Some(number), unknown: Vec::new() };
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
                }
                Answer::Unknown(_) => {
                    known.unknown.push(number);
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(BACK_OFF).await;
                }
                Answer::Refused(why) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    if !why.starts_with("MOVED") {
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        }
        keys
    }
}
