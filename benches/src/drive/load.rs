//! The driver thread of a node: loads the groups that this node leads, closed loop (a fixed number in flight) or open
//! loop (begun on time, latency counted from the intended time: coordinated omission does not hide a stall).
//!
//! Writes go through the engine's queue for commands in bulk. A read is a future whose waker puts its slot's number into a
//! queue, so that a turn costs what has changed and not what waits.
//! Leaves to others: what a command is (`machines`), the window (the parent marks it).
//! Invariant: stamps of a key grow in the order of submission, and a key belongs to one node: a stamp that was
//! acknowledged is never followed by a lower one.

use super::Failure;
use super::control::{Acked, Counters, Outcome};
use super::machines::Driven;
use super::measure::{thread_cpu_us, thread_id};
use super::options::LoadOptions;
use crossbeam_channel::{Receiver, Sender, unbounded};
use hdrhistogram::Histogram;
use pontoon::{Applied, Completion, Completions, Engine, Group, ProposeError, Read};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Keys of one node over all groups.
const KEYS: usize = 16_384;
/// How often the groups led here are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the last operations may take.
const DRAIN: Duration = Duration::from_secs(15);
/// Highest latency told apart, microseconds.
const HIGHEST: u64 = 120_000_000;

/// A running driver thread.
pub(crate) struct Driver<M> {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Outcome, Failure>>,
    id: String,
    machine: std::marker::PhantomData<fn() -> M>,
}

/// What the thread and its node share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Raised by `mark`: the histogram begins anew.
    marks: AtomicU64,
    acked: AtomicU64,
    reads: AtomicU64,
}

impl<M: Driven> Driver<M> {
    /// Starts the thread.
    pub(crate) fn start(engine: Engine, options: LoadOptions) -> Result<Driver<M>, Failure> {
        let shared = Arc::new(Shared::default());
        let (ids, named) = crossbeam_channel::bounded(1);
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
            ids.send(thread_id()?)?;
            Loop::<M>::new(engine, options, inside)?.run()
        })?;
        Ok(Driver { shared, thread, id: named.recv()?, machine: std::marker::PhantomData })
    }

    /// What was counted so far; `mark`: latencies count from here.
    pub(crate) fn counters(&self, mark: bool) -> Result<Counters, Failure> {
        if mark {
            self.shared.marks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Counters {
            acked: self.shared.acked.load(Ordering::Relaxed),
            reads: self.shared.reads.load(Ordering::Relaxed),
            driver_cpu_us: thread_cpu_us(&self.id)?,
            ..Counters::default()
        })
    }

    /// Begins nothing more, waits for what is in flight.
    pub(crate) fn finish(self) -> Result<Outcome, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the driver thread panicked")?
    }
}

/// Puts a slot's number into the queue and wakes the driver.
struct Bell {
    slot: usize,
    queue: Sender<usize>,
    driver: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        // The queue is gone only when the thread has ended.
        let _ended = self.queue.send(self.slot);
        self.driver.wake_by_ref();
    }
}

/// Wakes the driver.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

type Reading = Pin<Box<dyn Future<Output = bool> + Send>>;

/// One operation at a time.
struct Slot {
    /// Rings for its read.
    waker: Waker,
    /// A read under way.
    reading: Option<Reading>,
    /// Group, as a place in `Loop::groups`.
    group: usize,
    /// Key (as a place in `Target::last`) and stamp of a write.
    key: usize,
    stamp: u64,
    began: Instant,
}

/// A group and what this node wrote to it.
struct Target<M> {
    id: u64,
    group: Group<M>,
    next_key: usize,
    acked: u64,
    /// Last acknowledged stamp by key; 0: none.
    last: Vec<u64>,
}

struct Loop<M: Driven> {
    engine: Engine,
    options: LoadOptions,
    shared: Arc<Shared>,
    writes: Completions<M>,
    /// What came back in this turn.
    done: Vec<Completion<M::Response>>,
    queue: (Sender<usize>, Receiver<usize>),
    /// Of this thread.
    waker: Waker,
    slots: Vec<Slot>,
    free: Vec<usize>,
    groups: Vec<Target<M>>,
    /// Places of the groups led here, and how likely each is chosen, summed up (Zipf).
    led: Vec<usize>,
    weights: Vec<f64>,
    look_at: Instant,
    rng: u64,
    stamp: u64,
    latencies: Histogram<u64>,
    marks: u64,
    refused: u64,
    unknown: u64,
    overdue: u64,
    /// Open loop: when the next operation begins.
    next_at: Instant,
}

impl<M: Driven> Loop<M> {
    fn new(engine: Engine, options: LoadOptions, shared: Arc<Shared>) -> Result<Loop<M>, Failure> {
        let mut groups = Vec::new();
        for status in engine.groups() {
            let group = engine.group::<M>(status.group)?;
            groups.push(Target { id: status.group.0, group, next_key: 0, acked: 0, last: Vec::new() });
        }
        let now = Instant::now();
        Ok(Loop {
            writes: engine.completions(),
            done: Vec::new(),
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
            rng: engine.me().0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            engine,
            options,
            shared,
            queue: unbounded(),
            slots: Vec::new(),
            free: Vec::new(),
            groups,
            led: Vec::new(),
            weights: Vec::new(),
            look_at: now,
            stamp: 0,
            latencies: Histogram::new_with_max(HIGHEST, 3)?,
            marks: 0,
            refused: 0,
            unknown: 0,
            overdue: 0,
            next_at: now,
        })
    }

    fn run(mut self) -> Result<Outcome, Failure> {
        self.add_slots();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.look();
            self.begin_due();
            self.wait(Duration::from_millis(10));
        }
        self.count_overdue();
        let deadline = Instant::now() + DRAIN;
        while self.free.len() < self.slots.len() && Instant::now() < deadline {
            self.wait(Duration::from_millis(10));
        }
        self.unknown += (self.slots.len() - self.free.len()) as u64;
        Ok(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let groups = || self.groups.iter().filter(|g| g.acked > 0);
        let me = self.engine.me().0;
        let stamps = |g: &Target<M>| {
            let acked = g.last.iter().enumerate().filter(|(_, stamp)| **stamp > 0);
            acked.map(|(key, stamp)| (key_of(me, key), *stamp)).collect::<BTreeMap<u64, u64>>()
        };
        let last: Acked = groups().map(|g| (g.id, stamps(g))).collect();
        Outcome {
            per_group: groups().map(|g| (g.id, g.acked)).collect(),
            last,
            refused: self.refused,
            unknown: self.unknown,
            overdue: self.overdue,
            latencies: self
                .latencies
                .iter_recorded()
                .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
                .collect(),
        }
    }

    /// As many as there may ever be here: if this node led everything.
    fn add_slots(&mut self) {
        for slot in 0..self.options.inflight as usize {
            let bell = Bell { slot, queue: self.queue.0.clone(), driver: self.waker.clone() };
            let (waker, began) = (Waker::from(Arc::new(bell)), Instant::now());
            self.slots.push(Slot { waker, reading: None, group: 0, key: 0, stamp: 0, began });
            self.free.push(slot);
        }
    }

    /// Is there a free slot within this node's share? That is by the groups that it leads, and one at least.
    fn has_room(&self) -> bool {
        let all = self.groups.len() as u64;
        let share = (self.options.inflight * self.led.len() as u64).div_ceil(all.max(1)).max(1);
        !self.free.is_empty() && ((self.slots.len() - self.free.len()) as u64) < share
    }

    fn take_slot(&mut self) -> Option<usize> {
        if self.has_room() { self.free.pop() } else { None }
    }

    /// Which groups are led here.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let leads = |g: &Target<M>| g.group.status().is_leader();
        self.led = (0..self.groups.len()).filter(|at| leads(&self.groups[*at])).collect();
        let exponent = self.options.zipf.unwrap_or(0.0);
        let mut sum = 0.0;
        let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
        self.weights = (0..self.led.len())
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
        let marks = self.shared.marks.load(Ordering::Relaxed);
        if marks != self.marks {
            self.marks = marks;
            self.latencies.reset();
        }
    }

    fn begin_due(&mut self) {
        if self.led.is_empty() {
            self.next_at = self.next_at.max(Instant::now());
            return;
        }
        match self.options.open_loop {
            None => {
                let now = Instant::now();
                while let Some(slot) = self.take_slot() {
                    self.begin(slot, now);
                }
            }
            Some(rate) => {
                let every = self.every(rate);
                while self.next_at <= Instant::now() {
                    // A full house keeps what is due waiting; its latency counts from when it was due.
                    let Some(slot) = self.take_slot() else { return };
                    let due = self.next_at;
                    self.next_at += every;
                    self.begin(slot, due);
                }
            }
        }
    }

    /// Open loop: the time between two operations of this node, whose share of the rate is that of the groups it leads.
    fn every(&self, rate: f64) -> Duration {
        Duration::from_secs_f64(self.groups.len() as f64 / (rate * self.led.len() as f64))
    }

    /// Open loop: what was due and never began counts with its age, the least that its latency would have been.
    fn count_overdue(&mut self) {
        let (Some(rate), false) = (self.options.open_loop, self.led.is_empty()) else { return };
        let (now, every) = (Instant::now(), self.every(rate));
        while self.next_at <= now {
            self.record_since(self.next_at, now);
            self.overdue += 1;
            self.next_at += every;
        }
    }

    fn begin(&mut self, slot: usize, began: Instant) {
        let at = self.choose();
        self.slots[slot].group = at;
        self.slots[slot].began = began;
        let reads = self.options.reads;
        if reads > 0.0 && self.uniform() < reads {
            let group = self.groups[at].group.clone();
            let reading = async move { group.read(Read::Linearizable).await.is_ok() };
            self.slots[slot].reading = Some(Box::pin(reading));
            self.poll_read(slot);
        } else {
            self.write(slot, at);
        }
    }

    fn write(&mut self, slot: usize, at: usize) {
        self.stamp += 1;
        let keys = (KEYS / self.led.len()).max(1);
        let target = &mut self.groups[at];
        let key = target.next_key % keys;
        target.next_key += 1;
        let command = M::command(key_of(self.engine.me().0, key), self.stamp, self.options.bytes as usize);
        self.slots[slot].key = key;
        self.slots[slot].stamp = self.stamp;
        self.writes.submit(&target.group, slot as u64, command);
    }

    fn choose(&mut self) -> usize {
        let drawn = self.uniform();
        let rank = match self.options.zipf {
            None => (drawn * self.led.len() as f64) as usize,
            Some(_) => {
                let drawn = drawn * self.weights.last().copied().unwrap_or(1.0);
                self.weights.partition_point(|w| *w <= drawn)
            }
        };
        self.led[rank.min(self.led.len() - 1)]
    }

    fn uniform(&mut self) -> f64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Waits for answers and takes all there are.
    fn wait(&mut self, at_most: Duration) {
        let until_due = self.options.open_loop.map(|_| self.next_at.saturating_duration_since(Instant::now()));
        let wait = until_due.filter(|_| self.has_room()).map_or(at_most, |d| d.min(at_most));
        let answered =
            self.writes.under_way() > 0 && self.writes.poll_ready(&Context::from_waker(&self.waker)).is_ready();
        if !answered && self.queue.1.is_empty() {
            std::thread::park_timeout(wait);
        }
        self.end_writes();
        for _ in 0..self.queue.1.len() {
            let Ok(slot) = self.queue.1.try_recv() else { break };
            self.poll_read(slot);
        }
    }

    fn end_writes(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        self.writes.collect(&mut done);
        let (now, mut acked) = (Instant::now(), 0);
        for Completion { tag, result } in done.drain(..) {
            acked += u64::from(self.end_write(tag as usize, result, now));
        }
        self.shared.acked.fetch_add(acked, Ordering::Relaxed);
        self.done = done;
    }

    /// True: acknowledged.
    fn end_write(&mut self, at: usize, result: Result<Applied<M::Response>, ProposeError>, now: Instant) -> bool {
        self.free.push(at);
        let slot = &self.slots[at];
        if let Err(e) = result {
            *(if e.never_appended() { &mut self.refused } else { &mut self.unknown }) += 1;
            self.look_at = now;
            return false;
        }
        let (target, key, stamp) = (&mut self.groups[slot.group], slot.key, slot.stamp);
        target.acked += 1;
        if target.last.len() <= key {
            target.last.resize(key + 1, 0);
        }
        target.last[key] = target.last[key].max(stamp);
        self.record(at, now);
        true
    }

    fn poll_read(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let Some(reading) = &mut slot.reading else { return };
        let Poll::Ready(answered) = reading.as_mut().poll(&mut Context::from_waker(&slot.waker)) else { return };
        slot.reading = None;
        self.free.push(at);
        if answered {
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
            self.record(at, Instant::now());
        } else {
            self.refused += 1;
        }
    }

    fn record(&mut self, slot: usize, now: Instant) {
        self.record_since(self.slots[slot].began, now);
    }

    fn record_since(&mut self, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began).as_micros();
        self.latencies.saturating_record(u64::try_from(took).unwrap_or(HIGHEST).min(HIGHEST));
    }
}

/// A key belongs to one node.
fn key_of(node: u64, key: usize) -> u64 {
    (node << 32) | key as u64
}
