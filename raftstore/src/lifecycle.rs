//! Creates and destroys this node's replicas: the log store first, then the machine, then the running node.
//!
//! Many creations are one synced batch. Leaves to others: recovering replicas (`boot`), stopping and burying a running
//! one (its poller writes the tombstone), what a group does once it lives.
//! Invariant: no machine is opened before its creation record is durable, none is deleted before its tombstone is; a
//! group has one spec here, and after a tombstone no lower replica id is ever born again.

mod destroy;
mod stranger;

use stranger::Quota;
pub use stranger::{Birth, judge_stranger};

use crate::boot::{Prepared, birth_record};
use crate::env::{
    Creation, Env, GroupOp, GroupWrite, Instant, LogBatch, MachineKind, PeerIdentity, StoredGroup, Tombstone,
    Truncation,
};
use crate::error::{GroupError, LifecycleError};
use crate::group_spec::GroupSpec;
use crate::guard::guarded;
use crate::ids::{BatchSeq, Generation, GroupId, ReplicaId};
use crate::inbox::Inbox;
use crate::prepared::{PreparedReplica, StoppedReplica, jitter_seed};
use crate::router::Router;
use crate::task::{LifecycleMsg, LifecycleSlot, Newborn, WriteOrigin, WriterMsg};
use crate::turn::{Active, Turn};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Most letters of one turn, and so most creations of one batch.
const MAX_LETTERS: usize = 4096;

type Slot = Arc<dyn LifecycleSlot>;

/// What lifecycle knows of a group's replica here.
enum Life {
    /// Its creation record is being written.
    Creating {
        /// Digest of its spec.
        digest: u64,
        /// Who else waits for it.
        waiters: Vec<Slot>,
    },
    /// It stands, running or quarantined.
    Standing {
        /// Digest of its spec.
        digest: u64,
        /// The replica.
        replica: ReplicaId,
        /// Has a poller it? False for a replica that was quarantined at open.
        runs: bool,
    },
    /// Its tombstone is being written.
    Burying {
        /// Who waits for it.
        waiters: Vec<Slot>,
    },
}

/// What becomes true when a batch is durable.
enum Effect {
    /// A replica is born.
    Born {
        /// As stored.
        stored: Box<StoredGroup>,
        /// Is this node the preferred first candidate?
        campaign: bool,
        /// Who asked; `None`: a message did.
        done: Option<Slot>,
    },
    /// A replica that no poller ran is buried.
    Buried {
        /// The group.
        group: GroupId,
        /// Lowest id that may follow.
        next_replica: ReplicaId,
    },
}

/// The node's lifecycle.
pub struct Lifecycle {
    /// Work.
    inbox: Inbox<LifecycleMsg>,
    /// Where groups are registered, and everyone's inbox.
    router: Arc<Router>,
    /// State-machine kinds by name.
    kinds: BTreeMap<String, Arc<dyn MachineKind>>,
    /// This start of this disk. Its epoch seeds election jitter.
    me: PeerIdentity,
    /// Replicas here, in any state.
    lives: BTreeMap<GroupId, Life>,
    /// Lowest replica id that may be born, of destroyed groups.
    tombstones: BTreeMap<GroupId, ReplicaId>,
    /// Changes that the current turn has collected.
    batch: Vec<GroupWrite>,
    /// Their effects.
    effects: Vec<Effect>,
    /// Batches at the writer, ascending.
    in_flight: VecDeque<(BatchSeq, Vec<Effect>)>,
    /// Number of the next batch.
    next_seq: BatchSeq,
    /// Births by message.
    quota: Quota,
    /// Why nothing can be written any more: poisoned or stopping.
    closed: Option<GroupError>,
    /// `Stop` was taken.
    stopped: bool,
}

impl Lifecycle {
    /// Lifecycle of a node whose boot found `prepared` and `tombstones`.
    #[must_use]
    pub fn new(
        inbox: Inbox<LifecycleMsg>,
        router: Arc<Router>,
        env: &Env,
        me: PeerIdentity,
        prepared: &Prepared,
        tombstones: &[Tombstone],
    ) -> Lifecycle {
        let running = prepared.replicas.iter().map(|r| (&r.newborn.stored, true));
        let stopped = prepared.stopped.iter().map(|s| (&s.stored, false));
        let standing = |(stored, runs): (&StoredGroup, bool)| {
            (stored.group, Life::Standing { digest: stored.creation.digest, replica: stored.replica, runs })
        };
        let lives: BTreeMap<GroupId, Life> = running.chain(stopped).map(standing).collect();
        tombstones.iter().filter(|t| !lives.contains_key(&t.group)).for_each(|t| router.mark_destroyed(t.group));
        Lifecycle {
            inbox,
            router,
            kinds: env.kinds.clone(),
            me,
            lives,
            tombstones: tombstones.iter().map(|t| (t.group, t.next_replica)).collect(),
            batch: Vec::new(),
            effects: Vec::new(),
            in_flight: VecDeque::new(),
            next_seq: BatchSeq(1),
            quota: Quota::default(),
            closed: None,
            stopped: false,
        }
    }

    fn on_letter(&mut self, now: Instant, letter: LifecycleMsg) {
        match letter {
            LifecycleMsg::Create { spec, done } => self.create(&spec, done),
            LifecycleMsg::Destroy { group, done } => self.destroy(group, done),
            LifecycleMsg::Buried { group, result } => self.on_buried(group, result),
            LifecycleMsg::Persisted(seq) => self.on_persisted(seq),
            LifecycleMsg::Poisoned(why) => self.close(GroupError::Quarantined(why)),
            LifecycleMsg::Dismissed { group, replica } => self.on_dismissed(group, replica),
            LifecycleMsg::Unknown { from, message } => self.on_stranger(now, from, &message),
            LifecycleMsg::Stop => {
                self.close(GroupError::ShuttingDown);
                self.stopped = true;
            }
        }
    }

    fn create(&mut self, spec: &GroupSpec, done: Slot) {
        match self.may_create(spec) {
            Err(refused) => done.done(Err(refused)),
            Ok(None) => done.done(Ok(())),
            Ok(Some(replica)) => match self.lives.get_mut(&spec.id) {
                Some(Life::Creating { waiters, .. }) => waiters.push(done),
                _ => {
                    let campaign = spec.first_candidate() == Some(self.me.node);
                    self.write_birth(spec.id, replica, spec.creation(), campaign, Some(done));
                }
            },
        }
    }

    /// `Some`: to be born as this replica, or being born; `None`: stands already.
    fn may_create(&self, spec: &GroupSpec) -> Result<Option<ReplicaId>, LifecycleError> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone().into());
        }
        spec.check()?;
        if !self.kinds.contains_key(&spec.kind) {
            return Err(LifecycleError::BadSpec(format!("kind {:?} was not registered", spec.kind)));
        }
        let replica = spec.replica_of(self.me.node);
        let replica =
            replica.ok_or_else(|| LifecycleError::BadSpec(format!("node {} is no member of it", self.me.node)))?;
        let asked = spec.digest();
        match self.lives.get(&spec.id) {
            Some(Life::Creating { digest, .. } | Life::Standing { digest, .. }) if *digest != asked => {
                Err(LifecycleError::OtherSpec { group: spec.id, here: *digest, asked })
            }
            Some(Life::Standing { .. }) => Ok(None),
            Some(Life::Burying { .. }) => Err(GroupError::Destroyed(spec.id).into()),
            Some(Life::Creating { .. }) => Ok(Some(replica)),
            None if self.tombstones.get(&spec.id).is_some_and(|next| replica < *next) => {
                Err(GroupError::Destroyed(spec.id).into())
            }
            None => Ok(Some(replica)),
        }
    }

    /// `done`: `None` if a message gives birth.
    fn write_birth(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        creation: Creation,
        campaign: bool,
        done: Option<Slot>,
    ) {
        let stored = newborn_log(group, replica, creation.clone());
        self.lives.insert(group, Life::Creating { digest: creation.digest, waiters: Vec::new() });
        let op = GroupOp::Create { creation: Box::new(creation), hard_state: GroupSpec::hard_state() };
        self.batch.push(GroupWrite { group, replica, op });
        self.effects.push(Effect::Born { stored: Box::new(stored), campaign, done });
    }

    /// Hands the turn's changes to the log writer: one synced batch.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let seq = self.next_seq;
        self.next_seq = BatchSeq(seq.0 + 1);
        let batch = LogBatch { writes: std::mem::take(&mut self.batch), meta: Vec::new(), sync: true };
        self.in_flight.push_back((seq, std::mem::take(&mut self.effects)));
        self.router.mail().writer(WriterMsg::Write { origin: WriteOrigin::Lifecycle, seq, batch });
    }

    fn on_persisted(&mut self, upto: BatchSeq) {
        while self.in_flight.front().is_some_and(|(seq, _)| *seq <= upto) {
            let (_, effects) = self.in_flight.pop_front().expect("just seen");
            for effect in effects {
                match effect {
                    Effect::Born { stored, campaign, done } => self.on_born(*stored, campaign, done),
                    Effect::Buried { group, next_replica } => self.on_buried(group, Ok(next_replica)),
                }
            }
        }
    }

    /// The creation record is durable: opens the machine and lets the replica run.
    fn on_born(&mut self, stored: StoredGroup, campaign: bool, done: Option<Slot>) {
        self.quota.on_born(done.is_none());
        let (group, replica, digest) = (stored.group, stored.replica, stored.creation.digest);
        let opened = self.open(stored.clone(), campaign);
        let runs = opened.is_ok();
        let result = opened.map(|prepared| prepared.launch(&self.router)).map_err(|why| {
            // A record without a machine stands, stopped: the next start tries again.
            StoppedReplica { stored, why: why.clone() }.show(&self.router);
            LifecycleError::StateMachine(why)
        });
        let before = self.lives.insert(group, Life::Standing { digest, replica, runs });
        let waiters = if let Some(Life::Creating { waiters, .. }) = before { waiters } else { Vec::new() };
        waiters.iter().chain(&done).for_each(|slot| slot.done(result.clone()));
    }

    fn open(&self, stored: StoredGroup, campaign: bool) -> Result<PreparedReplica, String> {
        let kind = self.kinds.get(&stored.creation.kind).expect("checked before the birth was written");
        let machine = guarded(|| {
            let (group, replica, generation) = (stored.group, stored.replica, stored.generation);
            let mut machine = kind.open(group, replica, generation)?;
            if machine.recover()?.is_empty() {
                return Ok(machine);
            }
            // Left by a replica that was destroyed before the log store forgot it (boot.md 4, second row).
            machine.destroy()?;
            kind.open(group, replica, generation)
        })?;
        let (record, seed) = (birth_record(&stored), jitter_seed(self.me.epoch, stored.group));
        let newborn = Newborn { stored, record, tail: Vec::new(), seed, campaign };
        Ok(PreparedReplica { newborn, machine })
    }

    /// Nothing is written any more: everybody who waits is told.
    fn close(&mut self, why: GroupError) {
        let batches = self.in_flight.drain(..).flat_map(|(_, effects)| effects);
        for effect in batches.chain(self.effects.drain(..)) {
            if let Effect::Born { done: Some(done), .. } = effect {
                done.done(Err(why.clone().into()));
            }
        }
        self.batch.clear();
        for life in self.lives.values_mut() {
            if let Life::Creating { waiters, .. } | Life::Burying { waiters } = life {
                waiters.drain(..).for_each(|slot| slot.done(Err(why.clone().into())));
            }
        }
        self.closed.get_or_insert(why);
    }
}

/// The log of a replica that was just created, as the log store will load it.
fn newborn_log(group: GroupId, replica: ReplicaId, creation: Creation) -> StoredGroup {
    let truncated = Truncation { pos: creation.birth, conf_state: creation.conf_state.clone() };
    StoredGroup {
        group,
        replica,
        generation: Generation::default(),
        hard_state: GroupSpec::hard_state(),
        last: creation.birth,
        truncated,
        creation,
        terms: Vec::new(),
        intent: None,
        bytes: 0,
    }
}

impl Active for Lifecycle {
    fn turn(&mut self, now: Instant) -> Turn {
        let mut worked = false;
        for _ in 0..MAX_LETTERS {
            let Some(letter) = self.inbox.take() else { break };
            worked = true;
            self.on_letter(now, letter);
        }
        self.flush();
        if worked { Turn::WORKED } else { Turn::IDLE }
    }

    fn wait(&mut self, at_most: Duration) {
        self.inbox.wait(at_most);
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn name(&self) -> String {
        "lifecycle".to_owned()
    }

    fn on_panic(&mut self) {
        self.close(GroupError::ShuttingDown);
        while let Some(letter) = self.inbox.take() {
            if let LifecycleMsg::Create { done, .. } | LifecycleMsg::Destroy { done, .. } = letter {
                done.done(Err(GroupError::ShuttingDown.into()));
            }
        }
    }
}
