//! The one byte form of entries, records and message batches: `wal` stores and `transport` carries these bytes
//! unchanged, and the simulator runs every message through them.
//!
//! Pure code. Decoders refuse nonsense with `DecodeError` and never allocate on the word of a length field.

mod record;

pub use record::ReplicaRecord;

/// Bytes from outside that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {why}")]
pub struct DecodeError {
    /// Which record.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}
