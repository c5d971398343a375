//! Groups, pollers, proposals, reads, membership and snapshots over four seams.
//!
//! Strata (files import only lower ones; what must go "back" is a message to an inbox):
//! S0 ids, error, config, arrivals, slots, page, group_spec, group_status, group_map, reconfigure, task, turn, env; S1 codec, guard, spool, ledger, mail,
//! inbox, budget, health, events, router, proposal, identity; S2 log cache, outbox, replica, prepared; S3 poller, log writer and reader,
//! applier, ticker, lifecycle, snapshotter, durability, boot; S4 node, door, bulk, threads, solo; S5 mem, testing, sim.

pub mod applier;
pub mod arrivals;
pub mod boot;
pub mod budget;
pub mod bulk;
pub mod codec;
pub mod config;
mod door;
pub mod durability;
pub mod env;
pub mod error;
pub mod events;
mod group_map;
pub mod group_spec;
pub mod group_status;
mod guard;
pub mod health;
pub mod identity;
pub mod ids;
pub mod inbox;
pub mod ledger;
pub mod lifecycle;
pub mod log_cache;
pub mod log_reader;
pub mod log_writer;
pub mod mail;
#[cfg(feature = "testing")]
pub mod mem;
pub mod node;
pub mod outbox;
pub mod page;
pub mod poller;
pub mod prepared;
pub mod proposal;
pub mod reconfigure;
pub mod replica;
pub mod router;
#[cfg(feature = "testing")]
pub mod sim;
pub mod slots;
pub mod snapshotter;
pub mod solo;
mod spool;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod threads;
pub mod ticker;
pub mod turn;
