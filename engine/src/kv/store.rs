//! `KvStore`: the kind. Opens the database, commits a turn's stage, keeps garbage out of the way.
//!
//! Leaves to others: one group's work (`machine`), what survives a crash (`durable`).
//! Invariant: contents of a replica that is neither living nor opened by this process are never read, and erased.

use super::db::{Db, KvOptions};
use super::durable::Noted;
use super::keys::Owner;
use super::machine::{KvMachine, KvStage};
use super::snapshot::Keeper;
use crate::state_machine::{Durable, Kind, SmError};
use parking_lot::{Mutex, RwLock};
use pontoon_raftstore::ids::{Generation, GroupId, ReplicaId};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// A kind of groups that are key-value maps in one RocksDB.
pub struct KvStore {
    options: KvOptions,
    /// Between `start` and `stop`.
    shared: RwLock<Option<Arc<Shared>>>,
    /// Erases garbage, after `retain`.
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the kind's groups share.
pub(super) struct Shared {
    /// The database.
    pub(super) db: Arc<Db>,
    /// Holds snapshots.
    pub(super) keeper: Keeper,
    /// Positions committed and not yet reported as durable.
    noted: Noted,
    /// What this process has opened. Held while the sweeper erases one owner, so that it never erases one of these.
    opened: Mutex<BTreeSet<Owner>>,
    /// Tells the sweeper to end.
    stopping: AtomicBool,
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
        KvStore { options, shared: RwLock::new(None), sweeper: Mutex::new(None) }
    }

    fn shared(&self) -> Result<Arc<Shared>, SmError> {
        self.shared.read().clone().ok_or(SmError::Cancelled)
    }
}

impl Shared {
    /// The owner's contents are garbage from now on.
    pub(super) fn release(&self, owner: Owner) {
        self.opened.lock().remove(&owner);
    }

    /// Erases every owner that is neither living nor opened.
    fn sweep(&self, living: &BTreeSet<Owner>) -> Result<u64, SmError> {
        let mut erased = 0;
        let mut from = Vec::new();
        while let Some(owner) = self.db.owner_from(&from)? {
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            let opened = self.opened.lock();
            if !living.contains(&owner) && !opened.contains(&owner) {
                self.db.erase(owner)?;
                erased += 1;
            }
            drop(opened);
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
            opened: Mutex::default(),
            stopping: AtomicBool::new(false),
            commit_seconds: metrics::histogram!("pontoon_engine_write_duration_seconds"),
        };
        *self.shared.write() = Some(Arc::new(shared));
        Ok(())
    }

    fn open(&self, group: GroupId, replica: ReplicaId, generation: Generation, _: &Path) -> Result<KvMachine, SmError> {
        let owner = Owner { group, replica, generation };
        let shared = self.shared()?;
        shared.opened.lock().insert(owner);
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

    fn durable(&self, since: &mut Durable<'_>) -> Result<(), SmError> {
        let shared = self.shared()?;
        shared.noted.report(since, || shared.db.flush())
    }

    fn retain(&self, living: &[(GroupId, ReplicaId, Generation)]) -> Result<(), SmError> {
        let shared = self.shared()?;
        let owner = |&(group, replica, generation)| Owner { group, replica, generation };
        let living: BTreeSet<Owner> = living.iter().map(owner).collect();
        let sweep = move || match shared.sweep(&living) {
            Ok(0) => {}
            Ok(erased) => tracing::info!(target: "pontoon::apply", erased, "erased contents of replicas that are gone"),
            Err(e) => tracing::warn!(target: "pontoon::apply", err = %e, "garbage stays until the next start"),
        };
        let thread = thread::Builder::new().name("pontoon-kv-sweep".to_owned()).spawn(sweep)?;
        if let Some(earlier) = self.sweeper.lock().replace(thread) {
            let _ended = earlier.join();
        }
        Ok(())
    }

    fn stop(&self) {
        let Some(shared) = self.shared.write().take() else { return };
        shared.stopping.store(true, Ordering::Relaxed);
        if let Some(sweeper) = self.sweeper.lock().take() {
            let _ended = sweeper.join();
        }
        shared.keeper.stop();
    }
}
