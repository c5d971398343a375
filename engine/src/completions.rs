//! Commands in bulk: handed in many at a time, their answers collected many at a time, told apart by the caller's tags.
//!
//! For who has many commands under way, as a server's connection or a load driver: no allocation, no lock and no wake-up
//! for a single command, the clock is read once a batch.
//! Leaves to others: single commands (`proposal`), admission and order (raftstore's door and pollers).
//! Invariant: law 6, as for `Proposal`; whatever is submitted comes back exactly once, also what is refused at the door.

use crate::core::Core;
use crate::group::Group;
use crate::proposal::Applied;
use crate::state_machine::StateMachine;
use crate::timer::Alarm;
use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::error::{GroupError, Limit, Lost, ProposeError};
use pontoon_raftstore::proposal::{Fence, Proposal as Letter, ReplySlot, ReplyTo};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Commands after which a batch is handed in without being asked for.
const BATCH: usize = 4096;
/// Between two looks for commands whose deadline has passed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The end of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion<R> {
    /// As submitted.
    pub tag: u64,
    /// Position and answer; an error says whether the command may take effect (`ProposeError::never_appended`).
    pub result: Outcome<R>,
}

/// What became of a command.
type Outcome<R> = Result<Applied<R>, ProposeError>;

/// A queue of one caller, for any groups with the machine `S` on this node.
///
/// `submit` any number of commands, `flush` hands them in, `collect` takes what has an answer; `wait` blocks a thread and
/// `ready` suspends a task until there is some. Commands of one group are appended in the order submitted, or refused: like
/// `Group::try_propose`, it never waits for admission. A command without an answer after `Config::request_timeout` (see
/// `timeout`) comes back as `OutcomeUnknown`. Dropping the queue cancels nothing that was flushed.
pub struct Completions<S: StateMachine> {
    /// The engine's inside.
    core: Arc<Core>,
    /// Where answers arrive.
    sink: Arc<Sink<S::Response>>,
    /// The way there of the batch that is being staged.
    way: Arc<dyn ReplySlot>,
    /// Submitted, not handed in.
    staged: Vec<Letter>,
    /// Refused before that.
    refused: Vec<Completion<S::Response>>,
    /// Not answered.
    flight: Flight,
    /// When the batch that is being staged began.
    now: Instant,
    /// How long a command may take.
    limit: Duration,
    /// When to look for deadlines again.
    look_at: Instant,
    /// Wakes the task then.
    alarm: Alarm,
    /// The sink's memory, while nothing is in it.
    spare: Vec<(u64, Outcome<S::Response>)>,
}

impl<S: StateMachine> Completions<S> {
    pub(crate) fn new(core: &Arc<Core>) -> Completions<S> {
        let now = Instant::now();
        let sink = Arc::new(Sink::new(&core.pending));
        Completions {
            core: Arc::clone(core),
            way: Arc::new(Way(Arc::clone(&sink))),
            sink,
            staged: Vec::new(),
            refused: Vec::new(),
            flight: Flight::default(),
            now,
            limit: core.config.request_timeout.get(),
            look_at: now + LOOK_EVERY,
            alarm: Alarm::new(&core.timer),
            spare: Vec::new(),
        }
    }

    /// With another time after which commands come back as `OutcomeUnknown`. (It may be a tenth of a second more.)
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Completions<S> {
        Completions { limit, ..self }
    }

    /// Commands that did not come back yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flight.len() + self.refused.len()
    }

    /// Adds a command to the next batch. Tags are the caller's and need not differ.
    pub fn submit(&mut self, group: &Group<S>, tag: u64, command: impl Into<Bytes>) {
        self.stage(group, tag, command.into(), None);
    }

    /// As `submit`, in line: see `Fence`.
    pub fn submit_in(&mut self, group: &Group<S>, tag: u64, command: impl Into<Bytes>, fence: &Fence) {
        self.stage(group, tag, command.into(), Some(fence.clone()));
    }

    fn stage(&mut self, group: &Group<S>, tag: u64, command: Bytes, fence: Option<Fence>) {
        if self.staged.is_empty() {
            self.now = Instant::now();
        }
        // A handle of another engine in this process names nothing here.
        let known = Arc::ptr_eq(group.core(), &self.core);
        let group = group.id();
        let key = if known {
            self.flight.add(tag, self.now).ok_or(ProposeError::Overloaded(Limit::NodeInflight))
        } else {
            Err(ProposeError::Group(GroupError::NotFound(group)))
        };
        match key {
            Ok(key) => {
                let reply = ReplyTo { slot: Arc::clone(&self.way), tag: key };
                self.staged.push(Letter { group, command, fence, reply });
            }
            Err(e) => {
                fence.iter().for_each(Fence::shut);
                self.refused.push(Completion { tag, result: Err(e) });
            }
        }
        if self.staged.len() == BATCH {
            self.flush();
        }
    }

    /// Hands in what was submitted.
    pub fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.core.pending.fetch_add(self.staged.len(), Ordering::Relaxed);
            let next = Vec::with_capacity(self.staged.len());
            self.core.node.propose_all(std::mem::replace(&mut self.staged, next));
            self.way = Arc::new(Way(Arc::clone(&self.sink)));
        }
    }

    /// Appends what came back to `out`; returns how much. Flushes first.
    pub fn collect(&mut self, out: &mut Vec<Completion<S::Response>>) -> usize {
        self.flush();
        let before = out.len();
        self.refused.iter().filter_map(|c| c.result.as_ref().err()).for_each(|e| self.core.meters.on_error(e));
        out.append(&mut self.refused);
        let mut arrived = self.sink.take(std::mem::take(&mut self.spare));
        for (key, result) in arrived.drain(..) {
            // Who was given up already gets no second answer.
            let Some(place) = self.flight.remove(key) else { continue };
            match &result {
                Ok(_) => self.core.meters.on_nth_applied(key >> PLACE_BITS, place.began),
                Err(e) => self.core.meters.on_error(e),
            }
            out.push(Completion { tag: place.tag, result });
        }
        self.spare = arrived;
        self.give_up_late(out);
        out.len() - before
    }

    fn give_up_late(&mut self, out: &mut Vec<Completion<S::Response>>) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let limit = self.limit;
        for place in self.flight.remove_late(|began| now.saturating_duration_since(began) >= limit) {
            let error = ProposeError::OutcomeUnknown { why: Lost::Timeout, at: None };
            self.core.meters.on_error(&error);
            out.push(Completion { tag: place.tag, result: Err(error) });
        }
    }

    /// Ready once `collect` has something, or should look for deadlines; at once if nothing is under way.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.flush();
        if self.flight.len() == 0 || !self.refused.is_empty() || self.sink.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.alarm.poll(self.look_at, cx)
    }

    /// Waits as `poll_ready` does.
    pub async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Blocks the thread as `poll_ready` says, at most so long.
    pub fn wait(&mut self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while self.poll_ready(&Context::from_waker(&waker)).is_pending() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Where answers arrive, from any thread.
pub(crate) struct Sink<R> {
    arrived: Mutex<Arrived<R>>,
    /// Commands under way on this node.
    pending: Arc<AtomicUsize>,
}

struct Arrived<R> {
    answers: Vec<(u64, Outcome<R>)>,
    /// Who sleeps until there are some.
    waker: Option<Waker>,
}

impl<R> Sink<R> {
    fn new(pending: &Arc<AtomicUsize>) -> Sink<R> {
        let arrived = Mutex::new(Arrived { answers: Vec::new(), waker: None });
        Sink { arrived, pending: Arc::clone(pending) }
    }

    /// Adds answers and wakes who sleeps.
    fn put(&self, answers: impl ExactSizeIterator<Item = (u64, Outcome<R>)>) {
        self.pending.fetch_sub(answers.len(), Ordering::Relaxed);
        let mut arrived = self.arrived.lock();
        arrived.answers.extend(answers);
        let waker = arrived.waker.take();
        drop(arrived);
        waker.into_iter().for_each(Waker::wake);
    }

    /// All there is, in exchange for an empty list.
    fn take(&self, empty: Vec<(u64, Outcome<R>)>) -> Vec<(u64, Outcome<R>)> {
        std::mem::replace(&mut self.arrived.lock().answers, empty)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut arrived = self.arrived.lock();
        if !arrived.answers.is_empty() {
            return Poll::Ready(());
        }
        match &mut arrived.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// The way to a sink for one batch of commands: each holds a count of it, and appliers that let go of those of one batch
/// do not contend with the caller that counts up those of the next.
struct Way<R>(Arc<Sink<R>>);

impl<R: Send + 'static> ReplySlot for Way<R> {
    fn fail(&self, tag: u64, error: ProposeError) {
        self.0.put(std::iter::once((tag, Err(error))));
    }

    /// The sink.
    fn as_any(&self) -> &dyn Any {
        &*self.0
    }
}

/// Answers to consecutive commands of one queue, put there together.
pub(crate) struct Together<R> {
    to: Option<Arc<dyn ReplySlot>>,
    answers: Vec<(u64, Outcome<R>)>,
}

impl<R> Default for Together<R> {
    fn default() -> Together<R> {
        Together { to: None, answers: Vec::new() }
    }
}

impl<R: Send + 'static> Together<R> {
    /// Adds an answer for a waiter whose slot is a `Sink`.
    pub(crate) fn add(&mut self, reply: ReplyTo, answer: Applied<R>) {
        if !self.to.as_ref().is_some_and(|to| Arc::ptr_eq(to, &reply.slot)) {
            self.deliver();
            self.to = Some(reply.slot);
        }
        self.answers.push((reply.tag, Ok(answer)));
    }

    /// Puts what was added where it belongs.
    pub(crate) fn deliver(&mut self) {
        if let Some(sink) = self.to.as_ref().and_then(|to| to.as_any().downcast_ref::<Sink<R>>()) {
            sink.put(self.answers.drain(..));
        }
    }
}

/// Bits of a key that name the place; the others number commands, so that a late answer never meets its place's next user
/// (it would have to be late by 2^40 commands).
const PLACE_BITS: u32 = 24;

/// A command without an answer.
#[derive(Clone, Copy)]
struct Place {
    /// 0: free.
    key: u64,
    tag: u64,
    began: Instant,
}

/// Commands without an answer, by key.
#[derive(Default)]
struct Flight {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Commands so far.
    number: u64,
}

impl Flight {
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// `None`: there are too many.
    fn add(&mut self, tag: u64, began: Instant) -> Option<u64> {
        let at = self.free.pop().unwrap_or(self.places.len());
        if at >= 1 << PLACE_BITS {
            return None;
        }
        self.number += 1;
        let place = Place { key: (self.number << PLACE_BITS) | at as u64, tag, began };
        match self.places.get_mut(at) {
            Some(free) => *free = place,
            None => self.places.push(place),
        }
        Some(place.key)
    }

    fn remove(&mut self, key: u64) -> Option<Place> {
        let at = (key & ((1 << PLACE_BITS) - 1)) as usize;
        let place = self.places.get_mut(at).filter(|p| p.key == key)?;
        self.free.push(at);
        Some(std::mem::replace(place, Place { key: 0, ..*place }))
    }

    fn remove_late(&mut self, is_late: impl Fn(Instant) -> bool) -> Vec<Place> {
        let late: Vec<u64> = self.places.iter().filter(|p| p.key != 0 && is_late(p.began)).map(|p| p.key).collect();
        late.into_iter().filter_map(|key| self.remove(key)).collect()
    }
}
