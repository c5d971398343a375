//! A client thread: keeps its share of operations in flight (closed loop), or begins them on time (open loop), over one
//! pipelined connection to each node; follows `MOVED`.
//!
//! A refused operation was never appended and is sent again; its latency counts from its first, or intended, beginning.
//! Leaves to others: what keys hold (`keys`). Invariant: an operation ends once: acknowledged, or of unknown outcome.

use super::keys::{Keys, value};
use super::link::{Heard, Link};
use crate::client::{Answer, Value, judge, moved_to};
use hdrhistogram::Histogram;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a reply, or the last operations, may take.
const DEADLINE: Duration = Duration::from_secs(8);
/// Before a refused operation is sent again, unless it is told where to.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Longest sleep: how soon the end is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// `MOVED` in a row that are followed at once; then as any refusal.
const HOPS: u32 = 3;
/// Highest latency told apart, microseconds.
const HIGHEST: u64 = 120_000_000;

/// What the whole load and one of its clients share.
pub(super) struct Tally {
    pub(super) stop: AtomicBool,
    pub(super) acked: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    /// Open loop: due before the end and never begun.
    pub(super) overdue: AtomicU64,
    /// Microseconds.
    pub(super) latencies: Mutex<Histogram<u64>>,
    /// The last answer that was neither done nor refused.
    pub(super) trouble: Mutex<String>,
}

impl Tally {
    pub(super) fn new() -> Arc<Tally> {
        let histogram = Histogram::new_with_bounds(1, HIGHEST, 3).expect("constant bounds are valid");
        Arc::new(Tally {
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            latencies: Mutex::new(histogram),
            trouble: Mutex::default(),
        })
    }
}

/// What a client is asked for.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// Operations in flight.
    pub(super) inflight: usize,
    /// Bytes of a value.
    pub(super) bytes: usize,
    /// Share of reads.
    pub(super) reads: f64,
    /// Open loop: time between two operations.
    pub(super) every: Option<Duration>,
}

/// One operation.
struct Operation {
    key: usize,
    /// Of a write.
    stamp: Option<u64>,
    began: Instant,
    hops: u32,
}

/// See the file's head.
pub(super) struct Client {
    share: Share,
    keys: Keys,
    tally: Arc<Tally>,
    seeds: Vec<Arc<str>>,
    /// Who leads each slot as far as heard.
    leaders: Vec<Option<Arc<str>>>,
    links: HashMap<Arc<str>, Link<Operation>>,
    opened: u64,
    inbox: (Sender<Heard>, Receiver<Heard>),
    /// Refused, and when they are sent again.
    later: Vec<(Instant, Operation)>,
    /// Begun and not ended.
    alive: usize,
    next_at: Instant,
}

impl Client {
    pub(super) fn new(
        share: Share,
        keys: Keys,
        tally: Arc<Tally>,
        seeds: &[String],
        leaders: Vec<Option<Arc<str>>>,
    ) -> Client {
        Client {
            share,
            keys,
            tally,
            seeds: seeds.iter().map(|s| s.as_str().into()).collect(),
            leaders,
            links: HashMap::new(),
            opened: 0,
            inbox: channel(),
            later: Vec::new(),
            alive: 0,
            next_at: Instant::now(),
        }
    }

    /// Until it is told to stop; then waits for what is in flight.
    pub(super) fn run(mut self) -> Keys {
        while !self.tally.stop.load(Ordering::Relaxed) {
            self.send_again();
            self.begin_due();
            self.turn();
        }
        self.count_overdue();
        // Refused and not sent again: never appended.
        self.alive -= std::mem::take(&mut self.later).len();
        let deadline = Instant::now() + DEADLINE;
        while self.alive > 0 && Instant::now() < deadline {
            self.turn();
            self.alive -= std::mem::take(&mut self.later).len();
        }
        let all: Vec<Arc<str>> = self.links.keys().cloned().collect();
        all.iter().for_each(|addr| self.give_up(addr, "no answer before the end"));
        self.keys
    }

    /// Sends what waits, takes what has come.
    fn turn(&mut self) {
        let addrs: Vec<Arc<str>> = self.links.keys().cloned().collect();
        for addr in &addrs {
            let Some(link) = self.links.get_mut(addr) else { continue };
            if let Err(e) = link.flush() {
                self.give_up(addr, &e.to_string());
            } else if link.waits_since().is_some_and(|since| since.elapsed() > DEADLINE) {
                self.give_up(addr, "no answer in time");
            }
        }
        let mut heard = self.inbox.1.recv_timeout(self.patience()).ok();
        while let Some(next) = heard {
            self.on_heard(next);
            heard = self.inbox.1.try_recv().ok();
        }
    }

    fn patience(&self) -> Duration {
        let now = Instant::now();
        let due = self.share.every.filter(|_| self.alive < self.share.inflight).map(|_| self.next_at);
        let again = self.later.iter().map(|(at, _)| *at).min();
        let until = due.into_iter().chain(again).map(|at| at.saturating_duration_since(now)).min();
        until.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    fn begin_due(&mut self) {
        while self.alive < self.share.inflight {
            let now = Instant::now();
            // What is due waits for a full house; its latency counts from when it was due.
            let began = if self.share.every.is_some() { self.next_at } else { now };
            if began > now {
                return;
            }
            let Some(key) = self.keys.take() else { return };
            self.next_at += self.share.every.unwrap_or_default();
            let read = self.share.reads > 0.0 && self.keys.uniform() < self.share.reads;
            let stamp = (!read).then(|| self.keys.next_stamp());
            self.alive += 1;
            self.place(Operation { key, stamp, began, hops: 0 });
        }
    }

    /// Open loop: what was due and never began counts with its age, the least that its latency would have been.
    fn count_overdue(&mut self) {
        let (Some(every), now) = (self.share.every, Instant::now()) else { return };
        while self.next_at <= now {
            self.record(self.next_at, now);
            self.tally.overdue.fetch_add(1, Ordering::Relaxed);
            self.next_at += every;
        }
    }

    fn send_again(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.later.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().for_each(|(_, operation)| self.place(operation));
    }

    /// Puts an operation into the pipeline of whoever leads its slot as far as known.
    fn place(&mut self, operation: Operation) {
        let slot = usize::from(self.keys.key(operation.key).slot);
        let seed = (self.opened as usize + operation.key) % self.seeds.len();
        let addr = self.leaders[slot].clone().unwrap_or_else(|| Arc::clone(&self.seeds[seed]));
        if !self.links.contains_key(&addr) {
            self.opened += 1;
            match Link::open(self.opened, &addr, DEADLINE, self.inbox.0.clone()) {
                Ok(link) => drop(self.links.insert(Arc::clone(&addr), link)),
                Err(_) => {
                    self.leaders[slot] = None;
                    return self.on_refused(operation);
                }
            }
        }
        let Some(link) = self.links.get_mut(&addr) else { return };
        let (name, now) = (&self.keys.key(operation.key).name, Instant::now());
        match operation.stamp {
            Some(stamp) => link.push(operation, &[b"SET", name, &value(stamp, self.share.bytes)], now),
            None => link.push(operation, &[b"GET", name], now),
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        let from = self.links.iter().find(|(_, link)| link.id == heard.link).map(|(addr, _)| Arc::clone(addr));
        let Some(addr) = from else { return };
        let replies = match heard.replies {
            Ok(replies) => replies,
            Err(why) => return self.give_up(&addr, &why),
        };
        for reply in replies {
            match self.links.get_mut(&addr).and_then(Link::take_answered) {
                Some(operation) => self.on_answer(operation, &addr, judge(reply)),
                None => return self.give_up(&addr, "a reply to nothing"),
            }
        }
    }

    fn on_answer(&mut self, operation: Operation, addr: &Arc<str>, answer: Answer) {
        let slot = usize::from(self.keys.key(operation.key).slot);
        match answer {
            Answer::Done(Value::Error(text)) | Answer::Unknown(text) => self.on_unknown(&operation, &text),
            Answer::Done(value) => {
                self.leaders[slot] = Some(Arc::clone(addr));
                self.on_done(&operation, &value);
            }
            Answer::Refused(text) => {
                let moved = moved_to(&text);
                self.leaders[slot] = moved.as_deref().map(Arc::from);
                if moved.is_some() && operation.hops < HOPS {
                    self.tally.refused.fetch_add(1, Ordering::Relaxed);
                    self.place(Operation { hops: operation.hops + 1, ..operation });
                } else {
                    self.on_refused(operation);
                }
            }
        }
    }

    fn on_done(&mut self, operation: &Operation, value: &Value) {
        self.alive -= 1;
        match operation.stamp {
            Some(stamp) => {
                self.keys.on_written(operation.key, stamp);
                self.tally.acked.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.keys.on_read(operation.key, value);
                self.tally.reads.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.record(operation.began, Instant::now());
    }

    fn on_refused(&mut self, operation: Operation) {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        self.later.push((Instant::now() + BACK_OFF, Operation { hops: 0, ..operation }));
    }

    fn on_unknown(&mut self, operation: &Operation, why: &str) {
        self.alive -= 1;
        why.clone_into(&mut self.tally.trouble.lock().unwrap_or_else(PoisonError::into_inner));
        self.tally.unknown.fetch_add(1, Ordering::Relaxed);
        let slot = usize::from(self.keys.key(operation.key).slot);
        self.leaders[slot] = None;
        match operation.stamp {
            Some(stamp) => self.keys.on_unknown(operation.key, stamp),
            None => self.keys.give_back(operation.key),
        }
    }

    /// A connection is used up: what was not answered on it is of unknown outcome.
    fn give_up(&mut self, addr: &Arc<str>, why: &str) {
        let Some(mut link) = self.links.remove(addr) else { return };
        link.take_all().for_each(|operation| self.on_unknown(&operation, why));
    }

    fn record(&self, began: Instant, now: Instant) {
        let took = u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(HIGHEST);
        let mut latencies = self.tally.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.saturating_record(took.min(HIGHEST));
    }
}
