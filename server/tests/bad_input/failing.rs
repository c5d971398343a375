//! Disks that fail under a node that serves (`wal/tests/faults/shim.c`): the node ends with a reason, the others go on,
//! nothing acknowledged is lost, and on a sound disk it comes back.

use crate::faults::{EIO, ENOSPC, Faults};
use crate::support::{Clients, all_led, equal_contents, running};
use crate::{ended, read_back, write};
use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::Nodes;

const LOG: &str = "*/log/store/db/*.log";
const MARK: &str = "*/log/store/WATERMARK";
/// All of the node's files.
const ALL: &str = "*/engine/*";
const KEYS: u64 = 100;

fn start_under(nodes: &mut Nodes, id: u64, faults: &Faults) {
    let env = faults.env();
    nodes.start_with(id, &env.iter().map(|(k, v)| (*k, v.as_path())).collect::<Vec<_>>()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_ends_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::build(dir.path());
    let mut nodes = running(dir.path(), 6, &[]).await;
    write(&nodes, "before", 30).await;
    let cases = [("sync", EIO, 1, LOG), ("write", EIO, 1, LOG), ("torn", ENOSPC, 0, ALL), ("write", ENOSPC, 1, MARK)];
    for (n, (kind, error, count, files)) in cases.into_iter().enumerate() {
        let (victim, round) = (n as u64 % 3 + 1, format!("{kind}-{n}"));
        nodes.kill(victim).unwrap();
        std::fs::write(&nodes.node(victim).log, "").unwrap();
        start_under(&mut nodes, victim, &faults);
        all_led(&nodes).await;
        let clients = Clients::start(nodes.redis(), 8, KEYS, &round, n as u64);
        clients.acknowledge(200).await;
        faults.arm(kind, error, 0, count, files);
        let (code, said) = ended(&mut nodes, victim).await;
        let last = said.lines().last().unwrap_or_default();
        println!("{round} {error}: {last}");
        assert!(code == 1 && last.contains("promises nothing any more"), "exit {code}:\n{said}");
        assert!(faults.struck());
        let reached = clients.acknowledged.load(std::sync::atomic::Ordering::Relaxed);
        clients.acknowledge(reached + 200).await;
        faults.disarm();
        nodes.start(victim).unwrap();
        all_led(&nodes).await;
        // It is needed for every quorum from here on: what it had acknowledged to the others must be there.
        nodes.kill(victim % 3 + 1).unwrap();
        let seen = clients.finish(&round, KEYS).await;
        seen.report(&round);
        assert_eq!(seen.verdict(), KvVerdict::Ok);
        nodes.start(victim % 3 + 1).unwrap();
    }
    all_led(&nodes).await;
    read_back(&nodes, "before", 30).await;
    equal_contents(&nodes).await;
}
