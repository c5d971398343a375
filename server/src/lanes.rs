//! All lanes of a pipeline at once, on the connection's own task: what they write is handed in together, its ends are
//! collected together.
//!
//! Leaves to others: the order within a lane (`lane`).
//! Invariant: whatever is submitted has come back when `run` ends; then the queue is empty.

use crate::cmd::WriteCommand;
use crate::lane::{KeyCommand, Lane, Outlet};
use crate::node::ServerNode;
use crate::resp::Reply;
use pontoon::kv::{KvMachine, KvResponse};
use pontoon::{Completion, Completions, Fence, Group, GroupId};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Commands by group, each with its place in the pipeline.
pub(crate) type Dealt = BTreeMap<GroupId, Vec<(usize, KeyCommand)>>;

/// Runs lanes.
pub(crate) struct Lanes {
    node: Arc<ServerNode>,
    queue: Completions<KvMachine>,
    /// Memory for what comes back.
    ends: Vec<Completion<KvResponse>>,
}

/// A place in the pipeline, a lane and a slot as the tag of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    at: u32,
    lane: u16,
    slot: u16,
}

impl Tag {
    fn pack(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.lane) << 16 | u64::from(self.slot)
    }

    fn unpack(tag: u64) -> Tag {
        Tag { at: (tag >> 32) as u32, lane: (tag >> 16) as u16, slot: tag as u16 }
    }
}

/// The outlet of the lane of this number.
struct Hand<'a> {
    lane: u16,
    queue: &'a mut Completions<KvMachine>,
    answers: &'a mut dyn FnMut(usize, Reply),
}

impl Outlet for Hand<'_> {
    fn answer(&mut self, at: usize, reply: Reply) {
        (self.answers)(at, reply);
    }

    fn submit(&mut self, group: &Group<KvMachine>, at: usize, write: &WriteCommand, fence: &Fence) {
        let tag = Tag { at: at as u32, lane: self.lane, slot: write.slot };
        self.queue.submit_in(group, tag.pack(), write.command.encode(), fence);
    }
}

impl Lanes {
    pub(crate) fn new(node: Arc<ServerNode>) -> Lanes {
        let queue = node.engine.completions().timeout(node.deadline);
        Lanes { node, queue, ends: Vec::new() }
    }

    /// Executes all. The groups in which something was refused.
    pub(crate) async fn run(&mut self, dealt: Dealt, mut answer: impl FnMut(usize, Reply)) -> BTreeSet<GroupId> {
        let mut refused = BTreeSet::new();
        let mut lanes = Vec::with_capacity(dealt.len());
        for (id, commands) in dealt {
            if let Some(group) = self.node.group(id.0).cloned() {
                lanes.push((id, Lane::new(Arc::clone(&self.node), group, commands)));
                continue;
            }
            // No replica of the group is here: nothing is tried.
            commands.iter().for_each(|(at, command)| answer(*at, self.node.not_leader(command.slot())));
            refused.insert(id);
        }
        poll_fn(|cx| self.poll(cx, &mut lanes, &mut answer)).await;
        refused.extend(lanes.iter().filter(|l| l.1.is_refused()).map(|l| l.0));
        refused
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        lanes: &mut [(GroupId, Lane)],
        answers: &mut dyn FnMut(usize, Reply),
    ) -> Poll<()> {
        loop {
            let mut over = true;
            for (number, (_, lane)) in (0..).zip(lanes.iter_mut()) {
                let mut hand = Hand { lane: number, queue: &mut self.queue, answers: &mut *answers };
                over &= lane.poll(cx, &mut hand).is_ready();
            }
            if over {
                return Poll::Ready(());
            }
            if self.queue.under_way() == 0 || self.queue.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            self.queue.collect(&mut self.ends);
            for end in self.ends.drain(..) {
                let tag = Tag::unpack(end.tag);
                let mut hand = Hand { lane: tag.lane, queue: &mut self.queue, answers: &mut *answers };
                lanes[usize::from(tag.lane)].1.on_written(tag.at as usize, tag.slot, end.result, &mut hand);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were() {
        let tag = Tag { at: u32::MAX, lane: 16_383, slot: 16_383 };
        assert_eq!(Tag::unpack(tag.pack()), tag);
    }
}
