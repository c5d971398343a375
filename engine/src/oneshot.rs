//! A value that one side sets once and the other awaits on any executor.
//!
//! Leaves to others: deadlines (`timer`), what the value means.
//! Invariant: the first `set` counts, later ones are dropped; a waiter registered before `set` is woken by it.

use crate::timer::{Alarm, Timer};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// See the file's head.
pub(crate) struct Oneshot<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    /// Nobody waits yet.
    Empty,
    /// The waiter sleeps.
    Parked(Waker),
    /// Set, not yet taken.
    Full(T),
    /// Taken.
    Gone,
}

impl<T> Default for Oneshot<T> {
    fn default() -> Oneshot<T> {
        Oneshot { state: Mutex::new(State::Empty) }
    }
}

impl<T> Oneshot<T> {
    /// Sets the value and wakes the waiter. False: it was set before.
    pub(crate) fn set(&self, value: T) -> bool {
        let mut state = self.state.lock();
        let before = match &*state {
            State::Full(_) | State::Gone => return false,
            State::Empty | State::Parked(_) => std::mem::replace(&mut *state, State::Full(value)),
        };
        drop(state);
        if let State::Parked(waker) = before {
            waker.wake();
        }
        true
    }

    /// Takes the value, or registers the waiter.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Full(value) => Poll::Ready(value),
            State::Parked(waker) if waker.will_wake(cx.waker()) => {
                *state = State::Parked(waker);
                Poll::Pending
            }
            State::Empty | State::Parked(_) => {
                *state = State::Parked(cx.waker().clone());
                Poll::Pending
            }
            // Polled after completion: a bug of the caller that must not wake up a panic in ours.
            State::Gone => Poll::Pending,
        }
    }
}

/// Waits for a `Oneshot` until a deadline: `None` when it passed.
pub(crate) struct Within<T> {
    slot: Arc<Oneshot<T>>,
    alarm: Alarm,
    deadline: Instant,
}

impl<T> Within<T> {
    pub(crate) fn new(slot: Arc<Oneshot<T>>, timer: &Arc<Timer>, deadline: Instant) -> Within<T> {
        Within { slot, alarm: Alarm::new(timer), deadline }
    }
}

impl<T> Future for Within<T> {
    type Output = Option<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(value) = self.slot.poll_take(cx) {
            return Poll::Ready(Some(value));
        }
        let deadline = self.deadline;
        self.alarm.poll(deadline, cx).map(|()| None)
    }
}
