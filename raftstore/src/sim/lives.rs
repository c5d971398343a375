//! Lives of the nodes: starts, crashes, links that come and go with them, and the moment when everything is healed.
//!
//! Leaves to others: when a crash happens (`faults`), what a part does in its turn.
//! Invariant: a crash takes everything but the media; a node that is down is going to start again.

use super::world::{What, World};
use crate::ids::NodeId;
use crate::mem::Power;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, id: NodeId) {
        if self.nodes[&id].up.is_some() {
            return;
        }
        let power = Arc::new(Power::default());
        let entropy = std::array::from_fn(|_| self.rng.next_u64());
        // A script names its faults: nothing else dies there.
        let faulty = !self.swarm.faults.is_empty();
        if !self.healed && self.exchanged.is_none() && self.rng.chance(150) && faulty {
            self.arm_power(&power, 4);
        }
        let (net, clock) = (self.net.clone(), self.clock.clone());
        let swarm = self.swarm.clone();
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        let started = catch_unwind(AssertUnwindSafe(|| node.start(&swarm, &net, &clock, entropy, power.clone())));
        match started {
            Ok(Ok(true)) => self.started(id, &power),
            Ok(Ok(false)) => {
                self.count("crash while booting");
                self.note_durable(id);
                self.crash(id, Duration::from_secs(1));
            }
            Ok(Err(_)) if self.is_exchanged(id) => self.on_refused_at_boot(),
            Ok(Err(e)) => self.check(Err(format!("node {id} does not start: {e}"))),
            Err(_) => self.check(Err(format!("node {id} panicked while booting"))),
        }
    }

    fn started(&mut self, id: NodeId, power: &Arc<Power>) {
        self.count("starts");
        if !power.is_on() {
            return self.after(id);
        }
        let groups = self.nodes[&id].up.as_ref().map(|up| up.handle.groups()).unwrap_or_default();
        if let Some(stopped) = groups.iter().find(|g| g.quarantined.is_some() && !self.is_exchanged(id)) {
            return self.check(Err(format!(
                "node {id}, group {} is stopped at boot: {:?}",
                stopped.group, stopped.quarantined
            )));
        }
        self.story.note(self.now, || format!("node {id} starts"));
        if !self.is_exchanged(id) {
            self.check_epoch(id);
            self.check_garbage(id);
        }
        self.seek_peers(id);
        self.after(id);
    }

    /// The node is admitted: its parts turn from now on.
    pub(super) fn serving(&mut self, id: NodeId) {
        self.story.note(self.now, || format!("node {id} serves"));
        self.tell_all(id);
        let parts = self.nodes[&id].up.as_ref().map_or(0, |up| up.parts.len());
        for part in 0..parts {
            let at = self.delay_of(id, part);
            self.arm(id, part, at);
        }
        self.after(id);
    }

    /// The node dies now and starts again within `down`.
    pub(super) fn crash(&mut self, id: NodeId, down: Duration) {
        if self.is_exchanged(id) {
            return self.end_exchange();
        }
        self.count("crashes");
        self.story.note(self.now, || format!("node {id} crashes"));
        let keep_all = self.rng.chance(self.swarm.kill);
        let node = self.nodes.get_mut(&id).expect("nodes are never removed");
        if let Some(up) = node.up.take() {
            up.power.cut();
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(up)));
            self.check(dropped.map_err(|_| format!("node {id} panicked when it was dropped")));
        }
        let node = &self.nodes[&id];
        if keep_all {
            node.media.disk.kill();
        } else {
            node.media.disk.crash(&mut self.rng);
        };
        node.media.files.crash(&mut self.rng);
        node.media.machines.values().for_each(|m| m.crash());
        self.net.forget(id);
        let _lost = self.net.take_sent();
        self.note_durable(id);
        self.note_applied(id);
        match self.facts.on_crashed(&self.nodes[&id], &self.kind_of) {
            Ok(least) => self.nodes.get_mut(&id).expect("nodes are never removed").least_commits = least,
            Err(why) => self.check(Err(why)),
        }
        self.clients.on_crash(id).into_iter().for_each(|c| self.rest(c));
        self.queues.on_crash(id, &mut self.clients.history);
        self.lose_links(id);
        let at = self.soon(if self.healed { Duration::from_millis(200) } else { down });
        self.put(at, What::Start(id));
    }

    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.clients.on_heal();
        self.put(self.now.after(self.swarm.heal_phase / 2), What::GiveUp);
        self.end_exchange();
        self.network.heal();
        self.swarm.write.1 = self.swarm.write.1.min(Duration::from_millis(20)).max(self.swarm.write.0);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("nodes are never removed");
            (node.paused, node.hung, node.slow) = (self.now, self.now, (1, self.now));
            node.media.files.make_room();
            node.media.machines.values().for_each(|m| m.disarm());
            let stopped = node.up.as_ref().is_some_and(|up| {
                up.power.disarm();
                up.handle.groups().iter().any(|g| g.quarantined.is_some())
            });
            let down = node.up.is_none();
            self.tell_all(id);
            if stopped {
                self.crash(id, Duration::from_millis(100));
            } else if down {
                let at = self.soon(Duration::from_millis(200));
                self.put(at, What::Start(id));
            }
        }
    }
}
