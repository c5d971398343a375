//! Commands in bulk at a node's door: looked at one by one as they come, handed in as few letters.
//!
//! Whoever is refused here costs a look and nothing else: at overload that is most of what comes. Leaves to others: what a
//! group's door says (`node`), its pollers' own look at what they know better.
//! Invariant: what got in and was not handed in holds its weight of the budget, and gives it back when it is let go of.

use crate::error::{Limit, ProposeError};
use crate::group_map::GroupMap;
use crate::ids::{GroupId, PollerId};
use crate::node::NodeHandle;
use crate::proposal::{Fence, Proposal, Refused, weigh};
use crate::router::GroupCell;
use crate::task::PollerMsg;
use std::sync::Arc;

/// Commands of one letter at most, so that a turn's bite stays bounded.
const LETTER: usize = 1024;

/// What is taken from the node's budget at once, beside what a command needs. Bytes.
const AHEAD: u64 = 16 << 10;

/// The door of a group, or why nothing is taken there.
type Door = Result<Open, ProposeError>;

/// A door that takes commands.
struct Open {
    cell: Arc<GroupCell>,
    /// Bytes, as seen when it was looked at.
    room: u64,
    /// Of it, what got in since. Bytes.
    used: u64,
}

fn is_open(door: &mut Door) -> Result<&mut Open, ProposeError> {
    match door {
        Ok(open) if open.used < open.room => Ok(open),
        Ok(_) => Err(ProposeError::Overloaded(Limit::GroupInflight)),
        Err(e) => Err(e.clone()),
    }
}

/// See the file's head.
pub(crate) struct Entrance {
    node: NodeHandle,
    doors: Doors,
    purse: Purse,
    /// By home; all but the last of each are full.
    letters: Vec<Vec<Vec<Proposal>>>,
    /// Commands in them.
    held: usize,
}

impl Entrance {
    pub(crate) fn new(node: NodeHandle) -> Entrance {
        let letters = (0..node.router().mail().pollers()).map(|_| Vec::new()).collect();
        Entrance { node, doors: Doors::default(), purse: Purse::default(), letters, held: 0 }
    }

    /// Commands that are not handed in yet.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Why would a command be refused at this group's door, if it would? Nothing is taken.
    pub(crate) fn look(&mut self, group: GroupId) -> Result<(), ProposeError> {
        is_open(self.doors.at(&self.node, group, None)).map(drop)
    }

    /// May a command of so many bytes get in, and where to? If so its weight is taken, and `put` or `let_go` follows.
    pub(crate) fn ask(&mut self, group: GroupId, fence: Option<&Fence>, size: usize) -> Result<PollerId, ProposeError> {
        let door = self.doors.at(&self.node, group, fence);
        let asked = is_open(door).and_then(|open| self.purse.pay(&self.node, size).map(|()| open.enter(size)));
        asked.inspect_err(|_| self.on_refused(fence))
    }

    /// It got in.
    pub(crate) fn put(&mut self, home: PollerId, proposal: Proposal) {
        let letters = &mut self.letters[home.0 as usize];
        match letters.last_mut().filter(|letter| letter.len() < LETTER) {
            Some(letter) => letter.push(proposal),
            None => {
                let mut letter = Vec::with_capacity(LETTER / 8);
                letter.push(proposal);
                letters.push(letter);
            }
        }
        self.held += 1;
    }

    /// It does not come.
    pub(crate) fn let_go(&mut self, fence: Option<&Fence>, size: usize) {
        self.purse.held += weigh(size as u64, 1);
        self.on_refused(fence);
    }

    /// Hands everything in. The doors may have changed when the next command comes.
    pub(crate) fn hand_in(&mut self) {
        match self.node.works() {
            Ok(()) => self.post(),
            Err(e) => self.refuse_all(&e.into()),
        }
        self.held = 0;
        self.purse.empty(&self.node);
        self.doors.leave();
    }

    fn post(&mut self) {
        let mail = self.node.router().mail();
        for (home, letters) in (0..).map(PollerId).zip(&mut self.letters) {
            letters.drain(..).for_each(|letter| mail.poller(home, PollerMsg::ProposeAll(letter)));
        }
    }

    /// The node has stopped meanwhile: nobody would answer.
    fn refuse_all(&mut self, why: &ProposeError) {
        let mut refused = Refused::default();
        for proposal in self.letters.iter_mut().flat_map(|letters| letters.drain(..)).flatten() {
            self.node.router().budget().leave_door(proposal.cost());
            refused.add(proposal.reply, proposal.fence.as_ref(), why.clone());
        }
        refused.tell();
    }

    fn on_refused(&mut self, fence: Option<&Fence>) {
        if let Some(fence) = fence {
            fence.shut();
            self.doors.leave_fenced(); // the door is another now
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        let left = self.letters.iter().flatten().flatten();
        self.node.router().budget().leave_door(left.map(Proposal::cost).sum());
        self.purse.empty(&self.node);
    }
}

/// Bytes of the node's budget taken ahead: its counts are every thread's, and to change them for each command would cost more
/// than the rest of its look at the door.
#[derive(Default)]
struct Purse {
    held: u64,
}

impl Purse {
    /// For a command of so many bytes.
    fn pay(&mut self, node: &NodeHandle, size: usize) -> Result<(), ProposeError> {
        node.measure(size)?;
        let (weight, budget) = (weigh(size as u64, 1), node.router().budget());
        if self.held < weight {
            let more = [weight + AHEAD, weight].into_iter().find(|more| budget.try_admit(*more));
            self.held += more.ok_or(ProposeError::Overloaded(Limit::NodeInflight))?;
        }
        self.held -= weight;
        Ok(())
    }

    /// What is left goes back.
    fn empty(&mut self, node: &NodeHandle) {
        if self.held > 0 {
            node.router().budget().leave_door(std::mem::take(&mut self.held));
        }
    }
}

impl Open {
    fn of(node: &NodeHandle, group: GroupId, fence: Option<&Fence>) -> Door {
        node.door(group, fence).map(|cell| Open { room: cell.room(), used: 0, cell })
    }

    fn enter(&mut self, size: usize) -> PollerId {
        self.used += weigh(size as u64, 1);
        self.cell.poller
    }

    fn leave(self) {
        if self.used > 0 {
            self.cell.use_room(self.used);
        }
    }
}

/// What was seen since the last letters left: nobody looks twice at a door that cannot have changed.
#[derive(Default)]
struct Doors {
    /// Of commands without a fence.
    plain: Vec<Door>,
    /// Where in `plain`.
    places: GroupMap<usize>,
    /// The last of them: who looks, asks next.
    last: Option<(GroupId, usize)>,
    /// Of the last command with a fence.
    fenced: Option<(GroupId, Fence, Door)>,
}

impl Doors {
    fn at(&mut self, node: &NodeHandle, group: GroupId, fence: Option<&Fence>) -> &mut Door {
        let Some(fence) = fence else {
            let at = self.place(node, group);
            return &mut self.plain[at];
        };
        if self.fenced.as_ref().is_none_or(|(before, of, _)| *before != group || of != fence) {
            self.leave_fenced();
        }
        &mut self.fenced.get_or_insert_with(|| (group, fence.clone(), Open::of(node, group, Some(fence)))).2
    }

    fn place(&mut self, node: &NodeHandle, group: GroupId) -> usize {
        if let Some((_, at)) = self.last.filter(|last| last.0 == group) {
            return at;
        }
        let at = *self.places.entry(group).or_insert_with(|| {
            self.plain.push(Open::of(node, group, None));
            self.plain.len() - 1
        });
        self.last = Some((group, at));
        at
    }

    fn leave(&mut self) {
        self.places.clear();
        self.last = None;
        self.plain.drain(..).flatten().for_each(Open::leave);
        self.leave_fenced();
    }

    fn leave_fenced(&mut self) {
        if let Some((_, _, Ok(open))) = self.fenced.take() {
            open.leave();
        }
    }
}
