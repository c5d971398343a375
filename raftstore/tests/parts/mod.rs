//! One node's disks over several starts, and the parts behind its pollers, turned by hand.
//!
//! The test plays the pollers and the log writer: it reads their inboxes. Leaves to others: whole nodes (`sim`).
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_docs, reason = "shared by test files")]

use bytes::Bytes;
use pontoon_raft::{ConfState, Entry, HardState};
use pontoon_raftstore::applier::Applier;
use pontoon_raftstore::boot::{self, Prepared};
use pontoon_raftstore::codec::ReplicaRecord;
use pontoon_raftstore::config::Config;
use pontoon_raftstore::durability::Durability;
use pontoon_raftstore::env::{
    Creation, Env, GroupOp, GroupWrite, Instant, LogBatch, MachineKind, Meta, PeerIdentity, SmError, SnapshotInput,
    SnapshotPart, StoredGroup,
};
use pontoon_raftstore::error::BootError;
use pontoon_raftstore::group_spec::{BIRTH, GroupSpec};
use pontoon_raftstore::ids::{
    BootEpoch, Generation, GroupId, Incarnation, Index, LogPos, NodeId, PollerId, ReplicaId, Term,
};
use pontoon_raftstore::inbox::Inbox;
use pontoon_raftstore::ledger::Ledger;
use pontoon_raftstore::lifecycle::Lifecycle;
use pontoon_raftstore::mail::{Inboxes, Mail};
use pontoon_raftstore::mem::{MemClock, MemDisk, MemFiles, MemMachineDisk, MemNet, Persistence, Power};
use pontoon_raftstore::proposal::ReplyTo;
use pontoon_raftstore::router::Router;
use pontoon_raftstore::snapshotter::Snapshotter;
use pontoon_raftstore::task::{Applied, ApplierMsg, ApplyTask, LifecycleMsg, PollerMsg, WriterMsg};
use pontoon_raftstore::testing::{KvOp, KvRet, KvSlot, Map, Rng};
use pontoon_raftstore::turn::Active;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const G: GroupId = GroupId(7);

/// What survives the starts of one node.
pub struct Disks {
    pub me: NodeId,
    pub log: Arc<MemDisk>,
    pub durable: Arc<MemMachineDisk>,
    pub volatile: Arc<MemMachineDisk>,
    pub files: Arc<MemFiles>,
    pub net: Arc<MemNet>,
    pub starts: u64,
}

impl Disks {
    pub fn new(me: u64, net: &Arc<MemNet>) -> Disks {
        Disks {
            me: NodeId(me),
            log: Arc::default(),
            durable: MemMachineDisk::new(Persistence::Durable),
            volatile: MemMachineDisk::new(Persistence::Volatile),
            files: Arc::default(),
            net: net.clone(),
            starts: 0,
        }
    }

    /// Everything unsynced and unflushed is lost.
    pub fn crash(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        self.log.crash(&mut rng);
        self.files.crash(&mut rng);
        self.durable.crash();
        self.volatile.crash();
    }

    pub fn env(&mut self) -> (Env, Arc<Power>, PeerIdentity) {
        self.starts += 1;
        let power = Arc::new(Power::default());
        let epoch = BootEpoch { counter: self.starts, nonce: self.me.0 };
        let identity = PeerIdentity { node: self.me, incarnation: Incarnation(self.me.0), epoch };
        let kinds: BTreeMap<String, Arc<dyn MachineKind>> = [
            ("kv".to_owned(), Arc::new(self.durable.open(power.clone())) as Arc<dyn MachineKind>),
            ("cache".to_owned(), Arc::new(self.volatile.open(power.clone()))),
        ]
        .into();
        let env = Env {
            log: Arc::new(self.log.open(power.clone())),
            transport: Arc::new(self.net.transport(identity, power.clone())),
            clock: Arc::new(MemClock::default()),
            kinds,
            files: Arc::new(self.files.open(power.clone())),
        };
        (env, power, identity)
    }

    /// Runs boot only.
    pub fn prepare(&mut self) -> Result<Prepared, BootError> {
        let (env, _, identity) = self.env();
        boot::prepare(&env, env.log.load().unwrap(), identity.epoch, 1 << 30)
    }

    pub fn start(&mut self) -> Node {
        self.try_start().unwrap()
    }

    pub fn try_start(&mut self) -> Result<Node, BootError> {
        let (env, power, identity) = self.env();
        Node::start(env, power, identity)
    }

    /// Puts a group and its log on the disk, as if a node had written it.
    pub fn write(&mut self, writes: Vec<GroupWrite>) {
        let (env, _, _) = self.env();
        let _seq = env.log.write(&LogBatch { writes, meta: Vec::new(), sync: true }).unwrap();
    }

    /// A group whose log holds entries of term 1 up to `last`.
    pub fn found_group(&mut self, kind: &str, last: u64, commit: u64) {
        let spec = spec(kind);
        let creation = Box::new(spec.creation());
        let replica = spec.replica_of(self.me).unwrap();
        let entries = (2..=last).map(|i| add(i, 1)).collect();
        let hard_state = Some(HardState { commit: Index(commit), ..GroupSpec::hard_state() });
        let of = |op| GroupWrite { group: G, replica, op };
        self.write(vec![
            of(GroupOp::Create { creation, hard_state: GroupSpec::hard_state() }),
            of(GroupOp::Append { entries, hard_state }),
        ]);
    }
}

/// Half of a snapshot: none of its meta, none of its parts.
pub struct Half;

impl SnapshotInput for Half {
    fn meta(&self) -> &Meta {
        const NONE: &Meta = &Meta::new();
        NONE
    }
    fn next(&mut self) -> Result<Option<SnapshotPart>, SmError> {
        Ok(None)
    }
}

/// One start.
pub struct Node {
    pub env: Env,
    pub power: Arc<Power>,
    pub identity: PeerIdentity,
    pub router: Arc<Router>,
    pub applier: Applier,
    pub snapshotter: Snapshotter,
    pub lifecycle: Lifecycle,
    pub durability: Durability,
    pub pollers: Vec<Inbox<PollerMsg>>,
    pub writer: Inbox<WriterMsg>,
    pub now: Instant,
}

impl Node {
    pub fn start(env: Env, power: Arc<Power>, identity: PeerIdentity) -> Result<Node, BootError> {
        let config = Config::default();
        let (router, inboxes) = Router::new(&config);
        let Inboxes { pollers, appliers, writer, snapshotter, lifecycle, durability, .. } = inboxes;
        let recovered = env.log.load().unwrap();
        let tombstones = recovered.tombstones.clone();
        let prepared = boot::prepare(&env, recovered, identity.epoch, 1 << 30)?;
        let ledger = Arc::new(Ledger::default());
        let mut appliers = appliers.into_iter().map(Inbox::new);
        let applier = Applier::new(0, appliers.next().unwrap(), router.mail().clone(), &env, ledger.clone());
        let kept = prepared.kept.clone();
        let snapshotter =
            Snapshotter::new(Inbox::new(snapshotter), router.clone(), &env, &config, kept, ledger.clone());
        let lifecycle = Lifecycle::new(Inbox::new(lifecycle), router.clone(), &env, identity, &prepared, &tombstones);
        let now = Instant::default();
        let durability = Durability::new(Inbox::new(durability), router.clone(), &env, &config, ledger, now);
        prepared.stopped.iter().for_each(|s| s.show(&router));
        prepared.replicas.into_iter().for_each(|r| r.launch(&router));
        router.open();
        env.transport.link(identity.node);
        let pollers = pollers.into_iter().map(Inbox::new).collect();
        let writer = Inbox::new(writer);
        Ok(Node { env, power, identity, router, applier, snapshotter, lifecycle, durability, pollers, writer, now })
    }

    pub fn mail(&self) -> &Mail {
        self.router.mail()
    }

    /// Turns everything until nothing moves, writing what goes to the log writer.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            let mut worked = self.applier.turn(self.now).worked;
            worked |= self.snapshotter.turn(self.now).worked;
            worked |= self.lifecycle.turn(self.now).worked;
            worked |= self.durability.turn(self.now).worked;
            worked |= self.write_batches();
            if !worked {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    fn write_batches(&mut self) -> bool {
        let mut worked = false;
        while let Some(letter) = self.writer.take() {
            worked = true;
            let WriterMsg::Write { seq, batch, .. } = letter else { continue };
            match self.env.log.write(&batch) {
                Ok(_) => self.mail().lifecycle(LifecycleMsg::Persisted(seq)),
                Err(e) => self.mail().lifecycle(LifecycleMsg::Poisoned(e.to_string())),
            }
        }
        worked
    }

    /// What the pollers got.
    pub fn letters(&mut self) -> Vec<PollerMsg> {
        let mut all = Vec::new();
        for inbox in &mut self.pollers {
            while let Some(letter) = inbox.take() {
                all.push(letter);
            }
        }
        all
    }

    pub fn applied(&mut self) -> Vec<Applied> {
        let applied = |letter| match letter {
            PollerMsg::Applied(applied) => applied,
            _ => Vec::new(),
        };
        self.letters().into_iter().flat_map(applied).collect()
    }

    /// Sends entries to the machine; a slot waits at each.
    pub fn apply(&mut self, group: GroupId, entries: Vec<Entry>) -> Vec<Arc<KvSlot>> {
        let cell = self.router.cell(group).unwrap();
        let slots: Vec<Arc<KvSlot>> = entries.iter().map(|_| KvSlot::new(self.power.clone())).collect();
        let record = record(group, cell.replica, 0, entries.last().unwrap().pos());
        let waiting = entries.iter().map(|e| e.index).zip(slots.iter().map(|s| ReplyTo::only(s.clone()))).collect();
        let task = ApplyTask {
            group,
            replica: cell.replica,
            generation: Generation(0),
            entries: entries.into(),
            waiting,
            record: Arc::new(record),
        };
        self.mail().applier(group, ApplierMsg::Apply(vec![task]));
        slots
    }
}

pub fn spec(kind: &str) -> GroupSpec {
    spec_of(G, kind)
}

pub fn spec_of(id: GroupId, kind: &str) -> GroupSpec {
    GroupSpec { id, kind: kind.into(), voters: [1, 2, 3].map(NodeId).into(), learners: [].into() }
}

pub fn pos(index: u64) -> LogPos {
    LogPos::new(Term(1), Index(index))
}

pub fn conf() -> ConfState {
    ConfState::new([1, 2, 3].map(ReplicaId).into(), Vec::new())
}

pub fn record(group: GroupId, replica: ReplicaId, generation: u64, applied: LogPos) -> ReplicaRecord {
    ReplicaRecord {
        group,
        replica,
        generation: Generation(generation),
        applied,
        conf_state: conf(),
        members: (1..=3).map(|i| (ReplicaId(i), NodeId(i), Incarnation(i))).collect(),
        next_replica: ReplicaId(4),
        conf_index: BIRTH.index,
        leaving: Vec::new(),
        goal: None,
    }
}

pub fn stored(creation: Creation, replica: ReplicaId) -> StoredGroup {
    StoredGroup {
        group: G,
        replica,
        hard_state: GroupSpec::hard_state(),
        truncated: pontoon_raftstore::env::Truncation { pos: BIRTH, conf_state: creation.conf_state.clone() },
        last: BIRTH,
        creation,
        ..StoredGroup::default()
    }
}

/// Adds `by` to the counter `n`.
pub fn add(index: u64, by: i64) -> Entry {
    let data = KvOp::Add(Bytes::from_static(b"n"), by).encode();
    Entry { term: Term(1), index: Index(index), ..Entry::normal(data) }
}

/// The counter in contents.
pub fn counter(contents: Option<(Map, Map)>) -> Option<i64> {
    let value = contents?.0.get(b"n".as_slice())?.clone();
    Some(std::str::from_utf8(&value).unwrap().parse().unwrap())
}

pub fn number(slot: &KvSlot) -> i64 {
    match slot.take() {
        Some(Ok((_, KvRet::Number(n)))) => n,
        other => panic!("no number: {other:?}"),
    }
}

pub fn home() -> PollerId {
    PollerId(0)
}
