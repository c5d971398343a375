//! Which frames arrive, when, and how often: delays, losses, copies, and links that are cut one way or both.
//!
//! Leaves to others: the frames (`mem::MemNet`), what a receiver does.
//! Invariant: decides about a frame once, when it is sent; a cut link loses what is sent over it.

use super::swarm::Swarm;
use crate::env::{Instant, Lane};
use crate::ids::NodeId;
use crate::testing::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The state of all links.
#[derive(Debug)]
pub(super) struct Network {
    rng: Rng,
    /// Directed links that lose everything.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Directed links that lose one lane.
    muted: BTreeSet<(NodeId, NodeId, Lane)>,
    /// Last arrival by directed link and lane: without reordering nothing overtakes.
    last: BTreeMap<(NodeId, NodeId, Lane), Instant>,
    /// No loss, no copies, no cuts any more.
    healed: bool,
}

/// What becomes of a frame.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// When it arrives; none: lost.
    pub(super) arrivals: Vec<Instant>,
    /// Was one later than its successors may be?
    pub(super) reordered: bool,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Network {
        Network { rng, cut: BTreeSet::new(), muted: BTreeSet::new(), last: BTreeMap::new(), healed: false }
    }

    pub(super) fn heal(&mut self) {
        self.repair();
        self.healed = true;
    }

    pub(super) fn repair(&mut self) {
        self.cut.clear();
        self.muted.clear();
    }

    /// Loses one lane of a directed link.
    pub(super) fn mute(&mut self, from: NodeId, to: NodeId, lane: Lane) {
        self.muted.insert((from, to, lane));
    }

    /// Both directions work again.
    pub(super) fn join(&mut self, a: NodeId, b: NodeId) {
        self.cut.retain(|c| *c != (a, b) && *c != (b, a));
        self.muted.retain(|m| (m.0, m.1) != (a, b) && (m.0, m.1) != (b, a));
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Decides about one frame.
    pub(super) fn fate(&mut self, swarm: &Swarm, now: Instant, from: NodeId, to: NodeId, lane: Lane) -> Fate {
        let mut fate = Fate::default();
        if self.is_cut(from, to)
            || self.muted.contains(&(from, to, lane))
            || (!self.healed && self.rng.chance(swarm.loss))
        {
            return fate;
        }
        let copies = if !self.healed && self.rng.chance(swarm.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let (low, high) = swarm.delay;
            let spread = (high - low).as_nanos() as u64;
            let delay = low + Duration::from_nanos(self.rng.below(spread + 1));
            let late = !self.healed && self.rng.chance(swarm.reorder);
            let arrival = now.after(if late { delay * 10 } else { delay });
            fate.reordered |= late;
            let last = self.last.entry((from, to, lane)).or_default();
            // A lane is a stream: later frames wait for earlier ones, unless this world reorders.
            let in_order = if swarm.reorder > 0 { arrival } else { arrival.max(last.after(Duration::from_nanos(1))) };
            *last = (*last).max(in_order);
            fate.arrivals.push(in_order);
        }
        fate
    }
}
