//! One group of a `KvStore`: commands in, changes onto the turn's stage, typed answers out.
//!
//! Several commands on one key in one turn see each other through the stage, though nothing is written before the
//! commit. Leaves to others: byte forms (`command`), the database (`db`), the commit (`store`).
//! Invariant: the answer and the change depend on the command and the group's contents alone, so all replicas agree.

use super::command::{KvCommand, KvResponse, When, plain_set};
use super::keys::Owner;
use super::reader::KvReader;
use super::snapshot::{self, KvSnapshot};
use super::store::Shared;
use crate::state_machine::{Batch, Meta, SmError, SnapshotStream, StateMachine};
use bytes::Bytes;
use rocksdb::{WriteBatch, WriteBatchIterator};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bytes that a restore writes at once.
const RESTORE_BATCH: usize = 4 << 20;

/// What one applier turn collects over all groups of a kind.
#[derive(Default)]
pub struct KvStage {
    /// The one write.
    pub(super) batch: WriteBatch,
    /// What the batch does to each key it touches; made when a command of the turn first asks: most only write.
    overlay: Option<Overlay>,
    /// The key at hand.
    key: Vec<u8>,
    /// What is known to be applied once the batch is written, per run.
    pub(super) positions: Vec<(Owner, Meta)>,
}

/// What a batch does to each key that it touches: the value it puts, or `None` where it deletes.
#[derive(Default)]
struct Overlay(HashMap<Vec<u8>, Option<Bytes>>);

impl WriteBatchIterator for Overlay {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), Some(Bytes::copy_from_slice(value)));
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.insert(key.to_vec(), None);
    }
}

impl KvStage {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.batch.put(key, value);
        if let Some(overlay) = &mut self.overlay {
            overlay.put(key, value);
        }
    }

    fn delete(&mut self, key: &[u8]) {
        self.batch.delete(key);
        if let Some(overlay) = &mut self.overlay {
            overlay.delete(key);
        }
    }

    /// What the batch does to the key, if it touches it.
    fn staged(&mut self, key: &[u8]) -> Option<&Option<Bytes>> {
        let batch = &self.batch;
        let overlay = self.overlay.get_or_insert_with(|| {
            let mut overlay = Overlay::default();
            batch.iterate(&mut overlay);
            overlay
        });
        overlay.0.get(key)
    }

    /// The plain write of one key.
    fn set(&mut self, owner: Owner, key: &[u8], value: &[u8]) {
        let mut whole = std::mem::take(&mut self.key);
        owner.data_into(key, &mut whole);
        self.put(&whole, value);
        self.key = whole;
    }
}

/// See the file's head.
pub struct KvMachine {
    /// What the kind's groups share.
    shared: Arc<Shared>,
    /// Whose contents.
    owner: Owner,
    /// Tells readers that the contents are gone. Set before anything is erased.
    retired: Arc<AtomicBool>,
}

impl KvMachine {
    pub(super) fn new(shared: Arc<Shared>, owner: Owner) -> KvMachine {
        let retired = shared.retirement(owner);
        KvMachine { shared, owner, retired }
    }

    fn value(&self, stage: &mut KvStage, key: &[u8]) -> Result<Option<Bytes>, SmError> {
        match stage.staged(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.shared.db.get(key),
        }
    }

    fn exists(&self, stage: &mut KvStage, key: &[u8]) -> Result<bool, SmError> {
        match stage.staged(key) {
            Some(staged) => Ok(staged.is_some()),
            None => Ok(self.shared.db.value_len(key)?.is_some()),
        }
    }

    fn run(&self, stage: &mut KvStage, command: KvCommand) -> Result<KvResponse, SmError> {
        match command {
            KvCommand::Set { key, value, when, get } => self.set(stage, &key, value, when, get),
            KvCommand::SetMany(pairs) => {
                for (key, value) in pairs {
                    stage.set(self.owner, &key, &value);
                }
                Ok(KvResponse::Set(true))
            }
            KvCommand::Delete(keys) => {
                let mut deleted = 0;
                for key in keys {
                    let key = self.owner.data(&key);
                    if self.exists(stage, &key)? {
                        stage.delete(&key);
                        deleted += 1;
                    }
                }
                Ok(KvResponse::Deleted(deleted))
            }
            KvCommand::IncrBy { key, by } => self.incr_by(stage, &key, by),
            KvCommand::Append { key, value, limit } => self.append(stage, &key, &value, limit),
        }
    }

    fn set(&self, stage: &mut KvStage, key: &[u8], value: Bytes, when: When, get: bool) -> Result<KvResponse, SmError> {
        let key = self.owner.data(key);
        let before = if get { self.value(stage, &key)? } else { None };
        let holds = match when {
            When::Always => true,
            When::Absent | When::Present => {
                let exists = if get { before.is_some() } else { self.exists(stage, &key)? };
                exists == (when == When::Present)
            }
        };
        if holds {
            stage.put(&key, &value);
        }
        Ok(if get { KvResponse::Previous(before) } else { KvResponse::Set(holds) })
    }

    fn incr_by(&self, stage: &mut KvStage, key: &[u8], by: i64) -> Result<KvResponse, SmError> {
        let key = self.owner.data(key);
        let Some(number) = self.value(stage, &key)?.map_or(Some(0), |v| decimal(&v)) else {
            return Ok(KvResponse::NotANumber);
        };
        let Some(sum) = number.checked_add(by) else { return Ok(KvResponse::Overflow) };
        stage.put(&key, sum.to_string().as_bytes());
        Ok(KvResponse::Int(sum))
    }

    fn append(&self, stage: &mut KvStage, key: &[u8], tail: &[u8], limit: u32) -> Result<KvResponse, SmError> {
        let key = self.owner.data(key);
        let head = self.value(stage, &key)?.unwrap_or_default();
        let length = head.len() + tail.len();
        if length > limit as usize {
            return Ok(KvResponse::TooLong);
        }
        let mut whole = Vec::with_capacity(length);
        whole.extend_from_slice(&head);
        whole.extend_from_slice(tail);
        stage.put(&key, &whole);
        Ok(KvResponse::Length(length as u64))
    }
}

/// A number as `i64` prints it: no sign `+`, no leading zeros, no space.
fn decimal(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse::<i64>().ok().filter(|n| n.to_string() == text)
}

impl StateMachine for KvMachine {
    type Stage = KvStage;
    type Response = KvResponse;
    type Reader = KvReader;
    type Snapshot = KvSnapshot;

    fn recover(&mut self) -> Result<Meta, SmError> {
        self.shared.db.meta(self.owner)
    }

    fn apply(&mut self, stage: &mut KvStage, batch: &mut Batch<'_, KvResponse>) -> Result<(), SmError> {
        for (_, command) in batch.entries() {
            if let Some((key, value)) = plain_set(command) {
                stage.set(self.owner, key, value);
                batch.reply(KvResponse::Set(true));
                continue;
            }
            let answer = match KvCommand::decode(command.clone()) {
                Ok(command) => self.run(stage, command)?,
                Err(_) => KvResponse::BadCommand,
            };
            batch.reply(answer);
        }
        let meta = batch.finish();
        for key in &meta.deletes {
            stage.batch.delete(self.owner.meta(key));
        }
        for (key, value) in &meta.puts {
            stage.batch.put(self.owner.meta(key), value);
        }
        stage.positions.push((self.owner, meta.puts));
        Ok(())
    }

    fn reader(&self) -> KvReader {
        KvReader::new(Arc::clone(&self.shared.db), self.owner, Arc::clone(&self.retired))
    }

    fn snapshot(&mut self) -> Result<KvSnapshot, SmError> {
        self.shared.keeper.take(self.owner)
    }

    fn restore(&mut self, from: &mut SnapshotStream<'_>) -> Result<(), SmError> {
        let db = &self.shared.db;
        // What an earlier, interrupted install of this generation left.
        db.erase(self.owner)?;
        let mut batch = WriteBatch::default();
        snapshot::read_pairs(from, |key, value| {
            batch.put(self.owner.data(key), value);
            if batch.size_in_bytes() < RESTORE_BATCH {
                return Ok(());
            }
            db.write(std::mem::take(&mut batch))
        })?;
        for (key, value) in from.meta() {
            batch.put(self.owner.meta(key), value);
        }
        // The meta comes last: memtables reach the disk in order, all of it or from the front. `Kind::persist` flushes.
        db.write(batch)
    }

    fn destroy(self) -> Result<(), SmError> {
        // Unflushed: the log store's tombstone outlives a crash, this does not, and `retain` does it again then.
        self.shared.erase(self.owner, &self.retired)
    }
}
