//! Pontoon's core behind `Member`: synchronous mode, strict as in production.

use crate::peer::*;
use bytes::Bytes;
use pontoon_raft::*;

pub struct Ours {
    raw: RawNode<MemStorage>,
    config: Config,
    now: Tick,
    applied: Vec<Applied>,
    installed: Option<u64>,
}

fn ids(list: &[u64]) -> Vec<ReplicaId> {
    list.iter().map(|id| ReplicaId(*id)).collect()
}

fn numbers(list: &[ReplicaId]) -> Vec<u64> {
    list.iter().map(|id| id.0).collect()
}

fn to_change(change: &Change) -> ConfChangeV2 {
    let transition = match change.transition {
        Transition::Auto => ConfChangeTransition::Auto,
        Transition::Implicit => ConfChangeTransition::JointImplicit,
        Transition::Explicit => ConfChangeTransition::JointExplicit,
    };
    let operation = |(what, id): &(Operation, u64)| {
        let kind = match what {
            Operation::AddVoter => ConfChangeType::AddNode,
            Operation::AddLearner => ConfChangeType::AddLearnerNode,
            Operation::Remove => ConfChangeType::RemoveNode,
        };
        ConfChangeSingle::new(kind, ReplicaId(*id))
    };
    ConfChangeV2 { transition, changes: change.operations.iter().map(operation).collect(), context: Bytes::new() }
}

fn describe(cc: &ConfChangeV2) -> String {
    let operation = |c: &ConfChangeSingle| match c.kind {
        ConfChangeType::AddNode => format!("v{}", c.id.0),
        ConfChangeType::AddLearnerNode => format!("l{}", c.id.0),
        ConfChangeType::RemoveNode => format!("r{}", c.id.0),
        other => format!("{other:?}{}", c.id.0),
    };
    cc.changes.iter().map(operation).collect::<Vec<_>>().join(" ")
}

impl Ours {
    fn apply(&mut self, entry: &Entry) {
        let what = match ConfChangeV2::from_entry(entry).expect("proposed by this program") {
            None => String::from_utf8_lossy(&entry.data).into_owned(),
            Some(cc) => {
                self.raw.apply_conf_change(self.now, &cc).expect("valid when proposed");
                format!("change [{}]", describe(&cc))
            }
        };
        self.applied.push(Applied { term: entry.term.0, index: entry.index.0, what });
    }

    /// A snapshot of now, so that the log below may go and a restart knows the membership.
    fn remember(&mut self) {
        let Some(last) = self.applied.last() else { return };
        let conf_state = self.raw.status().conf;
        let meta = SnapshotMeta { index: Index(last.index), term: Term(last.term), conf_state };
        // Refused if the storage has this one: nothing was applied since.
        let _ = self.raw.storage_mut().set_snapshot(Snapshot { meta, ..Snapshot::default() });
    }
}

impl Member for Ours {
    type Message = Message;
    const NAME: &'static str = "pontoon-raft";

    fn new(id: u64, voters: &[u64]) -> Ours {
        let config = Config {
            id: ReplicaId(id),
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
            check_quorum: true,
            pre_vote: true,
            strict: true,
            ..Config::default()
        };
        let mut storage = MemStorage::new();
        let meta = SnapshotMeta { conf_state: ConfState::new(ids(voters), Vec::new()), ..SnapshotMeta::default() };
        storage.install_snapshot(Snapshot { meta, ..Snapshot::default() }).expect("a new storage");
        let raw = RawNode::new(&config, storage, 0).expect("a valid configuration");
        Ours { raw, config, now: 0, applied: Vec::new(), installed: None }
    }

    fn tick(&mut self) {
        self.now += 1;
        self.raw.tick(self.now);
    }

    fn pin_timeout(&mut self, ticks: u64) {
        self.raw.set_election_timeout(ticks);
    }

    fn campaign(&mut self) {
        self.raw.campaign(self.now);
    }

    fn propose(&mut self, data: Vec<u8>) -> bool {
        self.raw.propose(self.now, data.into()).is_ok()
    }

    fn change(&mut self, change: &Change) -> bool {
        self.raw.propose_conf_change(self.now, ConfChange::from(to_change(change))).is_ok()
    }

    fn transfer(&mut self, to: u64) {
        self.raw.transfer_leader(self.now, ReplicaId(to));
    }

    fn step(&mut self, m: Message) {
        // Refused: an answer of a replica that is no member any more.
        let _ = self.raw.step(self.now, m);
    }

    fn report_snapshot(&mut self, peer: u64, ok: bool) {
        self.raw.report_snapshot(self.now, ReplicaId(peer), ok);
    }

    fn turn(&mut self, out: &mut Vec<Message>) -> bool {
        if !self.raw.has_ready() {
            return false;
        }
        let mut ready = self.raw.ready();
        let storage = self.raw.storage_mut();
        if let Some(snapshot) = ready.snapshot.take() {
            self.installed = Some(snapshot.meta.index.0);
            storage.install_snapshot(snapshot).expect("newer than the last one");
        }
        storage.append(&ready.entries);
        if let Some(hard_state) = ready.hard_state {
            storage.set_hard_state(hard_state);
        }
        out.append(&mut ready.messages);
        for entry in ready.committed_entries.iter() {
            self.apply(entry);
        }
        self.remember();
        self.raw.advance(self.now);
        self.raw.assert_invariants();
        true
    }

    fn compact(&mut self) {
        if let Some(last) = self.applied.last() {
            // Refused if all of it is gone.
            let _ = self.raw.storage_mut().compact(Index(last.index));
        }
    }

    fn restart(mut self) -> Ours {
        self.config.applied = Index(self.applied.last().map_or(0, |a| a.index));
        let raw = RawNode::new(&self.config, self.raw.storage().clone(), self.now).expect("what was stored");
        Ours { raw, ..self }
    }

    fn state(&self) -> State {
        let Status { basic, conf, .. } = self.raw.status();
        let membership = Membership {
            voters: numbers(&conf.voters),
            outgoing: numbers(&conf.voters_outgoing),
            learners: numbers(&conf.learners),
            learners_next: numbers(&conf.learners_next),
            auto_leave: conf.auto_leave,
        };
        State {
            role: format!("{:?}", basic.role),
            leader: basic.lead.0,
            term: basic.term.0,
            vote: basic.vote.0,
            commit: basic.commit.0,
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
        (m.from.0, m.to.0)
    }

    fn vote(m: &Message) -> Option<Vote> {
        let (kind, last, reject) = match &m.body {
            Body::Vote(v) => ("vote", v.last, false),
            Body::PreVote(v) => ("prevote", v.last, false),
            Body::VoteResp { reject } => ("vote answer", LogPos::NONE, *reject),
            Body::PreVoteResp { reject } => ("prevote answer", LogPos::NONE, *reject),
            _ => return None,
        };
        let last = (last.term.0, last.index.0);
        Some(Vote { kind, from: m.from.0, to: m.to.0, term: m.term.0, last, reject })
    }

    fn is_snapshot(m: &Message) -> bool {
        matches!(m.body, Body::Snap { .. })
    }
}
