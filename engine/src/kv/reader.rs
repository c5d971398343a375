//! Reads of one group, on any thread, beside applies.
//!
//! Leaves to others: how fresh it is (`Group::read`). Invariant: each call sees one committed state; an applier turn is
//! seen whole or not at all; contents that are being erased are never shown.

use super::db::{Db, scan};
use super::keys::{Owner, suffix};
use crate::state_machine::SmError;
use bytes::Bytes;
use pontoon_raftstore::codec::ReplicaRecord;
use pontoon_raftstore::ids::Index;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the file's head. Cheap to clone. A replica that takes a snapshot from its leader gets new contents and a new
/// reader; this one then shows the old contents, and once they are erased every call says `Cancelled`: read again.
#[derive(Clone)]
pub struct KvReader {
    db: Arc<Db>,
    owner: Owner,
    /// Set before the contents are erased.
    retired: Arc<AtomicBool>,
}

/// What a group's contents come to at one applied index: equal on all its replicas there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvDigest {
    /// Contents after this index.
    pub applied: Index,
    /// Number of pairs.
    pub pairs: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// 64-bit FNV-1a over all pairs in order, each key and value preceded by its length.
    pub hash: u64,
}

impl KvReader {
    pub(super) fn new(db: Arc<Db>, owner: Owner, retired: Arc<AtomicBool>) -> KvReader {
        KvReader { db, owner, retired }
    }

    /// Asked after the database: what was read may have been erased under it only if this says so.
    fn valid<T>(&self, found: T) -> Result<T, SmError> {
        if self.retired.load(Ordering::Acquire) { Err(SmError::Cancelled) } else { Ok(found) }
    }

    /// A value.
    ///
    /// # Errors
    /// The database's, or `Cancelled`: see above.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, SmError> {
        self.valid(self.db.get(&self.owner.data(key))?)
    }

    /// A value's length, without copying it.
    ///
    /// # Errors
    /// The database's, or `Cancelled`: see above.
    pub fn value_len(&self, key: &[u8]) -> Result<Option<usize>, SmError> {
        self.valid(self.db.value_len(&self.owner.data(key))?)
    }

    /// Several values of one state, in the order of the keys.
    ///
    /// # Errors
    /// The database's, or `Cancelled`: see above.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Bytes>>, SmError> {
        self.valid(self.db.multi_get(keys.iter().map(|k| self.owner.data(k.as_ref())).collect())?)
    }

    /// At most `limit` pairs of one state, ascending by key.
    ///
    /// # Errors
    /// The database's, or `Cancelled`: see above.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, SmError> {
        let (all_from, all_to) = self.owner.data_range();
        // The smallest key above `k` is `k` with a zero byte.
        let above = |k: &[u8]| self.owner.data(&[k, &[0]].concat());
        let low = match from {
            Bound::Included(k) => self.owner.data(k),
            Bound::Excluded(k) => above(k),
            Bound::Unbounded => all_from,
        };
        let high = match to {
            Bound::Included(k) => above(k),
            Bound::Excluded(k) => self.owner.data(k),
            Bound::Unbounded => all_to,
        };
        let mut found = Vec::new();
        if low >= high || limit == 0 {
            return Ok(found);
        }
        scan(&self.db.snapshot(), (low, high), |key, value| {
            found.push((Bytes::copy_from_slice(suffix(key)), Bytes::copy_from_slice(value)));
            found.len() < limit
        })?;
        self.valid(found)
    }

    /// Sums the contents up. Reads all of them.
    ///
    /// # Errors
    /// As `get`; `Corruption` if the replica record is not there.
    pub fn digest(&self) -> Result<KvDigest, SmError> {
        let view = self.db.snapshot();
        self.valid(())?;
        let record = view.get(self.owner.meta(ReplicaRecord::META_KEY));
        let record = record.map_err(|e| SmError::Corruption(e.into_string()))?.unwrap_or_default();
        let record = ReplicaRecord::decode(Bytes::from(record)).map_err(|e| SmError::Corruption(e.to_string()))?;
        let mut sum = KvDigest { applied: record.applied.index, pairs: 0, bytes: 0, hash: FNV_BASIS };
        scan(&view, self.owner.data_range(), |key, value| {
            sum.pairs += 1;
            for part in [suffix(key), value] {
                sum.bytes += part.len() as u64;
                sum.hash = fnv(fnv(sum.hash, &(part.len() as u32).to_le_bytes()), part);
            }
            true
        })?;
        self.valid(sum)
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
