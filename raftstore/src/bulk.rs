//! Commands in bulk: staged many at a time, handed in by one call, answers collected many at a time, told apart by the
//! caller's tags.
//!
//! For one caller with many commands under way: no allocation, no lock and no wake-up for a single command.
//! Leaves to others: the door (`door`) and the order of what is appended (pollers), clocks and waiting (the engine's
//! `Completions`, the simulator's clients).
//! Invariant: law 6: what was staged comes back exactly once, answered, refused behind the door or given up; an answer to what
//! was given up meets nobody.

use crate::arrivals::{Arrivals, Wakeups};
use crate::door::Entrance;
use crate::error::{Limit, ProposeError};
use crate::ids::GroupId;
use crate::node::NodeHandle;
use crate::proposal::{Fence, Proposal, ReplySlot, ReplyTo};
use crate::slots::Slots;
use bytes::Bytes;
use pontoon_raft::mutant::{self, Mutant};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// What became of a command.
pub type Outcome<A> = Result<A, ProposeError>;

/// What a caller knows a command by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket<T> {
    /// The caller's. Need not differ.
    pub tag: u64,
    /// When it began: not before those that were staged earlier.
    pub began: T,
}

/// A command that came back.
#[derive(Debug)]
pub struct Back<A, T> {
    /// As staged.
    pub ticket: Ticket<T>,
    /// Counts the commands of this queue.
    pub number: u64,
    /// What became of it.
    pub outcome: Outcome<A>,
}

/// The commands of one caller on one node. `A` is what machines answer, `T` a moment of the caller's clock.
pub struct Bulk<A, T> {
    /// Where answers arrive.
    sink: Arc<Sink<A>>,
    /// The way there of the batch that is being staged.
    way: Arc<dyn ReplySlot>,
    /// Not handed in.
    entrance: Entrance,
    /// Without an answer.
    flight: Flight<T>,
    /// The sink's memory, while nothing is in it.
    spare: Vec<(u64, Outcome<A>)>,
}

impl<A: Send + 'static, T: Copy> Bulk<A, T> {
    /// An empty queue. `pending` counts what was handed in and not answered, over all queues that share it.
    #[must_use]
    pub fn new(node: &NodeHandle, pending: &Arc<AtomicUsize>) -> Bulk<A, T> {
        let sink = Arc::new(Sink::new(pending));
        let way = Arc::new(Way(Arc::clone(&sink)));
        let entrance = Entrance::new(node.clone());
        Bulk { sink, way, entrance, flight: Flight::new(), spare: Vec::new() }
    }

    /// Commands that did not come back yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flight.len()
    }

    /// Commands that are not handed in yet.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.entrance.held()
    }

    /// Would the group's door refuse a command? For callers to whom a command costs more to make than this look.
    pub fn look(&mut self, group: GroupId) -> Result<(), ProposeError> {
        self.entrance.look(group)
    }

    /// Adds a command to the next batch. `Err`: it was refused at the door, and does not come back.
    pub fn stage(
        &mut self,
        group: GroupId,
        command: Bytes,
        fence: Option<Fence>,
        ticket: Ticket<T>,
    ) -> Result<(), ProposeError> {
        let home = match self.entrance.ask(group, fence.as_ref(), command.len()) {
            Ok(home) => home,
            Err(_) if mutant::is(Mutant::DoorSwallows) => {
                self.sink.pending.fetch_add(1, Ordering::Relaxed);
                return self.flight.add(ticket).map_or(Err(ProposeError::Overloaded(Limit::NodeInflight)), |_| Ok(()));
            }
            Err(e) => return Err(e),
        };
        let Some(key) = self.flight.add(ticket) else {
            self.entrance.let_go(fence.as_ref(), command.len());
            return Err(ProposeError::Overloaded(Limit::NodeInflight));
        };
        let reply = ReplyTo { slot: Arc::clone(&self.way), tag: key };
        self.entrance.put(home, Proposal { group, command, fence, reply });
        Ok(())
    }

    /// Hands in what was staged. The next command finds the doors as they are then.
    pub fn hand_in(&mut self) {
        if self.staged() > 0 {
            self.sink.pending.fetch_add(self.staged(), Ordering::Relaxed);
            self.way = Arc::new(Way(Arc::clone(&self.sink)));
        }
        self.entrance.hand_in();
    }

    /// What has an answer.
    pub fn collect(&mut self, mut take: impl FnMut(Back<A, T>)) {
        let mut arrived = self.sink.arrived.take(std::mem::take(&mut self.spare));
        let mut coming = arrived.drain(..);
        while let few @ 1.. = self.flight.places.look_ahead(coming.as_slice(), |come| place_of(come.0)) {
            for (key, outcome) in coming.by_ref().take(few) {
                // Who was given up already gets no second answer.
                if let Some(ticket) = self.flight.remove(key) {
                    take(Back { ticket, number: key >> PLACE_BITS, outcome });
                }
            }
        }
        drop(coming);
        self.spare = arrived;
    }

    /// Gives up those that began too long ago: whatever answer comes is dropped.
    pub fn give_up(&mut self, is_late: impl Fn(T) -> bool) -> Vec<Ticket<T>> {
        self.flight.remove_late(is_late)
    }

    /// Ready if `collect` has something; otherwise the context's waker is called as soon as it has.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.sink.arrived.poll(cx)
    }
}

/// Where answers arrive.
struct Sink<A> {
    arrived: Arrivals<(u64, Outcome<A>)>,
    /// Handed in and not answered.
    pending: Arc<AtomicUsize>,
}

impl<A> Sink<A> {
    fn new(pending: &Arc<AtomicUsize>) -> Sink<A> {
        Sink { arrived: Arrivals::default(), pending: Arc::clone(pending) }
    }

    fn put(&self, answers: impl ExactSizeIterator<Item = (u64, Outcome<A>)>, wakeups: &mut Wakeups) {
        self.pending.fetch_sub(answers.len(), Ordering::Relaxed);
        self.arrived.put_with(answers, wakeups);
    }
}

/// The way to a sink for one batch of commands: each holds a count of it, and appliers that let go of those of one batch
/// do not contend with the caller that counts up those of the next.
struct Way<A>(Arc<Sink<A>>);

impl<A: Send + 'static> ReplySlot for Way<A> {
    fn fail(&self, tag: u64, error: ProposeError) {
        self.0.put(std::iter::once((tag, Err(error))), &mut Wakeups::default());
    }

    fn fail_all(&self, failed: &mut Vec<(u64, ProposeError)>) {
        self.0.put(failed.drain(..).map(|(tag, error)| (tag, Err(error))), &mut Wakeups::default());
    }

    /// The sink.
    fn as_any(&self) -> &dyn Any {
        &*self.0
    }
}

/// Answers to consecutive commands of one queue, put there together. For machines.
pub struct Together<'a, A> {
    to: Option<Arc<dyn ReplySlot>>,
    answers: Vec<(u64, Outcome<A>)>,
    wakeups: &'a mut Wakeups,
}

impl<'a, A: Send + 'static> Together<'a, A> {
    /// None yet; whose answers are there is woken with the others.
    #[must_use]
    pub fn new(wakeups: &'a mut Wakeups) -> Together<'a, A> {
        Together { to: None, answers: Vec::new(), wakeups }
    }

    /// Does this waiter belong to a queue with these answers?
    #[must_use]
    pub fn takes(reply: &ReplyTo) -> bool {
        reply.slot.as_any().is::<Sink<A>>()
    }

    /// Adds an answer for a waiter that it takes.
    pub fn add(&mut self, reply: ReplyTo, answer: A) {
        if !self.to.as_ref().is_some_and(|to| Arc::ptr_eq(to, &reply.slot)) {
            self.deliver();
            self.to = Some(reply.slot);
        }
        self.answers.push((reply.tag, Ok(answer)));
    }

    /// Puts what was added where it belongs.
    pub fn deliver(&mut self) {
        if mutant::is(Mutant::NeighboursAnswer) {
            let tags: Vec<u64> = self.answers.iter().map(|a| a.0).collect();
            let shifted = tags.iter().cycle().skip(1);
            self.answers.iter_mut().zip(shifted).for_each(|(answer, tag)| answer.0 = *tag);
        }
        if let Some(sink) = self.to.as_ref().and_then(|to| to.as_any().downcast_ref::<Sink<A>>()) {
            sink.put(self.answers.drain(..), self.wakeups);
        }
    }
}

/// Bits of a key that name the place; the others number commands, so that a late answer never meets its place's next user
/// (it would have to be late by 2^40 commands).
const PLACE_BITS: u32 = 24;

fn place_of(key: u64) -> usize {
    (key & ((1 << PLACE_BITS) - 1)) as usize
}

/// A command without an answer.
#[derive(Clone, Copy)]
struct Place<T> {
    key: u64,
    ticket: Ticket<T>,
}

/// Commands without an answer, by key.
struct Flight<T> {
    places: Slots<Place<T>>,
    /// Commands so far.
    number: u64,
    /// None of them began before; unknown if there was none since the last look.
    oldest: Option<T>,
}

impl<T: Copy> Flight<T> {
    fn new() -> Flight<T> {
        Flight { places: Slots::new(1 << PLACE_BITS), number: 0, oldest: None }
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    /// `None`: there are too many.
    fn add(&mut self, ticket: Ticket<T>) -> Option<u64> {
        let number = self.number + 1;
        let key = |at: usize| (number << PLACE_BITS) | at as u64;
        let at = self.places.insert_with(|at| Place { key: key(at), ticket })?;
        self.number = number;
        self.oldest.get_or_insert(ticket.began);
        Some(key(at))
    }

    fn remove(&mut self, key: u64) -> Option<Ticket<T>> {
        let at = place_of(key);
        let anyones = mutant::is(Mutant::LateAnswerTaken);
        self.places.get(at).filter(|place| place.key == key || anyones)?;
        self.places.remove(at).map(|place| place.ticket)
    }

    /// Looks at all of them only if the oldest may be late.
    fn remove_late(&mut self, is_late: impl Fn(T) -> bool) -> Vec<Ticket<T>> {
        if self.oldest.is_none_or(|began| !is_late(began)) {
            return Vec::new();
        }
        let late = self.places.iter().map(|(_, place)| place).filter(|place| is_late(place.ticket.began));
        let late: Vec<u64> = late.map(|place| place.key).collect();
        let late = late.into_iter().filter_map(|key| self.remove(key)).collect();
        let left = self.places.iter().map(|(_, place)| place);
        self.oldest = left.min_by_key(|place| place.key >> PLACE_BITS).map(|place| place.ticket.began);
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_looked_for_once_the_oldest_may_be() {
        let (mut flight, looks) = (Flight::new(), std::cell::Cell::new(0));
        let late = |flight: &mut Flight<u64>, limit: u64| -> Vec<u64> {
            looks.set(0);
            let is_late = |began| {
                looks.set(looks.get() + 1);
                began < limit
            };
            flight.remove_late(is_late).into_iter().map(|ticket| ticket.tag).collect()
        };
        assert_eq!((late(&mut flight, 9), looks.get()), (vec![], 0));
        let keys: Vec<u64> = (1..=100).filter_map(|tag| flight.add(Ticket { tag, began: tag })).collect();
        assert_eq!((late(&mut flight, 1), looks.get()), (vec![], 1));
        // Of the first ten nine are answered, from the oldest on; their places are taken by the youngest.
        keys[..9].iter().for_each(|key| assert!(flight.remove(*key).is_some()));
        (101..=109).for_each(|tag| assert!(flight.add(Ticket { tag, began: tag }).is_some()));
        assert_eq!(late(&mut flight, 5), [0; 0], "they were the oldest once");
        assert_eq!((late(&mut flight, 10), looks.get()), (vec![], 1), "that is known now");
        assert_eq!(late(&mut flight, 12), [10, 11]);
        assert_eq!((flight.len(), late(&mut flight, 999).len(), flight.len()), (98, 98, 0));
        assert!(flight.add(Ticket { tag: 7, began: 2000 }).is_some());
        assert_eq!((late(&mut flight, 2000), looks.get()), (vec![], 1));
    }
}
