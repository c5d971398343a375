//! Errors by who is to blame: the configuration (refuse to start), the peer (drop, count), this node (log, back off).
//!
//! Leaves to others: what raftstore hears (`SendError`, `on_link_up`, `on_link_down`).
//! Invariant: every peer fault has one short `reason`, so that counters by reason stay bounded.

use pontoon_raftstore::env::BadFrame;
use std::net::SocketAddr;

/// One mistake of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct ConfigFault {
    /// The field of `Config`.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub wrong: String,
}

/// Why the transport did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Correct the configuration; all mistakes at once.
    #[error("transport configuration: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigFault>),
    /// Bind the loopback, or say that the network is trusted.
    #[error(
        "peers would be served on {listen} without encryption or authentication: listen on the loopback, or give --insecure-peers if everybody who can reach this address may read and change all data"
    )]
    Insecure {
        /// The address.
        listen: SocketAddr,
    },
    /// Free the address or choose another.
    #[error("cannot listen for peers on {listen}: {source}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the transport's threads: {0}")]
    Runtime(std::io::Error),
    /// `serve` was called before, or the transport was shut down.
    #[error("the transport already serves, or was shut down")]
    NotIdle,
}

/// What a peer did wrong. The connection is dropped and the fault counted by `reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// Not our protocol.
    #[error("no frame begins like this")]
    BadMagic,
    /// Another frame layout.
    #[error("frame version {0}")]
    BadVersion(u8),
    /// Unknown kind of frame.
    #[error("frame kind {0}")]
    BadKind(u8),
    /// Unknown flags.
    #[error("frame flags {0:#x}")]
    BadFlags(u32),
    /// The body is announced longer than its kind may be.
    #[error("body of {len} bytes, at most {cap} allowed")]
    TooLong {
        /// Announced.
        len: usize,
        /// Allowed.
        cap: usize,
    },
    /// Damaged on the way.
    #[error("checksum does not match")]
    BadCrc,
    /// Lost, repeated or reordered.
    #[error("frame {got} came, {expected} was next")]
    OutOfSequence {
        /// Next number.
        expected: u64,
        /// Number that came.
        got: u64,
    },
    /// Something else before the handshake was complete.
    #[error("frame before the handshake was complete")]
    EarlyFrame,
    /// A handshake record after the handshake.
    #[error("second handshake on one connection")]
    SecondHandshake,
    /// A handshake or beacon record that cannot be read.
    #[error("bad {what}: {why}")]
    BadRecord {
        /// Which record.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Too slow in the handshake.
    #[error("handshake not complete in time")]
    SlowHandshake,
    /// Nothing heard for too long.
    #[error("silent")]
    Silent,
    /// It does not take what is sent.
    #[error("does not read")]
    Stalled,
    /// Closed inside a frame or before the handshake was complete.
    #[error("closed too early")]
    ClosedEarly,
    /// raftstore cannot make sense of a body.
    #[error(transparent)]
    BadBody(#[from] BadFrame),
}

impl PeerFault {
    /// Label of the counter.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            PeerFault::BadMagic => "bad_magic",
            PeerFault::BadVersion(_) => "bad_version",
            PeerFault::BadKind(_) => "bad_kind",
            PeerFault::BadFlags(_) => "bad_flags",
            PeerFault::TooLong { .. } => "too_long",
            PeerFault::BadCrc => "bad_crc",
            PeerFault::OutOfSequence { .. } => "out_of_sequence",
            PeerFault::EarlyFrame => "early_frame",
            PeerFault::SecondHandshake => "second_handshake",
            PeerFault::BadRecord { .. } => "bad_record",
            PeerFault::SlowHandshake => "slow_handshake",
            PeerFault::Silent => "silent",
            PeerFault::Stalled => "stalled",
            PeerFault::ClosedEarly => "closed_early",
            PeerFault::BadBody(_) => "bad_body",
        }
    }
}

/// Trouble on this side of a connection: logged, then tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalFault {
    /// The gatekeeper or raftstore panicked.
    #[error("a call into raftstore failed")]
    Gate,
    /// The gatekeeper shows something that no frame may carry.
    #[error("own hello: {0}")]
    OwnHello(String),
    /// The bound of known peers is reached.
    #[error("too many peers")]
    TooManyPeers,
    /// Nobody knows the peer's address.
    #[error("no address: {0}")]
    NoAddress(String),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Dialling took too long.
    #[error("no connection in time")]
    SlowDial,
}
