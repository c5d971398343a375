//! Followers that live on snapshots, and the log that must stay for them: without what comes behind its snapshot a follower
//! could not go on from it, and would need another one, for as long as much is written.
//!
//! Leaves to others: building and sending (`snapshot`), cutting the log, and when the node has no room for this (`truncate`).
//! Invariant: log stays for a build, a stream, or a follower that makes progress; each of them ends.

use crate::group_status::FollowerStatus;
use crate::ids::{Index, ReplicaId, Tick};
use pontoon_raft::FlowState;

/// Ticks after which a build that nobody reported on is asked for again. Long: each is reported on, and contents may be large.
const BUILD_PATIENCE: Tick = 36_000;
/// Ticks after which one that failed is asked for again: with many groups behind, most find too many snapshots before theirs.
const BUILD_AGAIN: Tick = 10;
/// Ticks without progress after which no log stays for a follower that was fed. Long: it installs contents of any size.
const FED_PATIENCE: Tick = 6_000;
/// Ticks in which it is not heard, and the same; or one that stands ready is not sent.
const SILENCE: Tick = 100;

/// Who is fed by this replica.
#[derive(Debug, Default)]
pub(super) struct Feeding {
    /// A snapshot is being built, of this index at least; asked for again after this tick.
    building: Option<(Index, Tick)>,
    /// The last one failed: none is asked for before.
    not_before: Tick,
    /// One stands ready: it is sent before this tick, or nobody lives to take it.
    ready_until: Tick,
    /// Followers that got one and have not caught up since.
    fed: Vec<Fed>,
}

#[derive(Clone, Copy, Debug)]
struct Fed {
    replica: ReplicaId,
    /// It has, or is about to have, everything up to here.
    upto: Index,
    /// When it had made progress.
    moved: Tick,
    /// When it was heard.
    heard: Tick,
}

impl Feeding {
    /// False: one is being built already, or just failed.
    pub(super) fn begin_build(&mut self, applied: Index, now: Tick) -> bool {
        let begins = self.building.is_none_or(|(_, until)| until <= now) && now >= self.not_before;
        if begins {
            self.building = Some((applied, now + BUILD_PATIENCE));
        }
        begins
    }

    /// It stands ready.
    pub(super) fn end_build(&mut self, now: Tick) {
        self.building = None;
        self.stay_ready(now);
    }

    /// It may be sent again: its receiver had no room.
    pub(super) fn stay_ready(&mut self, now: Tick) {
        self.ready_until = now + SILENCE;
    }

    /// There is none.
    pub(super) fn fail_build(&mut self, now: Tick) {
        self.building = None;
        self.not_before = now + BUILD_AGAIN;
    }

    /// May one that stands ready still be sent? Its follower may have died while it was built.
    pub(super) fn may_send(&self, now: Tick) -> bool {
        now < self.ready_until
    }

    /// A follower took a snapshot over.
    pub(super) fn on_fed(&mut self, replica: ReplicaId, upto: Index, now: Tick) {
        self.fed.retain(|f| f.replica != replica);
        self.fed.push(Fed { replica, upto, moved: now, heard: now });
    }

    /// No longer the leader. What is being built is still being built.
    pub(super) fn clear(&mut self) {
        *self = Feeding { building: self.building, not_before: self.not_before, ..Feeding::default() };
    }

    /// The log must stay behind this index; without bound, anything may go. Whoever has all that is durable at the leader
    /// loses nothing by a cut, and has caught up.
    pub(super) fn needs(&mut self, followers: &[FollowerStatus], durable: Index, now: Tick) -> Index {
        self.fed.retain_mut(|fed| {
            let found = followers.iter().find(|f| f.replica == fed.replica && f.flow != FlowState::Snapshot);
            found.is_some_and(|follower| fed.is_alive(follower, now) && follower.matched < durable)
        });
        let fed = self.fed.iter().map(|f| f.upto).min();
        let built = self.building.map(|b| b.0);
        fed.into_iter().chain(built).min().unwrap_or(Index(u64::MAX))
    }
}

impl Fed {
    /// How it stands. False: it has had its time.
    fn is_alive(&mut self, follower: &FollowerStatus, now: Tick) -> bool {
        if follower.active {
            self.heard = now;
        }
        if follower.matched > self.upto {
            (self.upto, self.moved) = (follower.matched, now);
        }
        now < self.moved + FED_PATIENCE && now < self.heard + SILENCE
    }
}
