//! `KvStore`: the kind. Opens the database, commits a turn's stage, keeps garbage out of the way.
//!
//! Leaves to others: one group's work (`machine`), what survives a crash (`durable`).
//! Invariant: contents of a replica that boot does not name as living are never read, and erased.

use super::db::{Db, KvOptions};
use super::durable::Noted;
use super::keys::Owner;
use super::machine::{KvMachine, KvStage};
use super::snapshot::Keeper;
use crate::state_machine::{Durable, Kind, SmError};
use parking_lot::{Mutex, RwLock};
use pontoon_raftstore::ids::{Generation, GroupId, ReplicaId};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// A kind of groups that are key-value maps in one RocksDB.
pub struct KvStore {
    options: KvOptions,
    /// Between `start` and `stop`.
    shared: RwLock<Option<Arc<Shared>>>,
}

/// What the kind's groups share.
pub(super) struct Shared {
    /// The database.
    pub(super) db: Arc<Db>,
    /// Holds snapshots.
    pub(super) keeper: Keeper,
    /// Positions committed and not yet reported as durable.
    noted: Noted,
    /// What tells each owner's views that its contents are gone: one flag for all machines that were opened for them.
    retirements: Mutex<HashMap<Owner, Weak<AtomicBool>>>,
    /// Time of each commit.
    commit_seconds: metrics::Histogram,
}

impl Default for KvStore {
    fn default() -> KvStore {
        KvStore::new(KvOptions::default())
    }
}

impl KvStore {
    /// Opened with the engine.
    #[must_use]
    pub fn new(options: KvOptions) -> KvStore {
        KvStore { options, shared: RwLock::new(None) }
    }

    fn shared(&self) -> Result<Arc<Shared>, SmError> {
        self.shared.read().clone().ok_or(SmError::Cancelled)
    }
}

impl Shared {
    /// Set once the owner's contents are about to be erased.
    pub(super) fn retirement(&self, owner: Owner) -> Arc<AtomicBool> {
        let mut all = self.retirements.lock();
        let known = all.get(&owner).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::default();
            all.insert(owner, Arc::downgrade(&new));
            new
        })
    }

    /// Erases an owner's contents, which nobody is shown any more.
    pub(super) fn erase(&self, owner: Owner, retirement: &AtomicBool) -> Result<(), SmError> {
        retirement.store(true, Ordering::Release);
        // Whoever is opened for this owner from now on begins empty.
        self.retirements.lock().remove(&owner);
        self.db.erase(owner)
    }

    /// Erases every owner that is not living: one seek and one range delete each; compactions do the rest later.
    fn sweep(&self, living: &BTreeSet<Owner>) -> Result<u64, SmError> {
        let mut erased = 0;
        let mut from = Vec::new();
        while let Some(owner) = self.db.owner_from(&from)? {
            if !living.contains(&owner) {
                self.db.erase(owner)?;
                erased += 1;
            }
            from = owner.range().1;
        }
        Ok(erased)
    }
}

impl Kind for KvStore {
    type Sm = KvMachine;

    fn start(&self, dir: &Path) -> Result<(), SmError> {
        let db = Arc::new(Db::open(dir, &self.options)?);
        let shared = Shared {
            keeper: Keeper::start(Arc::clone(&db))?,
            db,
            noted: Noted::default(),
            retirements: Mutex::default(),
            commit_seconds: metrics::histogram!("pontoon_engine_write_duration_seconds"),
        };
        *self.shared.write() = Some(Arc::new(shared));
        Ok(())
    }

    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation, _: &Path) -> Result<KvMachine, SmError> {
        let owner = Owner { group, replica, generation };
        let shared = self.shared()?;
        Ok(KvMachine::new(shared, owner))
    }

    fn commit(&self, stage: KvStage) -> Result<(), SmError> {
        let shared = self.shared()?;
        let began = Instant::now();
        shared.db.write(stage.batch)?;
        shared.commit_seconds.record(began.elapsed());
        // After the write: a flush from here on covers what is noted.
        shared.noted.note(stage.positions);
        Ok(())
    }

    fn persist(&self) -> Result<(), SmError> {
        self.shared()?.db.flush()
    }

    fn durable(&self, since: &mut Durable<'_>) -> Result<(), SmError> {
        let shared = self.shared()?;
        shared.db.set_gauges();
        shared.noted.report(since, || shared.db.flush())
    }

    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        let shared = self.shared()?;
        let owner = |&(group, replica, generation)| Owner { group, replica, generation };
        let living: BTreeSet<Owner> = living.iter().map(owner).collect();
        let erased = shared.sweep(&living)?;
        if erased > 0 {
            tracing::info!(target: "pontoon::apply", erased, "erased contents of replicas that are gone");
        }
        Ok(())
    }

    fn stop(&self) {
        let Some(shared) = self.shared.write().take() else { return };
        shared.keeper.stop();
    }
}
