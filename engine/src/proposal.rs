//! One command on its way: `Proposal` for the caller, `Slot` for the machine that answers it.
//!
//! Leaves to others: admission and order (raftstore's router and poller), the alarm clock (`timer`).
//! Invariant: law 6. Only `OutcomeUnknown` leaves it open whether the command takes effect; every other error means
//! that this call never appended it.

use crate::core::Core;
use crate::oneshot::Oneshot;
use crate::timer::Alarm;
use bytes::Bytes;
use pontoon_raftstore::error::{Lost, ProposeError};
use pontoon_raftstore::ids::{GroupId, LogPos};
use pontoon_raftstore::proposal::{Fence, Proposal as Letter, ReplySlot, ReplyTo};
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// First wait before an overloaded node is asked again; doubles up to `MAX_BACKOFF`.
const MIN_BACKOFF: Duration = Duration::from_millis(10);
/// Longest wait between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(160);

/// The answer to a command, and where in the log the command is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<R> {
    /// Position of the command.
    pub at: LogPos,
    /// What the state machine answered.
    pub response: R,
}

/// Where the machine puts its typed answer.
pub(crate) struct Slot<R> {
    answer: Oneshot<Result<Applied<R>, ProposeError>>,
    /// Commands under way on this node, this one included until it is answered.
    pending: Arc<AtomicUsize>,
}

impl<R> Slot<R> {
    fn new(pending: &Arc<AtomicUsize>) -> Arc<Slot<R>> {
        pending.fetch_add(1, Ordering::Relaxed);
        Arc::new(Slot { answer: Oneshot::default(), pending: Arc::clone(pending) })
    }

    /// Applied and committed in the machine.
    pub(crate) fn complete(&self, at: LogPos, response: R) {
        self.set(Ok(Applied { at, response }));
    }

    fn set(&self, answer: Result<Applied<R>, ProposeError>) {
        if self.answer.set(answer) {
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<R: Send + 'static> ReplySlot for Slot<R> {
    fn fail(&self, _tag: u64, error: ProposeError) {
        self.set(Err(error));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A command under way: a future for any executor.
///
/// The command was handed in when this value was made, unless the node was overloaded: then polling waits for
/// admission and hands it in. Dropping it does not cancel a command that was handed in.
#[must_use = "a dropped proposal is not cancelled, and its outcome is lost"]
pub struct Proposal<R> {
    /// The engine's inside.
    core: Arc<Core>,
    /// The group.
    group: GroupId,
    /// Kept while it may have to be handed in again.
    command: Bytes,
    /// What it must stay in line with.
    fence: Option<Fence>,
    /// Wait for admission?
    patient: bool,
    /// When it was made.
    began: Instant,
    /// Give up then.
    deadline: Instant,
    /// Rings at the deadline, or at the next try.
    alarm: Alarm,
    /// Wait before the next try.
    backoff: Duration,
    /// What is waited for.
    state: State<R>,
}

enum State<R> {
    /// The answer.
    Answer(Arc<Slot<R>>),
    /// The next try.
    Retry(Instant),
    /// The error.
    Failed(ProposeError),
}

impl<R: Send + 'static> Proposal<R> {
    /// Hands the command in.
    pub(crate) fn new(
        core: &Arc<Core>,
        group: GroupId,
        command: Bytes,
        fence: Option<Fence>,
        patient: bool,
    ) -> Proposal<R> {
        let began = Instant::now();
        let mut proposal = Proposal {
            core: Arc::clone(core),
            group,
            command,
            fence,
            patient,
            began,
            deadline: began + core.config.request_timeout.get(),
            alarm: Alarm::new(&core.timer),
            backoff: MIN_BACKOFF,
            state: State::Retry(began),
        };
        proposal.hand_in();
        proposal
    }

    /// Ends the wait after `limit` from now: with `OutcomeUnknown` if the command was handed in, else with the reason
    /// why it was not. It does not end the command.
    pub fn timeout(mut self, limit: Duration) -> Proposal<R> {
        self.deadline = Instant::now() + limit;
        self.alarm.reset();
        self
    }

    /// The error met at the door, if any: `try_propose` returns it at once.
    pub(crate) fn refused(self) -> Result<Proposal<R>, ProposeError> {
        match self.state {
            State::Failed(error) => Err(error),
            _ => Ok(self),
        }
    }

    fn hand_in(&mut self) {
        let slot = Slot::new(&self.core.pending);
        let reply = ReplyTo::only(slot.clone());
        let (command, fence) = (self.command.clone(), self.fence.clone());
        let letter = Letter { group: self.group, command, fence, reply };
        self.state = match self.core.propose(letter) {
            Ok(()) => State::Answer(slot),
            Err(error) => {
                // Nobody else has the slot: it is counted no more.
                slot.fail(0, error.clone());
                self.on_error(error)
            }
        };
    }

    /// Overload is waited out by the patient until their deadline: nothing was appended. All else is final.
    fn on_error(&mut self, error: ProposeError) -> State<R> {
        let now = Instant::now();
        if !self.patient || !matches!(error, ProposeError::Overloaded(_)) || now + self.backoff > self.deadline {
            self.core.meters.on_error(&error);
            return State::Failed(error);
        }
        let again = now + self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        self.alarm.reset();
        State::Retry(again)
    }
}

impl<R> Unpin for Proposal<R> {}

impl<R: Send + 'static> Future for Proposal<R> {
    type Output = Result<Applied<R>, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &this.state {
                State::Failed(error) => return Poll::Ready(Err(error.clone())),
                State::Retry(at) => {
                    if this.alarm.poll(*at, cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.hand_in();
                }
                State::Answer(slot) => match slot.answer.poll_take(cx) {
                    Poll::Ready(Ok(applied)) => {
                        this.alarm.reset();
                        this.core.meters.on_applied(this.began);
                        return Poll::Ready(Ok(applied));
                    }
                    Poll::Ready(Err(error)) => this.state = this.on_error(error),
                    Poll::Pending => {
                        if this.alarm.poll(this.deadline, cx).is_pending() {
                            return Poll::Pending;
                        }
                        let error = ProposeError::OutcomeUnknown { why: Lost::Timeout, at: None };
                        this.state = this.on_error(error);
                    }
                },
            }
        }
    }
}
