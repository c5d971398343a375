//! A small cluster client: what the demo and the process tests load the server with, over real sockets.
//!
//! It follows `MOVED`, pipelines, and sorts every answer into one of three: done, refused (never appended: may be
//! retried), unknown (may have happened). Leaves retry policy to the caller.

mod cluster;
mod connection;
mod wire;

pub use cluster::{Answer, ClusterClient};
pub use connection::{Connection, ConnectionError};
pub use wire::{Value, encode_command};
