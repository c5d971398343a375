//! A small cluster client: what the demo and the process tests load the server with, over real sockets.
//!
//! It follows `MOVED`, pipelines, and sorts every answer into one of three: done, refused (never appended: may be
//! retried), unknown (may have happened). Leaves retry policy to the caller.

mod cluster;
mod connection;
mod wire;

pub use cluster::{Answer, ClusterClient};
pub(crate) use cluster::{judge, moved_to};
pub use connection::{Connection, ConnectionError};
pub(crate) use wire::take_reply;
pub use wire::{Value, encode_command};
