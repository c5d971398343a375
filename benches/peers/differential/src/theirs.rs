//! raft-rs 0.7 behind `Member`, driven as its documentation says: ready, persist, advance, advance_apply.

use crate::peer::*;
use protobuf::Message as _;
use raft::eraftpb::*;
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

pub struct Theirs {
    raw: RawNode<MemStorage>,
    config: Config,
    timeout: u64,
    applied: Vec<Applied>,
    installed: Option<u64>,
}

fn start(config: &Config, storage: MemStorage) -> RawNode<MemStorage> {
    let silent = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(config, storage, &silent).expect("a valid configuration")
}

fn to_change(change: &Change) -> ConfChangeV2 {
    let mut cc = ConfChangeV2::default();
    cc.set_transition(match change.transition {
        Transition::Auto => ConfChangeTransition::Auto,
        Transition::Implicit => ConfChangeTransition::Implicit,
        Transition::Explicit => ConfChangeTransition::Explicit,
    });
    for (what, id) in &change.operations {
        let mut single = ConfChangeSingle { node_id: *id, ..ConfChangeSingle::default() };
        single.set_change_type(match what {
            Operation::AddVoter => ConfChangeType::AddNode,
            Operation::AddLearner => ConfChangeType::AddLearnerNode,
            Operation::Remove => ConfChangeType::RemoveNode,
        });
        cc.changes.push(single);
    }
    cc
}

fn describe(cc: &ConfChangeV2) -> String {
    let operation = |c: &ConfChangeSingle| match c.get_change_type() {
        ConfChangeType::AddNode => format!("v{}", c.node_id),
        ConfChangeType::AddLearnerNode => format!("l{}", c.node_id),
        ConfChangeType::RemoveNode => format!("r{}", c.node_id),
    };
    cc.changes.iter().map(operation).collect::<Vec<_>>().join(" ")
}

impl Theirs {
    fn apply(&mut self, entry: &Entry) {
        let mut what = String::from_utf8_lossy(&entry.data).into_owned();
        if entry.get_entry_type() != EntryType::EntryNormal {
            let mut cc = ConfChangeV2::default();
            cc.merge_from_bytes(&entry.data).expect("proposed by this program");
            let state = self.raw.apply_conf_change(&cc).expect("valid when proposed");
            self.raw.store().wl().set_conf_state(state);
            what = format!("change [{}]", describe(&cc));
        }
        self.applied.push(Applied { term: entry.term, index: entry.index, what });
    }
}

impl Member for Theirs {
    type Message = Message;
    const NAME: &'static str = "raft-rs";

    fn new(id: u64, voters: &[u64]) -> Theirs {
        let config = Config {
            id,
            election_tick: ELECTION_TICK as usize,
            heartbeat_tick: HEARTBEAT_TICK as usize,
            max_size_per_msg: 1 << 20,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let storage = MemStorage::new_with_conf_state((voters.to_vec(), Vec::new()));
        Theirs { raw: start(&config, storage), config, timeout: ELECTION_TICK, applied: Vec::new(), installed: None }
    }

    fn tick(&mut self) {
        self.raw.tick();
    }

    fn pin_timeout(&mut self, ticks: u64) {
        self.timeout = ticks;
        self.raw.raft.set_randomized_election_timeout(ticks as usize);
    }

    fn campaign(&mut self) {
        // Refused where the other core only says so in its trace.
        let _ = self.raw.campaign();
    }

    fn propose(&mut self, data: Vec<u8>) -> bool {
        self.raw.propose(Vec::new(), data).is_ok()
    }

    fn change(&mut self, change: &Change) -> bool {
        self.raw.propose_conf_change(Vec::new(), to_change(change)).is_ok()
    }

    fn transfer(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    fn step(&mut self, m: Message) {
        // Refused: an answer of a replica that is no member any more.
        let _ = self.raw.step(m);
    }

    fn report_snapshot(&mut self, peer: u64, ok: bool) {
        let status = if ok { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(peer, status);
    }

    fn turn(&mut self, out: &mut Vec<Message>) -> bool {
        if !self.raw.has_ready() {
            return false;
        }
        let mut ready = self.raw.ready();
        out.append(&mut ready.take_messages());
        if *ready.snapshot() != Snapshot::default() {
            self.installed = Some(ready.snapshot().get_metadata().index);
            self.raw.store().wl().apply_snapshot(ready.snapshot().clone()).expect("newer than the last one");
        }
        let committed = ready.take_committed_entries();
        self.raw.store().wl().append(ready.entries()).expect("no gap");
        if let Some(hard_state) = ready.hs() {
            self.raw.store().wl().set_hardstate(hard_state.clone());
        }
        out.append(&mut ready.take_persisted_messages());
        committed.iter().for_each(|entry| self.apply(entry));
        // Reports these as applied, too.
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.store().wl().mut_hard_state().commit = commit;
        }
        out.append(&mut light.take_messages());
        light.take_committed_entries().iter().for_each(|entry| self.apply(entry));
        self.raw.advance_apply();
        true
    }

    fn compact(&mut self) {
        if let Some(last) = self.applied.last() {
            // This storage keeps the entry itself: it needs its term. Refused only beyond the log.
            let _ = self.raw.store().wl().compact(last.index);
        }
    }

    fn restart(mut self) -> Theirs {
        self.config.applied = self.applied.last().map_or(0, |a| a.index);
        let raw = start(&self.config, self.raw.store().clone());
        let mut fresh = Theirs { raw, ..self };
        fresh.pin_timeout(fresh.timeout);
        fresh
    }

    fn state(&self) -> State {
        let raft = &self.raw.raft;
        let sorted = |list: &[u64]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        let conf = raft.prs().conf().to_conf_state();
        let membership = Membership {
            voters: sorted(&conf.voters),
            outgoing: sorted(&conf.voters_outgoing),
            learners: sorted(&conf.learners),
            learners_next: sorted(&conf.learners_next),
            auto_leave: conf.auto_leave,
        };
        let role = match raft.state {
            StateRole::Follower => "Follower",
            StateRole::Candidate => "Candidate",
            StateRole::Leader => "Leader",
            StateRole::PreCandidate => "PreCandidate",
        };
        State {
            role: role.to_owned(),
            leader: raft.leader_id,
            term: raft.term,
            vote: raft.vote,
            commit: raft.raft_log.committed,
            membership,
        }
    }

    fn applied(&mut self) -> &mut Vec<Applied> {
        &mut self.applied
    }

    fn take_installed(&mut self) -> Option<u64> {
        self.installed.take()
    }

    fn route(m: &Message) -> (u64, u64) {
        (m.from, m.to)
    }

    fn vote(m: &Message) -> Option<Vote> {
        let (kind, request) = match m.get_msg_type() {
            MessageType::MsgRequestVote => ("vote", true),
            MessageType::MsgRequestPreVote => ("prevote", true),
            MessageType::MsgRequestVoteResponse => ("vote answer", false),
            MessageType::MsgRequestPreVoteResponse => ("prevote answer", false),
            _ => return None,
        };
        let last = if request { (m.log_term, m.index) } else { (0, 0) };
        Some(Vote { kind, from: m.from, to: m.to, term: m.term, last, reject: m.reject })
    }

    fn is_snapshot(m: &Message) -> bool {
        m.get_msg_type() == MessageType::MsgSnapshot
    }
}
