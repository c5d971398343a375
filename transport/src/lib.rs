//! Pontoon's network: one multiplexed TCP connection per pair of nodes, for all groups.
//!
//! Promised: per lane and link, bodies arrive in order, whole and at most once; any of them may be lost, and nothing is
//! sent twice (raft retries). `send` never blocks. Nothing but the handshake passes before both sides have admitted each
//! other. Every queue is bounded by bytes. Bodies are raftstore's; no file here knows what a group is.
//!
//! `link` decides, `driver`, `outgoing`, `listener` and `dialer` do; `frame`, `handshake`, `beacon` and `lanes` are pure.
//! The bytes are described in docs/wire-format.md and pinned by tests/golden. No encryption yet: loopback, or a
//! trusted network.

mod batch;
mod beacon;
mod config;
mod context;
mod dialer;
mod directory;
mod driver;
mod error;
pub mod frame;
mod handshake;
mod knocker;
mod lanes;
mod link;
mod listener;
mod metrics;
mod outgoing;
mod peer;
mod proto;
mod resolver;
mod tcp;

pub use config::{Config, QueueBytes};
pub use error::{ConfigFault, PeerFault, StartError};
pub use handshake::PROTOCOLS;
pub use resolver::{BoxFuture, ResolveError, Resolver, StaticResolver};
pub use tcp::{LinkInfo, TcpTransport};
