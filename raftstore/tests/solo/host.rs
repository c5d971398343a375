//! One host: a thread that serves its node's `Ready`s from a file, a map and channels, and can be killed.
//!
//! Leaves to others: time (whoever holds the handle ticks). Invariant: the order of the contract, persist, send, apply,
//! advance; a killed host forgets everything but its file.

use crate::disk::{Disk, Record};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use pontoon_raft::{
    Body, ConfChangeV2, ConfState, Config, Entry, Index, Message, Peer, Ready, ReplicaId, Snapshot, SnapshotMeta,
    Storage,
};
use pontoon_raftstore::codec::{decode_messages, encode_messages};
use pontoon_raftstore::error::Halted;
use pontoon_raftstore::ids::GroupId;
use pontoon_raftstore::solo::{Node, WithoutLeader, start};
use pontoon_raftstore::task::{Aside, GroupMessage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Entries after which the map is written down and the log cut.
const SNAPSHOT_EVERY: u64 = 20;

/// Who can be reached.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<BTreeMap<ReplicaId, Sender<Bytes>>>>);

/// What a host's state machine knows.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub map: BTreeMap<Bytes, Bytes>,
    pub applied: Index,
    pub conf: ConfState,
    /// Read positions, by context.
    pub reads: BTreeMap<Bytes, Index>,
    /// Snapshots installed since the start.
    pub installed: usize,
}

/// The outside of a running host.
pub struct Host {
    pub node: Node,
    state: Arc<Mutex<State>>,
    kill: Sender<()>,
    threads: (JoinHandle<()>, JoinHandle<Result<(), Halted>>),
}

/// The inside.
struct Serving {
    id: ReplicaId,
    node: Node,
    disk: Disk,
    net: Net,
    state: Arc<Mutex<State>>,
    /// Somebody waits for news.
    news: Sender<()>,
}

impl Host {
    /// Starts from the file at `path`; with peers it founds a group first.
    pub fn start(id: u64, path: &Path, founders: &[u64], net: &Net, news: &Sender<()>) -> Host {
        let id = ReplicaId(id);
        let disk = Disk::open(path);
        let snapshot = disk.log().newest_snapshot();
        let state = Arc::new(Mutex::new(State::at(&snapshot)));
        let config = Config {
            id,
            applied: snapshot.meta.index,
            pre_vote: true,
            check_quorum: true,
            step_down_on_removal: true,
            seed: 7,
            ..Config::default()
        };
        let (node, mut runner) = start(config, Box::new(disk.log()), WithoutLeader::Wait).unwrap();
        if !founders.is_empty() {
            let peer = |id: &u64| Peer { id: ReplicaId(*id), context: Bytes::new() };
            runner.bootstrap(&founders.iter().map(peer).collect::<Vec<_>>()).unwrap();
        }
        let (kill, killed) = bounded(1);
        let inbox = net.join(id);
        let serving =
            Serving { id, node: node.clone(), disk, net: net.clone(), state: state.clone(), news: news.clone() };
        let serving = std::thread::spawn(move || serving.serve(&inbox, &killed));
        Host { node, state, kill, threads: (serving, std::thread::spawn(move || runner.run())) }
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Nothing is said to anybody, nothing is finished; what is not in the file is lost.
    pub fn kill(self) {
        self.kill.send(()).unwrap();
        self.threads.0.join().unwrap();
        drop(self.node);
        assert_eq!(self.threads.1.join().unwrap(), Ok(()), "without handles the node ends");
    }
}

impl State {
    fn at(snapshot: &Snapshot) -> State {
        let text = String::from_utf8(snapshot.data.to_vec()).unwrap();
        let (applied, conf) = (snapshot.meta.index, snapshot.meta.conf_state.clone());
        State { map: text.lines().map(pair).collect(), applied, conf, ..State::default() }
    }

    fn written(&self) -> Bytes {
        let line = |(k, v): (&Bytes, &Bytes)| [&k[..], b"=", &v[..], b"\n"].concat();
        self.map.iter().flat_map(line).collect()
    }
}

/// `k=v`.
fn pair(text: &str) -> (Bytes, Bytes) {
    let (k, v) = text.split_once('=').unwrap();
    (Bytes::copy_from_slice(k.as_bytes()), Bytes::copy_from_slice(v.as_bytes()))
}

impl Serving {
    fn serve(mut self, inbox: &Receiver<Bytes>, killed: &Receiver<()>) {
        let ready = self.node.ready().clone();
        loop {
            select! {
                recv(ready) -> ready => match ready {
                    Ok(ready) => self.on_ready(ready),
                    Err(_stopped) => return,
                },
                recv(inbox) -> frame => self.on_frame(frame.unwrap()),
                recv(killed) -> _ => return self.disk.tear(),
            }
        }
    }

    fn on_frame(&self, frame: Bytes) {
        for m in decode_messages(frame).unwrap() {
            // A full line is a lost message.
            let _lost = self.node.step(m.message);
        }
    }

    fn on_ready(&mut self, ready: Ready) {
        let Ready { snapshot, entries, hard_state, messages, committed_entries, read_states, .. } = ready;
        if let Some(snapshot) = &snapshot {
            let mut state = self.state.lock().unwrap();
            *state = State { installed: state.installed + 1, ..State::at(snapshot) };
        }
        if snapshot.is_some() || !entries.is_empty() || hard_state.is_some() {
            self.disk.write(Record { installed: snapshot, entries: entries.to_vec(), hard_state, taken: None });
        }
        messages.into_iter().for_each(|m| self.send(m));
        committed_entries.iter().for_each(|e| self.apply(e));
        for read in read_states {
            self.state.lock().unwrap().reads.insert(read.context, read.index);
        }
        self.maybe_snapshot();
        self.node.advance().unwrap();
        // News that nobody has taken yet is as good as this.
        let _known = self.news.try_send(());
    }

    fn send(&self, message: Message) {
        let (to, snapshot) = (message.to, matches!(message.body, Body::Snap { .. }));
        let frame =
            encode_messages(&[GroupMessage { group: GroupId(1), epoch: 0, birth: 0, aside: Aside::Nothing, message }]);
        let delivered = self.net.send(to, frame);
        if snapshot {
            self.node.report_snapshot(to, delivered).unwrap();
        }
        if !delivered {
            self.node.report_unreachable(to).unwrap();
        }
    }

    fn apply(&self, entry: &Entry) {
        let change = ConfChangeV2::from_entry(entry).unwrap();
        let conf = change.map(|change| self.node.apply_conf_change(change).unwrap());
        let mut state = self.state.lock().unwrap();
        match conf {
            Some(conf) => state.conf = conf,
            None if entry.data.is_empty() => {}
            None => {
                let (k, v) = pair(std::str::from_utf8(&entry.data).unwrap());
                state.map.insert(k, v);
            }
        }
        assert_eq!(entry.index, state.applied.next(), "each entry is applied once, in order, by {}", self.id);
        state.applied = entry.index;
    }

    fn maybe_snapshot(&mut self) {
        let state = self.state.lock().unwrap().clone();
        let log = self.disk.log();
        let newest = log.newest_snapshot().meta;
        let same_members = newest.conf_state == state.conf || newest.index == Index::NONE;
        if log.first_index().lag_to(state.applied) < SNAPSHOT_EVERY && same_members {
            return;
        }
        let term = log.term(state.applied).unwrap();
        let meta = SnapshotMeta { index: state.applied, term, conf_state: state.conf.clone() };
        let taken = Some(Snapshot { meta, data: state.written() });
        self.disk.write(Record { taken, ..Record::default() });
    }
}

impl Net {
    /// `id` can be reached from now on, at this end.
    fn join(&self, id: ReplicaId) -> Receiver<Bytes> {
        let (tx, rx) = bounded(1024);
        self.0.lock().unwrap().insert(id, tx);
        rx
    }

    /// False: nobody is there, or the line is full.
    fn send(&self, to: ReplicaId, frame: Bytes) -> bool {
        self.0.lock().unwrap().get(&to).is_some_and(|line| line.try_send(frame).is_ok())
    }
}
