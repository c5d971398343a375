//! A client of the whole cluster: finds a slot's leader, follows `MOVED`, judges each answer.
//!
//! Invariant: `Refused` only where the server said so in words that mean "never appended"; a broken connection after
//! the command was sent is `Unknown`.

use super::connection::{Connection, ConnectionError};
use super::wire::{Value, encode_command};
use crate::shards::{SLOTS, slot_of};
use bytes::BytesMut;
use std::collections::{BTreeMap, HashMap};
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
        let addr = self.leader(slot);
        let answer = self.call_at(&addr, args).await;
        self.learn(slot, &addr, &answer);
        answer
    }

    /// One try of each command (key, arguments), all at once: in a pipeline to each node that leads some of them as far as
    /// known. `heard` gets each answer as it comes, with the place of its command.
    pub async fn call_many(&mut self, commands: &[(&[u8], Vec<&[u8]>)], mut heard: impl FnMut(usize, Answer)) {
        let mut pipelines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (key, _)) in commands.iter().enumerate() {
            pipelines.entry(self.leader(usize::from(slot_of(key)))).or_default().push(at);
        }
        let mut under_way = Vec::new();
        for (addr, places) in pipelines {
            let mut wire = BytesMut::new();
            places.iter().for_each(|at| encode_command(&commands[*at].1, &mut wire));
            let connection = match self.connection(&addr).await {
                Ok(mut connection) => connection.send(&wire).await.map(|()| connection).map_err(|e| unknown(&addr, &e)),
                Err(refused) => Err(refused),
            };
            under_way.push((addr, places, connection));
        }
        for (addr, places, mut connection) in under_way {
            for at in places {
                let answer = match &mut connection {
                    Ok(open) => match open.receive().await {
                        Ok(value) => judge(value),
                        Err(e) => {
                            connection = Err(unknown(&addr, &e));
                            unknown(&addr, &e)
                        }
                    },
                    Err(broken) => broken.clone(),
                };
                self.learn(usize::from(slot_of(commands[at].0)), &addr, &answer);
                heard(at, answer);
            }
            if let Ok(open) = connection {
                self.open.insert(addr, open);
            }
        }
    }

    /// Whoever leads a slot as far as known.
    fn leader(&mut self, slot: usize) -> String {
        self.leaders[slot].clone().unwrap_or_else(|| self.next_seed())
    }

    fn learn(&mut self, slot: usize, addr: &str, answer: &Answer) {
        self.leaders[slot] = match answer {
            Answer::Refused(text) => moved_to(text),
            Answer::Unknown(_) => None,
            Answer::Done(_) => Some(addr.to_owned()),
        };
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
        let mut connection = match self.connection(addr).await {
            Ok(connection) => connection,
            Err(refused) => return refused,
        };
        match connection.call(args).await {
            Ok(value) => {
                self.open.insert(addr.to_owned(), connection);
                judge(value)
            }
            Err(e) => unknown(addr, &e),
        }
    }

    /// The open connection, to be put back, or a new one; `Err`: what a command for it is answered.
    async fn connection(&mut self, addr: &str) -> Result<Connection, Answer> {
        match self.open.remove(addr) {
            Some(open) => Ok(open),
            None => Connection::open(addr, self.deadline)
                .await
                .map_err(|e| Answer::Refused(format!("cannot connect to {addr}: {e}"))),
        }
    }

    fn next_seed(&mut self) -> String {
        self.turn += 1;
        self.seeds[self.turn % self.seeds.len()].clone()
    }
}

/// A command that was sent, or may have been, on a connection that then broke.
fn unknown(addr: &str, error: &ConnectionError) -> Answer {
    Answer::Unknown(format!("{addr}: {error}"))
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
