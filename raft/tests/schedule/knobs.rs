//! What a schedule's header decides: the members, the core's configuration, the clocks.
//!
//! Invariant: whatever the header says is a configuration that the core accepts and that promises progress.

use super::script::Frame;
use pontoon_raft::*;

/// Replicas there are; not all need be members.
pub const REPLICAS: usize = 5;

pub struct Knobs {
    pub voters: Vec<u64>,
    pub config: Config,
    /// Many elections and crashes in between.
    pub stormy: bool,
    /// A leader is elected before the first action.
    pub warm: bool,
    /// How the clocks run; a schedule with leases needs bounds, others do without.
    pub clocks: Option<[Clock; REPLICAS]>,
}

/// A clock against the world's time, which counts hundredths of a tick.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Percent of the world's speed.
    pub rate: u64,
    /// Hundredths of a tick that it is ahead.
    pub phase: u64,
}

impl Clock {
    pub fn at(self, time: u64) -> Tick {
        (time * self.rate / 100 + self.phase) / 100
    }
}

impl Knobs {
    pub fn read(header: &mut Frame) -> Knobs {
        let voters = if header.one_in(2) { vec![1, 2, 3, 4, 5] } else { vec![1, 2, 3] };
        let leases = header.one_in(4);
        let config = config(header, leases);
        let (stormy, warm) = (header.one_in(4), !header.one_in(4));
        // Drift between two clocks stays below what a lease leaves (`read_index`).
        let clock = |header: &mut Frame| Clock { rate: 96 + header.below(9) as u64, phase: header.below(256) as u64 };
        let clocks = leases.then(|| std::array::from_fn(|_| clock(header)));
        Knobs { voters, config, stormy, warm, clocks }
    }
}

fn config(header: &mut Frame, leases: bool) -> Config {
    let (small, pre_vote) = (header.one_in(2), header.one_in(2));
    // With neither, a leader whose learners were taken to a higher term by a removed replica never hears of it.
    let check_quorum = leases || !pre_vote || header.one_in(2);
    let bytes_bound = small && header.one_in(2);
    Config {
        election_tick: if header.one_in(3) { 10 } else { 4 },
        applied: Index(1),
        max_size_per_msg: if small { 30 } else { 1 << 20 },
        max_committed_size_per_ready: if small { 40 } else { 0 },
        max_inflight_msgs: if small { 2 } else { 64 },
        max_inflight_bytes: if bytes_bound { 40 } else { 0 },
        max_uncommitted_size: if small { 60 } else { 0 },
        check_quorum,
        pre_vote,
        read_mode: if leases { ReadMode::Lease } else { ReadMode::Safe },
        hold_votes_after_start: leases,
        disable_proposal_forwarding: header.one_in(2),
        step_down_on_removal: true,
        strict: true,
        async_storage_writes: !header.one_in(8),
        seed: header.below(256) as u64,
        ..Config::default()
    }
}
