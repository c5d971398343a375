//! Commands in bulk: handed in many at a time, their answers collected many at a time, told apart by the caller's tags.
//!
//! For who has many commands under way, as a server's connection or a load driver: the clock is read once a batch.
//! Leaves to others: single commands (`proposal`), the queue itself (raftstore's `bulk`, which the simulator runs, too),
//! admission and order (raftstore's door and pollers).
//! Invariant: law 6, as for `Proposal`; whatever is submitted comes back exactly once, also what is refused at the door.

use crate::core::Core;
use crate::group::Group;
use crate::lookout::Lookout;
use crate::metrics::Errors;
use crate::park::block;
use crate::proposal::Applied;
use crate::state_machine::StateMachine;
use bytes::Bytes;
use pontoon_raftstore::bulk::{Back, Bulk, Ticket};
use pontoon_raftstore::error::{Lost, ProposeError};
use pontoon_raftstore::proposal::Fence;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Commands after which a batch is handed in without being asked for.
const BATCH: usize = 4096;

/// The end of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion<R> {
    /// As submitted.
    pub tag: u64,
    /// Position and answer; an error says whether the command may take effect (`ProposeError::never_appended`).
    pub result: Result<Applied<R>, ProposeError>,
}

/// A queue of one caller, for any groups with the machine `S` on this node.
///
/// `submit` any number of commands, `flush` hands them in, `collect` takes what has an answer; `wait` blocks a thread and
/// `ready` suspends a task until there is some. Commands of one group are appended in the order submitted, or refused: like
/// `Group::try_propose`, it never waits for admission. A command without an answer after `Config::request_timeout` (see
/// `timeout`) comes back as `OutcomeUnknown`. Dropping the queue cancels nothing that was flushed.
pub struct Completions<S: StateMachine> {
    /// The engine's inside.
    core: Arc<Core>,
    /// What was submitted and did not come back.
    bulk: Bulk<Applied<S::Response>, Instant>,
    /// Refused before they were handed in.
    refused: Vec<Completion<S::Response>>,
    /// Errors of looks that the metrics do not count yet.
    looks: Errors,
    /// When the batch that is being staged began, if it has.
    now: Option<Instant>,
    /// How long a command may take.
    limit: Duration,
    /// For those that take longer.
    lookout: Lookout,
}

impl<S: StateMachine> Completions<S> {
    pub(crate) fn new(core: &Arc<Core>) -> Completions<S> {
        Completions {
            core: Arc::clone(core),
            bulk: Bulk::new(&core.node, &core.pending),
            refused: Vec::new(),
            looks: Errors::default(),
            now: None,
            limit: core.config.request_timeout.get(),
            lookout: Lookout::new(&core.timer),
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
        self.bulk.under_way() + self.refused.len()
    }

    /// Would a command be refused now, before it is even made? At overload most are, and to make them is most of what they
    /// cost. `Ok` promises nothing; an error counts in the metrics as that of a command. What is seen stays as it is until
    /// the next `flush`, `collect` or `poll_ready`.
    pub fn look(&mut self, group: &Group<S>) -> Result<(), ProposeError> {
        let seen = group.id_in(&self.core).map_err(ProposeError::from).and_then(|group| self.bulk.look(group));
        seen.inspect_err(|e| self.looks.add(e))
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
        let now = *self.now.get_or_insert_with(Instant::now);
        let staged = match group.id_in(&self.core) {
            Ok(group) => self.bulk.stage(group, command, fence, Ticket { tag, began: now }),
            Err(e) => {
                fence.iter().for_each(Fence::shut);
                Err(e.into())
            }
        };
        if let Err(e) = staged {
            self.refused.push(Completion { tag, result: Err(e) });
        }
        if self.bulk.staged() == BATCH {
            self.flush();
        }
    }

    /// Hands in what was submitted.
    pub fn flush(&mut self) {
        self.bulk.hand_in();
        self.now = None;
    }

    /// Appends what came back to `out`; returns how much. Flushes first.
    pub fn collect(&mut self, out: &mut Vec<Completion<S::Response>>) -> usize {
        self.flush();
        let before = out.len();
        let mut errors = std::mem::take(&mut self.looks);
        self.refused.iter().filter_map(|c| c.result.as_ref().err()).for_each(|e| errors.add(e));
        out.append(&mut self.refused);
        let meters = &self.core.meters;
        self.bulk.collect(|Back { ticket, number, outcome: result }| {
            match &result {
                Ok(_) => meters.on_nth_applied(number, ticket.began),
                Err(e) => errors.add(e),
            }
            out.push(Completion { tag: ticket.tag, result });
        });
        meters.on_errors(&errors);
        self.give_up_late(out);
        out.len() - before
    }

    fn give_up_late(&mut self, out: &mut Vec<Completion<S::Response>>) {
        let Some(now) = self.lookout.due() else { return };
        let limit = self.limit;
        for late in self.bulk.give_up(|began| now.saturating_duration_since(began) >= limit) {
            let error = ProposeError::OutcomeUnknown { why: Lost::Timeout, at: None };
            self.core.meters.on_error(&error);
            out.push(Completion { tag: late.tag, result: Err(error) });
        }
    }

    /// Ready once `collect` has something, or should look for deadlines; at once if nothing is under way.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.flush();
        if self.bulk.under_way() == 0 || !self.refused.is_empty() || self.bulk.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.lookout.poll(cx)
    }

    /// Waits as `poll_ready` does.
    pub async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Blocks the thread as `poll_ready` says, at most so long.
    pub fn wait(&mut self, at_most: Duration) {
        block(at_most, |cx| self.poll_ready(cx));
    }
}
