//! The binary `pontoon`: a sharded Redis-protocol database on the engine, its demo, and the client they are tested with.
//!
//! Uses the engine's public face only: what the server needs, every embedder gets.
//! A command's way: `conn` reads it, `cmd` knows it, `lane` orders it within its group, the engine replicates it.

mod admin_client;
mod advert;
mod cli;
pub mod client;
mod cmd;
mod conn;
mod errors;
pub mod harness;
mod lane;
mod lanes;
mod layout;
mod node;
mod resp;
mod routes;
mod run;
mod server_info;
pub mod shards;
mod topology;

pub use cli::main;
