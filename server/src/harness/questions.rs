//! Questions to running nodes: who leads, how far is what applied, do contents agree, what do the metrics say.
//!
//! Answers are `None` where a node does not answer; polling is the caller's, or `wait_all_led`'s.

use crate::admin_client::AdminClient;
use crate::client::{Answer, ClusterClient, Value};
use crate::shards::SLOTS;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

async fn ask(addr: &str, args: &[&[u8]]) -> Option<Value> {
    let mut client = ClusterClient::new(vec![addr.to_owned()], PATIENCE);
    match client.call_at(addr, args).await {
        Answer::Done(value) => Some(value),
        Answer::Refused(_) | Answer::Unknown(_) => None,
    }
}

/// Slots led per node's Redis address, as one node sees it; and how many of the 16,384 are led at all.
pub async fn leaders(addr: &str) -> Option<(BTreeMap<String, u32>, u32)> {
    let (mut led, mut all) = (BTreeMap::new(), 0);
    for (first, last, leader) in led_ranges(addr).await? {
        let slots = u32::from(last - first) + 1;
        *led.entry(leader).or_insert(0) += slots;
        all += slots;
    }
    Some((led, all))
}

/// First and last slot of each range that is led, and its leader's Redis address, as one node sees it.
pub(crate) async fn led_ranges(addr: &str) -> Option<Vec<(u16, u16, String)>> {
    let Value::Array(rows) = ask(addr, &[b"CLUSTER", b"SLOTS"]).await? else { return None };
    rows.iter().map(led_range).collect()
}

fn led_range(row: &Value) -> Option<(u16, u16, String)> {
    let Value::Array(cells) = row else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = cells.as_slice() else { return None };
    let [Value::Bulk(host), Value::Int(port), ..] = master.as_slice() else { return None };
    let leader = format!("{}:{port}", String::from_utf8_lossy(host));
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    (first <= last && last < SLOTS).then_some((first, last, leader))
}

/// Waits until each node asked sees every slot led by one of `living`; how long that took.
pub async fn wait_all_led(ask: &[String], living: &[String], limit: Duration) -> Option<Duration> {
    let began = Instant::now();
    loop {
        let mut good = 0;
        for addr in ask {
            let seen = leaders(addr).await;
            good += usize::from(seen.is_some_and(|(led, all)| all == 16_384 && led.keys().all(|a| living.contains(a))));
        }
        if good == ask.len() {
            return Some(began.elapsed());
        }
        if began.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Applied index per group, in slot order, of one node's replicas.
pub async fn applied(addr: &str) -> Option<Vec<u64>> {
    let Value::Array(rows) = ask(addr, &[b"PONTOON", b"APPLIED"]).await? else { return None };
    rows.iter().map(|r| if let Value::Int(n) = r { u64::try_from(*n).ok() } else { None }).collect()
}

/// (applied index, hash of the contents) of one group on each node; retried until the indexes agree.
pub async fn digests(nodes: &[String], group: u64, limit: Duration) -> Option<Vec<(u64, String)>> {
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for addr in nodes {
            let group = group.to_string();
            if let Some(Value::Array(cells)) = ask(addr, &[b"PONTOON", b"DIGEST", group.as_bytes()]).await
                && let [Value::Int(at), Value::Bulk(hash)] = cells.as_slice()
            {
                found.push((u64::try_from(*at).ok()?, String::from_utf8_lossy(hash).into_owned()));
            }
        }
        if found.len() == nodes.len() && found.iter().all(|f| f.0 == found[0].0) {
            return Some(found);
        }
        if began.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Sum of all series of a metric on one node's admin page.
pub async fn metric_sum(admin: &str, name: &str) -> Option<f64> {
    let client = AdminClient { token: None, patience: PATIENCE };
    let page = client.get(admin, "/metrics").await.ok()?.body;
    let series = page.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values: Vec<f64> = series.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
