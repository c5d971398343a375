//! The driver thread of a node: loads the groups that this node leads, closed loop (a fixed number in flight) or open
//! loop (begun on time, latency counted from the intended time: coordinated omission does not hide a stall).
//!
//! A future's waker puts its slot's number into a queue, so that a turn costs what has changed and not what waits.
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
use pontoon::{Engine, Group, Proposal, ProposeError, Read};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Keys of one node over all groups.
const KEYS: u64 = 16_384;
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
    /// Starts the thread; one of `nodes` that share the load.
    pub(crate) fn start(engine: Engine, options: LoadOptions, nodes: u64) -> Result<Driver<M>, Failure> {
        let shared = Arc::new(Shared::default());
        let (ids, named) = crossbeam_channel::bounded(1);
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
            ids.send(thread_id()?)?;
            Loop::<M>::new(engine, options, nodes, inside)?.run()
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

/// Puts a slot's number into the queue.
struct Bell {
    slot: usize,
    queue: Sender<usize>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        // The queue is gone only when the thread has ended.
        let _ended = self.queue.send(self.slot);
    }
}

type Reading = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What a slot waits for.
enum Doing<M: Driven> {
    Nothing,
    Write { proposal: Proposal<M::Response>, key: u64, stamp: u64 },
    Read(Reading),
}

struct Slot<M: Driven> {
    waker: Waker,
    doing: Doing<M>,
    /// Group, as a place in `Loop::groups`.
    group: usize,
    began: Instant,
}

/// A group and what this node wrote to it.
struct Target<M> {
    id: u64,
    group: Group<M>,
    next_key: u64,
    acked: u64,
    /// Last acknowledged stamp by key.
    last: BTreeMap<u64, u64>,
}

struct Loop<M: Driven> {
    engine: Engine,
    options: LoadOptions,
    nodes: u64,
    shared: Arc<Shared>,
    queue: (Sender<usize>, Receiver<usize>),
    slots: Vec<Slot<M>>,
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
    /// Open loop: when the next operation begins.
    next_at: Instant,
}

impl<M: Driven> Loop<M> {
    fn new(engine: Engine, options: LoadOptions, nodes: u64, shared: Arc<Shared>) -> Result<Loop<M>, Failure> {
        let mut groups = Vec::new();
        for status in engine.groups() {
            let group = engine.group::<M>(status.group)?;
            groups.push(Target { id: status.group.0, group, next_key: 0, acked: 0, last: BTreeMap::new() });
        }
        let now = Instant::now();
        Ok(Loop {
            rng: engine.me().0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            engine,
            options,
            nodes,
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
        let deadline = Instant::now() + DRAIN;
        while self.free.len() < self.slots.len() && Instant::now() < deadline {
            self.wait(Duration::from_millis(10));
        }
        self.unknown += (self.slots.len() - self.free.len()) as u64;
        Ok(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let groups = || self.groups.iter().filter(|g| g.acked > 0);
        let last: Acked = groups().map(|g| (g.id, g.last.clone())).collect();
        Outcome {
            per_group: groups().map(|g| (g.id, g.acked)).collect(),
            last,
            refused: self.refused,
            unknown: self.unknown,
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
            let waker = Waker::from(Arc::new(Bell { slot, queue: self.queue.0.clone() }));
            self.slots.push(Slot { waker, doing: Doing::Nothing, group: 0, began: Instant::now() });
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
                while let Some(slot) = self.take_slot() {
                    if !self.begin(slot, Instant::now()) {
                        return;
                    }
                }
            }
            Some(rate) => {
                let every = Duration::from_secs_f64(self.nodes as f64 / rate);
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

    /// False: it was refused at once; look again before the next.
    fn begin(&mut self, slot: usize, began: Instant) -> bool {
        let at = self.choose();
        self.slots[slot].group = at;
        self.slots[slot].began = began;
        let reads = self.options.reads;
        let doing = if reads > 0.0 && self.uniform() < reads { self.read(at) } else { self.write(at) };
        match doing {
            Ok(doing) => {
                self.slots[slot].doing = doing;
                self.poll(slot);
                true
            }
            Err(_) => {
                self.refused += 1;
                self.free.push(slot);
                false
            }
        }
    }

    fn write(&mut self, at: usize) -> Result<Doing<M>, ProposeError> {
        self.stamp += 1;
        let target = &mut self.groups[at];
        let keys = (KEYS / self.led.len() as u64).max(1);
        let key = (self.engine.me().0 << 32) | (target.next_key % keys);
        target.next_key += 1;
        let command = M::command(key, self.stamp, self.options.bytes as usize);
        Ok(Doing::Write { proposal: target.group.try_propose(command)?, key, stamp: self.stamp })
    }

    fn read(&mut self, at: usize) -> Result<Doing<M>, ProposeError> {
        let group = self.groups[at].group.clone();
        Ok(Doing::Read(Box::pin(async move { group.read(Read::Linearizable).await.is_ok() })))
    }

    fn choose(&mut self) -> usize {
        let drawn = self.uniform() * self.weights.last().copied().unwrap_or(1.0);
        let rank = self.weights.partition_point(|w| *w <= drawn).min(self.led.len() - 1);
        self.led[rank]
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
        let mut next = self.queue.1.recv_timeout(wait).ok();
        let mut left = self.queue.1.len();
        while let Some(slot) = next {
            self.poll(slot);
            next = if left > 0 { self.queue.1.try_recv().ok() } else { None };
            left = left.saturating_sub(1);
        }
    }

    fn poll(&mut self, slot: usize) {
        let Slot { waker, doing, .. } = &mut self.slots[slot];
        let mut cx = Context::from_waker(waker);
        match doing {
            Doing::Nothing => {}
            Doing::Write { proposal, key, stamp } => {
                let (key, stamp) = (*key, *stamp);
                if let Poll::Ready(answer) = Pin::new(proposal).poll(&mut cx) {
                    self.end(slot, answer.map(|_| Some((key, stamp))));
                }
            }
            Doing::Read(reading) => {
                if let Poll::Ready(ok) = reading.as_mut().poll(&mut cx) {
                    let refused = ProposeError::Group(pontoon::GroupError::ShuttingDown);
                    self.end(slot, if ok { Ok(None) } else { Err(refused) });
                }
            }
        }
    }

    /// `Some`: a write.
    fn end(&mut self, at: usize, answer: Result<Option<(u64, u64)>, ProposeError>) {
        let slot = &mut self.slots[at];
        slot.doing = Doing::Nothing;
        self.free.push(at);
        let target = &mut self.groups[slot.group];
        match answer {
            Ok(Some((key, stamp))) => {
                target.acked += 1;
                let last = target.last.entry(key).or_default();
                *last = (*last).max(stamp);
                self.shared.acked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => drop(self.shared.reads.fetch_add(1, Ordering::Relaxed)),
            Err(e) => {
                *(if e.never_appended() { &mut self.refused } else { &mut self.unknown }) += 1;
                return;
            }
        }
        let took = u64::try_from(slot.began.elapsed().as_micros()).unwrap_or(HIGHEST);
        self.latencies.saturating_record(took.min(HIGHEST));
    }
}
