//! Catch-up reads of the log, off the pollers: for followers that lag behind what is kept in memory.
//!
//! Leaves to others: when to read (the core, through its storage's `Uncached`), what to do with the result (replica).
//! Invariant: one answer per task, to the poller that asked, or the node is over. What was read and is not used yet comes to a
//! small part of the node's budget and one round of reads, however many groups lag: then the pollers come first.

use crate::env::{Fetch, Instant, LogStore};
use crate::inbox::Inbox;
use crate::log_cache::weight;
use crate::page::Shelf;
use crate::router::Router;
use crate::task::{FetchTask, Fetched, LogReaderMsg, PollerMsg};
use crate::turn::{Active, Turn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Reads that go to the log store together.
const MAX_READS: usize = 64;
/// Bytes of such a round, at the most: as asked for.
const MAX_BYTES: u64 = 4 << 20;
/// The part of the node's budget that pages may come to before the next round.
const SHELF_PART: u64 = 16;
/// When to look again whether the pollers have caught up.
const AGAIN: Duration = Duration::from_millis(1);

/// The reader.
pub struct LogReader {
    /// The log store.
    log: Arc<dyn LogStore>,
    /// What to read.
    inbox: Inbox<LogReaderMsg>,
    /// Tasks taken from there. At most one for each member of each group.
    waiting: VecDeque<FetchTask>,
    /// What was read.
    shelf: Shelf,
    /// Whom to answer.
    router: Arc<Router>,
    /// `Stop` was read.
    stopped: bool,
}

impl LogReader {
    /// A reader.
    #[must_use]
    pub fn new(log: Arc<dyn LogStore>, inbox: Inbox<LogReaderMsg>, router: Arc<Router>) -> LogReader {
        LogReader { log, inbox, waiting: VecDeque::new(), shelf: Shelf::default(), router, stopped: false }
    }

    fn drain_inbox(&mut self) {
        while let Some(letter) = self.inbox.take() {
            match letter {
                LogReaderMsg::Fetch(task) => self.waiting.push_back(task),
                LogReaderMsg::Stop => self.stopped = true,
            }
        }
    }

    fn take_round(&mut self) -> Vec<FetchTask> {
        let mut bytes = 0;
        let mut round = Vec::new();
        while round.len() < MAX_READS && bytes < MAX_BYTES {
            let Some(task) = self.waiting.pop_front() else { break };
            bytes += task.fetch.max_bytes;
            round.push(task);
        }
        round
    }

    fn has_room(&self) -> bool {
        let on_it = self.shelf.weight();
        on_it == 0 || on_it < self.router.budget().limit() / SHELF_PART
    }

    fn read(&mut self, round: Vec<FetchTask>) {
        metrics::counter!("pontoon_log_cache_reads_total", "result" => "miss").increment(round.len() as u64);
        let fetches: Vec<Fetch> = round.iter().map(|t| t.fetch).collect();
        for (task, found) in round.into_iter().zip(self.log.read(&fetches)) {
            let entries = found.map(|entries| {
                let weight = entries.iter().map(weight).sum();
                self.shelf.page(entries, weight)
            });
            let fetched = Fetched { group: task.fetch.group, follower: task.follower, entries };
            self.router.mail().poller(task.poller, PollerMsg::Fetched(fetched));
        }
    }
}

impl Active for LogReader {
    fn turn(&mut self, now: Instant) -> Turn {
        self.drain_inbox();
        if self.stopped || self.waiting.is_empty() {
            return Turn::IDLE;
        }
        if !self.has_room() {
            return Turn::IDLE.by(now.after(AGAIN));
        }
        let round = self.take_round();
        self.read(round);
        Turn::WORKED
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        "log-reader".into()
    }
}
