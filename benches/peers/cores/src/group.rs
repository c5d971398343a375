//! The harness: three replicas, a queue each, turns in a fixed order until no message is left.
//!
//! Invariant: a batch is done when all three replicas have applied all of it.

/// Bytes of one command.
pub const COMMAND: usize = 16;
/// Batches between two compactions keep about this many entries in each storage.
const KEPT: u64 = 16_384;

/// What is on its way to each replica.
pub type Queues<M> = [Vec<M>; 3];

/// One replica of some core.
pub trait Replica: Sized {
    /// What it sends.
    type Message;
    /// Three new replicas; the first campaigns.
    fn group() -> [Self; 3];
    /// Appends a batch of fresh commands here.
    fn propose(&mut self, batch: usize);
    /// Takes a message in.
    fn step(&mut self, message: Self::Message);
    /// Does all work that is ready: stores, applies, reports; puts what is to be sent into the receivers' queues.
    fn work(&mut self, queues: &mut Queues<Self::Message>);
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
    queues: Queues<R::Message>,
    inbox: Vec<R::Message>,
    proposed: u64,
    compacted: u64,
}

impl<R: Replica> Default for Group<R> {
    fn default() -> Group<R> {
        let queues = [const { Vec::new() }; 3];
        let mut group = Group { replicas: R::group(), queues, inbox: Vec::new(), proposed: 0, compacted: 0 };
        group.settle();
        group
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
        // Only the first was asked for anything.
        self.replicas[0].work(&mut self.queues);
        while self.queues.iter().any(|q| !q.is_empty()) {
            for at in 0..3 {
                if self.queues[at].is_empty() {
                    continue;
                }
                std::mem::swap(&mut self.inbox, &mut self.queues[at]);
                self.inbox.drain(..).for_each(|m| self.replicas[at].step(m));
                self.replicas[at].work(&mut self.queues);
            }
        }
    }
}
