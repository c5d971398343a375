//! The end of a schedule: nothing fails any more, and within a bounded time the group must make progress.
//!
//! Invariant: a leader commits something new and every member applies it within `ROUNDS` ticks, or the group is in
//! the one known way unable to (`waits_for_removed`).

use super::group::Group;
use super::knobs::REPLICAS;
use super::replica::Replica;
use pontoon_raft::*;

const ROUNDS: usize = 600;

impl Group {
    pub fn heal(&mut self) {
        self.tell(format_args!("everything heals"));
        self.witness.judge_logs(&self.replicas);
        (self.aside, self.stalled, self.paused) = ([false; REPLICAS], [false; REPLICAS], [false; REPLICAS]);
        for at in 0..REPLICAS {
            if self.replicas[at].down {
                self.restart(at);
            }
            self.replicas[at].raw.storage_mut().building = false;
            self.report_durable(at);
        }
        let before = self.witness.last_committed();
        for round in 0..ROUNDS {
            self.settle();
            if self.has_caught_up(before) {
                self.witness.judge_logs(&self.replicas);
                return;
            }
            self.rounds += 1;
            self.help(round);
        }
        if self.waits_for_removed() {
            self.stuck += 1;
            return;
        }
        let statuses: Vec<Status> = self.replicas.iter().map(|r| r.raw.status()).collect();
        panic!("no progress after everything healed: {statuses:#?}");
    }

    /// What a driver does all the time.
    fn help(&mut self, round: usize) {
        self.pass_time(100);
        for at in 0..REPLICAS {
            let leads = self.replicas[at].raw.basic_status().role == StateRole::Leader;
            if leads && round.is_multiple_of(4) {
                self.propose(at, 0);
            }
            // A snapshot's fate is known in the end.
            if leads {
                for peer in 1..=REPLICAS as u64 {
                    self.call(at, |raw, now| raw.report_snapshot(now, ReplicaId(peer), false));
                }
            }
            self.take_snapshot(at);
            self.fire(at);
        }
    }

    /// The one way in which a group is known to stop (as etcd's does): a leader that is removed steps down as soon
    /// as it applies that, the news that it is committed gets lost, and the voters that do not know it need the
    /// vote of a removed replica whose log is longer than theirs.
    fn waits_for_removed(&self) -> bool {
        let conf = self.witness.newest_conf(self.witness.last_committed());
        let last =
            |r: &Replica| LogPos::new(*r.view.values().next_back().unwrap(), *r.view.keys().next_back().unwrap());
        let voter = |r: &&Replica| conf.is_voter(r.id());
        let newest = self.replicas.iter().filter(voter).map(last).max().unwrap();
        let unaware = self.replicas.iter().filter(voter).any(|r| !r.raw.status().conf.equivalent(conf));
        unaware && self.replicas.iter().any(|r| !conf.is_voter(r.id()) && last(r) > newest)
    }

    /// Has every member of the current configuration applied everything, and something new among it? And is an
    /// automatic joint state left?
    fn has_caught_up(&self, before: Index) -> bool {
        let last = self.witness.last_committed();
        let conf = self.witness.newest_conf(last);
        let member = |r: &&Replica| conf.contains(r.id());
        last > before && !conf.auto_leave && self.replicas.iter().filter(member).all(|r| r.machine.at == last)
    }
}
