//! The contract suites on the in-memory twins. The adapters run the same suites in their own crates.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use bytes::Bytes;
use parking_lot::Mutex;
use pontoon_raftstore::env::{
    BadFrame, Destination, Inbound, Lane, LinkState, LogStore, Machine, MachineKind, PeerIdentity, SendError,
    SnapshotFiles, Transport,
};
use pontoon_raftstore::ids::{BootEpoch, Incarnation, NodeId};
use pontoon_raftstore::mem::{
    KvView, MemDisk, MemFiles, MemMachineDisk, MemNet, MemTransport, Persistence, Power, WriteFault,
};
use pontoon_raftstore::testing::transport_contract::Side;
use pontoon_raftstore::testing::{
    KvOp, KvRet, Rng, log_store_contract, snapshot_files_contract, state_machine_contract, transport_contract,
};
use std::sync::Arc;

struct LogWorld {
    disk: Arc<MemDisk>,
    store: Arc<dyn LogStore>,
    rng: Rng,
}

impl LogWorld {
    fn new(seed: u64) -> LogWorld {
        let disk = Arc::new(MemDisk::default());
        let store = Arc::new(disk.open(Arc::new(Power::default())));
        LogWorld { disk, store, rng: Rng::new(seed) }
    }
}

impl log_store_contract::LogStoreFixture for LogWorld {
    fn store(&self) -> Arc<dyn LogStore> {
        self.store.clone()
    }

    fn crash_and_reopen(&mut self) {
        self.disk.crash(&mut self.rng);
        self.store = Arc::new(self.disk.open(Arc::new(Power::default())));
    }

    fn fail_next_write(&mut self) -> bool {
        let faults = [WriteFault::Failed, WriteFault::FailedButDurable];
        self.disk.fail_next_write(*self.rng.pick(&faults));
        true
    }
}

#[test]
fn mem_log_store() {
    for (name, case) in log_store_contract::CASES {
        for seed in 0..8 {
            println!("{name} seed {seed}");
            case(&mut LogWorld::new(seed));
        }
    }
}

struct MachineWorld {
    disk: Arc<MemMachineDisk>,
    kind: Arc<dyn MachineKind>,
}

impl MachineWorld {
    fn new(persistence: Persistence) -> MachineWorld {
        let disk = MemMachineDisk::new(persistence);
        MachineWorld { kind: Arc::new(disk.open(Arc::default())), disk }
    }
}

impl state_machine_contract::MachineFixture for MachineWorld {
    fn kind(&self) -> Arc<dyn MachineKind> {
        self.kind.clone()
    }

    fn crash_and_reopen(&mut self) {
        self.disk.crash();
        self.kind = Arc::new(self.disk.open(Arc::default()));
    }

    fn put(&self, key: &str, value: &str) -> Bytes {
        KvOp::Put(vec![(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))]).encode()
    }

    fn get(&self, machine: &dyn Machine, key: &str) -> Option<String> {
        let view = machine.reader().downcast::<KvView>().unwrap();
        let KvRet::Values(values) = view.read(&KvOp::Get(vec![Bytes::copy_from_slice(key.as_bytes())])).unwrap() else {
            panic!()
        };
        values[0].as_ref().map(|v| String::from_utf8(v.to_vec()).unwrap())
    }
}

#[test]
fn mem_machines() {
    for persistence in [Persistence::Durable, Persistence::Volatile] {
        for (name, case) in state_machine_contract::CASES {
            println!("{name} {persistence:?}");
            case(&mut MachineWorld::new(persistence));
        }
    }
}

struct FilesWorld {
    medium: Arc<MemFiles>,
    files: Arc<dyn SnapshotFiles>,
    rng: Rng,
}

impl snapshot_files_contract::FilesFixture for FilesWorld {
    fn files(&self) -> Arc<dyn SnapshotFiles> {
        self.files.clone()
    }

    fn crash_and_reopen(&mut self) {
        self.medium.crash(&mut self.rng);
        self.files = Arc::new(self.medium.open(Arc::default()));
    }
}

#[test]
fn mem_snapshot_files() {
    for (name, case) in snapshot_files_contract::CASES {
        println!("{name}");
        let medium = Arc::new(MemFiles::default());
        let files = Arc::new(medium.open(Arc::default()));
        case(&mut FilesWorld { medium, files, rng: Rng::new(1) });
    }
}

#[derive(Default)]
struct Arrived(Mutex<Vec<(PeerIdentity, Lane, Bytes)>>);

impl Inbound for Arrived {
    fn on_frame(&self, from: PeerIdentity, lane: Lane, body: Bytes) -> Result<(), BadFrame> {
        self.0.lock().push((from, lane, body));
        Ok(())
    }

    fn on_link_up(&self, _peer: PeerIdentity) {}
    fn on_link_down(&self, _peer: NodeId) {}
}

struct NetWorld {
    net: Arc<MemNet>,
    nodes: Vec<(PeerIdentity, MemTransport, Arc<Arrived>)>,
}

impl NetWorld {
    fn new() -> NetWorld {
        let net = Arc::new(MemNet::default());
        net.set_limit(8 << 20);
        let mut world = NetWorld { net, nodes: Vec::new() };
        for node in [1, 2] {
            let started = world.start(node, 1);
            world.nodes.push(started);
        }
        world
    }

    fn start(&self, node: u64, counter: u64) -> (PeerIdentity, MemTransport, Arc<Arrived>) {
        let epoch = BootEpoch { counter, nonce: 5 };
        let me = PeerIdentity { node: NodeId(node), incarnation: Incarnation(node), epoch };
        let arrived = Arc::new(Arrived::default());
        self.net.listen(me, Arc::default(), arrived.clone());
        (me, self.net.transport(me, Arc::default()), arrived)
    }

    fn set_links(&self, up: bool) {
        for (from, to) in [(1, 2), (2, 1)] {
            self.net.set_link(NodeId(from), NodeId(to), up);
        }
    }
}

impl transport_contract::TransportFixture for NetWorld {
    fn identity(&self, side: Side) -> PeerIdentity {
        self.nodes[side as usize].0
    }

    fn send_to(&self, side: Side, disk: Incarnation, lane: Lane, body: Bytes) -> Result<(), SendError> {
        let to = Destination { node: self.nodes[1 - side as usize].0.node, disk };
        self.nodes[side as usize].1.send(to, lane, body)
    }

    fn link(&self, side: Side) -> LinkState {
        self.nodes[side as usize].1.link(self.nodes[1 - side as usize].0.node)
    }

    fn take_arrived(&mut self, side: Side) -> Vec<(PeerIdentity, Lane, Bytes)> {
        std::mem::take(&mut *self.nodes[side as usize].2.0.lock())
    }

    fn work(&mut self) {
        assert!(self.net.deliver_all().is_empty());
    }

    fn cut(&mut self) {
        self.set_links(false);
    }

    fn heal(&mut self) {
        self.set_links(true);
    }

    fn restart_b(&mut self) {
        self.nodes[1] = self.start(2, 2);
    }
}

#[test]
fn mem_transport() {
    for (name, case) in transport_contract::CASES {
        println!("{name}");
        case(&mut NetWorld::new());
    }
}
