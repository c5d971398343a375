//! Leaders are handed over under pipelined load: clients are sent on or asked to try again, never told that the cluster
//! is down, for clients back off from that for long (`redis-benchmark` sleeps a second for each such answer).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use bytes::BytesMut;
use pontoon_server::client::{Connection, Value, encode_command};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{running, token_file, transfer_all};
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(8);
/// Each moves all leaders.
const HANDOVERS: u64 = 12;

/// First words of the answers, with how often they came.
type Tally = BTreeMap<String, u64>;

/// Pipelines of writes at one node, whoever leads, until told to stop.
async fn write(addr: String, stop: Arc<AtomicBool>) -> Tally {
    let mut connection = Connection::open(&addr, DEADLINE).await.unwrap();
    let (mut tally, mut wire) = (Tally::new(), BytesMut::new());
    for key in 0..16 {
        encode_command(&[b"SET", format!("key:{key}").as_bytes(), b"value"], &mut wire);
    }
    while !stop.load(Ordering::Relaxed) {
        connection.send(&wire).await.unwrap();
        for _ in 0..16 {
            let word = match connection.receive().await.unwrap() {
                Value::Simple(text) | Value::Error(text) => text.split(' ').next().unwrap_or_default().to_owned(),
                other => format!("{other:?}"),
            };
            *tally.entry(word).or_default() += 1;
        }
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_is_no_outage() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = running(dir.path(), 8, &["--admin-token-file", &token_file(dir.path())]).await;
    let stop = Arc::<AtomicBool>::default();
    let mut writers = JoinSet::new();
    nodes.redis().into_iter().for_each(|addr| drop(writers.spawn(write(addr, Arc::clone(&stop)))));
    let moved = (0..HANDOVERS).filter(|n| transfer_all(&nodes, n % 3 + 1)).count();
    stop.store(true, Ordering::Relaxed);
    let mut all = Tally::new();
    while let Some(tally) = writers.join_next().await {
        tally.unwrap().into_iter().for_each(|(word, n)| *all.entry(word).or_default() += n);
    }
    println!("{moved} handovers of all groups: {all:?}");
    assert!(moved > 2 && all.contains_key("OK") && all.contains_key("MOVED"), "{moved}: {all:?}");
    assert_eq!(all.get("CLUSTERDOWN"), None, "{all:?}");
}
