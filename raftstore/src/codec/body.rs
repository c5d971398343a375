//! The byte form of what a raft message says: a kind byte and the fields of that kind.
//!
//! Leaves to others: header and frame (`message`). Kind bytes are never given twice; unknown ones are refused.
//! Invariant: a body that decodes agrees with its message's term: nobody tells of entries from a later term.

use super::DecodeError;
use super::entry::{put_unplaced, take_unplaced};
use super::run::{put_run, take_run};
use super::state::{put_conf_state, put_pos, take_conf_state, take_pos};
use super::wire::{Reader, put_blob, put_varint};
use crate::ids::{Index, LogPos, Term};
use bytes::{BufMut, Bytes};
use pontoon_raft::{Append, AppendResp, Body, Entry, Snapshot, SnapshotMeta, VoteRequest};

/// Largest context of a heartbeat (8 bytes are in use).
const MAX_CONTEXT: usize = 64;
/// Largest `Snapshot::data`: a description of where the contents are.
const MAX_SNAPSHOT_DATA: usize = 64 << 10;

const PROPOSE: u8 = 1;
const APPEND: u8 = 2;
const APPEND_OK: u8 = 3;
const APPEND_REJECT: u8 = 4;
const VOTE: u8 = 5;
const VOTE_RESP: u8 = 6;
const SNAP: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_RESP: u8 = 9;
const TRANSFER_LEADER: u8 = 10;
const TIMEOUT_NOW: u8 = 11;
const READ_INDEX: u8 = 12;
const READ_INDEX_RESP: u8 = 13;
const PRE_VOTE: u8 = 14;
const PRE_VOTE_RESP: u8 = 15;
// 16 to 18 are asides (`message`).

/// Appends kind and fields.
pub(super) fn put_body(out: &mut impl BufMut, body: &Body) {
    match body {
        Body::Propose { entries } => tagged(out, PROPOSE, |o| put_unplaced(o, entries)),
        Body::Append(append) => tagged(out, APPEND, |o| put_append(o, append)),
        Body::AppendResp(resp) => put_append_resp(out, resp),
        Body::Vote(request) => tagged(out, VOTE, |o| put_vote(o, request)),
        Body::PreVote(request) => tagged(out, PRE_VOTE, |o| put_vote(o, request)),
        Body::VoteResp { reject } => tagged(out, VOTE_RESP, |o| o.put_u8(u8::from(*reject))),
        Body::PreVoteResp { reject } => tagged(out, PRE_VOTE_RESP, |o| o.put_u8(u8::from(*reject))),
        Body::Snap { snapshot } => tagged(out, SNAP, |o| put_snapshot(o, snapshot)),
        Body::Heartbeat { commit, context } => tagged(out, HEARTBEAT, |o| {
            put_varint(o, commit.0);
            put_blob(o, context);
        }),
        Body::HeartbeatResp { context } => tagged(out, HEARTBEAT_RESP, |o| put_blob(o, context)),
        Body::TransferLeader => out.put_u8(TRANSFER_LEADER),
        Body::TimeoutNow => out.put_u8(TIMEOUT_NOW),
        Body::ReadIndex { entries } => tagged(out, READ_INDEX, |o| put_unplaced(o, entries)),
        Body::ReadIndexResp { index, entries } => tagged(out, READ_INDEX_RESP, |o| {
            put_varint(o, index.0);
            put_unplaced(o, entries);
        }),
        Body::Hup
        | Body::Beat
        | Body::Unreachable
        | Body::SnapStatus { .. }
        | Body::CheckQuorum
        | Body::StorageAppend(_)
        | Body::StorageAppendResp { .. }
        | Body::StorageApply { .. }
        | Body::StorageApplyResp { .. }
        | Body::ForgetLeader => panic!("a local message never leaves its node: {:?}", body.kind()),
    }
}

fn tagged<B: BufMut>(out: &mut B, kind: u8, fields: impl FnOnce(&mut B)) {
    out.put_u8(kind);
    fields(out);
}

/// Takes the fields of a message of this kind and `term`.
pub(super) fn take_body(r: &mut Reader, kind: u8, term: Term) -> Result<Body, DecodeError> {
    // Term 0 marks what is local; it survives the forwarding of proposals and reads only.
    let forwarded = matches!(kind, PROPOSE | READ_INDEX);
    r.ensure(forwarded == (term == Term::NONE), "term does not fit the kind of message")?;
    Ok(match kind {
        PROPOSE => Body::Propose { entries: take_some(r)? },
        APPEND => Body::Append(take_append(r, term)?),
        APPEND_OK => Body::AppendResp(AppendResp { index: r.index()?, reject: None }),
        APPEND_REJECT => take_reject(r)?,
        VOTE => Body::Vote(take_vote(r, term)?),
        VOTE_RESP => Body::VoteResp { reject: r.flag()? },
        SNAP => Body::Snap { snapshot: Box::new(take_snapshot(r, term)?) },
        HEARTBEAT => Body::Heartbeat { commit: r.index()?, context: take_context(r)? },
        HEARTBEAT_RESP => Body::HeartbeatResp { context: take_context(r)? },
        TRANSFER_LEADER => Body::TransferLeader,
        TIMEOUT_NOW => Body::TimeoutNow,
        READ_INDEX => Body::ReadIndex { entries: take_one(r)? },
        READ_INDEX_RESP => Body::ReadIndexResp { index: r.index()?, entries: take_one(r)? },
        PRE_VOTE => Body::PreVote(take_vote(r, term)?),
        PRE_VOTE_RESP => Body::PreVoteResp { reject: r.flag()? },
        unknown => return Err(r.error(format!("message of unknown kind {unknown}"))),
    })
}

fn put_append(out: &mut impl BufMut, append: &Append) {
    put_pos(out, append.prev);
    put_varint(out, append.commit.0);
    put_run(out, append.prev, &append.entries);
}

fn take_append(r: &mut Reader, term: Term) -> Result<Append, DecodeError> {
    let prev = take_pos(r)?;
    let commit = r.index()?;
    let entries = take_run(r, prev)?;
    let last = entries.last().map_or(prev, Entry::pos);
    r.ensure(last.term <= term, "entries of a later term than the leader's")?;
    Ok(Append { prev, entries, commit })
}

fn put_append_resp(out: &mut impl BufMut, resp: &AppendResp) {
    out.put_u8(if resp.reject.is_some() { APPEND_REJECT } else { APPEND_OK });
    put_varint(out, resp.index.0);
    if let Some(hint) = resp.reject {
        put_hint(out, hint);
    }
}

// A hint's term is 0 where the receiver no longer knows it: any pair is possible.
fn put_hint(out: &mut impl BufMut, hint: LogPos) {
    put_varint(out, hint.term.0);
    put_varint(out, hint.index.0);
}

fn take_reject(r: &mut Reader) -> Result<Body, DecodeError> {
    let index = r.index()?;
    let hint = LogPos { term: r.term()?, index: r.index()? };
    Ok(Body::AppendResp(AppendResp { index, reject: Some(hint) }))
}

fn put_vote(out: &mut impl BufMut, request: &VoteRequest) {
    put_pos(out, request.last);
    out.put_u8(u8::from(request.transfer));
}

fn take_vote(r: &mut Reader, term: Term) -> Result<VoteRequest, DecodeError> {
    let last = take_pos(r)?;
    r.ensure(last.term <= term, "candidate's log is of a later term than its candidacy")?;
    Ok(VoteRequest { last, transfer: r.flag()? })
}

fn put_snapshot(out: &mut impl BufMut, snapshot: &Snapshot) {
    put_pos(out, snapshot.meta.pos());
    put_conf_state(out, &snapshot.meta.conf_state);
    put_blob(out, &snapshot.data);
}

fn take_snapshot(r: &mut Reader, term: Term) -> Result<Snapshot, DecodeError> {
    let pos = take_pos(r)?;
    r.ensure(pos.index > Index::NONE, "snapshot of nothing")?;
    r.ensure(pos.term <= term, "snapshot of a later term than the leader's")?;
    let conf_state = take_conf_state(r)?;
    let data = r.blob(MAX_SNAPSHOT_DATA)?;
    Ok(Snapshot { meta: SnapshotMeta { index: pos.index, term: pos.term, conf_state }, data })
}

fn take_context(r: &mut Reader) -> Result<Bytes, DecodeError> {
    r.blob(MAX_CONTEXT)
}

fn take_some(r: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let entries = take_unplaced(r)?;
    r.ensure(!entries.is_empty(), "proposal of nothing")?;
    Ok(entries)
}

fn take_one(r: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let entries = take_unplaced(r)?;
    r.ensure(entries.len() == 1, "a read carries one entry")?;
    Ok(entries)
}
