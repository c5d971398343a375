//! Messages and requests: what the network and the users of a group do.
//!
//! Leaves to others: the replica's own work (`driver`).
//! Invariant: only what is documented as an answer may come back from the core; anything else is a broken promise.

use super::group::Group;
use super::knobs::REPLICAS;
use super::script::Frame;
use bytes::Bytes;
use pontoon_raft::*;

/// The network.
impl Group {
    /// Any message under way arrives, mostly an old one.
    pub fn deliver(&mut self, frame: &mut Frame) {
        if self.soup.is_empty() {
            return;
        }
        let old = if frame.one_in(4) { self.soup.len() } else { self.soup.len().min(3) };
        let which = frame.below(old);
        let (from, to) = (self.soup[which].from.0 as usize - 1, self.soup[which].to.0 as usize - 1);
        if self.paused[to] {
            return;
        }
        let m = self.soup.remove(which);
        if self.aside[from] == self.aside[to] {
            self.arrive(m);
        }
    }

    pub fn arrive(&mut self, m: Message) {
        let at = m.to.0 as usize - 1;
        if self.replicas[at].down {
            return;
        }
        self.tell(format_args!("{} receives {m:?}", at + 1));
        match self.call(at, |raw, now| raw.step(now, m)) {
            Ok(()) | Err(StepError::PeerNotFound | StepError::ProposalDropped | StepError::ReadDropped) => {}
            Err(other) => panic!("a member's message is refused: {other}"),
        }
    }

    pub fn lose(&mut self, frame: &mut Frame) {
        if !self.soup.is_empty() {
            self.soup.remove(frame.below(self.soup.len()));
        }
    }

    pub fn repeat(&mut self, frame: &mut Frame) {
        if !self.soup.is_empty() {
            let m = self.soup[frame.below(self.soup.len())].clone();
            self.send([m]);
        }
    }

    /// The transport says something, true or not.
    pub fn report(&mut self, at: usize, frame: &mut Frame) {
        let peer = ReplicaId(1 + frame.below(REPLICAS) as u64);
        match frame.below(3) {
            0 => self.call(at, |raw, now| raw.report_unreachable(now, peer)),
            outcome => self.call(at, |raw, now| raw.report_snapshot(now, peer, outcome == 1)),
        }
    }
}

/// The users.
impl Group {
    pub fn propose(&mut self, at: usize, padding: usize) {
        self.proposals += 1;
        let data = [&self.proposals.to_le_bytes()[..], &vec![0; padding]].concat();
        self.tell(format_args!("{} proposes {} bytes", at + 1, data.len()));
        match self.call(at, |raw, now| raw.propose(now, Bytes::from(data))) {
            Ok(_) | Err(StepError::ProposalDropped) => {}
            Err(other) => panic!("propose: {other}"),
        }
    }

    pub fn propose_v1(&mut self, at: usize, frame: &mut Frame) {
        let op = operation(frame);
        self.propose_change(at, ConfChangeV1 { change: op, context: Bytes::new() }.into());
    }

    pub fn propose_v2(&mut self, at: usize, frame: &mut Frame) {
        let transitions =
            [ConfChangeTransition::Auto, ConfChangeTransition::JointImplicit, ConfChangeTransition::JointExplicit];
        let transition = transitions[frame.below(3)];
        // Four bytes are left, one for each operation; none means leaving.
        let changes = (0..frame.below(4)).map(|_| operation(frame)).collect();
        self.propose_change(at, ConfChangeV2 { transition, changes, context: Bytes::new() }.into());
    }

    fn propose_change(&mut self, at: usize, change: ConfChange) {
        self.tell(format_args!("{} proposes {change:?}", at + 1));
        match self.call(at, |raw, now| raw.propose_conf_change(now, change)) {
            Ok(_) | Err(StepError::ProposalDropped) => {}
            Err(other) => panic!("propose a change: {other}"),
        }
    }

    pub fn read(&mut self, at: usize) {
        let number = self.witness.open_read();
        self.tell(format_args!("{} is asked for read {number}", at + 1));
        let context = Bytes::copy_from_slice(&number.to_le_bytes());
        match self.call(at, |raw, now| raw.read_index(now, context)) {
            Ok(()) | Err(StepError::ReadDropped) => {}
            Err(other) => panic!("read: {other}"),
        }
    }

    pub fn transfer(&mut self, at: usize, to: ReplicaId) {
        self.tell(format_args!("{} is asked to hand over to {to}", at + 1));
        self.call(at, |raw, now| raw.transfer_leader(now, to));
        self.transfers += usize::from(self.replicas[at].last_seen.transferee == to);
    }

    pub fn campaign(&mut self, at: usize) {
        self.tell(format_args!("{} campaigns", at + 1));
        self.call(at, |raw, now| raw.campaign(now));
    }

    pub fn forget_leader(&mut self, at: usize) {
        self.tell(format_args!("{} forgets its leader", at + 1));
        self.call(at, |raw, now| raw.forget_leader(now));
    }
}

/// From one byte.
fn operation(frame: &mut Frame) -> ConfChangeSingle {
    let kinds = [ConfChangeType::AddNode, ConfChangeType::AddLearnerNode, ConfChangeType::RemoveNode];
    let choice = frame.below(kinds.len() * REPLICAS);
    ConfChangeSingle::new(kinds[choice / REPLICAS], ReplicaId(1 + (choice % REPLICAS) as u64))
}
