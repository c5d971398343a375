//! Every knob of a simulated world, drawn from the seed: sizes, speeds, faults; extremes included (swarm testing).
//!
//! Leaves to others: what a knob does. Invariant: a swarm is a pure function of its seed.

use crate::config::Config;
use crate::testing::Rng;
use std::time::Duration;

/// What may go wrong. Each is counted when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the name says it")]
pub enum Fault {
    CrashNow,
    CrashAtPoint,
    CrashAll,
    Isolate,
    Split,
    OneWay,
    CutLink,
    SlowDisk,
    HungDisk,
    WriteFails,
    FilesFull,
    ApplyFails,
    CommitFails,
    DurableFails,
    Pause,
    Transfer,
    SnapshotNow,
    Flush,
    CreateGroup,
    DestroyGroup,
    OldDisk,
    WipedDisk,
    Reconfigure,
}

impl Fault {
    /// All of them, with the weight that they are drawn with.
    pub const ALL: &[(Fault, u64)] = &[
        (Fault::CrashNow, 8),
        (Fault::CrashAtPoint, 14),
        (Fault::CrashAll, 2),
        (Fault::Isolate, 5),
        (Fault::Split, 5),
        (Fault::OneWay, 5),
        (Fault::CutLink, 4),
        (Fault::SlowDisk, 4),
        (Fault::HungDisk, 2),
        (Fault::WriteFails, 2),
        (Fault::FilesFull, 2),
        (Fault::ApplyFails, 1),
        (Fault::CommitFails, 1),
        (Fault::DurableFails, 1),
        (Fault::Pause, 4),
        (Fault::Transfer, 4),
        (Fault::SnapshotNow, 3),
        (Fault::Flush, 4),
        (Fault::CreateGroup, 2),
        (Fault::DestroyGroup, 2),
        (Fault::OldDisk, 2),
        (Fault::WipedDisk, 1),
        (Fault::Reconfigure, 6),
    ];
}

/// One world's knobs.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Nodes: 3 to 5.
    pub nodes: u64,
    /// Voters of a group: 3 or 5.
    pub voters: u64,
    /// Groups: 4 to 64.
    pub groups: u64,
    /// Groups of the volatile kind, per mille.
    pub volatile: u64,
    /// Of every node.
    pub config: Config,
    /// Clients.
    pub clients: u64,
    /// Clients that hand commands in in bulk. 0 in half of all worlds.
    pub queues: u64,
    /// When they begin; not later than the healing.
    pub clients_from: Duration,
    /// Client operations to aim for.
    pub operations: u64,
    /// Delay of a frame: shortest and longest.
    pub delay: (Duration, Duration),
    /// Frames that take ten times as long (and so overtake nobody), per mille.
    pub reorder: u64,
    /// Frames lost, per mille.
    pub loss: u64,
    /// Frames delivered twice, per mille.
    pub duplicate: u64,
    /// Length of a write: shortest and longest.
    pub write: (Duration, Duration),
    /// Longest wait of a part between a letter and its turn.
    pub lag: Duration,
    /// Crashes that keep what the page cache held, per mille.
    pub kill: u64,
    /// What may go wrong. With `Reconfigure` members change at times of their own, too.
    pub faults: Vec<(Fault, u64)>,
    /// Mean time between two faults.
    pub fault_every: Duration,
    /// Longest time that a node stays down.
    pub down: Duration,
    /// How long things go wrong.
    pub fault_phase: Duration,
    /// How long they are healed after that.
    pub heal_phase: Duration,
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.range(from..to + 1))
}

fn micros(rng: &mut Rng, list: &[(u64, u64)]) -> (Duration, Duration) {
    let (low, high) = *rng.pick(list);
    (Duration::from_micros(low), Duration::from_micros(high))
}

impl Swarm {
    /// The knobs of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Swarm {
        let mut rng = Rng::new(seed ^ 0x5_3a12);
        let nodes = rng.range(3..6);
        let voters = if nodes == 5 && rng.chance(600) { 5 } else { 3 };
        let clients = rng.range(16..49);
        let swarm = Swarm {
            nodes,
            voters,
            groups: *rng.pick(&[4, 4, 5, 8, 8, 12, 16, 24, 32, 64]),
            volatile: *rng.pick(&[0, 0, 250, 500, 1000]),
            config: config(&mut rng),
            clients,
            queues: 0,
            clients_from: Duration::ZERO,
            operations: 2_000 + rng.below(1_500),
            delay: micros(&mut rng, &[(50, 500), (100, 3_000), (1_000, 20_000), (10_000, 60_000)]),
            reorder: *rng.pick(&[0, 0, 20, 100, 300]),
            loss: *rng.pick(&[0, 0, 5, 30, 150]),
            duplicate: *rng.pick(&[0, 0, 10, 100]),
            write: micros(&mut rng, &[(50, 300), (100, 5_000), (2_000, 40_000), (20_000, 200_000)]),
            lag: micros(&mut rng, &[(0, 50), (0, 1_000), (0, 15_000)]).1,
            kill: *rng.pick(&[0, 300, 1000]),
            faults: faults(&mut rng),
            fault_every: millis(&mut rng, 400, 4_000),
            down: millis(&mut rng, 200, 12_000),
            fault_phase: Duration::from_secs(60),
            heal_phase: Duration::from_secs(60),
        };
        swarm.with_bulk(seed).with_patience(seed)
    }

    /// Nodes on which few commands wait for more, as with a thousand groups. From a stream of its own, too.
    fn with_patience(mut self, seed: u64) -> Swarm {
        if Rng::new(seed ^ 0x9a_7137).chance(300) {
            self.config.gather_from = 1;
        }
        self
    }

    /// Commands in bulk, and in some of these worlds budgets that refuse them. From a stream of its own: worlds without are
    /// what they were before there was bulk.
    fn with_bulk(mut self, seed: u64) -> Swarm {
        let mut rng = Rng::new(seed ^ 0xb_01c0);
        if !rng.chance(500) {
            return self;
        }
        self.queues = rng.range(1..4);
        if rng.chance(400) {
            // Small, but with room for a frame of all groups' appends beside the commands: below that nodes refuse each
            // other's frames for ever.
            let config = &mut self.config;
            config.max_command = 1 << 10;
            config.max_append_bytes = config.max_append_bytes.min(1 << 10);
            config.max_inflight = config.max_inflight.min(2);
            config.group_inflight_bytes = *rng.pick(&[1 << 10, 4 << 10]);
            config.node_bytes = if self.groups > 8 { 256 << 10 } else { 128 << 10 };
        }
        self
    }

    /// Does this go wrong in that world?
    pub(super) fn draws(&self, fault: Fault) -> bool {
        self.faults.iter().any(|f| f.0 == fault)
    }
}

/// About two thirds of all faults; at least crashes and a cut.
fn faults(rng: &mut Rng) -> Vec<(Fault, u64)> {
    let mut list: Vec<_> = Fault::ALL.iter().copied().filter(|_| rng.chance(650)).collect();
    for needed in [(Fault::CrashNow, 8), (Fault::CrashAtPoint, 10), (Fault::Split, 5)] {
        if !list.iter().any(|f| f.0 == needed.0) {
            list.push(needed);
        }
    }
    list
}

fn config(rng: &mut Rng) -> Config {
    Config {
        pollers: rng.range(1..4) as usize,
        appliers: rng.range(1..3) as usize,
        tick: Duration::from_millis(100),
        election_ticks: *rng.pick(&[5, 10, 10, 15]),
        heartbeat_ticks: *rng.pick(&[1, 1, 2]),
        max_command: 1 << 16,
        max_append_bytes: *rng.pick(&[0, 64, 1 << 10, 256 << 10]),
        max_inflight: *rng.pick(&[1, 2, 16, 64]),
        gather_from: 64,
        group_inflight_bytes: *rng.pick(&[1 << 16, 1 << 20]),
        node_bytes: *rng.pick(&[1 << 20, 64 << 20]),
        log_keep: *rng.pick(&[1 << 10, 1 << 10, 4 << 10, 64 << 10]),
        disk_stall: millis(rng, 1_000, 6_000),
        snapshot_rate: *rng.pick(&[64 << 10, 64 << 20]),
        inline_sync: rng.chance(150),
        durable_every: millis(rng, 500, 10_000),
    }
}
