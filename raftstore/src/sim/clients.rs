//! Clients of a simulated world: each waits for its answer before its next operation, and writes down what it saw.
//!
//! Leaves to others: judging the history (`testing::linearizability`). Keys of a group are of two sorts: those named
//! alone, and those named together (checked as one). Invariant: an operation is in the history unless it was refused
//! at the door, where "never appended" is promised; then it may be tried again.

use super::facts::Nodes;
use super::queues;
use crate::env::Instant;
use crate::error::{ProposeError, ReadError};
use crate::ids::{GroupId, LogPos, NodeId};
use crate::mem::{KvView, Power};
use crate::proposal::{Proposal, ReadRequest, ReplyTo};
use crate::testing::linearizability::{Call, KvCall};
use crate::testing::{Cell, KvOp, KvRet, KvSlot, ReadCell, Rng};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long it tries to get an operation admitted.
const TRIES: Duration = Duration::from_secs(6);

enum Waiting {
    Write(Arc<KvSlot>),
    Read(Arc<ReadCell>),
}

/// An admitted operation.
struct Pending {
    op: KvOp,
    group: GroupId,
    node: NodeId,
    /// Start of the node.
    boot: u64,
    began: Instant,
    waiting: Waiting,
}

#[derive(Default)]
struct Client {
    /// To be admitted: operation, group, since when.
    wanted: Option<(KvOp, GroupId, Instant)>,
    pending: Option<Pending>,
}

/// What a client does after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits for an answer, until then.
    Waits(Instant),
    /// Its operation was not admitted.
    TriesAgain,
    /// It may begin another operation.
    Free,
}

/// What became of an operation in this step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The write was acknowledged at this position.
    Acked(GroupId, LogPos),
    /// It was not appended, and is tried again.
    Refused,
    /// Something else that is only counted.
    Counted,
}

/// All clients and their history.
pub(super) struct Clients {
    rng: Rng,
    clients: Vec<Client>,
    groups: Vec<GroupId>,
    /// Where each group's leader was last.
    leaders: BTreeMap<GroupId, NodeId>,
    pub(super) history: Vec<KvCall>,
    /// By name.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Last acknowledged write of each group.
    pub(super) last_ack: BTreeMap<GroupId, Instant>,
    next_value: u64,
    /// Groups that somebody must write to soon.
    unserved: BTreeSet<GroupId>,
    /// Do they use the keys of `queues`, too?
    pub(super) mixed: bool,
}

impl Clients {
    pub(super) fn new(n: u64, groups: Vec<GroupId>, rng: Rng) -> Clients {
        Clients {
            rng,
            clients: (0..n).map(|_| Client::default()).collect(),
            groups,
            leaders: BTreeMap::new(),
            history: Vec::new(),
            counts: BTreeMap::new(),
            last_ack: BTreeMap::new(),
            next_value: 0,
            unserved: BTreeSet::new(),
            mixed: false,
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// From now on clients use this group.
    pub(super) fn add_group(&mut self, group: GroupId) {
        self.groups.push(group);
    }

    /// From now on nobody uses this group.
    pub(super) fn drop_group(&mut self, group: GroupId) {
        self.groups.retain(|g| *g != group);
        self.unserved.remove(&group);
        self.leaders.remove(&group);
        self.clients.iter_mut().for_each(|c| drop(c.wanted.take_if(|w| w.1 == group)));
    }

    /// Operations begun.
    pub(super) fn begun(&self) -> u64 {
        self.counts.get("operations").copied().unwrap_or_default()
    }

    /// A client's turn.
    pub(super) fn step(&mut self, at: usize, now: Instant, nodes: &Nodes) -> Step {
        if let Some(pending) = &self.clients[at].pending {
            let until = pending.began.after(PATIENCE);
            if now < until {
                return Step::Waits(until);
            }
            self.give_up(at, "timed out");
            return Step::Free;
        }
        let (op, group, since) = match self.clients[at].wanted.take() {
            Some(wanted) => wanted,
            None => {
                self.count("operations");
                let (op, group) = self.draw_any();
                (op, group, now)
            }
        };
        if now.since(since) >= TRIES {
            self.count("never admitted");
            return Step::Free;
        }
        let node = self.choose(group, nodes);
        match node.and_then(|n| self.admit(n, &op, group, now, nodes)) {
            Some(pending) => {
                self.clients[at].pending = Some(pending);
                Step::Waits(now.after(PATIENCE))
            }
            None => {
                self.clients[at].wanted = Some((op, group, since));
                Step::TriesAgain
            }
        }
    }

    /// A client of its own hands one operation to one node. False: refused at the door.
    pub(super) fn begin_at(&mut self, id: NodeId, op: KvOp, group: GroupId, now: Instant, nodes: &Nodes) -> bool {
        let pending = self.admit(id, &op, group, now, nodes);
        let admitted = pending.is_some();
        self.clients.push(Client { wanted: None, pending });
        admitted
    }

    /// Mostly where the leader was; reads anywhere.
    fn choose(&mut self, group: GroupId, nodes: &Nodes) -> Option<NodeId> {
        let up: Vec<NodeId> = nodes.values().filter(|n| n.serving().is_some()).map(|n| n.id).collect();
        let known = self.leaders.get(&group).copied().filter(|n| up.contains(n));
        match known {
            Some(leader) if self.rng.chance(850) => Some(leader),
            _ if up.is_empty() => None,
            _ => Some(*self.rng.pick(&up)),
        }
    }

    fn admit(&mut self, id: NodeId, op: &KvOp, group: GroupId, now: Instant, nodes: &Nodes) -> Option<Pending> {
        let node = nodes.get(&id)?;
        let up = node.serving()?;
        let pending = |waiting| Pending { op: op.clone(), group, node: id, boot: node.boots, began: now, waiting };
        if op.is_read() {
            let slot: Arc<ReadCell> = Cell::new(up.power.clone());
            let refused = up.handle.read(ReadRequest { group, slot: slot.clone() }).is_err();
            self.count(if refused { "reads refused" } else { "reads admitted" });
            return (!refused).then(|| pending(Waiting::Read(slot)));
        }
        let slot: Arc<KvSlot> = Cell::new(up.power.clone());
        let proposal = Proposal { group, command: op.encode(), fence: None, reply: ReplyTo::only(slot.clone()) };
        match up.handle.propose(proposal) {
            Ok(()) => {
                self.leaders.insert(group, id);
                Some(pending(Waiting::Write(slot)))
            }
            Err(e) => {
                self.on_refusal(group, &e);
                None
            }
        }
    }

    fn on_refusal(&mut self, group: GroupId, e: &ProposeError) {
        self.count("writes refused");
        if matches!(e, ProposeError::Overloaded(_)) {
            self.count("writes refused, overloaded");
        }
        match e {
            ProposeError::NotLeader { leader: Some(hint) } => self.leaders.insert(group, hint.node),
            ProposeError::Transferring { to } => self.leaders.insert(group, *to),
            _ => self.leaders.remove(&group),
        };
    }

    /// Looks at the answers that a node may have given. Returns what happened and which clients are free or try again.
    pub(super) fn collect(&mut self, node: NodeId, now: Instant, nodes: &Nodes) -> Vec<(usize, Outcome)> {
        let mut out = Vec::new();
        for at in 0..self.clients.len() {
            let Some(pending) = self.clients[at].pending.take_if(|p| p.node == node) else { continue };
            match self.look(at, &pending, now, nodes) {
                Some(outcome) => out.push((at, outcome)),
                None => self.clients[at].pending = Some(pending),
            }
        }
        out
    }

    fn look(&mut self, at: usize, pending: &Pending, now: Instant, nodes: &Nodes) -> Option<Outcome> {
        match &pending.waiting {
            Waiting::Write(slot) => match slot.take()? {
                Ok((pos, ret)) => {
                    self.count("writes acked");
                    self.record(pending, Some((now.0, ret)));
                    self.last_ack.insert(pending.group, now);
                    self.unserved.remove(&pending.group);
                    Some(Outcome::Acked(pending.group, pos))
                }
                Err(e) if e.never_appended() => {
                    self.on_refusal(pending.group, &e);
                    self.clients[at].wanted = Some((pending.op.clone(), pending.group, pending.began));
                    Some(Outcome::Refused)
                }
                Err(_) => {
                    self.count("writes unknown");
                    self.record(pending, None);
                    Some(Outcome::Counted)
                }
            },
            Waiting::Read(slot) => {
                match slot.take()? {
                    Ok(_) => self.read(pending, now, nodes),
                    Err(ReadError::Group(_)) => self.count("reads refused"),
                    Err(_) => self.count("reads unconfirmed"),
                }
                Some(Outcome::Counted)
            }
        }
    }

    /// Confirmed: the caller's own thread reads the machine's view.
    fn read(&mut self, pending: &Pending, now: Instant, nodes: &Nodes) {
        let up = nodes.get(&pending.node).filter(|n| n.boots == pending.boot).and_then(|n| n.up.as_ref());
        let view = up.and_then(|up| up.handle.reader(pending.group).ok());
        let ret = view.and_then(|v| v.downcast::<KvView>().ok()).and_then(|v| v.read(&pending.op));
        match ret {
            Some(ret) => {
                self.count("reads answered");
                self.record(pending, Some((now.0, ret)));
            }
            None => self.count("reads lost"),
        }
    }

    fn record(&mut self, pending: &Pending, ended: Option<(u64, KvRet)>) {
        self.history.push(Call { op: pending.op.clone(), began: pending.began.0, ended });
    }

    /// The node of these operations is gone: their outcome is not known.
    pub(super) fn on_crash(&mut self, node: NodeId) -> Vec<usize> {
        let hit: Vec<usize> = (0..self.clients.len())
            .filter(|at| self.clients[*at].pending.as_ref().is_some_and(|p| p.node == node))
            .collect();
        hit.iter().for_each(|at| self.give_up(*at, "cut off"));
        hit
    }

    fn give_up(&mut self, at: usize, why: &'static str) {
        if let Some(pending) = self.clients[at].pending.take() {
            self.count(why);
            if !pending.op.is_read() {
                self.record(&pending, None);
            }
        }
    }

    /// The world ends: what is still open is unknown.
    pub(super) fn finish(&mut self) {
        (0..self.clients.len()).for_each(|at| self.give_up(at, "open at the end"));
    }

    /// Everything is healed: from now on every group must serve.
    pub(super) fn on_heal(&mut self) {
        self.unserved = self.groups.iter().copied().collect();
    }

    /// Somebody writes to this group soon.
    pub(super) fn call_for(&mut self, group: GroupId) {
        self.unserved.extend(self.groups.contains(&group).then_some(group));
    }

    fn draw_any(&mut self) -> (KvOp, GroupId) {
        let unserved: Vec<GroupId> = self.unserved.iter().copied().collect();
        if unserved.is_empty() || self.rng.chance(700) {
            let group = *self.rng.pick(&self.groups);
            let op = if self.mixed && self.rng.chance(150) {
                queues::draw_alone(&mut self.rng, group)
            } else {
                self.draw(group)
            };
            return (op, group);
        }
        let group = *self.rng.pick(&unserved);
        self.next_value += 1;
        let pair = (Bytes::from(format!("{group}:a")), Bytes::from(self.next_value.to_string()));
        (KvOp::Put(vec![pair]), group)
    }

    fn draw(&mut self, group: GroupId) -> KvOp {
        let rng = &mut self.rng;
        self.next_value += 1;
        let value = Bytes::from(self.next_value.to_string());
        let key = |name: &str| Bytes::from(format!("{group}:{name}"));
        let alone = key(["a", "b"][rng.below(2) as usize]);
        let together = || [key("m1"), key("m2"), key("m3")];
        match rng.below(20) {
            0..=4 => KvOp::Get(vec![alone]),
            5..=8 => KvOp::Put(vec![(alone, value)]),
            9 => KvOp::PutIf(alone, value, rng.chance(500)),
            10 => KvOp::Append(alone, Bytes::from_static(b"+")),
            11 => KvOp::Delete(vec![alone]),
            12 | 13 => KvOp::Add(key("n"), 1),
            14 => KvOp::Get(vec![key("n")]),
            15 | 16 => KvOp::Get(together().to_vec()),
            17 | 18 => KvOp::Put(together().map(|k| (k, value.clone())).to_vec()),
            _ => KvOp::Put(vec![(together()[rng.below(3) as usize].clone(), value)]),
        }
    }
}

/// A slot for an administrative call that nobody waits for.
pub(super) fn nobody(power: &Arc<Power>) -> Arc<crate::testing::AdminCell> {
    Cell::new(power.clone())
}
