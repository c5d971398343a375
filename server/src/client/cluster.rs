//! A client of the whole cluster: finds a slot's leader, follows `MOVED`, judges each answer.
//!
//! Invariant: `Refused` only where the server said so in words that mean "never appended"; a broken connection after
//! the command was sent is `Unknown`.

use super::connection::{Connection, ConnectionError};
use super::wire::Value;
use crate::shards::{SLOTS, slot_of};
use std::collections::HashMap;
use std::time::Duration;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done: the reply.
    Done(Value),
    /// Never appended: may be retried.
    Refused(String),
    /// May have happened, or may happen yet.
    Unknown(String),
}

/// Connections to the nodes of one cluster, and who leads which slot as far as heard.
#[derive(Debug)]
pub struct ClusterClient {
    seeds: Vec<String>,
    deadline: Duration,
    open: HashMap<String, Connection>,
    leaders: Vec<Option<String>>,
    /// Where to ask next when nobody is known.
    turn: usize,
}

impl ClusterClient {
    /// Nothing is opened yet. `seeds`: Redis addresses of the nodes.
    #[must_use]
    pub fn new(seeds: Vec<String>, deadline: Duration) -> ClusterClient {
        ClusterClient { seeds, deadline, open: HashMap::new(), leaders: vec![None; usize::from(SLOTS)], turn: 0 }
    }

    /// One try at whoever leads the key's slot as far as known; learns from `MOVED`.
    pub async fn call(&mut self, key: &[u8], args: &[&[u8]]) -> Answer {
        let slot = usize::from(slot_of(key));
        let addr = self.leaders[slot].clone().unwrap_or_else(|| self.next_seed());
        let answer = self.call_at(&addr, args).await;
        match &answer {
            Answer::Refused(text) => {
                self.leaders[slot] = moved_to(text);
            }
            Answer::Unknown(_) => self.leaders[slot] = None,
            Answer::Done(_) => self.leaders[slot] = Some(addr),
        }
        answer
    }

    /// Tries until done or unknown, or until `tries` refusals.
    pub async fn call_retrying(&mut self, key: &[u8], args: &[&[u8]], tries: u32) -> Answer {
        let mut last = Answer::Refused("no try".into());
        for n in 0..tries {
            last = self.call(key, args).await;
            match &last {
                Answer::Refused(text) if moved_to(text).is_some() && n % 4 != 3 => {}
                Answer::Refused(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return last,
            }
        }
        last
    }

    /// One command at one address.
    pub async fn call_at(&mut self, addr: &str, args: &[&[u8]]) -> Answer {
        let mut connection = match self.open.remove(addr) {
            Some(open) => open,
            None => match Connection::open(addr, self.deadline).await {
                Ok(open) => open,
                Err(e) => return Answer::Refused(format!("cannot connect to {addr}: {e}")),
            },
        };
        match connection.call(args).await {
            Ok(value) => {
                self.open.insert(addr.to_owned(), connection);
                judge(value)
            }
            Err(e @ ConnectionError::Protocol(_)) => Answer::Unknown(format!("{addr}: {e}")),
            Err(e) => Answer::Unknown(format!("{addr}: {e}")),
        }
    }

    fn next_seed(&mut self) -> String {
        self.turn += 1;
        self.seeds[self.turn % self.seeds.len()].clone()
    }
}

/// Errors that the server gives only where nothing was appended (docs/operating.md).
const REFUSALS: [&str; 5] = ["MOVED ", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "CROSSSLOT"];

/// A reply as an answer.
pub(crate) fn judge(value: Value) -> Answer {
    match value.error() {
        Some(text) if REFUSALS.iter().any(|r| text.starts_with(r)) => Answer::Refused(text.to_owned()),
        Some(text) if text.starts_with("ERR outcome unknown") => Answer::Unknown(text.to_owned()),
        _ => Answer::Done(value),
    }
}

/// The address in a `MOVED`.
pub(crate) fn moved_to(text: &str) -> Option<String> {
    text.strip_prefix("MOVED ")?.split(' ').nth(1).map(str::to_owned)
}
