//! From a machine's handle to a file: staged for a send, or published as a volatile machine's own.
//!
//! Leaves to others: the handle (applier), the file's format (`spool`).
//! Invariant: per group at most one published file counts, the one with the highest position; an older one is removed
//! only after a newer one is published.

use super::Spools;
use crate::boot::KeptSnapshot;
use crate::codec::ReplicaRecord;
use crate::env::{SmError, SnapshotSource};
use crate::guard::guarded;
use crate::ids::{GroupId, PollerId, SpoolId};
use crate::mail::Mail;
use crate::spool::{SpoolBuilder, SpoolInput};
use crate::task::{ApplierMsg, PollerMsg, SnapshotEvent, SnapshotPurpose, Spooled};
use pontoon_raft::SnapshotMeta;
use std::collections::BTreeMap;

/// Most files that stand ready to be sent, over all groups.
const MAX_STANDING: usize = 64;

/// What is to be built, for whom.
pub(super) struct Order {
    /// The group.
    pub(super) group: GroupId,
    /// Its owner.
    pub(super) poller: PollerId,
    /// Why.
    pub(super) purpose: SnapshotPurpose,
    /// Record at the handle's position.
    pub(super) record: ReplicaRecord,
}

/// Files that were built here.
pub(super) struct Builds {
    /// Newest published snapshot of each volatile machine.
    kept: BTreeMap<GroupId, KeptSnapshot>,
    /// Files that stand ready to be sent: one per group.
    standing: BTreeMap<GroupId, SpoolId>,
}

impl Builds {
    /// Nothing built yet.
    pub(super) fn new(kept: Vec<KeptSnapshot>) -> Builds {
        Builds { kept: kept.into_iter().map(|k| (k.record.group, k)).collect(), standing: BTreeMap::new() }
    }

    /// Builds, and tells the owner.
    pub(super) fn build(&mut self, spools: &mut Spools, mail: &Mail, order: Order, source: Box<dyn SnapshotSource>) {
        let result = match order.purpose {
            SnapshotPurpose::Send => self.stage(spools, &order, source),
            SnapshotPurpose::Keep => self.keep(spools, &order, source),
        };
        let (group, poller, purpose) = (order.group, order.poller, order.purpose);
        match result {
            Ok(spooled) => {
                let built = SnapshotEvent::Built { group, purpose, result: Ok(Box::new(spooled)) };
                mail.poller(poller, PollerMsg::Snapshot(built));
                self.tell_kept(mail, group, poller, purpose);
            }
            Err(why) => tell_failure(mail, group, poller, purpose, why),
        }
    }

    /// A received snapshot became a volatile machine's contents; the applier has published it.
    pub(super) fn adopt(&mut self, spools: &mut Spools, mail: &Mail, new: KeptSnapshot, poller: PollerId) {
        let group = new.record.group;
        if let Err(error) = spools.files.open(new.spool) {
            // Its owner gave the install up: the older one must stand.
            return tracing::warn!(%group, %error, "a published snapshot is gone");
        }
        self.supersede(spools, new);
        self.tell_kept(mail, group, poller, SnapshotPurpose::Keep);
    }

    /// The replica is gone, with all that was built of it.
    pub(super) fn forget(&mut self, spools: &mut Spools, group: GroupId) {
        let kept = self.kept.remove(&group).map(|k| k.spool);
        kept.into_iter().chain(self.standing.remove(&group)).for_each(|spool| spools.remove(spool));
    }

    /// The owner has no use for a file any more. True: it is a volatile machine's own and stays.
    #[must_use]
    pub(super) fn release(&mut self, spool: SpoolId) -> bool {
        self.standing.retain(|_, standing| *standing != spool);
        self.kept.values().any(|kept| kept.spool == spool)
    }

    fn stage(
        &mut self,
        spools: &mut Spools,
        order: &Order,
        source: Box<dyn SnapshotSource>,
    ) -> Result<Spooled, String> {
        if self.standing.len() >= MAX_STANDING && !self.standing.contains_key(&order.group) {
            return Err("too many snapshots stand ready to be sent".to_owned());
        }
        let spool = spools.take_id();
        let size = write(spools, spool, &order.record, source, false)?;
        if let Some(older) = self.standing.insert(order.group, spool) {
            spools.remove(older); // streams of it hold it open
        }
        Ok(spooled(spool, size, &order.record))
    }

    fn keep(&mut self, spools: &mut Spools, order: &Order, source: Box<dyn SnapshotSource>) -> Result<Spooled, String> {
        let spool = spools.take_id();
        let size = write(spools, spool, &order.record, source, true)?;
        let new = KeptSnapshot { spool, record: order.record.clone() };
        if let Some(kept) = self.kept.get(&order.group).filter(|kept| !is_newer(&new, kept)) {
            spools.remove(spool);
            return Ok(spooled(kept.spool, size, &kept.record));
        }
        if let Err(e) = spools.files.publish(spool) {
            spools.remove(spool);
            return Err(e.to_string());
        }
        self.supersede(spools, new);
        Ok(spooled(spool, size, &order.record))
    }

    fn supersede(&mut self, spools: &mut Spools, new: KeptSnapshot) {
        if let Some(older) = self.kept.insert(new.record.group, new) {
            spools.remove(older.spool);
        }
    }

    /// What survives a crash in a volatile machine is its newest published snapshot.
    fn tell_kept(&self, mail: &Mail, group: GroupId, poller: PollerId, purpose: SnapshotPurpose) {
        let Some(KeptSnapshot { record, .. }) = self.kept.get(&group) else { return };
        if purpose == SnapshotPurpose::Keep {
            let durable = vec![(group, record.replica, record.generation, record.applied)];
            mail.poller(poller, PollerMsg::Durable(durable));
        }
    }
}

/// An install's generation outlives the handles of the one before.
fn is_newer(new: &KeptSnapshot, kept: &KeptSnapshot) -> bool {
    let order = |k: &KeptSnapshot| (k.record.replica, k.record.generation, k.record.applied.index);
    order(new) > order(kept)
}

/// Tells the owner that there is no snapshot; a volatile machine's stays due.
pub(super) fn tell_failure(mail: &Mail, group: GroupId, poller: PollerId, purpose: SnapshotPurpose, why: String) {
    tracing::warn!(%group, ?purpose, why, "snapshot not built");
    metrics::counter!("pontoon_snapshot_build_failures_total").increment(1);
    if purpose == SnapshotPurpose::Keep {
        mail.applier(group, ApplierMsg::StillDirty(group));
    }
    mail.poller(poller, PollerMsg::Snapshot(SnapshotEvent::Built { group, purpose, result: Err(why) }));
}

fn spooled(spool: SpoolId, size: u64, record: &ReplicaRecord) -> Spooled {
    let meta =
        SnapshotMeta { index: record.applied.index, term: record.applied.term, conf_state: record.conf_state.clone() };
    Spooled { spool, size, meta, record: record.encode() }
}

/// Writes the whole file; removes it if that fails. `lasting`: synced and read back.
fn write(
    spools: &mut Spools,
    spool: SpoolId,
    record: &ReplicaRecord,
    source: Box<dyn SnapshotSource>,
    lasting: bool,
) -> Result<u64, String> {
    let written = guarded(|| {
        let mut file = spools.files.create(spool)?;
        let mut builder = SpoolBuilder::begin(&mut *file, record)?;
        source.write_to(&mut builder)?;
        let size = builder.finish()?;
        if lasting {
            file.sync()?;
            let read_back = SpoolInput::open(spools.files.open(spool)?)?.verify()?;
            if read_back != *record {
                return Err(SmError::Corruption("the file read back holds another record".to_owned()));
            }
        }
        Ok(size)
    });
    written.inspect_err(|_| spools.remove(spool))
}
