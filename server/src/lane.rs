//! The commands of one group within one pipeline: in the order sent, writes in bulk, reads behind the writes before them.
//!
//! Leaves to others: cutting pipelines into lanes (`conn`), waking them and handing in what they submit (`lanes`).
//! Invariant: once a command is refused, those behind it in the lane are refused too. All writes of a lane are in line
//! behind one fence.
//! Invariant: `CLUSTERDOWN` for want of a leader only after a handover's time without one: clients back off for long.

use crate::cmd::{ReadCommand, WriteCommand};
use crate::errors::{in_handover, propose_error, read_error};
use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::kv::{KvMachine, KvReader, KvResponse};
use pontoon::{Applied, Fence, Group, GroupStatus, ProposeError, Read, ReadError, ReadView};
use std::future::Future;
use std::iter::Peekable;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec::IntoIter;

/// What a handover of the leadership may take. Milliseconds as a rule; nodes even their leaders out by handovers.
const HANDOVER: Duration = Duration::from_millis(500);

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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

/// Where a lane's output goes.
pub(crate) trait Outlet {
    /// The answer to the command of this number.
    fn answer(&mut self, at: usize, reply: Reply);
    /// A command on its way; `Lane::on_written` gets its end.
    fn submit(&mut self, group: &Group<KvMachine>, at: usize, write: &WriteCommand, fence: &Fence);
}

/// What a lane is doing.
enum Doing {
    /// Waits until somebody leads.
    Settling(Later<bool>),
    /// Between two runs of commands.
    Next,
    /// So many writes are under way.
    Writing(usize),
    /// Waits for the view for these reads.
    Reading(Vec<(usize, ReadCommand)>, Later<Result<ReadView<KvReader>, ReadError>>),
    /// Nothing is left.
    Over,
}

/// One group's share of a pipeline.
pub(crate) struct Lane {
    node: Arc<ServerNode>,
    group: Group<KvMachine>,
    commands: Peekable<IntoIter<(usize, KeyCommand)>>,
    /// A leader was known when the lane began.
    led: bool,
    /// Keeps its writes in line.
    fence: Fence,
    /// Why nothing behind is taken any more; its text, without the slot.
    refused: Option<Reply>,
    doing: Doing,
}

fn is_settled(status: &GroupStatus) -> bool {
    status.leader.is_some() && status.transferring.is_none()
}

impl Lane {
    pub(crate) fn new(node: Arc<ServerNode>, group: Group<KvMachine>, commands: Vec<(usize, KeyCommand)>) -> Lane {
        let all_local = commands.iter().all(|c| matches!(c.1, KeyCommand::Read { local: true, .. }));
        let status = group.status();
        let led = is_settled(&status);
        let doing = if led || all_local { Doing::Next } else { Doing::Settling(settle(&node, &group)) };
        let commands = commands.into_iter().peekable();
        Lane { node, group, commands, led, fence: Fence::new(status.term), refused: None, doing }
    }

    /// Was anything refused?
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Goes on as far as it can. Ready once every command is answered.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, out: &mut impl Outlet) -> Poll<()> {
        loop {
            match &mut self.doing {
                Doing::Settling(leader) => {
                    self.led = ready!(leader.as_mut().poll(cx));
                    self.fence = Fence::new(self.group.status().term);
                    self.doing = Doing::Next;
                }
                Doing::Next => self.next(out),
                Doing::Writing(0) => self.doing = Doing::Next,
                Doing::Writing(_) => return Poll::Pending,
                Doing::Reading(run, view) => {
                    let view = ready!(view.as_mut().poll(cx));
                    let run = std::mem::take(run);
                    self.doing = Doing::Next;
                    self.on_view(run, view, out);
                }
                Doing::Over => return Poll::Ready(()),
            }
        }
    }

    /// Begins the next run.
    fn next(&mut self, out: &mut impl Outlet) {
        if let Some(reply) = &self.refused {
            self.commands.by_ref().for_each(|(at, _)| out.answer(at, reply.clone()));
        }
        self.doing = match self.commands.next() {
            None => Doing::Over,
            Some((at, KeyCommand::Write(first))) => self.write_run(at, &first, out),
            Some((at, KeyCommand::Read { command, local })) => {
                let mut run = vec![(at, command)];
                let alike = |c: &(usize, KeyCommand)| matches!(c.1, KeyCommand::Read { local: l, .. } if l == local);
                while let Some((at, KeyCommand::Read { command, .. })) = self.commands.next_if(alike) {
                    run.push((at, command));
                }
                self.read_run(run, local, out)
            }
        };
    }

    fn write_run(&mut self, at: usize, first: &WriteCommand, out: &mut impl Outlet) -> Doing {
        out.submit(&self.group, at, first, &self.fence);
        let mut under_way = 1;
        while let Some((at, KeyCommand::Write(next))) = self.commands.next_if(|c| matches!(c.1, KeyCommand::Write(_))) {
            out.submit(&self.group, at, &next, &self.fence);
            under_way += 1;
        }
        Doing::Writing(under_way)
    }

    /// The end of a write.
    pub(crate) fn on_written(
        &mut self,
        at: usize,
        slot: u16,
        end: Result<Applied<KvResponse>, ProposeError>,
        out: &mut impl Outlet,
    ) {
        if let Doing::Writing(under_way) = &mut self.doing {
            *under_way -= 1;
        }
        let reply = match (end, &self.refused) {
            (Ok(applied), _) => WriteCommand::reply(applied.response),
            (Err(ProposeError::Behind), Some(refused)) => refused.clone(),
            (Err(error), _) => {
                let reply = self.moving(propose_error(&error, slot, &self.node));
                self.refused.get_or_insert_with(|| behind(&reply, error.never_appended()));
                reply
            }
        };
        out.answer(at, reply);
    }

    /// A refusal as it stands, but for the want of a leader where there was one a moment ago.
    fn moving(&self, reply: Reply) -> Reply {
        if self.led { in_handover(reply) } else { reply }
    }

    fn read_run(&mut self, run: Vec<(usize, ReadCommand)>, local: bool, out: &mut impl Outlet) -> Doing {
        if !local && !self.node.leads(&self.group) {
            self.refuse_all(&run, self.node.not_leader(run[0].1.slot), out);
            return Doing::Next;
        }
        let (group, limit) = (self.group.clone(), self.node.deadline);
        Doing::Reading(run, Box::pin(async move { group.read_within(Read::Linearizable, limit).await }))
    }

    fn on_view(
        &mut self,
        run: Vec<(usize, ReadCommand)>,
        view: Result<ReadView<KvReader>, ReadError>,
        out: &mut impl Outlet,
    ) {
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                let reply = read_error(&error, run[0].1.slot, &self.node, &self.group);
                return self.refuse_all(&run, reply, out);
            }
        };
        for (at, read) in run {
            let reply = match view.multi_get(&read.keys) {
                Ok(values) => (read.reply)(values),
                Err(error) => Reply::error(format!("ERR this node's state machine cannot be read: {error}")),
            };
            out.answer(at, reply);
        }
    }

    /// Of reads, one refusal is all's.
    fn refuse_all(&mut self, run: &[(usize, ReadCommand)], reply: Reply, out: &mut impl Outlet) {
        let reply = self.moving(reply);
        run.iter().for_each(|(at, _)| out.answer(*at, reply.clone()));
        self.refused = Some(reply);
    }
}

/// Waits out a handover: true if somebody leads.
fn settle(node: &ServerNode, group: &Group<KvMachine>) -> Later<bool> {
    let (group, patience) = (group.clone(), HANDOVER.min(node.deadline));
    Box::pin(async move { group.wait(is_settled, patience).await.is_ok() })
}

/// What commands behind a failed one are told: they were not tried, so never "outcome unknown".
fn behind(reply: &Reply, never_appended: bool) -> Reply {
    if never_appended {
        reply.clone()
    } else {
        Reply::error("TRYAGAIN a command before this one in the pipeline failed")
    }
}
