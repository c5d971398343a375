//! The records beside a group's blocks: life, begin of the log, intent, hard state; and the node's own records.
//!
//! They are keys of their own so that none needs reading to be rewritten. Bodies are the codec's forms.
//! Invariant: the begin record's generation is the group's; a living group always has life, begin and hard state.

use crate::block::{VersionedHardState, put_versioned, take_versioned};
use crate::envelope::{self, Fault, Owner, StoreId};
use crate::keys::{self, RecordKind};
use bytes::{BufMut, Bytes};
use pontoon_raftstore::codec::{
    Reader, decode_creation, decode_install, decode_truncation, encode_creation, encode_install, encode_truncation,
    put_blob, put_varint,
};
use pontoon_raftstore::env::{Creation, Install, Truncation};
use pontoon_raftstore::ids::{GroupId, ReplicaId};

/// Largest body of a record.
const MAX_BODY: usize = 16 << 20;
const LIVING: u8 = 1;
const TOMBSTONE: u8 = 2;

/// Who lives here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// A replica, and how it came into being.
    Living(Box<Creation>),
    /// Nobody; the lowest replica id that may be born here.
    Tombstone(ReplicaId),
}

/// A group record, decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GroupRecord {
    /// Who lives here.
    Life(Life),
    /// Where the log begins.
    Begin(Truncation),
    /// An install that was begun.
    Intent(Box<Install>),
    /// The hard state.
    HardState(VersionedHardState),
}

impl GroupRecord {
    /// Its place among the keys.
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            GroupRecord::Life(_) => RecordKind::Life,
            GroupRecord::Begin(_) => RecordKind::Begin,
            GroupRecord::Intent(_) => RecordKind::Intent,
            GroupRecord::HardState(_) => RecordKind::HardState,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            GroupRecord::Life(Life::Living(creation)) => {
                out.put_u8(LIVING);
                put_blob(out, &encode_creation(creation));
            }
            GroupRecord::Life(Life::Tombstone(next)) => {
                out.put_u8(TOMBSTONE);
                put_varint(out, next.0);
            }
            GroupRecord::Begin(truncation) => put_blob(out, &encode_truncation(truncation)),
            GroupRecord::Intent(install) => put_blob(out, &encode_install(install)),
            GroupRecord::HardState(hard_state) => put_versioned(out, hard_state),
        }
    }

    fn take(kind: RecordKind, r: &mut Reader) -> Result<GroupRecord, Fault> {
        Ok(match kind {
            RecordKind::Life => GroupRecord::Life(match r.u8()? {
                LIVING => Life::Living(Box::new(decode_creation(r.blob(MAX_BODY)?)?)),
                TOMBSTONE => Life::Tombstone(r.replica()?),
                other => return Err(r.error(format!("life of kind {other}")).into()),
            }),
            RecordKind::Begin => GroupRecord::Begin(decode_truncation(r.blob(MAX_BODY)?)?),
            RecordKind::Intent => GroupRecord::Intent(Box::new(decode_install(r.blob(MAX_BODY)?)?)),
            RecordKind::HardState => GroupRecord::HardState(take_versioned(r)?),
        })
    }
}

/// Builds a group record's value in `out`; the key is `keys::record(group, record.kind())`.
pub(crate) fn encode(out: &mut Vec<u8>, group: GroupId, store: StoreId, owner: Owner, record: &GroupRecord) {
    let key = keys::record(group, record.kind());
    envelope::seal(out, &key, store, owner, |out| record.put(out));
}

/// Decodes the group record of `kind`.
pub(crate) fn decode(
    group: GroupId,
    kind: RecordKind,
    value: Bytes,
    store: StoreId,
) -> Result<(Owner, GroupRecord), Fault> {
    let (owner, mut r) = envelope::open("group record", &keys::record(group, kind), value, store)?;
    let record = GroupRecord::take(kind, &mut r)?;
    r.finish()?;
    Ok((owner, record))
}

/// Builds a node record's value in `out`.
pub(crate) fn encode_meta(out: &mut Vec<u8>, key: &[u8], store: StoreId, value: &[u8]) {
    envelope::seal(out, key, store, Owner::default(), |out| put_blob(out, value));
}

/// Decodes a node record.
pub(crate) fn decode_meta(key: &[u8], value: Bytes, store: StoreId) -> Result<Bytes, Fault> {
    let (_, mut r) = envelope::open("node record", key, value, store)?;
    let body = r.blob(MAX_BODY)?;
    r.finish()?;
    Ok(body)
}
