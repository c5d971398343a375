//! Every range deletion of the log: a dead head, a conflicting tail, a whole log.
//!
//! Truncation deletes whole blocks up to a boundary that is known without reading; the caller batches truncations of
//! many groups, far apart in time, because every range tombstone costs its readers until it is compacted away.
//! Invariant: a deleted range ends at a block's first index, so no block loses entries it should keep.

use crate::keys;
use crate::seats::Living;
use pontoon_raftstore::ids::{GroupId, Index};
use rocksdb::WriteBatch;

/// Deletes every block of the group.
pub(crate) fn wipe(out: &mut WriteBatch, group: GroupId) {
    out.delete_range(keys::block(group, Index::NONE), keys::blocks_end(group));
}

/// Deletes the blocks that begin at `from` or later.
pub(crate) fn cut(out: &mut WriteBatch, group: GroupId, from: Index) {
    out.delete_range(keys::block(group, from), keys::blocks_end(group));
}

/// Deletes the blocks that hold nothing behind the truncation point, as far as boundaries are known. `stored_end` is
/// the last index in stored blocks: a new block begins behind it. Says whether anything was deleted.
pub(crate) fn drop_dead(out: &mut WriteBatch, group: GroupId, living: &mut Living, stored_end: Index) -> bool {
    let begin = living.truncated.index.next();
    let boundary = if begin > stored_end {
        living.marks.on_all_dead();
        Some(stored_end.next())
    } else {
        living.marks.take_boundary(begin)
    };
    let Some(boundary) = boundary.filter(|b| *b > living.cleared) else { return false };
    out.delete_range(keys::block(group, living.cleared), keys::block(group, boundary));
    living.cleared = boundary;
    true
}
