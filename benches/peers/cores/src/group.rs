//! The harness: three replicas, a queue each, turns in a fixed order until nothing is left to do.
//!
//! Invariant: a batch is done when all three replicas have applied all of it.

/// Bytes of one command.
pub const COMMAND: usize = 16;
/// Batches between two compactions keep about this many entries in each storage.
const KEPT: u64 = 16_384;

/// One replica of some core.
pub trait Replica: Sized {
    /// What it sends.
    type Message;
    /// The three replicas, the first of them the leader, nothing on its way.
    fn group() -> [Self; 3];
    /// Appends a batch of fresh commands here.
    fn propose(&mut self, batch: usize);
    /// Takes a message in.
    fn step(&mut self, message: Self::Message);
    /// Does all work that is ready: stores, applies, reports; pushes what is to be sent, with the receiver's number.
    fn work(&mut self, out: &mut Vec<(usize, Self::Message)>);
    /// Commands applied here.
    fn applied(&self) -> u64;
    /// Drops all stored entries but the last.
    fn compact(&mut self);
    /// Lets the replica live through `ticks` ticks in which nothing is due.
    fn idle(&mut self, ticks: u64);
}

/// Three replicas and what is on its way between them.
pub struct Group<R: Replica> {
    replicas: [R; 3],
    queues: [Vec<R::Message>; 3],
    inbox: Vec<R::Message>,
    out: Vec<(usize, R::Message)>,
    proposed: u64,
    compacted: u64,
}

impl<R: Replica> Default for Group<R> {
    fn default() -> Group<R> {
        let queues = [Vec::new(), Vec::new(), Vec::new()];
        Group { replicas: R::group(), queues, inbox: Vec::new(), out: Vec::new(), proposed: 0, compacted: 0 }
    }
}

impl<R: Replica> Group<R> {
    /// Proposes `n` batches, one after the other, each until it is applied everywhere.
    pub fn run(&mut self, n: u64, batch: usize) {
        for _ in 0..n {
            self.replicas[0].propose(batch);
            self.settle();
            self.proposed += batch as u64;
            assert!(self.replicas.iter().all(|r| r.applied() == self.proposed), "a batch was not applied everywhere");
            if self.proposed - self.compacted >= KEPT {
                self.replicas.iter_mut().for_each(R::compact);
                self.compacted = self.proposed;
            }
        }
    }

    /// The replica with this number; 0 leads.
    pub fn replica(&mut self, number: usize) -> &mut R {
        &mut self.replicas[number]
    }

    /// The replicas.
    #[must_use]
    pub fn into_replicas(self) -> [R; 3] {
        self.replicas
    }

    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for at in 0..3 {
                std::mem::swap(&mut self.inbox, &mut self.queues[at]);
                self.inbox.drain(..).for_each(|m| self.replicas[at].step(m));
                self.replicas[at].work(&mut self.out);
                busy |= !self.out.is_empty();
                self.out.drain(..).for_each(|(to, m)| self.queues[to].push(m));
            }
        }
    }
}
