//! A replica's work: taking a `Ready`, writing, applying, snapshots, crash and start.
//!
//! Leaves to others: queues and disk (`replica`), judgement (`witness`).
//! Invariant: the driver's contract of the crate's page is kept; where it leaves a choice, the schedule makes it.

use super::group::Group;
use super::script::Frame;
use pontoon_raft::mutant::{self, Mutant};
use pontoon_raft::*;

impl Group {
    pub fn has_work(&self, at: usize) -> bool {
        let replica = &self.replicas[at];
        !replica.down && replica.raw.has_ready()
    }

    /// Everything that a replica has to do, at once.
    pub fn turn(&mut self, at: usize) {
        self.work(at);
        self.persist(at, usize::MAX, true);
        self.apply(at, usize::MAX);
    }

    /// Takes one `Ready`. Membership changes take effect at once, in the turn in which they are handed out: a
    /// snapshot that came between would replace the configuration that they belong to.
    pub fn work(&mut self, at: usize) {
        if !self.has_work(at) {
            return;
        }
        let ready = self.call(at, |raw, _| raw.ready());
        // Only the attempt to read what is to be applied shows that it is not in memory.
        let cold = self.replicas[at].raw.storage().cold;
        assert!(cold || !ready.is_empty(), "work was announced, there is none");
        let again = ready.is_empty() && self.replicas[at].raw.has_ready();
        assert!(!again, "what cannot be read is announced again before it was fetched");
        self.tell(format_args!("{} {ready:?}", at + 1));
        if self.replicas[at].config.async_storage_writes {
            self.work_asynchronously(at, ready);
        } else {
            self.work_synchronously(at, ready);
        }
    }

    fn work_asynchronously(&mut self, at: usize, mut ready: Ready) {
        let (messages, number) = (std::mem::take(&mut ready.messages), ready.number);
        let changes = changes(&ready);
        self.witness.judge_entries(&self.replicas[at], &ready);
        self.witness.judge_page(&self.replicas[at], &ready);
        self.replicas[at].take_in(ready);
        self.witness.judge_taken(&self.replicas[at], &messages);
        self.send(messages);
        self.switch(at, &changes);
        if mutant::is(Mutant::AckBeforeSync) {
            self.release(at, number);
        }
    }

    /// Persist, send, apply, advance.
    fn work_synchronously(&mut self, at: usize, mut ready: Ready) {
        let messages = std::mem::take(&mut ready.messages);
        let changes = changes(&ready);
        self.witness.judge_entries(&self.replicas[at], &ready);
        self.replicas[at].take_in(ready);
        self.witness.judge_taken(&self.replicas[at], &[]);
        while let Some(write) = self.replicas[at].persist_one() {
            let by = self.replicas[at].id();
            write.snapshot.iter().for_each(|s| self.witness.judge_snapshot(by, s));
        }
        let rests = messages.iter().filter(|m| m.body.is_after_append() || matches!(m.body, Body::Vote(_)));
        rests.for_each(|m| self.witness.judge_released(&self.replicas, at, m));
        self.send(messages);
        self.feed_machine(at, usize::MAX);
        self.switch(at, &changes);
        self.call(at, |raw, now| raw.advance(now));
    }

    fn switch(&mut self, at: usize, changes: &[(Index, ConfChangeV2)]) {
        for (index, change) in changes {
            let conf = self.call(at, |raw, now| raw.apply_conf_change(now, change).unwrap());
            self.witness.judge_conf(*index, &conf);
        }
    }

    /// The `count` oldest writes become durable; the core hears of it now, or later.
    pub fn persist(&mut self, at: usize, count: usize, report: bool) {
        let count = if self.stalled[at] { 0 } else { count };
        for _ in 0..count {
            let Some(write) = self.replicas[at].persist_one() else { break };
            let by = self.replicas[at].id();
            write.snapshot.iter().for_each(|s| self.witness.judge_snapshot(by, s));
            if write.awaited {
                self.replicas[at].unreported = Some(write.number);
            }
        }
        if report {
            self.report_durable(at);
        }
    }

    pub fn report_durable(&mut self, at: usize) {
        if let Some(number) = self.replicas[at].unreported.take() {
            self.release(at, number);
        }
    }

    fn release(&mut self, at: usize, number: ReadyNumber) {
        let mut out = Vec::new();
        self.call(at, |raw, now| raw.on_persisted(now, number, &mut out));
        self.tell(format_args!("{} durable {number:?}: {out:?}", at + 1));
        out.iter().for_each(|m| self.witness.judge_released(&self.replicas, at, m));
        self.send(out);
    }

    /// The state machine takes the `count` oldest entries.
    pub fn apply(&mut self, at: usize, count: usize) {
        if let Some(last) = self.feed_machine(at, count) {
            self.call(at, |raw, now| raw.on_applied(now, last));
        }
    }

    fn feed_machine(&mut self, at: usize, count: usize) -> Option<Index> {
        let count = count.min(self.replicas[at].to_apply.len());
        let last = self.replicas[at].to_apply.get(count.checked_sub(1)?)?.index;
        for _ in 0..count {
            let replica = &mut self.replicas[at];
            let Some(entry) = replica.to_apply.pop_front() else { break };
            // A snapshot that was installed meanwhile may be ahead.
            if entry.index > replica.machine.at {
                replica.machine.apply(&entry);
                self.witness.judge_applied(&self.replicas[at], &entry);
            }
        }
        Some(last)
    }

    /// The process ends. Of the writes that are queued a prefix reaches the disk.
    pub fn crash(&mut self, at: usize, frame: &mut Frame) {
        self.crashes += 1;
        let keep = frame.below(self.replicas[at].writes.len() + 1);
        self.tell(format_args!("{} crashes, keeps {keep} of {} writes", at + 1, self.replicas[at].writes.len()));
        for _ in 0..keep {
            self.replicas[at].persist_one();
        }
        let replica = &mut self.replicas[at];
        // The state machine survives up to what it synced, or some more.
        let offered = replica.raw.storage().offered.as_ref().map_or(Index::NONE, |s| s.meta.index);
        let low = replica.synced.max(offered);
        let more = low.lag_to(replica.machine.at) as usize;
        replica.synced = low.plus(frame.below(more + 1) as u64);
        replica.down = true;
        self.stalled[at] = false;
    }

    pub fn restart(&mut self, at: usize) {
        self.read_clock(at);
        let (machine, conf) = self.witness.state_at(self.replicas[at].synced);
        let seed = self.seed ^ (self.crashes as u64) << 8 ^ at as u64;
        self.tell(format_args!("{} starts at {machine:?}", at + 1));
        self.replicas[at].restart(machine, conf, seed);
        self.witness.look(&mut self.replicas, at);
    }

    /// Everybody but `at` crashes and starts at once.
    pub fn brownout(&mut self, at: usize, frame: &mut Frame) {
        for other in (0..self.replicas.len()).filter(|other| *other != at) {
            if !self.replicas[other].down {
                self.crash(other, frame);
            }
            self.paused[other] = false;
            self.restart(other);
        }
    }

    /// The state machine syncs, and its state is there for followers.
    pub fn take_snapshot(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let machine = replica.machine;
        replica.synced = machine.at;
        let (known, conf) = self.witness.state_at(machine.at);
        assert_eq!(known, machine);
        let term = self.witness.committed_term(machine.at);
        replica.raw.storage_mut().offered = Some(machine.snapshot(term, conf));
    }

    /// Drops log that neither the own machine nor a follower needs.
    pub fn compact(&mut self, at: usize, frame: &mut Frame) {
        let replica = &mut self.replicas[at];
        let applied = replica.raw.basic_status().applied;
        let disk = replica.raw.storage_mut();
        let offered = disk.offered.as_ref().map_or(Index::NONE, |s| s.meta.index);
        let (base, upto) = (disk.first_index().prev(), offered.min(applied));
        let upto = base.plus(frame.below(base.lag_to(upto) as usize + 1) as u64);
        if upto > base && disk.mem.compact(upto).is_ok() {
            self.tell(format_args!("{} drops its log up to {upto}", at + 1));
            let replica = &mut self.replicas[at];
            replica.view = replica.view.split_off(&upto);
        }
        self.witness.look(&mut self.replicas, at);
    }

    /// What was not in memory is now.
    pub fn fetch(&mut self, at: usize) {
        if self.replicas[at].down {
            return;
        }
        self.replicas[at].raw.storage_mut().cold = false;
        for fetch in self.replicas[at].raw.take_fetches() {
            self.call(at, |raw, now| raw.resume_append(now, fetch.to));
        }
    }
}

fn changes(ready: &Ready) -> Vec<(Index, ConfChangeV2)> {
    let change = |e: &Entry| ConfChangeV2::from_entry(e).unwrap().map(|change| (e.index, change));
    ready.committed_entries.iter().filter_map(change).collect()
}
