//! Which snapshot of each volatile machine counts, and which files are still of use.
//!
//! Leaves to others: writing and publishing (`round`), received ones (the applier has published them).
//! Invariant: per group one published snapshot counts, the one with the highest position; a file is removed once none in
//! it counts, and only after those that took their places are published.

use super::Spools;
use crate::boot::{KeptFiles, KeptSnapshot};
use crate::ids::{GroupId, SpoolId};
use std::collections::{BTreeMap, BTreeSet};

/// See the file's head.
pub(super) struct Kept {
    /// Newest published snapshot of each volatile machine.
    newest: BTreeMap<GroupId, KeptSnapshot>,
    /// Files with a snapshot that counts.
    files: BTreeMap<SpoolId, Use>,
    /// Files that stay.
    pinned: BTreeSet<SpoolId>,
}

/// What of a file counts.
#[derive(Default)]
struct Use {
    /// Its length. Bytes.
    size: u64,
    /// Bytes of the snapshots that count.
    live: u64,
}

impl Kept {
    /// As boot has found them.
    pub(super) fn new(found: KeptFiles) -> Kept {
        let mut kept = Kept { newest: BTreeMap::new(), files: BTreeMap::new(), pinned: found.pinned };
        for one in found.newest {
            let file = kept.files.entry(one.spool).or_default();
            file.size = found.sizes.get(&one.spool).copied().unwrap_or_default();
            file.live += one.extent.len;
            kept.newest.insert(one.record.group, one);
        }
        kept
    }

    /// The one that counts.
    pub(super) fn newest(&self, group: GroupId) -> Option<&KeptSnapshot> {
        self.newest.get(&group)
    }

    /// Does any snapshot in this file count?
    pub(super) fn holds(&self, spool: SpoolId) -> bool {
        self.files.contains_key(&spool)
    }

    /// A file was published: snapshots in it that are newer than those that counted take their places, and so do copies of those
    /// that still count.
    pub(super) fn take_over(
        &mut self,
        spools: &mut Spools,
        spool: SpoolId,
        size: u64,
        new: Vec<KeptSnapshot>,
        copies: Vec<KeptSnapshot>,
    ) {
        self.files.insert(spool, Use { size, live: 0 });
        for one in new {
            if self.newest.get(&one.record.group).is_none_or(|kept| is_newer(&one, kept)) {
                self.put(spools, one);
            }
        }
        for one in copies {
            if self.newest.get(&one.record.group).is_some_and(|kept| kept.record == one.record) {
                self.put(spools, one);
            }
        }
        self.remove_if_dead(spools, spool);
    }

    /// The replica is gone.
    pub(super) fn forget(&mut self, spools: &mut Spools, group: GroupId) {
        if let Some(kept) = self.newest.remove(&group) {
            self.let_go(spools, &kept);
        }
    }

    /// Snapshots that count in files of which more than half does not, those of `but` aside; `at_most` bytes of them.
    pub(super) fn in_sparse_files(&self, but: &BTreeSet<GroupId>, at_most: u64) -> Vec<KeptSnapshot> {
        let mut live: BTreeMap<SpoolId, u64> = self.files.iter().map(|(id, file)| (*id, file.live)).collect();
        for kept in but.iter().filter_map(|group| self.newest.get(group)) {
            *live.entry(kept.spool).or_default() -= kept.extent.len;
        }
        live.retain(|id, live| *live > 0 && *live * 2 < self.files[id].size && !self.pinned.contains(id));
        if live.is_empty() {
            return Vec::new();
        }
        let mut left = at_most;
        let is_sparse = |kept: &&KeptSnapshot| live.contains_key(&kept.spool) && !but.contains(&kept.record.group);
        let fits = |kept: &KeptSnapshot| {
            let fits = kept.extent.len <= left;
            left = left.saturating_sub(kept.extent.len);
            fits
        };
        self.newest.values().filter(is_sparse).cloned().take_while(fits).collect()
    }

    fn put(&mut self, spools: &mut Spools, new: KeptSnapshot) {
        self.files.entry(new.spool).or_default().live += new.extent.len;
        if let Some(older) = self.newest.insert(new.record.group, new) {
            self.let_go(spools, &older);
        }
    }

    fn let_go(&mut self, spools: &mut Spools, older: &KeptSnapshot) {
        if let Some(file) = self.files.get_mut(&older.spool) {
            file.live -= older.extent.len;
        }
        self.remove_if_dead(spools, older.spool);
    }

    fn remove_if_dead(&mut self, spools: &mut Spools, spool: SpoolId) {
        if self.files.get(&spool).is_some_and(|file| file.live == 0) {
            self.files.remove(&spool);
            if !self.pinned.contains(&spool) {
                spools.remove(spool);
            }
        }
    }
}

/// An install's generation outlives the handles of the one before.
fn is_newer(new: &KeptSnapshot, kept: &KeptSnapshot) -> bool {
    let order = |k: &KeptSnapshot| (k.record.replica, k.record.generation, k.record.applied.index);
    order(new) > order(kept)
}
