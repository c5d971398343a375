//! One node under real threads: it serves, stops with everybody answered, and ends loudly when a part panics.
//!
//! Leaves to others: several nodes under threads (the engine's tests, over TCP).

use bytes::Bytes;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::env::{Clock, Env, Instant, LogBatch, LogStore, PeerIdentity};
use pontoon_raftstore::error::{LifecycleError, ProposeError, ReadError};
use pontoon_raftstore::events::Event;
use pontoon_raftstore::group_spec::GroupSpec;
use pontoon_raftstore::ids::{BootEpoch, GroupId, Incarnation, Index, NodeId};
use pontoon_raftstore::mem::{MemDisk, MemFiles, MemMachineDisk, MemNet, Persistence, Power};
use pontoon_raftstore::node::{NodeHandle, NodeInputs, boot};
use pontoon_raftstore::proposal::{Proposal, ReadRequest, ReadSlot, ReplyTo};
use pontoon_raftstore::router::Router;
use pontoon_raftstore::task::LifecycleSlot;
use pontoon_raftstore::testing::{Cell, KvOp, KvSlot};
use pontoon_raftstore::threads::Threads;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
const ME: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct RealClock(std::time::Instant);

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }
}

struct Told<T>(mpsc::Sender<T>);

impl LifecycleSlot for Told<Result<(), LifecycleError>> {
    fn done(&self, result: Result<(), LifecycleError>) {
        self.0.send(result).unwrap();
    }
}

impl ReadSlot for Told<Result<Index, ReadError>> {
    fn ready(&self, at: Index) {
        self.0.send(Ok(at)).unwrap();
    }
    fn fail(&self, error: ReadError) {
        self.0.send(Err(error)).unwrap();
    }
}

/// A log store whose writes panic once entries of this size come.
struct Panicking<L>(L);

const DEADLY: usize = 777;

impl<L: LogStore> LogStore for Panicking<L> {
    fn write(&self, batch: &LogBatch) -> Result<pontoon_raftstore::env::Durable, pontoon_raftstore::env::WriteFailed> {
        let deadly = batch.writes.iter().flat_map(|w| w.op.entries()).any(|e| e.data.len() > DEADLY);
        assert!(!deadly, "deadly entry");
        self.0.write(batch)
    }
    fn read(
        &self,
        fetches: &[pontoon_raftstore::env::Fetch],
    ) -> Vec<Result<Vec<pontoon_raft::Entry>, pontoon_raftstore::env::ReadLogError>> {
        self.0.read(fetches)
    }
    fn load(&self) -> Result<pontoon_raftstore::env::Recovered, pontoon_raftstore::env::LoadError> {
        self.0.load()
    }
    fn recovered_seq(&self) -> pontoon_raftstore::ids::StoreSeq {
        self.0.recovered_seq()
    }
    fn synced_seq(&self) -> pontoon_raftstore::ids::StoreSeq {
        self.0.synced_seq()
    }
    fn live_bytes(&self) -> u64 {
        self.0.live_bytes()
    }
}

fn start(config: Config) -> (NodeHandle, Threads, Arc<Power>) {
    let power = Arc::new(Power::default());
    let net: Arc<MemNet> = Arc::default();
    let epoch = BootEpoch { counter: 1, nonce: 5 };
    let me = PeerIdentity { node: ME, incarnation: Incarnation(9), epoch };
    let disk: Arc<MemDisk> = Arc::default();
    let files: Arc<MemFiles> = Arc::default();
    let machines = MemMachineDisk::new(Persistence::Durable);
    let log = Arc::new(Panicking(disk.open(power.clone())));
    let recovered = log.load().unwrap();
    let env = Env {
        log,
        transport: Arc::new(net.transport(me, power.clone())),
        clock: Arc::new(RealClock(std::time::Instant::now())),
        kinds: BTreeMap::from([("kv".to_owned(), Arc::new(machines.open(power.clone())) as _)]),
        files: Arc::new(files.open(power.clone())),
    };
    let clock = env.clock.clone();
    let (router, inboxes) = Router::new(&config);
    let (handle, parts) = boot(NodeInputs { env, config, router: router.clone(), inboxes, me, recovered }).unwrap();
    let threads = Threads::start(parts, router.clone(), &clock).unwrap();
    router.open();
    (handle, threads, power)
}

fn create(handle: &NodeHandle) {
    let events = handle.events();
    let (tx, rx) = mpsc::channel();
    let spec = GroupSpec { id: GROUP, kind: "kv".into(), voters: BTreeSet::from([ME]), learners: BTreeSet::new() };
    handle.create(spec, Arc::new(Told(tx)));
    rx.recv_timeout(PATIENCE).unwrap().unwrap();
    loop {
        match events.next_within(PATIENCE) {
            Some(Event::Leader { node: Some(ME), .. }) => break,
            Some(_) => {}
            None => panic!("no leader"),
        }
    }
    // The status copy follows the event within the same turn; a confirmed read comes after both.
    read(handle).unwrap();
}

fn read(handle: &NodeHandle) -> Result<Index, ReadError> {
    let (tx, rx) = mpsc::channel();
    handle.read(ReadRequest { group: GROUP, slot: Arc::new(Told(tx)) })?;
    rx.recv_timeout(PATIENCE).unwrap()
}

fn put(handle: &NodeHandle, power: &Arc<Power>, size: usize) -> Result<Arc<KvSlot>, ProposeError> {
    let slot: Arc<KvSlot> = Cell::new(power.clone());
    let op = KvOp::Put(vec![(Bytes::from_static(b"k"), Bytes::from(vec![0; size]))]);
    handle.propose(Proposal { group: GROUP, command: op.encode(), fence: None, reply: ReplyTo::only(slot.clone()) })?;
    Ok(slot)
}

#[test]
fn a_node_serves_and_stops_with_everybody_answered() {
    for inline_sync in [false, true] {
        let (handle, threads, power) = start(Config { pollers: 2, appliers: 2, inline_sync, ..Config::default() });
        create(&handle);
        let slots: Vec<_> = (0..200).map(|_| put(&handle, &power, 10).unwrap()).collect();
        assert_eq!(threads.stop(), 0, "nobody panicked");
        assert!(slots.iter().all(|s| s.take().is_some()), "answered by the time of the end");
        assert!(put(&handle, &power, 10).unwrap_err().never_appended());
    }
}

#[test]
fn a_panic_poisons_the_node_and_answers_everybody() {
    let (handle, threads, power) = start(Config::default());
    create(&handle);
    let events = handle.events();
    let slot = put(&handle, &power, DEADLY + 1).unwrap();
    let poisoned = loop {
        if let Event::Poisoned(why) = events.next_within(PATIENCE).expect("an event") {
            break why;
        }
    };
    assert!(poisoned.contains("deadly entry"), "{poisoned}");
    assert!(handle.health(PATIENCE).poisoned.is_some());
    assert!(put(&handle, &power, 1).unwrap_err().never_appended());
    assert_eq!(threads.stop(), 1);
    assert!(matches!(slot.take(), Some(Err(ProposeError::OutcomeUnknown { .. }))));
}
