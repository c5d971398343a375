//! Directories that are not what they should be: another node's, wiped, older copies, in use, damaged.

use crate::support::{Clients, all_led, equal_contents, running};
use crate::{copy, read_back, refused, starts_in_vain, with, write};
use pontoon_raftstore::testing::linearizability::KvVerdict;
use pontoon_server::harness::{Nodes, free_ports};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OLD: [&str; 2] = ["an older copy of its disk", "it lost acknowledged log"];

/// How often nodes tell each other how far they have synced (docs/wire-format.md).
const BEACON: Duration = Duration::from_secs(1);

/// Puts another directory in a node's place, and what was there aside.
fn swap(nodes: &Nodes, id: u64, other: &Path) -> PathBuf {
    let data = &nodes.node(id).data;
    let aside = data.with_extension("aside");
    fs::rename(data, &aside).unwrap();
    if other.exists() {
        fs::rename(other, data).unwrap();
    }
    aside
}

/// Takes away what is in a node's place, and puts back what was there before.
fn put_back(nodes: &Nodes, id: u64, aside: &Path) {
    let data = &nodes.node(id).data;
    fs::remove_dir_all(data).unwrap();
    fs::rename(aside, data).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_of_others_and_of_earlier_times_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = running(dir.path(), 6, &[]).await;
    write(&nodes, "before", 30).await;
    in_use_and_another_nodes(&mut nodes).await;
    all_led(&nodes).await;
    wiped(&mut nodes).await;
    copied_while_stopped(&mut nodes).await;
    copied_while_running(&mut nodes).await;
    for (round, n) in [("before", 30), ("meanwhile", 10), ("later", 30)] {
        read_back(&nodes, round, n).await;
    }
    equal_contents(&nodes).await;
}

async fn in_use_and_another_nodes(nodes: &mut Nodes) {
    // In use: the same directory, other ports.
    let ports = free_ports(2).unwrap();
    let mut second = nodes.flags(3);
    for (flag, port) in [("--redis", ports[0]), ("--admin", ports[1])] {
        second = with(second, flag, format!("127.0.0.1:{port}"));
    }
    refused(&second, 1, &["node-3/engine is in use by another process"]).await;
    // Another node's.
    nodes.kill(3).unwrap();
    nodes.kill(2).unwrap();
    let others = with(nodes.flags(3), "--data", nodes.node(2).data.display());
    refused(&others, 2, &["directory belongs to node 2, asked for node 3"]).await;
    nodes.start(2).unwrap();
    nodes.start(3).unwrap();
}

/// Refused by its peers, as often as it is started; the rest goes on. Leaves node 3 stopped.
async fn wiped(nodes: &mut Nodes) {
    nodes.kill(3).unwrap();
    let aside = swap(nodes, 3, Path::new("/nowhere"));
    for _ in 0..2 {
        let said = starts_in_vain(nodes, 3, &["a lost disk's node id is never used again"]).await;
        println!("wiped: {said}");
        write(nodes, "meanwhile", 10).await;
    }
    put_back(nodes, 3, &aside);
}

/// Leaves node 3 stopped.
async fn copied_while_stopped(nodes: &mut Nodes) {
    let stopped = nodes.node(3).data.with_extension("stopped");
    copy(&nodes.node(3).data, &stopped);
    nodes.start(3).unwrap();
    all_led(nodes).await;
    write(nodes, "later", 30).await;
    equal_contents(nodes).await;
    nodes.kill(3).unwrap();
    let aside = swap(nodes, 3, &stopped);
    let said = starts_in_vain(nodes, 3, &OLD).await;
    println!("copy taken stopped: {said}");
    never_served(nodes);
    put_back(nodes, 3, &aside);
}

/// The copy was refused before it could vote or acknowledge anything: not by one peer while it served the other.
fn never_served(nodes: &Nodes) {
    let said = fs::read_to_string(&nodes.node(3).log).unwrap();
    assert!(!said.contains("serving"), "{said}");
}

/// Under load; the copy takes the node's place, in vain, and then the node goes on.
async fn copied_while_running(nodes: &mut Nodes) {
    nodes.start(3).unwrap();
    all_led(nodes).await;
    let clients = Clients::start(nodes.redis(), 8, 100, "copied", 1);
    clients.acknowledge(300).await;
    let running = nodes.node(3).data.with_extension("running");
    copy(&nodes.node(3).data, &running);
    // Peers hear each second how far a node has synced: from then on they know better than the copy.
    let copied = Instant::now();
    let mut more = 900;
    while copied.elapsed() < 3 * BEACON {
        clients.acknowledge(more).await;
        more += 50;
    }
    nodes.kill(3).unwrap();
    let aside = swap(nodes, 3, &running);
    let said = starts_in_vain(nodes, 3, &[OLD[0], OLD[1], "acknowledged log is lost", "log store is"]).await;
    println!("copy taken running: {said}");
    never_served(nodes);
    put_back(nodes, 3, &aside);
    nodes.start(3).unwrap();
    all_led(nodes).await;
    let seen = clients.finish("copied", 100).await;
    assert_eq!(seen.verdict(), KvVerdict::Ok);
}

/// The node's newest file of the log.
fn log_file(nodes: &Nodes, id: u64) -> PathBuf {
    let db = nodes.node(id).data.join("engine/log/store/db");
    let files = fs::read_dir(db).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_below_the_watermark_refuses_and_beyond_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = running(dir.path(), 6, &[]).await;
    write(&nodes, "whole", 50).await;
    equal_contents(&nodes).await;
    nodes.kill(3).unwrap();
    damaged_log(&mut nodes).await;
    damaged_watermark(&mut nodes).await;
    nodes.start(3).unwrap();
    all_led(&nodes).await;
    write(&nodes, "more", 20).await;
    equal_contents(&nodes).await;

    // Beyond: what a torn, never acknowledged write leaves.
    nodes.kill(3).unwrap();
    let file = log_file(&nodes, 3);
    let mut bytes = fs::read(&file).unwrap();
    let torn: Vec<u8> = bytes[..bytes.len().min(700)].iter().rev().copied().collect();
    bytes.extend(torn);
    fs::write(&file, &bytes).unwrap();
    nodes.start(3).unwrap();
    all_led(&nodes).await;
    // Node 3 is needed for a quorum from here on.
    nodes.kill(1).unwrap();
    read_back(&nodes, "whole", 50).await;
    read_back(&nodes, "more", 20).await;
    nodes.start(1).unwrap();
    all_led(&nodes).await;
    equal_contents(&nodes).await;
}

/// Every kind of damage to what was acknowledged: refused, the file named, nothing changed. Leaves the log whole.
async fn damaged_log(nodes: &mut Nodes) {
    let file = log_file(nodes, 3);
    let whole = fs::read(&file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let flipped: Vec<u8> =
        whole.iter().enumerate().map(|(at, b)| if at == whole.len() / 2 { b ^ 0x10 } else { *b }).collect();
    let cut = whole[..whole.len() / 2].to_vec();
    for (what, bytes, place) in [
        ("flipped", Some(flipped), name.as_str()),
        ("cut", Some(cut), name.as_str()),
        ("removed", None, "no WAL file holds the next record: one was removed"),
    ] {
        match &bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let said = starts_in_vain(nodes, 3, &["acknowledged log is lost"]).await;
        println!("{what}: {said}");
        assert!(said.contains(place), "{place:?} is not in {said}");
        assert_eq!(fs::read(&file).ok(), bytes, "the evidence was changed");
    }
    fs::write(&file, &whole).unwrap();
}

/// Both slots. Leaves them whole.
async fn damaged_watermark(nodes: &mut Nodes) {
    let mark = nodes.node(3).data.join("engine/log/store/WATERMARK");
    let sound = fs::read(&mark).unwrap();
    fs::write(&mark, vec![0; sound.len()]).unwrap();
    let said = starts_in_vain(nodes, 3, &["both slots of WATERMARK are damaged"]).await;
    println!("watermark: {said}");
    fs::write(&mark, &sound).unwrap();
}
