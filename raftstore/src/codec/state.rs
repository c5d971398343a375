//! The byte forms of positions, hard states, configurations, and of the log store's own records of a replica.
//!
//! Leaves to others: checksums and keys (`wal`). Invariant: a configuration that decodes names only ids that a
//! member can have, each at most once per list.

use super::DecodeError;
use super::wire::{Reader, put_blob, put_varint};
use crate::env::{Creation, Install, Truncation};
use crate::ids::{Generation, Index, LogPos, ReplicaId};
use bytes::{BufMut, Bytes};
use pontoon_raft::{ConfState, HardState};

/// Most members in one list of a configuration.
pub const MAX_MEMBERS: usize = 256;
/// Longest name of a state-machine kind, bytes.
const MAX_KIND: usize = 256;
/// Largest replica record inside an install.
const MAX_RECORD: usize = 64 << 10;

const CREATION_V1: u8 = 1;
const INSTALL_V1: u8 = 1;
const TRUNCATION_V1: u8 = 1;

/// Appends a position.
pub fn put_pos(out: &mut impl BufMut, pos: LogPos) {
    put_varint(out, pos.term.0);
    put_varint(out, pos.index.0);
}

/// Takes a position. Index 0 has no term.
pub fn take_pos(r: &mut Reader) -> Result<LogPos, DecodeError> {
    let pos = LogPos { term: r.term()?, index: r.index()? };
    r.ensure(pos.index != Index::NONE || pos == LogPos::NONE, "position 0 with a term")?;
    Ok(pos)
}

/// Appends a hard state.
pub fn put_hard_state(out: &mut impl BufMut, hard_state: &HardState) {
    put_varint(out, hard_state.term.0);
    put_varint(out, hard_state.vote.0);
    put_varint(out, hard_state.commit.0);
}

/// Takes a hard state.
pub fn take_hard_state(r: &mut Reader) -> Result<HardState, DecodeError> {
    Ok(HardState { term: r.term()?, vote: r.replica_or_none()?, commit: r.index()? })
}

/// Appends a configuration.
pub fn put_conf_state(out: &mut impl BufMut, conf: &ConfState) {
    for list in [&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next] {
        put_varint(out, list.len() as u64);
        list.iter().for_each(|id| put_varint(out, id.0));
    }
    out.put_u8(u8::from(conf.auto_leave));
}

/// Takes a configuration.
pub fn take_conf_state(r: &mut Reader) -> Result<ConfState, DecodeError> {
    Ok(ConfState {
        voters: take_members(r)?,
        voters_outgoing: take_members(r)?,
        learners: take_members(r)?,
        learners_next: take_members(r)?,
        auto_leave: r.flag()?,
    })
}

fn take_members(r: &mut Reader) -> Result<Vec<ReplicaId>, DecodeError> {
    let n = r.count(MAX_MEMBERS, 1)?;
    let list = (0..n).map(|_| r.replica()).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = list.clone();
    sorted.sort_unstable();
    sorted.dedup();
    r.ensure(sorted.len() == list.len(), "member listed twice")?;
    Ok(list)
}

/// Bytes of a creation record.
#[must_use]
pub fn encode_creation(creation: &Creation) -> Vec<u8> {
    let mut out = vec![CREATION_V1];
    put_blob(&mut out, creation.kind.as_bytes());
    out.put_u64_le(creation.digest);
    put_varint(&mut out, creation.members.len() as u64);
    for (replica, node) in &creation.members {
        put_varint(&mut out, replica.0);
        put_varint(&mut out, node.0);
    }
    put_conf_state(&mut out, &creation.conf_state);
    put_pos(&mut out, creation.birth);
    out
}

/// A creation record from its bytes.
pub fn decode_creation(bytes: Bytes) -> Result<Creation, DecodeError> {
    let mut r = Reader::new("creation record", bytes);
    r.version(CREATION_V1)?;
    let kind = r.text(MAX_KIND)?;
    let digest = r.fixed64()?;
    let n = r.count(2 * MAX_MEMBERS, 2)?;
    let mut members = Vec::with_capacity(n);
    for _ in 0..n {
        members.push((r.replica()?, r.node()?));
    }
    let creation = Creation { kind, digest, members, conf_state: take_conf_state(&mut r)?, birth: take_pos(&mut r)? };
    r.finish()?;
    Ok(creation)
}

/// Bytes of an install.
#[must_use]
pub fn encode_install(install: &Install) -> Vec<u8> {
    let mut out = vec![INSTALL_V1];
    put_pos(&mut out, install.pos);
    put_conf_state(&mut out, &install.conf_state);
    put_varint(&mut out, install.generation.0);
    put_blob(&mut out, &install.record);
    out
}

/// An install from its bytes.
pub fn decode_install(bytes: Bytes) -> Result<Install, DecodeError> {
    let mut r = Reader::new("install", bytes);
    r.version(INSTALL_V1)?;
    let pos = take_pos(&mut r)?;
    let conf_state = take_conf_state(&mut r)?;
    let generation = Generation(r.varint()?);
    let install = Install { pos, conf_state, record: r.blob(MAX_RECORD)?, generation };
    r.finish()?;
    Ok(install)
}

/// Bytes of a truncation point.
#[must_use]
pub fn encode_truncation(truncation: &Truncation) -> Vec<u8> {
    let mut out = vec![TRUNCATION_V1];
    put_pos(&mut out, truncation.pos);
    put_conf_state(&mut out, &truncation.conf_state);
    out
}

/// A truncation point from its bytes.
pub fn decode_truncation(bytes: Bytes) -> Result<Truncation, DecodeError> {
    let mut r = Reader::new("truncation point", bytes);
    r.version(TRUNCATION_V1)?;
    let truncation = Truncation { pos: take_pos(&mut r)?, conf_state: take_conf_state(&mut r)? };
    r.finish()?;
    Ok(truncation)
}
