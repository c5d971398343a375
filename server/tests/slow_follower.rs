//! Real processes: a follower that stops reading (SIGSTOP: its connections stay open) costs its groups nothing, and the
//! others no more memory than its queues hold, while far more than that is written; it catches up when it reads again.
//!
//! Leaves to others: whether it disrupts a leader then while little is written (`kills`), slow disks (`faults`).
//! Invariant: what the living nodes hold is looked at all the while, and every bound is that of the configuration.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::Nodes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{
    Clients, Group, Load, PATIENCE, all_led, equal_contents, lead_at_1, page, seen_at, signal, terms, transfer,
};
use support::{unbalanced_with, until};

const GROUPS: u16 = 48;
const LOAD: Load = Load { clients: 16, keys: 800, at_once: 16, value: 32 << 10 };
/// Of four commands three write, and of these three in four a value.
const WRITES_PER_VALUE: f64 = 4.0 / 3.0;
const MIB: f64 = (1 << 20) as f64;

/// What may wait for a peer: `transport::Config::queue`, lane by lane.
const QUEUES: [(&str, f64); 3] = [("urgent", 4.0 * MIB), ("append", 32.0 * MIB), ("snapshot", 4.0 * MIB)];
/// `node_memory` below.
const BUDGET: f64 = 32.0 * MIB;
/// Small budgets, and little memory elsewhere (log files, contents that are not flushed): what a queue holds shows.
const ENGINE: &str = "[engine.raft]\nmax_command = \"1MiB\"\ngroup_inflight = \"4MiB\"\nnode_memory = \"32MiB\"\n";
const FLAGS: [&str; 6] = ["--log-file", "1MiB", "--log-keep", "512KiB", "--flush-every", "500ms"];

/// Values written before the follower stops, and while it is stopped. MiB.
const WARM: f64 = 300.0;
const STOPPED: f64 = 300.0;
/// Longer than a link may be silent (3 s): it is given up and dialled again.
const SILENCE: Duration = Duration::from_secs(5);

/// What resident memory may grow by beyond that of the same load with three nodes that read: full queues (a frame grows by
/// doubling, so its buffer may be twice what counts), a full budget, the contents' block cache. Less than is written.
const GROWTH: f64 = 2.0 * (4.0 + 32.0 + 4.0) * MIB + BUDGET + 64.0 * MIB;

/// The most that was seen of a living node.
#[derive(Debug, Default)]
struct Peak {
    /// Bytes that wait for node 3, by lane.
    queues: [f64; 3],
    /// Bytes of the budget.
    budget: f64,
    /// Frames for node 3 that found their queue full.
    full: f64,
    /// Memory that is no file's.
    resident: f64,
}

impl Peak {
    fn look(&mut self, nodes: &Nodes, id: u64) {
        let page = page(&nodes.node(id).admin, "/metrics");
        for (most, (lane, _)) in self.queues.iter_mut().zip(QUEUES) {
            let labels = ["peer=\"3\"", &format!("lane=\"{lane}\"")];
            *most = most.max(value(&page, "pontoon_transport_queue_bytes", &labels));
        }
        self.budget = self.budget.max(value(&page, "pontoon_budget_bytes", &["part=\"used\""]));
        let full = value(&page, "pontoon_transport_dropped_total", &["peer=\"3\"", "reason=\"queue_full\""]);
        self.full = self.full.max(full);
        let status = std::fs::read_to_string(format!("/proc/{}/status", nodes.node(id).pid().unwrap())).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        self.resident = self.resident.max(1024.0 * line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap());
    }

    fn assert_bounded(&self, warm: &Peak) {
        for (most, (lane, bound)) in self.queues.iter().zip(QUEUES) {
            assert!(*most <= bound, "{lane}: more than {bound} bytes wait for node 3: {self:?}");
        }
        assert!(self.budget <= BUDGET, "{self:?}");
        assert!(self.resident <= warm.resident + GROWTH, "{self:?} after {warm:?}, may grow by {GROWTH}");
    }
}

/// For whoever must find out why node 3 does not catch up: the first groups that lack most there as all nodes see them, what was
/// dropped and fed, the end of its log.
fn why_behind(nodes: &Nodes) -> String {
    let admin = |id: u64| nodes.node(id).admin.clone();
    let (here, there) = (seen_at(&admin(1)), seen_at(&admin(3)));
    let lacks = |group: &u64| here[group].applied.saturating_sub(there.get(group).map_or(0, |g| g.applied));
    let mut groups: Vec<u64> = here.keys().copied().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(lacks(group)));
    let groups = groups.iter().take(3).flat_map(|group| (1..=3).map(move |id| (id, format!("/groups/{group}"))));
    let mut told: Vec<String> =
        groups.map(|(id, path)| format!("node {id} {path}: {}", page(&admin(id), &path))).collect();
    let matters = ["rejected", "dropped", "snapshot", "quarantined", "budget", "link", "log_live"];
    for id in [1, 3] {
        let metrics = page(&admin(id), "/metrics");
        let lines = metrics.lines().filter(|l| !l.starts_with('#') && !l.ends_with(" 0") && !l.contains("bucket"));
        let lines = lines.filter(|l| matters.iter().any(|m| l.contains(m))).map(|l| format!("node {id} {l}"));
        told.extend(lines);
    }
    let log = std::fs::read_to_string(&nodes.node(3).log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    told.extend(lines[lines.len().saturating_sub(20)..].iter().map(|l| (*l).to_owned()));
    told.join("\n")
}

/// The one series of a metric with these labels.
fn value(page: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |l: &&str| l.starts_with(&format!("{name}{{")) && labels.iter().all(|label| l.contains(label));
    let found: Vec<&str> = page.lines().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].rsplit(' ').next().unwrap().parse().unwrap()
}

/// Loads until `is_over`, told how many MiB were written so far; what is seen of nodes 1 and 2 meanwhile.
async fn watched(what: &str, nodes: &Nodes, clients: &Clients, mut is_over: impl FnMut(f64) -> bool) -> [Peak; 2] {
    let (began, from) = (Instant::now(), clients.writes());
    let mut peaks = [Peak::default(), Peak::default()];
    let written = || (clients.writes() - from) as f64 / WRITES_PER_VALUE * LOAD.value as f64 / MIB;
    while !is_over(written()) {
        let late = began.elapsed() >= 2 * PATIENCE;
        assert!(!late, "{what}: {} MiB, {peaks:?}, most behind:\n{}", written(), why_behind(nodes));
        clients.acknowledge(clients.writes() + 100).await;
        (1..).zip(&mut peaks).for_each(|(id, peak)| peak.look(nodes, id));
    }
    println!("{what}: {:.0} MiB in {:?}, {peaks:?}", written(), began.elapsed());
    peaks
}

/// Node 2 leads every sixth group, node 1 the others, as every node sees it: what waits at node 1 alone is more than its
/// queue takes.
async fn lead_at_1_and_2(nodes: &Nodes) {
    lead_at_1(nodes).await;
    for group in (6..=GROUPS).step_by(6) {
        transfer(nodes, &group.to_string(), 2);
    }
    let wanted = |seen: &BTreeMap<u64, Group>| {
        seen.len() == usize::from(GROUPS) && seen.iter().all(|(g, s)| s.leader == if g % 6 == 0 { 2 } else { 1 })
    };
    until("half of the groups are led by node 2", async || {
        let seen: Vec<_> = nodes.nodes.iter().map(|n| seen_at(&n.admin)).collect();
        if seen.iter().all(wanted) { Ok(()) } else { Err(seen) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stops_reading_costs_others_neither_progress_nor_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = unbalanced_with(dir.path(), GROUPS, ENGINE, &FLAGS);
    nodes.start_all().unwrap();
    all_led(&nodes).await;
    lead_at_1_and_2(&nodes).await;
    let admin = |id: u64| nodes.node(id).admin.clone();
    let clients = Clients::load(nodes.redis()[..2].to_vec(), LOAD, "deaf", 1);
    let warm = watched("all read", &nodes, &clients, |mib| mib >= WARM).await;

    let before = seen_at(&admin(1));
    assert!(before.len() == usize::from(GROUPS) && before.values().all(|s| s.leader != 3), "{before:?}");
    signal("-STOP", &nodes, 3);
    let began = Instant::now();
    let stopped =
        watched("node 3 is stopped", &nodes, &clients, |mib| mib >= STOPPED && began.elapsed() >= SILENCE).await;
    let meanwhile = seen_at(&admin(1));
    assert_eq!(terms(&meanwhile), terms(&before), "groups, leaders, terms");
    for (group, seen) in &meanwhile {
        assert!(seen.applied > before[group].applied, "group {group} stands still: {before:?}, {meanwhile:?}");
    }

    signal("-CONT", &nodes, 3);
    let caught_up = |at_3: &BTreeMap<u64, Group>| {
        meanwhile.iter().all(|(g, m)| at_3.get(g).is_some_and(|s| s.applied >= m.applied))
    };
    let after = watched("node 3 catches up", &nodes, &clients, |_| caught_up(&seen_at(&admin(3)))).await;
    for id in [1, 2, 3] {
        assert_eq!(terms(&seen_at(&admin(id))), terms(&before), "groups, leaders, terms as node {id} sees them");
    }
    for peaks in [&stopped, &after] {
        peaks.iter().zip(&warm).for_each(|(peak, warm)| peak.assert_bounded(warm));
    }
    let seen = clients.finish("deaf", LOAD.keys).await;
    seen.report("deaf");
    assert_eq!(seen.verdict(), KvVerdict::Ok);
    equal_contents(&nodes).await;
}
