//! From a machine's handle to a file: staged for a send, or kept with others' as a volatile machine's own.
//!
//! Leaves to others: the handle (applier), the file's format (`spool`), files of many (`round`), which one counts (`kept`).
//! Invariant: whoever asked for a snapshot is told of it or of why there is none; a round ends in the turn it began in.

use super::Spools;
use super::kept::Kept;
use super::round::{self, ROUND_BYTES, Round};
use crate::boot::{Extent, KeptFiles, KeptSnapshot};
use crate::codec::ReplicaRecord;
use crate::env::SnapshotSource;
use crate::ids::{Generation, GroupId, LogPos, PollerId, ReplicaId, SpoolId};
use crate::ledger::Ledger;
use crate::mail::Mail;
use crate::spool::SpoolFile;
use crate::task::{ApplierMsg, PollerMsg, SnapshotEvent, SnapshotPurpose, Spooled};
use pontoon_raft::SnapshotMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    kept: Kept,
    /// Files that stand ready to be sent: one per group.
    standing: BTreeMap<GroupId, SpoolId>,
    /// What volatile machines gave in this turn.
    round: Option<Round>,
    /// What snapshots cost, for durability.
    ledger: Arc<Ledger>,
}

impl Builds {
    /// Nothing built yet.
    pub(super) fn new(kept: KeptFiles, ledger: Arc<Ledger>) -> Builds {
        Builds { kept: Kept::new(kept), standing: BTreeMap::new(), round: None, ledger }
    }

    /// Builds, and tells the owner: at once, or when the round ends.
    pub(super) fn build(&mut self, spools: &mut Spools, mail: &Mail, order: Order, source: Box<dyn SnapshotSource>) {
        match order.purpose {
            SnapshotPurpose::Keep => self.keep(spools, mail, order, source),
            SnapshotPurpose::Send if self.is_full(order.group) => {
                // Not worth a line each: with many groups behind most come here, and come again.
                tracing::debug!(group = %order.group, "too many snapshots stand ready to be sent");
                tell_built(mail, &order, Err("too many snapshots stand ready to be sent".to_owned()));
            }
            SnapshotPurpose::Send => match self.stage(spools, &order, source) {
                Ok(spooled) => tell_built(mail, &order, Ok(spooled)),
                Err(why) => tell_failure(mail, order.group, order.poller, order.purpose, why),
            },
        }
    }

    /// Ends the round of this turn, if there is one.
    pub(super) fn end_round(&mut self, spools: &mut Spools, mail: &Mail) {
        let Some(mut round) = self.round.take() else { return };
        for kept in self.kept.in_sparse_files(&round.groups(), ROUND_BYTES) {
            let group = kept.record.group;
            if let Err(error) = round.copy(spools, kept) {
                tracing::error!(%group, %error, "a kept snapshot was not copied");
            }
        }
        match round.publish(spools) {
            Ok(published) => self.on_published(spools, mail, published),
            Err((orders, why)) => tell_all_failed(mail, orders, &why),
        }
    }

    /// A received snapshot became a volatile machine's contents; the applier has published it.
    pub(super) fn adopt(
        &mut self,
        spools: &mut Spools,
        mail: &Mail,
        spool: SpoolId,
        record: ReplicaRecord,
        poller: PollerId,
    ) {
        let group = record.group;
        match spools.files.open(spool).and_then(|mut file| file.len()) {
            Ok(len) => {
                let whole = KeptSnapshot { spool, extent: Extent { at: 0, len }, record };
                self.kept.take_over(spools, spool, len, vec![whole], Vec::new());
                self.tell_kept(mail, [(poller, group)]);
            }
            // Its owner gave the install up: the older one must stand.
            Err(error) => tracing::warn!(%group, %error, "a published snapshot is gone"),
        }
    }

    /// The replica is gone, with all that was built of it.
    pub(super) fn forget(&mut self, spools: &mut Spools, group: GroupId) {
        if let Some(round) = &mut self.round {
            round.forget(group);
        }
        self.kept.forget(spools, group);
        self.standing.remove(&group).into_iter().for_each(|spool| spools.remove(spool));
    }

    /// The owner has no use for a file any more. True: it is a volatile machine's own and stays.
    #[must_use]
    pub(super) fn release(&mut self, spool: SpoolId) -> bool {
        self.standing.retain(|_, standing| *standing != spool);
        self.kept.holds(spool)
    }

    /// No room for another group's?
    fn is_full(&self, group: GroupId) -> bool {
        self.standing.len() >= MAX_STANDING && !self.standing.contains_key(&group)
    }

    fn stage(
        &mut self,
        spools: &mut Spools,
        order: &Order,
        source: Box<dyn SnapshotSource>,
    ) -> Result<Spooled, String> {
        let spool = spools.take_id();
        let size = write(spools, spool, &order.record, source).inspect_err(|_| spools.remove(spool))?;
        if let Some(older) = self.standing.insert(order.group, spool) {
            spools.remove(older); // streams of it hold it open
        }
        Ok(spooled(spool, size, &order.record))
    }

    fn keep(&mut self, spools: &mut Spools, mail: &Mail, order: Order, source: Box<dyn SnapshotSource>) {
        if self.round.is_none() {
            match Round::begin(spools) {
                Ok(round) => self.round = Some(round),
                Err(why) => return tell_all_failed(mail, vec![order], &why),
            }
        }
        let Some(round) = &mut self.round else { return };
        let (group, poller, purpose) = (order.group, order.poller, order.purpose);
        if let Err(why) = round.add(order, source) {
            tell_failure(mail, group, poller, purpose, why.clone());
            if round.is_broken() {
                let others = self.round.take().map(|round| round.give_up(spools)).unwrap_or_default();
                tell_all_failed(mail, others, &why);
            }
        } else if round.is_full() {
            self.end_round(spools, mail);
        }
    }

    fn on_published(&mut self, spools: &mut Spools, mail: &Mail, published: round::Published) {
        let round::Published { spool, size, written, copied } = published;
        self.ledger.on_kept(written.len(), size);
        let new =
            written.iter().map(|(order, extent)| KeptSnapshot { spool, extent: *extent, record: order.record.clone() });
        self.kept.take_over(spools, spool, size, new.collect(), copied);
        for (order, _) in &written {
            if let Some(kept) = self.kept.newest(order.group) {
                tell_built(mail, order, Ok(spooled(kept.spool, kept.extent.len, &kept.record)));
            }
        }
        self.tell_kept(mail, written.iter().map(|(order, _)| (order.poller, order.group)));
    }

    /// What survives a crash in a volatile machine is its newest published snapshot.
    fn tell_kept(&self, mail: &Mail, groups: impl IntoIterator<Item = (PollerId, GroupId)>) {
        let mut durable: BTreeMap<PollerId, Vec<(GroupId, ReplicaId, Generation, LogPos)>> = BTreeMap::new();
        for (poller, group) in groups {
            let Some(KeptSnapshot { record, .. }) = self.kept.newest(group) else { continue };
            let position = (group, record.replica, record.generation, record.applied);
            durable.entry(poller).or_default().push(position);
        }
        durable.into_iter().for_each(|(poller, all)| mail.poller(poller, PollerMsg::Durable(all)));
    }
}

fn tell_built(mail: &Mail, order: &Order, result: Result<Spooled, String>) {
    let (group, purpose, result) = (order.group, order.purpose, result.map(Box::new));
    mail.poller(order.poller, PollerMsg::Snapshot(SnapshotEvent::Built { group, purpose, result }));
}

fn tell_all_failed(mail: &Mail, orders: Vec<Order>, why: &str) {
    for order in orders {
        tell_failure(mail, order.group, order.poller, order.purpose, why.to_owned());
    }
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

/// Writes a file of one; it can be read afterwards. Its size.
fn write(
    spools: &Spools,
    spool: SpoolId,
    record: &ReplicaRecord,
    source: Box<dyn SnapshotSource>,
) -> Result<u64, String> {
    let mut file = SpoolFile::new(spools.files.create(spool).map_err(|e| e.to_string())?);
    let extent = round::append(&mut file, record, source)?;
    file.flush().map_err(|e| e.to_string())?;
    Ok(extent.len)
}
