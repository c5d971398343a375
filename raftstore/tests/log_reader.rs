//! Catch-up reads on the twin of the log store: every task is answered, and no more is read ahead than there is room for.
#![allow(clippy::unwrap_used)]

mod parts;

use parts::{Disks, G, home};
use pontoon_raftstore::config::Config;
use pontoon_raftstore::env::{Fetch, Instant};
use pontoon_raftstore::ids::{Index, ReplicaId};
use pontoon_raftstore::inbox::Inbox;
use pontoon_raftstore::log_reader::LogReader;
use pontoon_raftstore::mem::MemNet;
use pontoon_raftstore::router::Router;
use pontoon_raftstore::task::{FetchTask, Fetched, PollerMsg};
use pontoon_raftstore::turn::Active;
use std::sync::Arc;

/// The bug: pages for all groups that lagged lay before the pollers, 256 KiB each, counted nowhere.
#[test]
fn no_more_is_read_than_the_pollers_use() {
    let mut disks = Disks::new(1, &Arc::new(MemNet::default()));
    disks.found_group("kv", 50, 2);
    let (env, ..) = disks.env();
    let (router, inboxes) = Router::new(&Config { pollers: 1, node_bytes: 64 << 10, ..Config::default() });
    let mut reader = LogReader::new(env.log.clone(), Inbox::new(inboxes.log_reader), router.clone());
    let poller = &inboxes.pollers[0];
    let now = Instant(1);
    assert!(!reader.turn(now).worked);
    let asked: Vec<ReplicaId> = (1..=1000).map(ReplicaId).collect();
    for follower in &asked {
        let fetch = Fetch { group: G, low: Index(2), high: Index(51), max_bytes: 256 << 10 };
        router.mail().log_reader(FetchTask { poller: home(), fetch, follower: *follower });
    }
    let mut answered = Vec::new();
    while answered.len() < asked.len() {
        assert!(reader.turn(now).worked, "there is room again");
        let waits = reader.turn(now);
        assert!(!waits.worked && (waits.next < Instant::NEVER || answered.len() + 64 > asked.len()), "{waits:?}");
        let round: Vec<Fetched> = poller.try_iter().map(fetched).collect();
        assert!(round.len() <= 16, "4 MiB as asked for: {}", round.len());
        for page in round {
            answered.push(page.follower);
            assert_eq!(page.entries.unwrap().into_entries().len(), 49);
        }
    }
    assert_eq!(answered, asked);
}

fn fetched(letter: PollerMsg) -> Fetched {
    match letter {
        PollerMsg::Fetched(fetched) => fetched,
        _ => panic!("nothing else comes from there"),
    }
}
