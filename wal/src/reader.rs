//! Reads of the log off the pollers: catch-up pages, and the block that a conflict cuts.
//!
//! Leaves to others: caching (raftstore keeps what followers still need). Reads go with readahead and fill no cache.
//! Invariant: a page is read from one snapshot, so a batch is seen whole or not at all; what is returned is
//! consecutive and has passed its checksum, identity and index chain.

use crate::block::{self, Block};
use crate::envelope::{Owner, StoreId};
use crate::error::CorruptRecord;
use crate::group_record::{self, GroupRecord};
use crate::keys::{self, Key, RecordKind};
use crate::latch::Latch;
use bytes::Bytes;
use pontoon_raft::Entry;
use pontoon_raftstore::env::{Fetch, ReadLogError, Truncation};
use pontoon_raftstore::ids::{GroupId, Index};
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};

/// Bytes that RocksDB reads ahead of a catch-up read.
const READAHEAD: usize = 256 << 10;

/// Answers one fetch.
pub(crate) fn read(latch: &Latch, store: StoreId, fetch: &Fetch) -> Result<Vec<Entry>, ReadLogError> {
    let corrupt = |e: CorruptRecord| ReadLogError::Corrupt {
        group: fetch.group,
        index: e.index.unwrap_or(fetch.low),
        what: e.to_string(),
    };
    latch.check().map_err(|_| ReadLogError::Poisoned)?;
    let snapshot = latch.snapshot();
    let (owner, begin) =
        begin(latch, &snapshot, store, fetch.group).map_err(corrupt)?.ok_or(ReadLogError::Missing(fetch.group))?;
    let first = begin.pos.index.next();
    if fetch.low < first {
        return Err(ReadLogError::Truncated { first });
    }
    let entries = page(latch, &snapshot, store, owner, fetch).map_err(corrupt)?;
    if entries.is_empty() { Err(ReadLogError::Missing(fetch.group)) } else { Ok(entries) }
}

/// The stored block with the highest first index that is not above `index`.
pub(crate) fn block_holding(
    latch: &Latch,
    store: StoreId,
    group: GroupId,
    index: Index,
) -> Result<Option<Block>, CorruptRecord> {
    let mut iter = latch.iter(options(group));
    iter.seek_for_prev(keys::block(group, index));
    current(latch, &iter, store, group)
}

fn begin(
    latch: &Latch,
    snapshot: &Snapshot<'_>,
    store: StoreId,
    group: GroupId,
) -> Result<Option<(Owner, Truncation)>, CorruptRecord> {
    let key = keys::record(group, RecordKind::Begin);
    let refuse = |what: String| CorruptRecord { group: Some(group), index: None, files: latch.files_of(&key), what };
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let value = snapshot.get_opt(key, options).map_err(|e| refuse(e.to_string()))?;
    let Some(value) = value else { return Ok(None) };
    match group_record::decode(group, RecordKind::Begin, Bytes::from(value), store) {
        Ok((owner, GroupRecord::Begin(begin))) => Ok(Some((owner, begin))),
        Ok(_) => Err(refuse("record of another kind".into())),
        Err(fault) => Err(refuse(fault.to_string())),
    }
}

fn page(
    latch: &Latch,
    snapshot: &Snapshot<'_>,
    store: StoreId,
    owner: Owner,
    fetch: &Fetch,
) -> Result<Vec<Entry>, CorruptRecord> {
    let mut iter = snapshot.raw_iterator_opt(options(fetch.group));
    iter.seek_for_prev(keys::block(fetch.group, fetch.low));
    let mut entries: Vec<Entry> = Vec::new();
    let (mut size, mut next) = (0, fetch.low);
    while next < fetch.high {
        let Some(block) = current(latch, &iter, store, fetch.group)? else { return Ok(entries) };
        if entries.is_empty() && block.last().index < next {
            return Ok(entries); // the log ends before the range
        }
        let first = block.prev.index.next();
        if block.owner != owner || first > next || (first < next && !entries.is_empty()) {
            let what = format!("block of {:?} at {first} where {next} of {owner:?} should follow", block.owner);
            let files = latch.files_of(&keys::block(fetch.group, first));
            return Err(CorruptRecord { group: Some(fetch.group), index: Some(next), files, what });
        }
        let skip = (next.0 - first.0) as usize;
        for entry in block.entries.iter().skip(skip).take_while(|e| e.index < fetch.high) {
            if !entries.is_empty() && size + entry.encoded_size() > fetch.max_bytes {
                return Ok(entries);
            }
            size += entry.encoded_size();
            next = entry.index.next();
            entries.push(entry.clone());
        }
        iter.next();
    }
    Ok(entries)
}

fn options(group: GroupId) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys::block(group, Index::NONE));
    options.set_iterate_upper_bound(keys::blocks_end(group));
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD);
    options
}

/// The block under the iterator; `None` at the end.
fn current(
    latch: &Latch,
    iter: &DBRawIterator<'_>,
    store: StoreId,
    group: GroupId,
) -> Result<Option<Block>, CorruptRecord> {
    let refuse = |index, files, what| CorruptRecord { group: Some(group), index, files, what };
    let Some((key, value)) = iter.item() else {
        iter.status().map_err(|e| refuse(None, Vec::new(), e.to_string()))?;
        return Ok(None);
    };
    match keys::split(key) {
        Some(Key::Block(of, first)) if of == group => {
            let block = block::decode(group, first, Bytes::copy_from_slice(value), store);
            block.map(Some).map_err(|fault| refuse(Some(first), latch.files_of(key), fault.to_string()))
        }
        _ => Err(refuse(None, latch.files_of(key), format!("strange key {key:02x?}"))),
    }
}
