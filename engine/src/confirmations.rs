//! Linearizable reads in bulk: asked for many at a time, confirmed many at a time, told apart by the caller's tags.
//!
//! For who has many reads under way. Those of one group that are handed in together share one confirmation: one letter, one
//! answer. What is confirmed is read with `Group::local_reader`.
//! Leaves to others: single reads (`Group::read`), the confirmation (raftstore's ReadIndex).
//! Invariant: a confirmation was asked for after every read that shares it was submitted; each comes back exactly once.

use crate::core::Core;
use crate::group::Group;
use crate::lookout::Lookout;
use crate::park::block;
use crate::state_machine::StateMachine;
use pontoon_raftstore::arrivals::Arrivals;
use pontoon_raftstore::error::{Limit, ReadError};
use pontoon_raftstore::ids::{GroupId, Index};
use pontoon_raftstore::proposal::ReadSlot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Reads after which the staged ones are handed in.
const BATCH: usize = 4096;
/// Most reads under way.
const MOST: usize = 1 << 20;

/// Where rounds come back: their numbers, and how far each is confirmed.
type Answers = Arrivals<(u64, Result<Index, ReadError>)>;

/// A read that came back.
#[derive(Debug)]
pub struct Confirmation {
    /// As submitted.
    pub tag: u64,
    /// What is applied here up to this index, at least, holds every write that was acknowledged anywhere before the read was
    /// submitted.
    pub result: Result<Index, ReadError>,
}

/// A queue of one caller, for any groups on this node.
///
/// `submit` any number of reads, `flush` hands them in, `collect` takes what is confirmed; `wait` blocks a thread and `ready`
/// a task until there is something. Nothing is handed in before `flush`, `collect`, `wait`, `ready` or a full batch. What is
/// not confirmed in time comes back as `Unconfirmed`, found by `collect`. Dropping the queue forgets what is under way.
pub struct Confirmations {
    /// The engine's inside.
    core: Arc<Core>,
    /// Where confirmations arrive, by the number of the round.
    arrived: Arc<Answers>,
    /// Submitted, not handed in: a round of each group.
    staged: HashMap<GroupId, Round>,
    /// Reads in them.
    waiting: usize,
    /// Handed in. Ascending: the oldest first.
    flight: BTreeMap<u64, Round>,
    /// Reads under way, all together.
    count: usize,
    /// Of the last round.
    number: u64,
    /// Came back without a round.
    refused: Vec<Confirmation>,
    /// How long a read may take.
    limit: Duration,
    /// For those that take longer.
    lookout: Lookout,
    /// Memory of rounds that ended.
    spare: Vec<Vec<u64>>,
}

/// Reads of one group that share a confirmation.
struct Round {
    group: GroupId,
    /// When the last of them was submitted, or later.
    began: Instant,
    tags: Vec<u64>,
}

impl Confirmations {
    pub(crate) fn new(core: &Arc<Core>) -> Confirmations {
        Confirmations {
            core: Arc::clone(core),
            arrived: Arc::default(),
            staged: HashMap::new(),
            waiting: 0,
            flight: BTreeMap::new(),
            count: 0,
            number: 0,
            refused: Vec::new(),
            limit: core.config.request_timeout.get(),
            lookout: Lookout::new(&core.timer),
            spare: Vec::new(),
        }
    }

    /// How long a read may take; by default the engine's `request_timeout`.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Confirmations {
        Confirmations { limit, ..self }
    }

    /// Reads that did not come back yet.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.count + self.refused.len()
    }

    /// Adds a read to the next batch. Tags are the caller's and need not differ.
    pub fn submit<S: StateMachine>(&mut self, group: &Group<S>, tag: u64) {
        let group = match group.id_in(&self.core) {
            Ok(group) => group,
            Err(e) => return self.refused.push(Confirmation { tag, result: Err(e.into()) }),
        };
        if self.count == MOST {
            let error = ReadError::Overloaded(Limit::NodeInflight);
            return self.refused.push(Confirmation { tag, result: Err(error) });
        }
        let spare = &mut self.spare;
        let round = self.staged.entry(group).or_insert_with(|| Round {
            group,
            began: Instant::now(),
            tags: spare.pop().unwrap_or_default(),
        });
        round.tags.push(tag);
        self.count += 1;
        self.waiting += 1;
        if self.waiting == BATCH {
            self.flush();
        }
    }

    /// Hands in what was submitted.
    pub fn flush(&mut self) {
        if self.waiting == 0 {
            return;
        }
        self.waiting = 0;
        let began = Instant::now();
        for (group, round) in self.staged.drain() {
            self.number += 1;
            let slot = Arc::new(Waiting { arrived: Arc::clone(&self.arrived), round: self.number });
            self.flight.insert(self.number, Round { began, ..round });
            if let Err(e) = self.core.read(group, slot) {
                self.arrived.put(std::iter::once((self.number, Err(e))));
            }
        }
    }

    /// Appends what came back to `out`; returns how much. Flushes first.
    pub fn collect(&mut self, out: &mut Vec<Confirmation>) -> usize {
        self.flush();
        let before = out.len();
        out.append(&mut self.refused);
        for (number, result) in self.arrived.take(Vec::new()) {
            // What was given up already gets no second answer.
            if let Some(round) = self.flight.remove(&number) {
                if result.is_ok() {
                    self.core.note_confirmed(round.group, round.began);
                }
                self.end(round, &result, out);
            }
        }
        self.give_up_late(out);
        out.len() - before
    }

    fn end(&mut self, mut round: Round, result: &Result<Index, ReadError>, out: &mut Vec<Confirmation>) {
        self.count -= round.tags.len();
        out.extend(round.tags.drain(..).map(|tag| Confirmation { tag, result: result.clone() }));
        self.spare.push(round.tags);
    }

    fn give_up_late(&mut self, out: &mut Vec<Confirmation>) {
        let Some(now) = self.lookout.due() else { return };
        // Where the load is over its memory may go.
        self.spare.truncate(self.flight.len());
        while let Some(oldest) = self.flight.first_entry() {
            if now.saturating_duration_since(oldest.get().began) < self.limit {
                break;
            }
            let round = oldest.remove();
            self.end(round, &Err(ReadError::Unconfirmed), out);
        }
    }

    /// Ready once `collect` has something, or should look for deadlines; at once if nothing is under way.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.flush();
        if self.count == 0 || !self.refused.is_empty() || self.arrived.poll(cx).is_ready() {
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

/// Where the confirmation of a round goes.
struct Waiting {
    arrived: Arc<Answers>,
    round: u64,
}

impl ReadSlot for Waiting {
    fn ready(&self, at: Index) {
        self.arrived.put(std::iter::once((self.round, Ok(at))));
    }

    fn fail(&self, error: ReadError) {
        self.arrived.put(std::iter::once((self.round, Err(error))));
    }
}
