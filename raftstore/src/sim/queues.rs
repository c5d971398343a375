//! Clients that hand in commands in bulk and collect their answers as they come: the queue is that of the engine (`bulk`).
//!
//! In the history each command is a caller of its own, from when it was staged until its answer was collected.
//! Leaves to others: single commands and reads, of the same keys too (`clients`), judging the history.
//! Invariant: a queue belongs to one start of a node; what had no answer when the node died is of unknown outcome.
//! Checked here: each tag comes back once, and somebody is woken for it; positions follow the order of staging; a line
//! (`Fence`) stays in its term and ends at the first refusal; at the end nothing that was handed in lacks an answer.

use super::facts::Nodes;
use super::node::SimNode;
use super::swarm::Swarm;
use super::world::{What, World};
use crate::bulk::{Back, Bulk, Ticket};
use crate::env::Instant;
use crate::error::{Limit, ProposeError};
use crate::ids::{GroupId, LogPos, NodeId, Term};
use crate::node::NodeHandle;
use crate::proposal::Fence;
use crate::testing::linearizability::{Call, KvCall};
use crate::testing::{KvAnswer, KvOp, KvRet, Rng};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// Commands of one queue that may be without an answer, given up or not, and where a group gets few entries a second through:
/// others wait behind them.
const MOST: usize = 64;
const MOST_OF_SLOW: usize = 6;
/// A write and a message that take longer are slow.
const SLOW: Duration = Duration::from_millis(40);
/// At the end everything was answered for so long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// A client rests as long between two batches, on average.
const REST: Duration = Duration::from_millis(1_500);

/// Some values are so large. Bytes.
const LARGE: u64 = 900;

/// A key that commands in bulk use, and others.
fn key(group: GroupId, name: u64) -> Bytes {
    Bytes::from(format!("{group}:q{name}"))
}

/// What single clients do to these keys.
pub(super) fn draw_alone(rng: &mut Rng, group: GroupId) -> KvOp {
    let name = rng.below(4);
    if name == 0 && rng.chance(300) { KvOp::Add(key(group, 0), 1) } else { KvOp::Get(vec![key(group, name)]) }
}

/// It was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A command without an answer.
struct Command {
    op: KvOp,
    group: GroupId,
    began: Instant,
    line: Option<u64>,
}

/// Commands that are to stay in line.
struct Line {
    fence: Fence,
    term: Term,
    /// The last tag that was acknowledged.
    acked: Option<u64>,
    /// The first one that was refused.
    refused: Option<u64>,
}

/// Of one client on one start of a node.
struct Queue {
    boot: u64,
    bulk: Bulk<KvAnswer, Instant>,
    pending: Arc<AtomicUsize>,
    bell: Arc<Bell>,
    /// By tag.
    commands: BTreeMap<u64, Command>,
    /// The last acknowledged command of each group.
    acked: BTreeMap<GroupId, (u64, LogPos)>,
    /// By number.
    lines: BTreeMap<u64, Line>,
    /// The line that goes on.
    line_of: BTreeMap<GroupId, u64>,
    handed: u64,
    handed_at: Instant,
    collected: u64,
}

/// What a queue gave.
#[derive(Default)]
struct Taken {
    acked: Vec<(GroupId, LogPos)>,
    calls: Vec<KvCall>,
    refused: Vec<&'static str>,
    unknown: u64,
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

impl Queue {
    fn new(node: &NodeHandle, boot: u64) -> Queue {
        let pending = Arc::default();
        let queue = Queue {
            boot,
            bulk: Bulk::new(node, &pending),
            pending,
            bell: Arc::default(),
            commands: BTreeMap::new(),
            acked: BTreeMap::new(),
            lines: BTreeMap::new(),
            line_of: BTreeMap::new(),
            handed: 0,
            handed_at: Instant::default(),
            collected: 0,
        };
        queue.sleep();
        queue
    }

    /// Who sleeps is woken by the next answer, or need not sleep.
    fn sleep(&self) {
        let waker = Waker::from(self.bell.clone());
        if self.bulk.poll(&Context::from_waker(&waker)).is_ready() {
            self.bell.0.store(true, Ordering::Relaxed);
        }
    }

    fn hand_in(&mut self, node: &SimNode, now: Instant) {
        let up = node.serving().filter(|_| node.boots == self.boot);
        if up.is_some() && self.bulk.staged() > 0 {
            self.handed += self.bulk.staged() as u64;
            self.handed_at = now;
            self.bulk.hand_in();
        }
    }

    /// Everything that has an answer, if somebody was woken for it.
    fn take(&mut self, now: Instant) -> Result<Taken, String> {
        let mut taken = Taken::default();
        if !self.bell.0.swap(false, Ordering::Relaxed) {
            return Ok(taken);
        }
        let mut came = Vec::new();
        self.bulk.collect(|back| came.push(back));
        self.sleep();
        came.into_iter().try_for_each(|back| self.on_back(back, now, &mut taken))?;
        Ok(taken)
    }

    fn on_back(&mut self, back: Back<KvAnswer, Instant>, now: Instant, taken: &mut Taken) -> Result<(), String> {
        let Ticket { tag, began } = back.ticket;
        self.collected += 1;
        let command = self.commands.remove(&tag).filter(|c| c.began == began);
        let command = command.ok_or_else(|| format!("tag {tag} came back twice, or as another"))?;
        match back.outcome {
            Ok((pos, ret)) => {
                self.on_acked(tag, &command, pos)?;
                taken.acked.push((command.group, pos));
                taken.calls.push(called(command, Some((now.0, ret))));
            }
            Err(e) if e.never_appended() => {
                self.on_refused(tag, &command, &e)?;
                taken.refused.push(refusal(&e));
            }
            Err(_) => {
                taken.unknown += 1;
                taken.calls.push(called(command, None));
            }
        }
        Ok(())
    }

    fn on_acked(&mut self, tag: u64, command: &Command, pos: LogPos) -> Result<(), String> {
        let Command { group, .. } = command;
        let last = self.acked.get(group).copied();
        ensure(last.is_none_or(|(t, p)| (tag > t) == (pos.index > p.index)), || {
            format!("group {group}: tag {tag} stands at {pos:?}, an order other than that of {last:?}")
        })?;
        if last.is_none_or(|(t, _)| t < tag) {
            self.acked.insert(*group, (tag, pos));
        }
        let Some(line) = command.line.and_then(|n| self.lines.get_mut(&n)) else { return Ok(()) };
        line.acked = line.acked.max(Some(tag));
        ensure(pos.term == line.term && line.refused.is_none_or(|refused| tag < refused), || {
            format!(
                "group {group}: tag {tag} stands at {pos:?}, in a line of {}, {:?} refused",
                line.term, line.refused
            )
        })
    }

    fn on_refused(&mut self, tag: u64, command: &Command, error: &ProposeError) -> Result<(), String> {
        let Some(number) = command.line else { return Ok(()) };
        if self.line_of.get(&command.group) == Some(&number) {
            self.line_of.remove(&command.group);
        }
        let Some(line) = self.lines.get_mut(&number) else { return Ok(()) };
        line.refused = Some(line.refused.unwrap_or(tag).min(tag));
        ensure(line.acked.is_none_or(|acked| acked < tag), || {
            format!(
                "group {}: tag {tag} was refused ({error}), {:?} in line behind it was not",
                command.group, line.acked
            )
        })
    }

    /// Gives up what began too long ago.
    fn give_up(&mut self, now: Instant, patience: Duration) -> Vec<KvCall> {
        let late = self.bulk.give_up(|began| now.since(began) >= patience);
        late.iter().filter_map(|t| self.commands.remove(&t.tag)).map(|c| called(c, None)).collect()
    }

    /// Answers that came to what was given up.
    fn too_late(&self) -> u64 {
        let answered = self.handed.saturating_sub(self.pending.load(Ordering::Relaxed) as u64);
        answered.saturating_sub(self.collected)
    }
}

fn refusal(error: &ProposeError) -> &'static str {
    match error {
        ProposeError::Overloaded(Limit::GroupInflight) => "bulk: refused, the group is full",
        ProposeError::Overloaded(Limit::NodeInflight) => "bulk: refused, the node is full",
        ProposeError::Fenced { .. } | ProposeError::Behind => "bulk: refused, the line has ended",
        _ => "bulk: refused",
    }
}

fn called(command: Command, ended: Option<(u64, KvRet)>) -> KvCall {
    Call { op: command.op, began: command.began.0, ended }
}

/// All clients with queues.
pub(super) struct Queues {
    rng: Rng,
    /// By node.
    clients: Vec<BTreeMap<NodeId, Queue>>,
    /// How long each waits for an answer.
    patience: Vec<Duration>,
    /// Commands of one queue that may be without an answer.
    most: usize,
    /// Tags, lines and values so far.
    number: u64,
    /// By name.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Queues {
    /// From a stream of their own.
    pub(super) fn new(swarm: &Swarm, seed: u64) -> Queues {
        let mut rng = Rng::new(seed ^ 0x9_0e5e);
        let n = swarm.queues;
        let is_slow = swarm.config.max_inflight <= 2 && swarm.delay.1 + swarm.write.1 >= SLOW;
        let most = if is_slow { MOST_OF_SLOW } else { MOST };
        let patience = (0..n).map(|_| Duration::from_millis(*rng.pick(&[200, 1_000, 6_000]))).collect();
        let clients = (0..n).map(|_| BTreeMap::new()).collect();
        Queues { rng, clients, patience, most, number: 0, counts: BTreeMap::new() }
    }

    fn count(&mut self, name: &'static str, n: usize) {
        *self.counts.entry(name).or_default() += n as u64;
    }

    fn pause(&mut self) -> Duration {
        Duration::from_nanos(self.rng.below(2 * REST.as_nanos() as u64) + 1)
    }

    /// A client's turn: it gives up what is late, and hands a batch in, or keeps it until the next time.
    fn step(
        &mut self,
        at: usize,
        now: Instant,
        begins: bool,
        nodes: &Nodes,
        history: &mut Vec<KvCall>,
    ) -> Result<(), String> {
        let patience = self.patience[at];
        for (id, queue) in &mut self.clients[at] {
            let late = queue.give_up(now, patience);
            *self.counts.entry("bulk: given up").or_default() += late.len() as u64;
            history.extend(late);
            queue.hand_in(&nodes[id], now);
        }
        let up: Vec<_> = nodes.values().filter_map(|n| Some((n, &n.serving()?.handle))).collect();
        if up.is_empty() || !begins {
            return Ok(());
        }
        let (node, handle) = *self.rng.pick(&up);
        let mut queue = self.clients[at].remove(&node.id).unwrap_or_else(|| Queue::new(handle, node.boots));
        if queue.pending.load(Ordering::Relaxed) + queue.bulk.staged() < self.most {
            self.stage(&mut queue, handle, now)?;
        }
        if self.rng.chance(750) {
            queue.hand_in(node, now);
        }
        self.clients[at].insert(node.id, queue);
        Ok(())
    }

    /// Mostly for groups that are led there, in half of the batches for one of them.
    fn stage(&mut self, queue: &mut Queue, node: &NodeHandle, now: Instant) -> Result<(), String> {
        let groups = node.groups();
        let all: Vec<(GroupId, Term)> = groups.iter().map(|s| (s.group, s.term)).collect();
        let led: Vec<(GroupId, Term)> = groups.iter().filter(|s| s.is_leader()).map(|s| (s.group, s.term)).collect();
        if all.is_empty() || (led.is_empty() && self.rng.chance(700)) {
            return Ok(());
        }
        let in_line = self.rng.chance(400);
        let one = self.rng.chance(500).then(|| *self.rng.pick(if led.is_empty() { &all } else { &led }));
        let n = self.rng.range(2..33).min(self.most as u64);
        self.count("bulk: batches", 1);
        for _ in 0..n {
            let anywhere = led.is_empty() || self.rng.chance(30);
            let any = *self.rng.pick(if anywhere { &all } else { &led });
            let (group, term) = one.filter(|_| !anywhere).unwrap_or(any);
            self.number += 1;
            let tag = self.number;
            let line = in_line.then(|| line_of(queue, group, term, tag));
            let fence = line.and_then(|n| queue.lines.get(&n)).map(|l| l.fence.clone());
            let op = self.draw(group);
            let command = Command { op, group, began: now, line };
            match queue.bulk.stage(group, command.op.encode(), fence, Ticket { tag, began: now }) {
                Ok(()) => {
                    queue.commands.insert(tag, command);
                }
                Err(e) => {
                    ensure(e.never_appended(), || format!("tag {tag} was refused at the door: {e}"))?;
                    queue.on_refused(tag, &command, &e)?;
                    self.count(refusal(&e), 1);
                }
            }
        }
        self.count("bulk: commands", n as usize);
        Ok(())
    }

    fn draw(&mut self, group: GroupId) -> KvOp {
        let mut value = self.number.to_string();
        if self.rng.chance(500) {
            value.extend(std::iter::repeat_n('.', self.rng.below(LARGE) as usize));
        }
        let value = Bytes::from(value);
        match self.rng.below(10) {
            0..=2 => KvOp::Add(key(group, 0), 1),
            3 | 4 => KvOp::Add(key(group, 1), 1),
            5 | 6 => KvOp::Append(key(group, 2), Bytes::from_static(b"+")),
            7 => KvOp::PutIf(key(group, 3), value, self.rng.chance(500)),
            8 => KvOp::Delete(vec![key(group, 3)]),
            _ => KvOp::Put(vec![(key(group, 3), value)]),
        }
    }

    /// Looks at the answers that a node may have given. Returns what was acknowledged.
    fn collect(
        &mut self,
        node: NodeId,
        now: Instant,
        history: &mut Vec<KvCall>,
    ) -> Result<Vec<(GroupId, LogPos)>, String> {
        let mut acked = Vec::new();
        for at in 0..self.clients.len() {
            let Some(queue) = self.clients[at].get_mut(&node) else { continue };
            let taken = queue.take(now)?;
            let came = taken.acked.len();
            self.count("bulk: acked", came);
            self.count("bulk: acked beside others", if came > 1 { came } else { 0 });
            taken.refused.iter().for_each(|why| self.count(why, 1));
            self.count("bulk: unknown", taken.unknown as usize);
            acked.extend(taken.acked);
            history.extend(taken.calls);
        }
        Ok(acked)
    }

    /// The node is gone, and what its queues held.
    pub(super) fn on_crash(&mut self, node: NodeId, history: &mut Vec<KvCall>) {
        for at in 0..self.clients.len() {
            if let Some(queue) = self.clients[at].remove(&node) {
                self.end(queue, history);
            }
        }
    }

    fn end(&mut self, queue: Queue, history: &mut Vec<KvCall>) {
        self.count("bulk: answers to what was given up", queue.too_late() as usize);
        self.count("bulk: cut off", queue.commands.len());
        history.extend(queue.commands.into_values().map(|c| called(c, None)));
    }

    /// The world ends: everything that was handed in was answered.
    pub(super) fn finish(&mut self, now: Instant, history: &mut Vec<KvCall>) -> Result<(), String> {
        for at in 0..self.clients.len() {
            for (node, queue) in std::mem::take(&mut self.clients[at]) {
                let owed = queue.pending.load(Ordering::Relaxed);
                ensure(owed == 0 || now.since(queue.handed_at) < ANSWERED_WITHIN, || {
                    format!("node {node} owes {owed} answers of {} to commands in bulk", queue.handed)
                })?;
                self.count("checked: queues without debts", 1);
                self.end(queue, history);
            }
        }
        Ok(())
    }
}

/// The line of this group that goes on, or a new one.
fn line_of(queue: &mut Queue, group: GroupId, term: Term, number: u64) -> u64 {
    *queue.line_of.entry(group).or_insert_with(|| {
        queue.lines.insert(number, Line { fence: Fence::new(term), term, acked: None, refused: None });
        number
    })
}

impl World {
    /// Every client with queues begins at a moment of its own.
    pub(super) fn begin_queues(&mut self) {
        let from = self.swarm.clients_from.min(self.swarm.fault_phase) + Duration::from_secs(2);
        for client in 0..self.swarm.queues as usize {
            let at = self.now.after(from + self.queues.pause());
            self.put(at, What::Bulk(client));
        }
    }

    /// A client's turn.
    pub(super) fn bulk(&mut self, client: usize) {
        let begins = self.now < self.stop();
        let stepped = self.queues.step(client, self.now, begins, &self.nodes, &mut self.clients.history);
        self.check(stepped);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.take_bulk(id);
            self.wake_up(id);
        }
        let at = self.now.after(self.queues.pause());
        self.put(at, What::Bulk(client));
    }

    /// Answers that came to queues of a node.
    pub(super) fn take_bulk(&mut self, id: NodeId) {
        match self.queues.collect(id, self.now, &mut self.clients.history) {
            Ok(acked) => acked.into_iter().for_each(|(group, pos)| {
                let checked = self.facts.check_quorum(&self.nodes, group, pos);
                self.check(checked);
            }),
            Err(why) => self.check(Err(why)),
        }
    }
}
