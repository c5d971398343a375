//! The one byte form of entries, records and message batches: `wal` stores and `transport` carries these bytes
//! unchanged, and the simulator runs every message through them.
//!
//! Pure code, little-endian, base-128 varints in their shortest form only: what decodes encodes to the same bytes.
//! Decoders refuse nonsense with `DecodeError`, never recurse, and never allocate on the word of a length field.

mod body;
mod digest;
mod entry;
mod goal;
mod message;
mod node;
mod record;
mod run;
mod snapshot_frame;
mod state;
mod wire;

pub use digest::Digest;
pub use entry::{MAX_PAYLOAD, decode_entry, encode_entry};
pub use goal::{ConfContext, Order};
pub use message::{MAX_MESSAGES, MessageBatch, decode_message, decode_messages, encode_message, encode_messages};
pub use node::{NodeRecord, PeerRecord, decode_epoch, encode_epoch};
pub use record::{Member, ReplicaRecord};
pub use run::{Stretch, put_run, put_stretches, run_of, take_run};
pub use snapshot_frame::{AckStatus, MAX_CHUNK, SnapshotAck, SnapshotChunk, SnapshotFrame, SnapshotHeader};
pub use state::{
    MAX_MEMBERS, decode_creation, decode_install, decode_truncation, encode_creation, encode_install,
    encode_truncation, put_conf_state, put_hard_state, put_pos, take_conf_state, take_hard_state, take_pos,
};
pub use wire::{Reader, put_blob, put_varint};

/// Bytes from outside that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {why}")]
pub struct DecodeError {
    /// Which record.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}
