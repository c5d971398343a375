//! Catch-up reads of the log, off the pollers: for followers that lag behind what is kept in memory.
//!
//! Leaves to others: when to read (the core, through its storage's `Uncached`), what to do with the result (replica).
//! Invariant: one answer per task, to the poller that asked.

use crate::env::{Fetch, Instant, LogStore};
use crate::inbox::Inbox;
use crate::router::Router;
use crate::task::{FetchTask, Fetched, LogReaderMsg, PollerMsg};
use crate::turn::{Active, Turn};
use std::sync::Arc;
use std::time::Duration;

/// Reads that go to the log store together.
const MAX_READS: usize = 64;

/// The reader.
pub struct LogReader {
    /// The log store.
    log: Arc<dyn LogStore>,
    /// What to read.
    inbox: Inbox<LogReaderMsg>,
    /// Whom to answer.
    router: Arc<Router>,
    /// `Stop` was read.
    stopped: bool,
}

impl LogReader {
    /// A reader.
    #[must_use]
    pub fn new(log: Arc<dyn LogStore>, inbox: Inbox<LogReaderMsg>, router: Arc<Router>) -> LogReader {
        LogReader { log, inbox, router, stopped: false }
    }

    fn take_tasks(&mut self) -> Vec<FetchTask> {
        let mut tasks = Vec::new();
        while tasks.len() < MAX_READS {
            match self.inbox.take() {
                Some(LogReaderMsg::Fetch(task)) => tasks.push(task),
                Some(LogReaderMsg::Stop) => {
                    self.stopped = true;
                    break;
                }
                None => break,
            }
        }
        tasks
    }
}

impl Active for LogReader {
    fn turn(&mut self, _now: Instant) -> Turn {
        let tasks = self.take_tasks();
        if tasks.is_empty() {
            return Turn::IDLE;
        }
        metrics::counter!("pontoon_log_cache_reads_total", "result" => "miss").increment(tasks.len() as u64);
        let fetches: Vec<Fetch> = tasks.iter().map(|t| t.fetch).collect();
        for (task, entries) in tasks.into_iter().zip(self.log.read(&fetches)) {
            let fetched = Fetched { group: task.fetch.group, follower: task.follower, entries };
            self.router.mail().poller(task.poller, PollerMsg::Fetched(fetched));
        }
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
