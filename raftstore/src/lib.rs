//! Groups, pollers, proposals, reads, membership and snapshots over four seams.
//!
//! Strata (files import only lower ones; what must go "back" is a message to an inbox):
//! S0 ids, error, config, group_spec, task, turn, env; S1 codec, mail, inbox, router, proposal, identity; S2 log cache, outbox, replica;
//! S3 poller, log writer, applier, ticker, lifecycle, snapshotter; S4 node, threads; S5 mem, testing, sim.

pub mod codec;
pub mod config;
pub mod env;
pub mod error;
pub mod group_spec;
pub mod ids;
pub mod mail;
pub mod proposal;
pub mod task;
pub mod turn;

#[cfg(feature = "testing")]
pub mod testing;
