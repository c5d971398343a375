//! A recorder that tests can read: counters by name and labels, for the whole test process.
//!
//! Leaves gauges and histograms out.

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

#[derive(Default)]
struct Cell(AtomicU64);

impl CounterFn for Cell {
    fn increment(&self, n: u64) {
        self.0.fetch_add(n, Ordering::SeqCst);
    }
    fn absolute(&self, n: u64) {
        self.0.fetch_max(n, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<String, Arc<Cell>>>>);

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let cell = self.0.lock().entry(format!("{}{{{}}}", key.name(), labels.join(","))).or_default().clone();
        Counter::from_arc(cell)
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Counters {
    /// The one of this process.
    pub fn get() -> Counters {
        static ONE: OnceLock<Counters> = OnceLock::new();
        let one = ONE.get_or_init(|| {
            let counters = Counters::default();
            metrics::set_global_recorder(counters.clone()).unwrap();
            counters
        });
        one.clone()
    }

    pub fn of(&self, key: &str) -> u64 {
        self.0.lock().get(key).map_or(0, |cell| cell.0.load(Ordering::SeqCst))
    }

    /// Waits until the counter has reached `n`: it is counted before the socket is closed, but by another thread.
    pub fn wait(&self, key: &str, n: u64) {
        let until = std::time::Instant::now() + super::LIMIT;
        while self.of(key) < n {
            assert!(std::time::Instant::now() < until, "{key} stays {}", self.of(key));
            std::thread::yield_now();
        }
    }
}
