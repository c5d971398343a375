//! The driver thread of a node: loads the groups that this node leads, closed loop (a fixed number in flight) or open
//! loop (begun on time, latency counted from the intended time: coordinated omission does not hide a stall).
//!
//! Writes and reads go through the engine's queues for many at once, so that a turn costs what has changed and not what waits.
//! Leaves to others: what a command is (`machines`), when operations begin (`pace`), what is counted (`tally`) and what was
//! acknowledged (`books`), the windows (the parent cuts them).
//! Invariant: an acknowledgement is in the books, and in the ledger if there is one, before its slot is used again.

mod books;
mod pace;
mod tally;

use super::Failure;
use super::control::{Counters, Load, Outcome, Pace, Seen};
use super::ledger::{KEYS, Ledger};
use super::machines::{Driven, Mint};
use super::measure::{thread_cpu_us, thread_id};
use super::options::LoadOptions;
use books::Books;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use pace::{Arrivals, Moment};
use pontoon::{Completion, Completions, Confirmation, Confirmations, Engine, ProposeError};
use pontoon_raftstore::slots::Slots;
use pontoon_raftstore::testing::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use tally::Tally;

/// How often the groups led here are looked at. Nanoseconds.
const LOOK_EVERY: Moment = 50_000_000;
/// How long the last operations may take. Nanoseconds.
const DRAIN: Moment = 15_000_000_000;
/// Operations begun before answers are taken: what is handed in at once, and what comes back of it, is held in memory.
const BURST: usize = 1 << 11;
/// How long the thread sleeps at the most.
const NAP: Duration = Duration::from_millis(10);

/// A running driver thread.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Outcome, Failure>>,
    asks: Sender<Ask>,
    id: String,
}

/// What the thread and its node share.
#[derive(Default)]
struct Shared {
    acked: AtomicU64,
    reads: AtomicU64,
}

/// What its node wants of the thread.
enum Ask {
    /// The window ends here, the next begins.
    Cut(Sender<Seen>),
    /// Another pace.
    Change(Pace),
    /// Begin nothing more.
    Stop,
}

impl Driver {
    /// Starts the thread; what it needs for itself is allocated when this returns.
    pub(crate) fn start<M: Driven>(engine: Engine, load: Load, ledger: Option<Ledger>) -> Result<Driver, Failure> {
        let shared = Arc::new(Shared::default());
        let (ids, named) = bounded(1);
        let (asks, asked) = unbounded();
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
            let driver = Loop::<M>::new(engine, load, inside, ledger)?;
            ids.send(thread_id()?)?;
            driver.run(&asked)
        })?;
        match named.recv() {
            Ok(id) => Ok(Driver { shared, thread, asks, id }),
            Err(_) => Err(ended(thread).err().unwrap_or_else(|| "the driver thread ended".into())),
        }
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Result<Counters, Failure> {
        Ok(Counters {
            acked: self.shared.acked.load(Ordering::Relaxed),
            reads: self.shared.reads.load(Ordering::Relaxed),
            driver_cpu_us: thread_cpu_us(&self.id)?,
            ..Counters::default()
        })
    }

    /// Ends the window; what was seen in it.
    pub(crate) fn cut(&self) -> Result<Seen, Failure> {
        let (answer, seen) = bounded(1);
        self.ask(Ask::Cut(answer))?;
        Ok(seen.recv()?)
    }

    /// Goes on at another pace.
    pub(crate) fn change(&self, pace: Pace) -> Result<(), Failure> {
        self.ask(Ask::Change(pace))
    }

    /// Begins nothing more, waits for what is in flight.
    pub(crate) fn finish(self) -> Result<Outcome, Failure> {
        // A thread that ended says why.
        let _ended = self.ask(Ask::Stop);
        ended(self.thread)
    }

    fn ask(&self, ask: Ask) -> Result<(), Failure> {
        self.asks.send(ask).map_err(|_| "the driver thread ended")?;
        self.thread.thread().unpark();
        Ok(())
    }
}

/// A table with memory for so many, as if this node led everything.
fn reserved(most: usize) -> Slots<Slot> {
    let mut slots = Slots::new(most * 2); // it need not use half-full stretches then
    let places: Vec<usize> = (0..most).filter_map(|_| slots.insert_with(|_| Slot::default())).collect();
    for at in places {
        slots.remove(at);
    }
    slots
}

fn ended(thread: JoinHandle<Result<Outcome, Failure>>) -> Result<Outcome, Failure> {
    thread.join().map_err(|_| "the driver thread panicked")?
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

/// One operation at a time. Small: at overload there are millions.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Group (a place in `Books::groups`), key (as a place in it) and stamp of a write.
    group: u32,
    key: u32,
    stamp: u64,
    began: Moment,
}

struct Loop<M: Driven> {
    options: LoadOptions,
    shared: Arc<Shared>,
    writes: Completions<M>,
    /// What came back in this turn.
    done: Vec<Completion<M::Response>>,
    reads: Confirmations,
    /// Reads that came back in this turn.
    read: Vec<Confirmation>,
    /// Of this thread.
    waker: Waker,
    slots: Slots<Slot>,
    epoch: Instant,
    books: Books<M>,
    mint: Mint,
    /// Places of the groups led here, and how likely each is chosen, summed up (Zipf).
    led: Vec<usize>,
    weights: Vec<f64>,
    look_at: Moment,
    rng: Rng,
    tally: Tally,
    arrivals: Arrivals,
    /// Open loop, in this window: turns that ended with something due and no slot for it.
    full: u64,
}

impl<M: Driven> Loop<M> {
    fn new(engine: Engine, load: Load, shared: Arc<Shared>, ledger: Option<Ledger>) -> Result<Loop<M>, Failure> {
        let books = Books::open(&engine, ledger)?;
        Ok(Loop {
            writes: engine.completions(),
            done: Vec::new(),
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
            rng: Rng::new(engine.me().0),
            arrivals: Arrivals::new(load.pace, books.groups.len() as u64, 0),
            options: load.options,
            shared,
            reads: engine.confirmations(),
            read: Vec::new(),
            slots: reserved(load.slots as usize),
            epoch: Instant::now(),
            books,
            mint: Mint::default(),
            led: Vec::new(),
            weights: Vec::new(),
            look_at: 0,
            tally: Tally::new()?,
            full: 0,
        })
    }

    fn run(mut self, asked: &Receiver<Ask>) -> Result<Outcome, Failure> {
        while self.obey(asked) {
            self.look();
            let before = self.slots.len();
            let cut_short = self.begin_due()?;
            // What is refused over and over is not tried again before something changes.
            self.wait(cut_short && self.slots.len() > before)?;
        }
        let now = self.now();
        for due in self.arrivals.take_overdue(now) {
            // Its age is the least that its latency would have been.
            self.tally.took(due, now);
            self.tally.overdue += 1;
        }
        while !self.slots.is_empty() && self.now() - now < DRAIN {
            self.wait(false)?;
        }
        let unanswered = self.slots.len() as u64;
        self.tally.unanswered(unanswered);
        self.books.unknown(unanswered)?;
        let (per_group, last) = self.books.totals();
        let (refused, unknown, overdue) = (self.tally.refused(), self.tally.unknown(), self.tally.overdue);
        Ok(Outcome { per_group, last, refused, unknown, overdue, latencies: self.tally.cut() })
    }

    /// False: stop.
    fn obey(&mut self, asked: &Receiver<Ask>) -> bool {
        for ask in asked.try_iter() {
            match ask {
                Ask::Cut(answer) => {
                    let (refused, unknown) = (self.tally.refused(), self.tally.unknown());
                    let full = std::mem::take(&mut self.full);
                    let behind_us = self.arrivals.behind(self.now()).as_micros() as u64;
                    // Who asked has ended.
                    let _ended = answer.send(Seen { latencies: self.tally.cut(), refused, unknown, behind_us, full });
                }
                Ask::Change(pace) => {
                    let now = self.now();
                    self.arrivals.change(pace, now);
                }
                Ask::Stop => return false,
            }
        }
        true
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed().as_nanos() as Moment
    }

    /// Is less under way than this node's share?
    fn has_room(&self) -> bool {
        (self.slots.len() as u64) < self.arrivals.room()
    }

    /// Which groups are led here.
    fn look(&mut self) {
        let now = self.now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let groups = self.books.groups.iter().enumerate();
        self.led = groups.filter(|(_, g)| g.group.status().is_leader()).map(|(at, _)| at).collect();
        self.arrivals.lead(self.led.len() as u64, now);
        let exponent = self.options.zipf.unwrap_or(0.0);
        let mut sum = 0.0;
        let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
        self.weights = (0..self.led.len())
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
    }

    /// A full house keeps what is due waiting; its latency counts from when it was due. True: there is more to begin.
    fn begin_due(&mut self) -> Result<bool, Failure> {
        // What becomes due meanwhile waits until answers were taken, or at overload they never would be.
        let now = self.now();
        for _ in 0..BURST {
            let Some(due) = self.arrivals.due(now) else { return Ok(false) };
            if !self.has_room() {
                self.full += u64::from(self.arrivals.until_due(now).is_some());
                return Ok(false);
            }
            self.arrivals.begun();
            self.begin(due)?;
        }
        Ok(self.has_room() && self.arrivals.due(now).is_some())
    }

    fn begin(&mut self, began: Moment) -> Result<(), Failure> {
        let at = self.choose();
        if self.options.reads > 0.0 && self.rng.unit() < self.options.reads {
            let tag = self.take_slot(Slot { group: at as u32, began, ..Slot::default() })?;
            self.reads.submit(&self.books.groups[at].group, tag);
        } else if let Err(e) = self.writes.look(&self.books.groups[at].group) {
            // A command that would be refused is not even made.
            self.failed(&e)?;
        } else {
            self.write(at, began)?;
        }
        Ok(())
    }

    fn write(&mut self, at: usize, began: Moment) -> Result<(), Failure> {
        let (key, name, stamp) = self.books.next(at, (KEYS / self.led.len()).max(1));
        let tag = self.take_slot(Slot { group: at as u32, key: key as u32, stamp, began })?;
        let command = M::command(&mut self.mint, name, stamp, self.options.bytes as usize);
        self.writes.submit(&self.books.groups[at].group, tag, command);
        Ok(())
    }

    fn take_slot(&mut self, slot: Slot) -> Result<u64, Failure> {
        let at = self.slots.insert_with(|_| slot).ok_or("more is under way than was asked for")?;
        Ok(at as u64)
    }

    fn choose(&mut self) -> usize {
        let drawn = self.rng.unit();
        let rank = match self.options.zipf {
            None => (drawn * self.led.len() as f64) as usize,
            Some(_) => {
                let drawn = drawn * self.weights.last().copied().unwrap_or(1.0);
                self.weights.partition_point(|w| *w <= drawn)
            }
        };
        self.led[rank.min(self.led.len() - 1)]
    }

    /// Waits for answers, unless there is something to begin, and takes all there are.
    fn wait(&mut self, goes_on: bool) -> Result<(), Failure> {
        if let Some(rest) = self.arrivals.rest(self.now()).filter(|_| self.has_room()) {
            self.writes.flush();
            self.reads.flush();
            std::thread::sleep(rest);
        } else {
            self.wait_woken(goes_on);
        }
        self.end_writes()?;
        self.end_reads();
        Ok(())
    }

    /// Until there are answers, or something is due.
    fn wait_woken(&mut self, goes_on: bool) {
        let until_due = self.arrivals.until_due(self.now()).filter(|_| self.has_room());
        let cx = Context::from_waker(&self.waker);
        let written = self.writes.under_way() > 0 && self.writes.poll_ready(&cx).is_ready();
        let read = self.reads.under_way() > 0 && self.reads.poll_ready(&cx).is_ready();
        if !written && !read && !goes_on {
            std::thread::park_timeout(until_due.map_or(NAP, |d| d.min(NAP)));
        }
    }

    fn end_writes(&mut self) -> Result<(), Failure> {
        let mut done = std::mem::take(&mut self.done);
        self.writes.collect(&mut done);
        let (now, mut acked) = (self.now(), 0);
        let mut coming = done.drain(..);
        while let few @ 1.. = self.slots.look_ahead(coming.as_slice(), |come| come.tag as usize) {
            for Completion { tag, result } in coming.by_ref().take(few) {
                let Some(slot) = self.slots.remove(tag as usize) else { continue };
                match result {
                    Ok(_) => {
                        self.books.acked(slot.group as usize, slot.key as usize, slot.stamp)?;
                        self.tally.took(slot.began, now);
                        acked += 1;
                    }
                    Err(e) => self.failed(&e)?,
                }
            }
        }
        drop(coming);
        self.books.settle()?;
        self.shared.acked.fetch_add(acked, Ordering::Relaxed);
        self.done = done;
        Ok(())
    }

    fn failed(&mut self, error: &ProposeError) -> Result<(), Failure> {
        if !matches!(error, ProposeError::Overloaded(_)) {
            self.look_at = 0;
        }
        if self.tally.failed(error) { self.books.unknown(1) } else { Ok(()) }
    }

    fn end_reads(&mut self) {
        let mut read = std::mem::take(&mut self.read);
        self.reads.collect(&mut read);
        let now = self.now();
        for Confirmation { tag, result } in read.drain(..) {
            let Some(slot) = self.slots.remove(tag as usize) else { continue };
            // The view is part of a read, what is asked of it is the machine's.
            if result.is_ok() && self.books.groups[slot.group as usize].group.local_reader().is_ok() {
                self.shared.reads.fetch_add(1, Ordering::Relaxed);
                self.tally.took(slot.began, now);
            } else {
                self.tally.unread();
            }
        }
        self.read = read;
    }
}
