//! Flags that make no sense, founders that disagree, and first starts that are interrupted at every step.

use crate::support::{all_led, three_nodes, until_true};
use crate::{ended, read_back, refused, says, starts_in_vain, with, write};
use pontoon_server::harness::{Nodes, free_ports, wait_all_led};
use std::process::{Child, Command, Stdio};

#[tokio::test]
async fn all_mistakes_of_the_flags_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(dir.path(), 12, &["--log-file", "7", "--flush-every", "0"]);
    let data = nodes.node(1).data.clone();
    let mut flags = with(nodes.flags(1), "--cluster", "1=127.0.0.1:70000,2=h:1,2=h:1,x=h:2");
    for (flag, value) in [("--node", "0"), ("--groups", "16385"), ("--redis", "nowhere"), ("--admin", "10.0.0.1:80")] {
        flags = with(flags, flag, value);
    }
    flags.extend(["--deadline-ms", "soon", "--pollers", "-1"].map(str::to_owned));
    let text = refused(
        &flags.iter().map(|f| f.replace("--pollers", "--pollers=-1")).filter(|f| f != "-1").collect::<Vec<_>>(),
        2,
        &[
            "--node 0: must be a number from 1",
            "--cluster 1=127.0.0.1:70000: \"127.0.0.1:70000\" is not HOST:PORT",
            "--cluster names h:1 twice",
            "--cluster names node 2 twice",
            "--cluster x=h:2: the id must be above 0",
            "--cluster names 4 nodes: an odd number",
            "--redis nowhere: must be HOST:PORT",
            "admin address \"10.0.0.1:80\" is not on the loopback",
            "--groups 16385: must be 1 to 16384",
            "--deadline-ms soon: must be 50 to 600000",
            "--pollers -1: must be 0 to 1024",
            "log.file: ",
            "raft.durable_every: ",
        ],
    )
    .await;
    println!("{text}");
    assert!(!data.exists(), "a refused start leaves nothing behind");
    let open = with(nodes.flags(1), "--cluster", "1=0.0.0.0:7001");
    refused(&open, 2, &["not on the loopback", "log.file: "]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_founded_otherwise_stays_out_and_says_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes(dir.path(), 12, &[]);
    nodes.start(1).unwrap();
    nodes.start(2).unwrap();
    // Node 3 with another number of groups: nobody is admitted, and both sides say why.
    let mut wrong = background(&nodes, 3, &with(nodes.flags(3), "--groups", 13));
    says(&nodes, 3, &["founded with digest", "here with"]).await;
    says(&nodes, 1, &["founded with digest", "here with"]).await;
    assert!(wait_all_led(&nodes.redis(), &nodes.redis(), std::time::Duration::ZERO).await.is_none());
    stop(&mut wrong);
    // Or with other nodes.
    std::fs::write(&nodes.node(1).log, "").unwrap();
    let five = format!("{},4=127.0.0.1:1,5=127.0.0.1:2", cluster_flag(&nodes.flags(3)));
    let mut wrong = background(&nodes, 3, &with(nodes.flags(3), "--cluster", &five));
    says(&nodes, 3, &["founded with digest", "here with"]).await;
    says(&nodes, 1, &["founded with digest", "here with"]).await;
    stop(&mut wrong);
    // The same directory with the right flags: it never took part, so it may.
    nodes.start(3).unwrap();
    all_led(&nodes).await;
    write(&nodes, "founded", 20).await;

    // A cluster that stands: who wants to found something else with its nodes is never admitted, and says who is missing.
    let ports = free_ports(3).unwrap();
    let cluster = format!("1={},2={},4=127.0.0.1:{}", nodes.node(1).peer, nodes.node(2).peer, ports[0]);
    let mut flags = with(with(nodes.flags(1), "--node", 4), "--cluster", cluster);
    for (flag, value) in [("--redis", ports[1]), ("--admin", ports[2])] {
        flags = with(flags, flag, format!("127.0.0.1:{value}"));
    }
    let empty = dir.path().join("stranger");
    let mut stranger = background(&nodes, 3, &with(flags, "--data", empty.display()));
    says(&nodes, 3, &["not admitted yet", "node 1 (127.0.0.1:", "has not answered"]).await;
    stop(&mut stranger);

    // Later starts with another number of groups, or other voters, are refused by the node itself, with the way out.
    nodes.kill(3).unwrap();
    let differs = ["founded with --groups 12 and voters 1,2,3", "the number of groups never changes"];
    refused(&with(nodes.flags(3), "--groups", 24), 2, &differs).await;
    refused(&with(nodes.flags(3), "--cluster", five), 2, &differs).await;
    nodes.start(3).unwrap();
    all_led(&nodes).await;
    read_back(&nodes, "founded", 20).await;
}

/// Runs the binary with other flags; it writes to the log of node `id`.
fn background(nodes: &Nodes, id: u64, flags: &[String]) -> Child {
    let log = std::fs::File::create(&nodes.node(id).log).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pontoon")).args(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn stop(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn cluster_flag(flags: &[String]) -> String {
    flags[flags.iter().position(|f| f == "--cluster").unwrap() + 1].clone()
}

/// What appears one after the other in a node's directory during its first start.
const STEPS: [&str; 9] = [
    "engine",
    "engine/LOCK",
    "engine/log",
    "engine/log/store.new",
    "engine/log/store.new/db/CURRENT",
    "engine/log/store.new/IDENTITY",
    "engine/log/store",
    "engine/kinds",
    "layout.json",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_may_be_interrupted_at_every_step() {
    for (n, step) in STEPS.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = three_nodes(dir.path(), 3, &[]);
        nodes.start_all().unwrap();
        let victim = n as u64 % 3 + 1;
        let seen = nodes.node(victim).data.join(step);
        until_true(step, || {
            seen.exists() || !seen.ends_with("layout.json") && nodes.node(victim).data.join("layout.json").exists()
        })
        .await;
        nodes.kill(victim).unwrap();
        // Once more, when the others have heard of it, and once all at the same time.
        nodes.start(victim).unwrap();
        until_true("log store", || nodes.node(victim).data.join("engine/log/store").exists()).await;
        nodes.kill_all().unwrap();
        nodes.start_all().unwrap();
        all_led(&nodes).await;
        write(&nodes, "born", 6).await;
        nodes.kill_all().unwrap();
        nodes.start_all().unwrap();
        all_led(&nodes).await;
        read_back(&nodes, "born", 6).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_loses_its_disk_before_the_end_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes(dir.path(), 3, &[]);
    nodes.start(1).unwrap();
    nodes.start(2).unwrap();
    // Each of the two confirms the other, the third is missing: nobody votes yet.
    says(&nodes, 1, &["link up"]).await;
    says(&nodes, 2, &["link up"]).await;
    nodes.kill(2).unwrap();
    std::fs::remove_dir_all(&nodes.node(2).data).unwrap();
    nodes.start(3).unwrap();
    nodes.start(2).unwrap();
    // The other two may complete the founding: what they need of it, its first disk or its second has confirmed.
    let (code, said) = ended(&mut nodes, 2).await;
    assert!(code == 1 && said.contains("a lost disk's node id is never used again"), "{said}");
    starts_in_vain(&mut nodes, 2, &["a lost disk's node id is never used again"]).await;
}
