//! What goes wrong in a world, drawn by weight, each at a random moment, on a random node.
//!
//! Leaves to others: rates (`swarm`), consequences (the nodes). Invariant: every fault ends by itself or at healing.

use super::clients::nobody;
use super::swarm::Fault;
use super::world::{What, World};
use crate::ids::{GroupId, NodeId};
use crate::mem::{CrashPoint, MachineFault, Power, WriteFault};
use crate::task::DurabilityMsg;
use std::sync::Arc;
use std::time::Duration;

impl World {
    /// One fault now, the next one later.
    pub(super) fn next_fault(&mut self) {
        if self.healed {
            return;
        }
        let at = self.soon(self.swarm.fault_every * 2);
        self.put(at, What::Fault);
        if self.debts_come_first() {
            return;
        }
        let total: u64 = self.swarm.faults.iter().map(|f| f.1).sum();
        let mut left = self.rng.below(total);
        let drawn = self.swarm.faults.iter().find(|(_, weight)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        if let Some((fault, _)) = drawn.copied() {
            self.strike(fault);
        }
    }

    /// This fault, now, if it can happen.
    pub(super) fn strike(&mut self, fault: Fault) {
        if self.inject(fault) {
            self.count(format!("fault {fault:?}"));
            self.note(|| format!("fault {fault:?}"));
        }
    }

    /// Returns whether it could happen.
    fn inject(&mut self, fault: Fault) -> bool {
        if self.exchanged.is_some() {
            return false;
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let node = *self.rng.pick(&ids);
        let up = self.nodes[&node].serving().is_some();
        match fault {
            Fault::Isolate | Fault::Split | Fault::OneWay | Fault::CutLink => return self.cut(fault, node, &ids),
            Fault::CrashAll => ids.iter().for_each(|id| self.crash_if_up(*id)),
            Fault::CreateGroup => return self.create_group(),
            Fault::DestroyGroup => return self.destroy_group(),
            Fault::OldDisk | Fault::WipedDisk => return self.exchange(fault),
            Fault::Reconfigure => return self.change_members(),
            _ if !up => return false,
            Fault::CrashNow => self.crash_if_up(node),
            Fault::CrashAtPoint => {
                if let Some(power) = self.nodes[&node].up.as_ref().map(|u| u.power.clone()) {
                    self.arm_power(&power, 40);
                }
            }
            Fault::SlowDisk | Fault::HungDisk | Fault::Pause => self.delay(fault, node),
            Fault::WriteFails | Fault::FilesFull | Fault::Flush => self.break_disk(fault, node),
            Fault::ApplyFails | Fault::CommitFails | Fault::DurableFails => return self.break_machine(fault, node),
            Fault::Transfer | Fault::SnapshotNow => return self.administrate(fault, node),
        }
        true
    }

    fn crash_if_up(&mut self, node: NodeId) {
        if self.nodes[&node].up.is_some() {
            self.crash(node, self.swarm.down);
        }
    }

    /// The power will be cut at one of the points, after up to `skip` passes.
    pub(super) fn arm_power(&mut self, power: &Arc<Power>, skip: u64) {
        let point = *self.rng.pick(CrashPoint::ALL);
        let skip = self.rng.below(skip) as u32;
        power.arm(point, skip);
    }

    /// Returns whether there is anything to cut.
    fn cut(&mut self, fault: Fault, node: NodeId, ids: &[NodeId]) -> bool {
        let pairs: Vec<(NodeId, NodeId)> = ids.iter().flat_map(|a| ids.iter().map(|b| (*a, *b))).collect();
        let side: Vec<NodeId> = ids.iter().copied().filter(|_| self.rng.chance(500)).collect();
        let other = *self.rng.pick(ids);
        let hits = |(a, b): &(NodeId, NodeId)| match fault {
            Fault::Isolate => *a == node || *b == node,
            Fault::Split => side.contains(a) != side.contains(b),
            Fault::OneWay => *a == node && (*b == other || other == node),
            _ => (*a == node && *b == other) || (*b == node && *a == other),
        };
        // Some cuts are noticed by the connections, some just swallow.
        let noticed = self.rng.chance(400);
        let pairs: Vec<_> = pairs.into_iter().filter(|p| p.0 != p.1 && hits(p)).collect();
        let any = !pairs.is_empty();
        for (a, b) in pairs {
            self.network.cut(a, b);
            if noticed {
                self.disconnect(a, b);
            }
        }
        let until = self.soon(Duration::from_secs(14));
        self.put(until, What::Repair);
        any
    }

    fn delay(&mut self, fault: Fault, node: NodeId) {
        let elections = self.swarm.config.tick * (self.swarm.config.election_ticks * 2) as u32;
        let until = match fault {
            Fault::HungDisk => self.soon(elections * 6).after(elections),
            _ => self.soon(Duration::from_secs(8)),
        };
        let times = 5 + self.rng.below(40) as u32;
        let node = self.nodes.get_mut(&node).expect("nodes are never removed");
        match fault {
            Fault::HungDisk => node.hung = until,
            Fault::SlowDisk => node.slow = (times, until),
            _ => node.paused = until,
        }
    }

    fn break_disk(&mut self, fault: Fault, node: NodeId) {
        let fails = *self.rng.pick(&[WriteFault::Failed, WriteFault::FailedButDurable]);
        let writes = self.rng.below(4) as u32;
        let (id, node) = (node, &self.nodes[&node]);
        match fault {
            Fault::WriteFails => node.media.disk.fail_next_write(fails),
            Fault::FilesFull => {
                node.media.files.fill_after(writes);
                // Something has to be written there to meet it.
                self.snapshot_some(id);
            }
            _ => node.media.machines.values().for_each(|m| m.flush()),
        }
    }

    fn break_machine(&mut self, fault: Fault, node: NodeId) -> bool {
        // One node at a time: a group that lost its majority of machines cannot serve, and that proves nothing.
        let stopped = |id: &NodeId| {
            let up = self.nodes[id].up.as_ref();
            up.is_some_and(|up| up.handle.groups().iter().any(|g| g.quarantined.is_some()))
        };
        if self.nodes.keys().any(stopped) {
            return false;
        }
        let Some(group) = self.some_group_at(node) else { return false };
        let broken = match fault {
            Fault::ApplyFails if self.rng.chance(500) => MachineFault::ApplyPanics(group),
            Fault::ApplyFails => MachineFault::Apply(group),
            Fault::CommitFails => MachineFault::Commit,
            _ => MachineFault::Durable,
        };
        self.nodes[&node].media.machines.values().for_each(|m| m.fail_next(broken));
        match fault {
            Fault::DurableFails => self.ask_durable(node),
            // Of many groups few are written to at a time.
            _ => self.clients.call_for(group),
        }
        // The operator restarts such a node after a while.
        let (at, boot) = (self.soon(Duration::from_secs(15)), self.nodes[&node].boots);
        self.put(at, What::Exit(node, boot));
        true
    }

    /// A group that has a replica there.
    fn some_group_at(&mut self, node: NodeId) -> Option<GroupId> {
        let groups: Vec<GroupId> = self.nodes[&node].serving()?.handle.groups().iter().map(|s| s.group).collect();
        (!groups.is_empty()).then(|| *self.rng.pick(&groups))
    }

    /// Machines are asked rarely, and a restart begins the wait anew: the fault would seldom be met.
    fn ask_durable(&mut self, node: NodeId) {
        let Some(up) = self.nodes[&node].serving() else { return };
        up.handle.router().mail().durability(DurabilityMsg::Ask);
        self.wake_up(node);
    }

    fn snapshot_some(&mut self, node: NodeId) {
        let Some(up) = self.nodes[&node].serving() else { return };
        for group in up.handle.groups().iter().map(|s| s.group).take(4) {
            let _refused_is_fine = up.handle.snapshot_now(group, nobody(&up.power));
        }
        self.wake_up(node);
    }

    fn administrate(&mut self, fault: Fault, node: NodeId) -> bool {
        let group = self.some_group();
        let Some(up) = &self.nodes[&node].up else { return false };
        let done = nobody(&up.power);
        let taken = match fault {
            Fault::Transfer => up.handle.transfer(group, None, done).is_ok(),
            _ => up.handle.snapshot_now(group, done).is_ok(),
        };
        self.wake_up(node);
        taken
    }
}
