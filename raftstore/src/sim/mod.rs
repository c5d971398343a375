//! The simulator: whole nodes of production code on the twins, in one thread, from one seed.
//!
//! `world` schedules the parts' turns, deliveries, clients and faults on virtual time; `swarm` draws every knob from the
//! seed; `facts` checks at each step; `verdict` judges at the end. Leaves to others: every decision of the system: this
//! module constructs, schedules, breaks and checks, it never decides for a node.
//! Invariant: the same seed gives the same trace hash in any process: no hash order, no wall clock, no address.

mod changes;
mod clients;
mod configs;
mod exchange;
mod facts;
mod facts_log;
mod faults;
mod groups;
mod judge;
mod links;
mod lives;
mod members;
mod network;
mod node;
mod owed;
mod queues;
mod script;
mod story;
mod swarm;
mod verdict;
mod watch;
mod world;

pub use script::Script;
pub use swarm::{Fault, Swarm};
pub use verdict::{Report, Verdict};
pub use world::{run, run_told};
