//! One simulated world: virtual time, an ordered queue of what happens next, and the loop that lets it happen.
//!
//! Leaves to others: what goes wrong (`faults`), what must hold (`facts`), what clients do (`clients`).
//! Invariant: everything that happens is an entry of the queue, taken in the order (time, number); the first broken
//! promise ends the world.

use super::changes::Asked;
use super::clients::{Clients, Outcome, Step};
use super::exchange::Exchange;
use super::facts::{Facts, Nodes};
use super::links::Links;
use super::network::Network;
use super::node::{DURABLE, Running, SimNode, VOLATILE};
use super::queues::Queues;
use super::script::Command;
use super::story::Story;
use super::swarm::{Fault, Swarm};
use super::verdict::{Report, Verdict};
use crate::codec::Digest;
use crate::env::Instant;
use crate::group_spec::GroupSpec;
use crate::ids::{GroupId, NodeId};
use crate::mem::{MemClock, MemNet, Packet};
use crate::testing::Rng;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Clients rest this long before the end, so that replicas can become equal.
const QUIET: Duration = Duration::from_secs(12);
/// How long laggards may go on behind the end, and how often they are looked at.
const GRACE: Duration = Duration::from_secs(120);
const GRACE_STEP: Duration = Duration::from_secs(5);

/// Something that happens.
pub(super) enum What {
    /// A part of a start of a node turns.
    Turn(NodeId, u64, usize),
    /// A frame arrives at a start of a node.
    Deliver(Packet, u64),
    /// A client acts.
    Client(usize),
    /// A client hands commands in in bulk.
    Bulk(usize),
    /// Something goes wrong.
    Fault,
    /// This goes wrong, unless it did before.
    Owed(Fault),
    /// A node starts.
    Start(NodeId),
    /// The process of this start ends (poisoned).
    Exit(NodeId, u64),
    /// Cut links work again.
    Repair,
    /// A node is told what is to become of its replica of a group.
    Tell(NodeId, GroupId),
    /// A node learns about a link.
    Link(NodeId, NodeId),
    /// Other members are asked for.
    Change,
    /// Changes of members that have not ended are given up.
    GiveUp,
    /// Two nodes try to make their link.
    Meet(NodeId, NodeId),
    /// A start tells how far its log is synced.
    Beacon(NodeId, u64),
    /// A start has waited long enough for its peers.
    Heard(NodeId, u64),
    /// From now on everything is healed.
    Heal,
    /// A step of a script.
    Scripted(Command),
}

/// A world.
pub(super) struct World {
    pub(super) swarm: Swarm,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    queue: BTreeMap<(Instant, u64), What>,
    /// Numbers what is put into the queue.
    pub(super) number: u64,
    pub(super) nodes: Nodes,
    pub(super) net: Arc<MemNet>,
    pub(super) clock: Arc<MemClock>,
    pub(super) network: Network,
    pub(super) links: Links,
    /// A node runs on a disk that is not its own.
    pub(super) exchanged: Option<Exchange>,
    pub(super) clients: Clients,
    pub(super) queues: Queues,
    pub(super) facts: Facts,
    pub(super) specs: Vec<GroupSpec>,
    /// Groups that were ordered to be destroyed.
    pub(super) ended: BTreeSet<GroupId>,
    /// Who waits for a change of members.
    pub(super) asked: Vec<Asked>,
    pub(super) kind_of: BTreeMap<GroupId, &'static str>,
    pub(super) trace: Digest,
    /// By name.
    pub(super) counts: BTreeMap<Cow<'static, str>, u64>,
    /// The first broken promise.
    pub(super) broken: Option<String>,
    /// What happened to the group that somebody wants to read about.
    pub(super) story: Story,
    pub(super) healed: bool,
    waiting: Vec<bool>,
    /// When each client acts next.
    due: Vec<Option<Instant>>,
}

/// Runs the world of a seed to its end.
#[must_use]
pub fn run(seed: u64, swarm: Swarm) -> Report {
    run_told(seed, swarm, None)
}

/// The same, with the last lines of what happened to a group in the report.
#[must_use]
pub fn run_told(seed: u64, swarm: Swarm, about: Option<GroupId>) -> Report {
    let mut world = World::new(seed, swarm);
    about.into_iter().for_each(|group| world.tell_about(group));
    world.run(seed)
}

impl World {
    /// A world before anything happened.
    pub(super) fn new(seed: u64, swarm: Swarm) -> World {
        let mut rng = Rng::new(seed);
        let groups: Vec<GroupId> = (1..=swarm.groups).map(GroupId).collect();
        let mut world = World {
            clients: Clients::new(swarm.clients, groups.clone(), rng.fork()),
            queues: Queues::new(&swarm, seed),
            network: Network::new(rng.fork()),
            links: Links::default(),
            exchanged: None,
            nodes: (1..=swarm.nodes).map(|n| (NodeId(n), SimNode::new(NodeId(n)))).collect(),
            rng,
            now: Instant(1),
            queue: BTreeMap::new(),
            number: 0,
            net: Arc::default(),
            clock: Arc::default(),
            facts: Facts::default(),
            specs: Vec::new(),
            ended: BTreeSet::new(),
            asked: Vec::new(),
            kind_of: BTreeMap::new(),
            trace: Digest::default(),
            counts: BTreeMap::new(),
            broken: None,
            story: Story::default(),
            healed: false,
            waiting: Vec::new(),
            due: vec![None; swarm.clients as usize],
            swarm,
        };
        world.clients.mixed = world.swarm.queues > 0;
        groups.into_iter().for_each(|g| world.draw_group(g));
        world
    }

    /// Somebody wants to read what happens to this group.
    pub(super) fn tell_about(&mut self, group: GroupId) {
        self.story = Story::new(Some(group));
    }

    /// Lets everything happen, then judges.
    pub(super) fn run(mut self, seed: u64) -> Report {
        self.begin();
        let verdict = self.live();
        self.report(seed, verdict)
    }

    pub(super) fn draw_group(&mut self, id: GroupId) {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        while nodes.len() as u64 > self.swarm.voters {
            nodes.remove(self.rng.below(nodes.len() as u64) as usize);
        }
        let kind = match id {
            // Some faults meet one kind only.
            GroupId(1) if self.swarm.draws(Fault::FilesFull) => VOLATILE,
            GroupId(2) if self.swarm.draws(Fault::DurableFails) => DURABLE,
            _ if self.rng.chance(self.swarm.volatile) => VOLATILE,
            _ => DURABLE,
        };
        self.kind_of.insert(id, kind);
        let (voters, learners) = (nodes.into_iter().collect(), BTreeSet::new());
        let spec = GroupSpec { id, kind: kind.to_owned(), voters, learners };
        self.facts.add_group(&spec);
        self.specs.push(spec);
    }

    fn begin(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in ids {
            self.lose_links(node);
            let at = self.soon(Duration::from_millis(300));
            self.put(at, What::Start(node));
        }
        for client in 0..self.swarm.clients as usize {
            let from = self.swarm.clients_from.min(self.swarm.fault_phase);
            let at = self.soon(Duration::from_secs(3)).after(from + Duration::from_secs(1));
            self.call_client(client, at);
        }
        self.begin_queues();
        self.count(if self.swarm.config.inline_sync { "synced by pollers" } else { "synced by the log writer" });
        let first = self.soon(self.swarm.fault_every * 2).after(Duration::from_secs(2));
        self.put(first, What::Fault);
        self.owe_faults();
        if self.swarm.draws(Fault::Reconfigure) {
            self.put(first, What::Change);
        }
        self.put(Instant(1).after(self.swarm.fault_phase), What::Heal);
    }

    /// When this world ends.
    fn end(&self) -> Instant {
        Instant(1).after(self.swarm.fault_phase + self.swarm.heal_phase)
    }

    /// When clients begin nothing more.
    pub(super) fn stop(&self) -> Instant {
        Instant(self.end().0 - QUIET.as_nanos() as u64)
    }

    pub(super) fn put(&mut self, at: Instant, what: What) {
        self.number += 1;
        self.queue.insert((at, self.number), what);
    }

    /// A moment within `at_most` from now.
    pub(super) fn soon(&mut self, at_most: Duration) -> Instant {
        let nanos = self.rng.below(at_most.as_nanos() as u64 + 1);
        self.now.after(Duration::from_nanos(nanos + 1))
    }

    pub(super) fn count(&mut self, name: impl Into<Cow<'static, str>>) {
        *self.counts.entry(name.into()).or_default() += 1;
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        self.story.note(self.now, line);
    }

    pub(super) fn check(&mut self, result: Result<(), String>) {
        if let Err(why) = result {
            self.broken.get_or_insert(why);
        }
    }

    fn live(&mut self) -> Verdict {
        let (mut end, mut lag) = (self.end(), u64::MAX);
        while let Some(((at, _), what)) = self.queue.pop_first() {
            if at > end {
                // At one entry a message and a window of one a minute may not be enough to catch up: who comes closer may go on.
                let was = std::mem::replace(&mut lag, self.lag());
                if lag == 0 || lag >= was || end >= self.end().after(GRACE) {
                    break;
                }
                end = end.after(GRACE_STEP);
            }
            self.now = at;
            self.facts.now = at;
            self.clock.set(at);
            self.happen(what);
            if let Some(why) = self.broken.take() {
                return Verdict::Violation(why);
            }
        }
        self.judge()
    }

    fn happen(&mut self, what: What) {
        self.trace.update_u64(self.now.0);
        match what {
            What::Turn(node, boot, part) => self.turn(node, boot, part),
            What::Deliver(packet, boot) => self.deliver(packet, boot),
            What::Client(client) => self.client(client),
            What::Bulk(client) => self.bulk(client),
            What::Fault => self.next_fault(),
            What::Owed(fault) => self.on_owed(fault),
            What::Start(node) => self.start(node),
            What::Exit(node, boot) => {
                if self.running(node, boot).is_some() {
                    self.crash(node, Duration::from_secs(1));
                }
            }
            What::Repair => self.network.repair(),
            What::Tell(node, group) => self.on_told(node, group),
            What::Link(node, peer) => self.tell_link(node, peer),
            What::Change => self.on_change_due(),
            What::GiveUp => self.give_changes_up(),
            What::Meet(a, b) => self.meet(a, b),
            What::Beacon(node, boot) => self.beacon(node, boot),
            What::Heard(node, boot) => self.heard(node, boot),
            What::Heal => self.heal(),
            What::Scripted(command) => self.obey(command),
        }
    }

    pub(super) fn running(&mut self, node: NodeId, boot: u64) -> Option<&mut Running> {
        let node = self.nodes.get_mut(&node)?;
        if node.boots == boot { node.up.as_mut() } else { None }
    }

    fn turn(&mut self, id: NodeId, boot: u64, part: usize) {
        let now = self.now;
        let held = self.held_until(id, part);
        let Some(up) = self.running(id, boot).filter(|up| up.wake[part] == Some(now)) else { return };
        if held > now {
            up.wake[part] = None;
            let paused = self.nodes[&id].paused > now;
            self.count(if paused { "turns held by a pause" } else { "turns held by a hung disk" });
            return self.arm(id, part, held);
        }
        (up.wake[part], up.expected[part]) = (None, false);
        let turned = catch_unwind(AssertUnwindSafe(|| up.parts[part].turn(now)));
        if part == up.writer {
            up.tap.settle();
        }
        let Ok(turn) = turned else {
            let name = up.parts[part].name();
            return self.check(Err(format!("node {id}: {name} panicked")));
        };
        self.trace.update_u64(id.0 << 32 | (part as u64) << 1 | u64::from(turn.worked));
        if turn.worked && self.is_reader(id, part) {
            self.count("reads of the log for laggards");
        }
        self.after(id);
        let expected = self.nodes[&id].up.as_ref().is_some_and(|up| up.expected[part]);
        if turn.worked && !expected && !self.is_writer(id, part) {
            let again = self.delay_of(id, part);
            self.arm(id, part, again);
        } else if turn.next != Instant::NEVER {
            self.arm(id, part, turn.next.max(now.after(Duration::from_micros(1))));
        }
    }

    /// Before when a part may not turn: the node is paused, or its disk hangs.
    fn held_until(&self, id: NodeId, part: usize) -> Instant {
        let node = &self.nodes[&id];
        if self.writes(id, part) { node.paused.max(node.hung) } else { node.paused }
    }

    fn is_writer(&self, id: NodeId, part: usize) -> bool {
        self.nodes[&id].up.as_ref().is_some_and(|up| up.writer == part)
    }

    /// The log's reader stands behind its writer.
    fn is_reader(&self, id: NodeId, part: usize) -> bool {
        part > 0 && self.is_writer(id, part - 1)
    }

    fn writes(&self, id: NodeId, part: usize) -> bool {
        self.is_writer(id, part) || (self.swarm.config.inline_sync && part < self.swarm.config.pollers)
    }

    /// When a part with work turns: a lag, and for whoever writes, the length of the write.
    pub(super) fn delay_of(&mut self, id: NodeId, part: usize) -> Instant {
        let mut at = self.soon(self.swarm.lag);
        if self.writes(id, part) {
            let (low, high) = self.swarm.write;
            let (times, until) = self.nodes[&id].slow;
            let times = if self.now < until { times } else { 1 };
            if times > 1 {
                self.count("writes slowed");
            }
            let length = low + Duration::from_nanos(self.rng.below((high - low).as_nanos() as u64 + 1));
            // Pollers that write by themselves do not write in every turn.
            let share = if part < self.swarm.config.pollers { 4 } else { 1 };
            at = at.after(length * times / share);
        }
        at
    }

    pub(super) fn arm(&mut self, id: NodeId, part: usize, at: Instant) {
        let boot = self.nodes[&id].boots;
        let Some(up) = self.running(id, boot) else { return };
        if up.wake[part].is_none_or(|wake| at < wake) {
            up.wake[part] = Some(at);
            self.put(at, What::Turn(id, boot, part));
        }
    }

    /// After anything happened on a node: checks, frames, answers, further turns.
    pub(super) fn after(&mut self, id: NodeId) {
        self.note_load(id);
        self.note_durable(id);
        self.note_applied(id);
        for packet in self.net.take_sent() {
            self.send(packet);
        }
        self.note_handed(id);
        self.check_recovered(id);
        self.check_events(id);
        self.take_answers(id);
        self.take_words(id);
        let answers = self.clients.collect(id, self.now, &self.nodes);
        for (client, outcome) in answers {
            if let Outcome::Acked(group, pos) = outcome {
                let checked = self.facts.check_quorum(&self.nodes, group, pos);
                self.check(checked);
            }
            match outcome {
                Outcome::Refused => {
                    let at = self.soon(Duration::from_millis(120));
                    self.call_client(client, at);
                }
                Outcome::Acked(..) | Outcome::Counted => self.rest(client),
            }
        }
        self.take_bulk(id);
        let Some(up) = &self.nodes[&id].up else { return };
        if !up.power.is_on() {
            let point = up.power.cut_at();
            if let Some(point) = point {
                self.count("crashes at a point");
                self.count(format!("crash {point:?}"));
            }
            return self.crash(id, self.swarm.down);
        }
        if up.handle.router().health().is_poisoned() {
            let (at, boot) = (self.soon(Duration::from_millis(200)), self.nodes[&id].boots);
            self.put(at, What::Exit(id, boot));
        }
        self.wake_up(id);
    }

    fn send(&mut self, packet: Packet) {
        let checked = self.facts.on_sent(&self.nodes, &packet);
        self.check(checked);
        self.trace.update(&packet.body);
        self.story.on_frame(self.now, "sends", &packet);
        let (from, to) = (packet.from.node, packet.to);
        let fate = self.network.fate(&self.swarm, self.now, from, to, packet.lane);
        match fate.arrivals.len() {
            0 if self.network.is_cut(from, to) => self.count("frames cut off"),
            0 => self.count("frames lost"),
            1 => {}
            _ => self.count("frames duplicated"),
        }
        if fate.reordered {
            self.count("frames reordered");
        }
        let boot = self.nodes.get(&to).map_or(0, |n| n.boots);
        for at in fate.arrivals {
            self.put(at, What::Deliver(packet.clone(), boot));
        }
    }

    fn deliver(&mut self, packet: Packet, boot: u64) {
        let to = packet.to;
        if self.running(to, boot).is_none() || self.network.is_cut(packet.from.node, to) {
            return;
        }
        self.story.on_frame(self.now, "arrives", &packet);
        if let Err(bad) = self.net.deliver(packet) {
            return self.check(Err(format!("node {to} refuses another's frame: {bad}")));
        }
        self.wake_up(to);
    }

    /// Lets every part with a letter turn soon.
    pub(super) fn wake_up(&mut self, id: NodeId) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        if let Some(up) = self.nodes[&id].up.as_ref().filter(|up| up.serving) {
            up.handle.router().mail().waiting(&mut waiting);
            waiting[up.writer] = up.tap.is_waiting();
            for (part, has_letters) in waiting.iter().enumerate() {
                let expected = self.nodes[&id].up.as_ref().is_some_and(|up| up.expected[part]);
                if *has_letters && !expected {
                    let at = self.delay_of(id, part);
                    self.arm(id, part, at);
                    if let Some(up) = self.nodes.get_mut(&id).and_then(|n| n.up.as_mut()) {
                        up.expected[part] = true;
                        if part == up.writer {
                            up.tap.begin();
                        }
                    }
                }
            }
        }
        self.waiting = waiting;
    }

    /// The client acts at `at`, and not when it was to act before.
    fn call_client(&mut self, client: usize, at: Instant) {
        if client >= self.due.len() {
            return;
        }
        self.due[client] = Some(at);
        self.put(at, What::Client(client));
    }

    fn client(&mut self, client: usize) {
        if self.due[client] != Some(self.now) {
            return;
        }
        let step = self.clients.step(client, self.now, &self.nodes);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|n| self.wake_up(n));
        match step {
            Step::Waits(until) => self.call_client(client, until),
            Step::TriesAgain => {
                let at = self.soon(Duration::from_millis(120));
                self.call_client(client, at);
            }
            Step::Free => self.rest(client),
        }
    }

    /// A client thinks before its next operation.
    pub(super) fn rest(&mut self, client: usize) {
        if client >= self.due.len() {
            return; // scripted: it had one operation
        }
        self.due[client] = None;
        let stop = self.stop().0;
        if self.now.0 >= stop {
            return;
        }
        let missing = self.swarm.operations.saturating_sub(self.clients.begun()).max(1);
        let left = Duration::from_nanos(stop - self.now.0);
        let pause = left * self.swarm.clients as u32 / missing as u32;
        let at = self.soon(pause.min(Duration::from_secs(4)));
        self.call_client(client, at);
    }
}
