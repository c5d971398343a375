//! The commands of one group within one pipeline: in the order sent, writes in bulk, reads behind the writes before them.
//!
//! Leaves to others: cutting pipelines into lanes and putting answers back in order (`conn`).
//! Invariant: once a command is refused, those behind it in the lane are refused too. The term is the fence: all writes of
//! a lane carry the term of its start, and a term that was lost is never led again.
//! Invariant: `CLUSTERDOWN` for want of a leader only after a handover's time without one: clients back off for long.

use crate::cmd::{ReadCommand, WriteCommand};
use crate::errors::{in_handover, propose_error, read_error};
use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::kv::KvMachine;
use pontoon::{Applied, Group, Proposal, ProposeError, Read, Term};
use std::sync::Arc;
use std::time::Duration;

/// What a handover of the leadership may take. Milliseconds as a rule; nodes even their leaders out by handovers.
const HANDOVER: Duration = Duration::from_millis(500);

type Answer = Result<Applied<pontoon::kv::KvResponse>, ProposeError>;

/// A command for keys.
#[derive(Debug)]
pub(crate) enum KeyCommand {
    /// Reads; `local`: from this node's replica, even if it does not lead.
    Read { command: ReadCommand, local: bool },
    /// Writes.
    Write(WriteCommand),
}

impl KeyCommand {
    pub(crate) fn slot(&self) -> u16 {
        match self {
            KeyCommand::Read { command, .. } => command.slot,
            KeyCommand::Write(command) => command.slot,
        }
    }
}

/// One group's share of a pipeline.
pub(crate) struct Lane {
    node: Arc<ServerNode>,
    group: Group<KvMachine>,
    /// A leader was known when the lane began.
    led: bool,
    /// Why nothing behind is taken any more; its text, without the slot.
    refused: Option<Reply>,
    answers: Vec<(usize, Reply)>,
}

impl Lane {
    pub(crate) fn new(node: Arc<ServerNode>, group: Group<KvMachine>) -> Lane {
        Lane { node, group, led: false, refused: None, answers: Vec::new() }
    }

    /// What all are told where no replica of the group is here: nothing was tried.
    pub(crate) fn elsewhere(node: &ServerNode, commands: Vec<(usize, KeyCommand)>) -> (Vec<(usize, Reply)>, bool) {
        let told = |(at, command): (usize, KeyCommand)| (at, node.not_leader(command.slot()));
        (commands.into_iter().map(told).collect(), true)
    }

    /// Executes all; answers with the numbers given. True if anything was refused.
    pub(crate) async fn run(mut self, commands: Vec<(usize, KeyCommand)>) -> (Vec<(usize, Reply)>, bool) {
        let all_local = commands.iter().all(|c| matches!(c.1, KeyCommand::Read { local: true, .. }));
        let term = if all_local { self.group.status().term } else { self.settle().await };
        let mut commands = commands.into_iter().peekable();
        while let Some((at, command)) = commands.next() {
            if let Some(reply) = &self.refused {
                self.answers.push((at, reply.clone()));
                continue;
            }
            match command {
                KeyCommand::Write(first) => {
                    let mut run = vec![(at, first)];
                    while let Some((at, KeyCommand::Write(next))) =
                        commands.next_if(|c| matches!(c.1, KeyCommand::Write(_)))
                    {
                        run.push((at, next));
                    }
                    self.write_run(run, term).await;
                }
                KeyCommand::Read { command, local } => {
                    let mut run = vec![(at, command)];
                    let alike =
                        |c: &(usize, KeyCommand)| matches!(c.1, KeyCommand::Read { local: l, .. } if l == local);
                    while let Some((at, KeyCommand::Read { command, .. })) = commands.next_if(alike) {
                        run.push((at, command));
                    }
                    self.read_run(run, local).await;
                }
            }
        }
        (self.answers, self.refused.is_some())
    }

    async fn write_run(&mut self, run: Vec<(usize, WriteCommand)>, term: Term) {
        let mut waiting: Vec<(usize, u16, Proposal<pontoon::kv::KvResponse>)> = Vec::with_capacity(run.len());
        for (at, write) in run {
            if let Some(reply) = &self.refused {
                self.answers.push((at, reply.clone()));
                continue;
            }
            match self.group.try_propose_in(write.command.encode(), term) {
                Ok(proposal) => waiting.push((at, write.slot, proposal.timeout(self.node.deadline))),
                Err(error) => self.refuse(at, write.slot, &error),
            }
        }
        for (at, slot, proposal) in waiting {
            let answer: Answer = proposal.await;
            match answer {
                Ok(applied) => self.answers.push((at, WriteCommand::reply(applied.response))),
                Err(error) => self.refuse(at, slot, &error),
            }
        }
    }

    /// Waits out a handover. The term that the lane begins in.
    async fn settle(&mut self) -> Term {
        let patience = HANDOVER.min(self.node.deadline);
        let settled = self.group.wait(|s| s.leader.is_some() && s.transferring.is_none(), patience).await;
        self.led = settled.is_ok();
        settled.map_or_else(|_| self.group.status().term, |status| status.term)
    }

    fn refuse(&mut self, at: usize, slot: u16, error: &ProposeError) {
        let reply = self.moving(propose_error(error, slot, &self.node));
        self.refused.get_or_insert_with(|| behind(&reply, error.never_appended()));
        self.answers.push((at, reply));
    }

    /// A refusal as it stands, but for the want of a leader where there was one a moment ago.
    fn moving(&self, reply: Reply) -> Reply {
        if self.led { in_handover(reply) } else { reply }
    }

    async fn read_run(&mut self, run: Vec<(usize, ReadCommand)>, local: bool) {
        let slot = run[0].1.slot;
        if !local && !self.node.leads(&self.group) {
            let reply = self.moving(self.node.not_leader(slot));
            self.refused = Some(reply.clone());
            self.answers.extend(run.into_iter().map(|(at, _)| (at, reply.clone())));
            return;
        }
        let limit: Duration = self.node.deadline;
        match self.group.read_within(Read::Linearizable, limit).await {
            Ok(view) => {
                for (at, read) in run {
                    let reply = match view.multi_get(&read.keys) {
                        Ok(values) => (read.reply)(values),
                        Err(error) => Reply::error(format!("ERR this node's state machine cannot be read: {error}")),
                    };
                    self.answers.push((at, reply));
                }
            }
            Err(error) => {
                let reply = self.moving(read_error(&error, slot, &self.node, &self.group));
                self.refused = Some(reply.clone());
                self.answers.extend(run.into_iter().map(|(at, _)| (at, reply.clone())));
            }
        }
    }
}

/// What commands behind a failed one are told: they were not tried, so never "outcome unknown".
fn behind(reply: &Reply, never_appended: bool) -> Reply {
    if never_appended {
        reply.clone()
    } else {
        Reply::error("TRYAGAIN a command before this one in the pipeline failed")
    }
}
