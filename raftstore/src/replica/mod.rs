//! One group's copy on this node: the core, what waits on it, and what of its work is on its way.
//!
//! Each file has one subject and its own sub-struct: `propose`, `pace`, `read`, `ready` (writes), `commits`, `apply`, `snapshot`, `truncate`,
//! `fetches`, `lead` (leadership, status), `peers` (who may speak, envelopes), `membership` (changes as applied),
//! `reconfigure` (driving them) with `plan` and `catch_up`, `work` (what a turn collects).
//! Leaves to others: threads, inboxes, disks and sockets. Events come in through `on_*`; work goes out into `Work`.
//! Invariant: `RawNode::on_persisted` is called from `ready` only, for writes that the log writer reported durable.

mod apply;
mod backlog;
mod catch_up;
mod commits;
mod feeding;
mod fetches;
mod gather;
mod lead;
mod membership;
mod pace;
mod peers;
mod plan;
mod propose;
mod read;
mod ready;
mod reconfigure;
mod snapshot;
mod truncate;
mod work;

pub use pace::WriteTime;
pub use truncate::LogRoom;
pub use work::{Letter, Limits, Work};

use crate::env::{Creation, GroupOp, GroupWrite, PeerIdentity};
use crate::error::{AdminError, GroupError, LifecycleError, Lost, ProposeError, ReadError};
use crate::events::Event;
use crate::ids::{GroupId, Incarnation, Index, NodeId, PollerId, ReplicaId, Tick};
use crate::log_cache::GroupStorage;
use crate::proposal::{AdminSlot, Proposal, ReadRequest};
use crate::router::GroupCell;
use crate::task::{Aside, Fetched, GroupMessage, Newborn};
use apply::Applying;
use commits::HeldCommits;
use fetches::Fetches;
use gather::Gather;
use lead::Leading;
use pace::Pace;
use peers::{OTHER_BIRTH, Peers, born_as};
use pontoon_raft::{Body, Config as CoreConfig, HardState, Message, RawNode, StartError};
use propose::PendingProposals;
use read::PendingReads;
use ready::Writes;
use reconfigure::Changing;
use snapshot::{Installing, Snapshots};
use std::collections::BTreeMap;
use std::sync::Arc;

/// May this replica go on?
enum Phase {
    /// Yes.
    Running,
    /// Yes, but its writes wait behind a snapshot install (boot.md 5).
    Installing(Box<Installing>),
    /// It stands still: messages are ignored, callers are told why.
    Quarantined(String),
    /// Its tombstone is being written.
    Burying(Arc<dyn AdminSlot>),
}

/// One replica. Owned by one poller.
pub struct Replica {
    /// The group.
    group: GroupId,
    /// Own id.
    id: ReplicaId,
    /// The poller that owns it.
    poller: PollerId,
    /// The disk that it is on.
    disk: Incarnation,
    /// How the group was born: the digest is told until its first entry is applied, all of it to who may not be born yet
    /// (boot.md 3).
    creation: Arc<Creation>,
    /// The outside: status copy, read view.
    cell: Arc<GroupCell>,
    /// Bounds and times, the node's.
    limits: Arc<Limits>,
    /// The core.
    raft: RawNode<GroupStorage>,
    /// Callers' commands.
    proposals: PendingProposals,
    /// Callers' reads.
    reads: PendingReads,
    /// What was handed to the log writer and is not durable yet.
    writes: Writes,
    /// Word of commits that waits for something to ride on.
    held: HeldCommits,
    /// What the state machine has, and what was handed to it.
    machine: Applying,
    /// Commands that wait for others.
    gather: Gather,
    /// What may wait while the node is busy.
    pace: Pace,
    /// Snapshots built, sent, received.
    snapshots: Snapshots,
    /// Catch-up reads under way.
    fetches: Fetches,
    /// Who was heard of, who is told what.
    peers: Peers,
    /// Changes of members, driven and awaited.
    changing: Changing,
    /// Leadership as last seen, transfers, the status copy's upkeep.
    leading: Leading,
    /// May it go on?
    phase: Phase,
    /// Deadline in the poller's wheel; other alarms are stale.
    pub armed: Tick,
    /// Is it in the poller's list for this turn?
    pub touched: bool,
    /// Is it in the poller's list of those that hold word of a commit back?
    pub listed: bool,
    /// Is it in the poller's list of those that keep commands back?
    pub queued: bool,
}

/// What a replica is given at birth besides the newborn itself.
pub struct Surroundings<'a> {
    /// The outside, registered with the router.
    pub cell: Arc<GroupCell>,
    /// Bounds and times.
    pub limits: Arc<Limits>,
    /// The owner.
    pub poller: PollerId,
    /// This start of this disk: its nonce makes read contexts unique.
    pub me: PeerIdentity,
    /// For the budget and the time.
    pub work: &'a Work,
}

impl Replica {
    /// Takes over what boot or creation prepared. `Err`: the stored state contradicts itself; quarantine it.
    pub fn adopt(newborn: Newborn, around: Surroundings<'_>) -> Result<Replica, StartError> {
        let Newborn { stored, record, tail, seed, campaign: _ } = newborn;
        let Surroundings { cell, limits, poller, me, work } = around;
        // The machine's database flushes by itself, so the commit on disk may lag behind it (boot.md 4).
        let commit = stored.hard_state.commit.max(record.applied.index);
        let hard_state = HardState { commit, ..stored.hard_state };
        let storage = GroupStorage::new(&stored, hard_state, record.conf_state.clone(), tail, work.budget.clone());
        let config = core_config(&limits, stored.replica, record.applied.index, seed);
        let raft = RawNode::new(&config, storage, work.now)?;
        let mut replica = Replica {
            group: stored.group,
            id: stored.replica,
            poller,
            disk: me.incarnation,
            creation: Arc::new(stored.creation),
            cell,
            limits,
            raft,
            proposals: PendingProposals::default(),
            reads: PendingReads::new(me.epoch.nonce),
            // The core takes what it starts with for stored, but the raised commit is not: it goes with the first write.
            writes: Writes::with_lazy(hard_state),
            held: HeldCommits::default(),
            machine: Applying::new(record, &stored.truncated, work.budget.clone()),
            gather: Gather::default(),
            pace: Pace::default(),
            snapshots: Snapshots::default(),
            fetches: Fetches::default(),
            peers: Peers::new(work.now),
            changing: Changing::default(),
            leading: Leading::new(stored.replica, hard_state),
            phase: Phase::Running,
            armed: Tick::MAX,
            touched: false,
            listed: false,
            queued: false,
        };
        replica.publish_shape();
        Ok(replica)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Own id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// A caller's command; appended with the turn's others in `settle`.
    pub fn on_propose(&mut self, proposal: Proposal, work: &Work) {
        match self.closed() {
            None => {
                self.gather.on_staged();
                self.proposals.stage(proposal);
            }
            Some(e) => {
                work.budget.leave_door(proposal.cost());
                proposal.refuse(ProposeError::Group(e));
            }
        }
    }

    /// A caller's read; asked with the turn's others in `settle`.
    pub fn on_read(&mut self, read: ReadRequest, work: &Work) {
        work.budget.give_back(ReadRequest::COST);
        match self.closed() {
            None => self.reads.join(read.slot, work.now + 2 * self.limits.election_ticks),
            Some(e) => read.slot.fail(ReadError::Group(e)),
        }
    }

    /// A peer's message. What the replica map forbids is dropped, what proves lost data quarantines.
    pub fn on_message(&mut self, from: PeerIdentity, message: GroupMessage, work: &mut Work) {
        if let Some(conf) = self.dismissal(&message) {
            return self.be_dismissed(conf, work);
        }
        if let Err(reason) = self.admits(from, &message) {
            match reason {
                OTHER_BIRTH => self.tell_other_birth(from.node, born_as(&message).unwrap_or_default(), work),
                _ => self.tell_removed(from.node, message.message.from, work),
            }
            work.refused(reason);
            return;
        }
        self.note_sender(from.node, &message.message, work.now);
        if matches!(message.message.body, Body::Heartbeat { .. }) {
            self.on_beat();
        }
        if let Aside::Committed(pos) = message.aside {
            // Its message is not for the core: whoever asks may be of a higher term, and nobody is to follow him there.
            return self.raft.learn_commit(work.now, pos);
        }
        // Contents of snapshots come on their own lane; the message comes with them (`on_received`).
        if matches!(message.message.body, Body::Snap { .. }) {
            work.refused("snapshot_without_contents");
            return;
        }
        // Nobody forwards commands here: whoever proposes waits for an answer at the leader (law 6).
        if matches!(message.message.body, Body::Propose { .. }) {
            work.refused("forwarded_proposal");
            return;
        }
        self.step(message.message, work);
    }

    fn step(&mut self, message: Message, work: &mut Work) {
        match self.raft.step(work.now, message) {
            Ok(()) => {}
            Err(e) if e.is_corruption() => self.quarantine(e.to_string(), work),
            Err(_) => work.refused("not_stepped"),
        }
    }

    /// The network lost what was sent to a replica of this group.
    pub fn on_unreachable(&mut self, peer: ReplicaId, work: &Work) {
        if self.closed().is_none() {
            self.raft.report_unreachable(work.now, peer);
        }
    }

    /// A whole node cannot be reached. False: no replica of this group is there.
    pub fn on_node_unreachable(&mut self, node: NodeId, work: &Work) -> bool {
        let found = self.machine.record.members.iter().find(|m| m.1 == node).map(|m| m.0);
        if let Some(peer) = found {
            self.on_unreachable(peer, work);
        }
        found.is_some()
    }

    /// Entries that the core asked for are here, or the log begins later now (then the core sends a snapshot).
    pub fn on_fetched(&mut self, fetched: Fetched, work: &mut Work) {
        use crate::env::ReadLogError;
        self.fetches.ended(fetched.follower);
        if self.closed().is_some() {
            return;
        }
        match fetched.entries {
            Ok(page) => self.raft.storage_mut().lend(fetched.follower, page.into_entries()),
            Err(ReadLogError::Truncated { .. }) => {}
            Err(ReadLogError::Poisoned) => return,
            Err(e) => return self.quarantine(e.to_string(), work),
        }
        self.raft.resume_append(work.now, fetched.follower);
    }

    /// A deadline passed.
    pub fn on_tick(&mut self, work: &mut Work) {
        if self.closed().is_some() {
            return;
        }
        self.raft.tick(work.now);
        self.on_beat();
        self.drop_idle_shelf(work);
        self.stand_again(work.now);
        self.reads.expire(work.now);
        self.proposals.expire(work.now);
        self.expire_transfer(work.now);
        self.ask_whether_needed(work);
    }

    /// Memory is looked after.
    fn on_beat(&mut self) {
        if self.raft.storage().is_cached() {
            let needed = self.needed_in_memory();
            self.raft.storage_mut().relieve(needed);
        }
        self.raft.storage_mut().detach();
    }

    /// When `on_tick` must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Tick {
        if self.closed().is_some() {
            return Tick::MAX;
        }
        let own = self.reads.deadline().min(self.proposals.deadline()).min(self.transfer_deadline());
        let own = own.min(self.changing.deadline()).min(self.ask_deadline()).min(self.retry_deadline());
        self.raft.next_deadline().min(own)
    }

    /// Campaigns at once.
    pub fn campaign(&mut self, work: &Work) {
        if self.closed().is_none() {
            self.raft.campaign(work.now);
        }
    }

    /// A number of no meaning from all over the replica.
    #[must_use]
    pub fn look(&self) -> u64 {
        let (status, record) = (self.raft.basic_status(), &self.machine.record);
        let others = record.members.first().map_or(0, |m| m.0.0) ^ self.peers.look();
        let closed = u64::from(matches!(self.phase, Phase::Running));
        status.term.0 ^ status.commit.0 ^ self.raft.next_deadline() ^ others ^ closed ^ self.creation.digest
    }

    /// A heartbeat or the answer to one came, which with many groups is most of all that happens: what it called for leaves.
    /// False: there is more to it, and the turn must end as any other.
    pub fn settle_heartbeats(&mut self, work: &mut Work) -> bool {
        if self.closed().is_some() {
            return true;
        }
        let only_messages = !self.raft.has_ready() || self.take_ready(work);
        only_messages && !self.raft.has_ready() && !self.raft.has_fetches() && !self.holds_commits()
    }

    /// The end of a turn in which something happened here: what was gathered goes in, work comes out.
    /// Returns whether the core has more.
    pub fn settle(&mut self, disks: &BTreeMap<NodeId, Incarnation>, work: &mut Work) -> bool {
        if self.closed().is_some() {
            return false;
        }
        // Before the commands: they may fill what may be uncommitted to the brim, turn for turn.
        self.fill_in_disks(disks, work);
        self.drive_change(disks, work);
        self.append_staged(work);
        self.ask_joined(work);
        if self.raft.has_ready() {
            self.take_ready(work);
        }
        self.drop_unused_snapshots(work);
        self.hand_out_fetches(work);
        self.want_snapshot(work);
        self.note_waiting(work);
        self.publish(work.now);
        self.closed().is_none() && (self.raft.has_ready() || self.reads.wants_round())
    }

    fn hand_out_fetches(&mut self, work: &mut Work) {
        self.raft.storage_mut().clear_loans();
        // What is not begun now is named again when the read under way has ended.
        for fetch in self.raft.take_fetches().into_iter().filter(|f| self.fetches.begin(f.to)) {
            work.letters.push(Letter::fetch(self.poller, self.group, fetch));
        }
    }

    /// Stops this replica; the node goes on. Waiters are told, leadership is offered to whoever is most up to date.
    pub fn quarantine(&mut self, why: String, work: &mut Work) {
        if self.closed().is_some() {
            return;
        }
        self.hand_over(work);
        if self.is_leader() && self.raft.has_ready() {
            // The order to campaign leaves; nothing of the rest is promised to anybody.
            let last_words = self.raft.ready().messages;
            self.send_all(last_words, work);
        }
        self.fail_waiters(&GroupError::Quarantined(why.clone()), work);
        self.machine.backlog.clear();
        self.raft.storage_mut().let_go();
        self.drop_spools(work);
        self.cell.with_status(|s| s.quarantined = Some(why.clone()));
        work.events.push(Event::Quarantined { group: self.group, why: why.clone() });
        self.phase = Phase::Quarantined(why);
    }

    /// Destroys this replica: the tombstone first, then everything else (`ready`).
    pub fn bury(&mut self, done: Arc<dyn AdminSlot>, work: &mut Work) {
        if matches!(self.phase, Phase::Burying(_)) {
            return done.done(Err(AdminError::Group(GroupError::Destroyed(self.group))));
        }
        self.fail_waiters(&GroupError::Destroyed(self.group), work);
        let next_replica = self.machine.record.next_replica.max(ReplicaId(self.id.0 + 1));
        work.write(GroupWrite { group: self.group, replica: self.id, op: GroupOp::Destroy { next_replica } }, true);
        self.writes.bury(work.seq, next_replica);
        self.phase = Phase::Burying(done);
    }

    /// Answers everybody: the replica stops. What was appended may still commit elsewhere (law 6).
    pub fn fail_waiters(&mut self, why: &GroupError, work: &Work) {
        self.proposals.fail_staged(&ProposeError::Group(why.clone()), &work.budget);
        self.proposals.fail_appended(Lost::ReplicaStopped);
        self.proposals.count(&work.budget);
        self.reads.fail_all(&ReadError::Group(why.clone()));
        self.end_transfer(Err(AdminError::Group(why.clone())));
        self.snapshots.fail_waiters(&AdminError::Group(why.clone()));
        self.changing.fail_waiters(&AdminError::Group(why.clone()));
    }

    /// The node stops: a commit that was not worth a write of its own goes out now.
    pub fn on_stop(&mut self, work: &mut Work) {
        self.abandon(&GroupError::ShuttingDown, work);
        if matches!(self.phase, Phase::Running) {
            self.write_lazy_commit(work);
        }
    }

    /// Nothing happens here any more: everybody is answered, a burial's caller too (its tombstone may be there).
    pub fn abandon(&mut self, why: &GroupError, work: &Work) {
        self.fail_waiters(why, work);
        if let Phase::Burying(done) = &self.phase {
            done.done(Err(AdminError::Group(why.clone())));
            self.phase = Phase::Quarantined(why.to_string());
        }
    }

    /// Why nobody is served here, if so.
    fn closed(&self) -> Option<GroupError> {
        match &self.phase {
            Phase::Running | Phase::Installing(_) => None,
            Phase::Quarantined(why) => Some(GroupError::Quarantined(why.clone())),
            Phase::Burying(_) => Some(GroupError::Destroyed(self.group)),
        }
    }
}

/// For creations that find the group buried meanwhile.
impl From<AdminError> for LifecycleError {
    fn from(e: AdminError) -> LifecycleError {
        match e {
            AdminError::Group(g) => LifecycleError::Group(g),
            other => LifecycleError::BadSpec(other.to_string()),
        }
    }
}

fn core_config(limits: &Limits, id: ReplicaId, applied: Index, seed: u64) -> CoreConfig {
    CoreConfig {
        id,
        election_tick: limits.election_ticks,
        heartbeat_tick: limits.heartbeat_ticks,
        applied,
        max_size_per_msg: limits.max_append_bytes,
        max_committed_size_per_ready: limits.max_apply_bytes,
        max_uncommitted_size: limits.group_inflight_bytes,
        max_inflight_msgs: limits.max_inflight,
        max_inflight_bytes: 0,
        check_quorum: true,
        pre_vote: true,
        disable_proposal_forwarding: true,
        step_down_on_removal: true,
        strict: true,
        async_storage_writes: true,
        seed,
        ..CoreConfig::default()
    }
}
