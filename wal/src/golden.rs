//! The pinned bytes: every kind of key and value against `tests/golden/v1`, both ways, and the worked example of
//! docs/on-disk-format.md. A test that fails here means that old directories no longer open: make a new version.
//!
//! `PONTOON_BLESS=1 cargo test -p pontoon-wal golden` writes the files anew (before a release only).
#![allow(clippy::unwrap_used)]

use crate::block::{self, Block, VersionedHardState};
use crate::envelope::{Owner, StoreId};
use crate::group_record::{self, GroupRecord, Life};
use crate::keys::{self, Key};
use bytes::Bytes;
use pontoon_raft::{ConfState, Entry, EntryKind, HardState};
use pontoon_raftstore::codec::Stretch;
use pontoon_raftstore::env::{Creation, Install, Truncation};
use pontoon_raftstore::ids::{Generation, GroupId, Index, LogPos, NodeId, ReplicaId, Term};
use std::path::PathBuf;

const STORE: StoreId = StoreId(0x1122_3344_5566_7788);
const GROUP: GroupId = GroupId(3);
const OWNER: Owner = Owner { replica: ReplicaId(2), generation: Generation(1) };
const PAGE: &str = include_str!("../../docs/on-disk-format.md");

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// Compares with the file (`key`, newline, `value`, in hex) and gives back what it holds.
fn pinned(name: &str, key: &[u8], value: &[u8]) -> (Vec<u8>, Bytes) {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let now = format!("{}\n{}\n", hex(key), hex(value));
    if std::env::var_os("PONTOON_BLESS").is_some() {
        std::fs::write(file(name), &now).unwrap();
    }
    let then = std::fs::read_to_string(file(name)).unwrap();
    assert_eq!(now, then, "{name} is written differently");
    let unhex = |line: &str| -> Vec<u8> {
        (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
    };
    let mut lines = then.lines();
    (unhex(lines.next().unwrap()), unhex(lines.next().unwrap()).into())
}

fn conf_state() -> ConfState {
    ConfState::new(vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)], vec![ReplicaId(4)])
}

fn hard_state() -> VersionedHardState {
    let hard_state = HardState { term: Term(5), vote: ReplicaId(2), commit: Index(5) };
    VersionedHardState { version: 9, hard_state }
}

fn example() -> Block {
    let entry = |term, index, kind, data: &'static [u8]| Entry {
        term: Term(term),
        index: Index(index),
        kind,
        data: Bytes::from_static(data),
        ..Entry::default()
    };
    Block {
        owner: OWNER,
        hard_state: Some(hard_state()),
        prev: LogPos::new(Term(4), Index(5)),
        entries: vec![
            entry(4, 6, EntryKind::Normal, b"set x"),
            entry(5, 7, EntryKind::Normal, b""),
            entry(5, 8, EntryKind::ConfChangeV2, b"\x01\x02"),
        ]
        .into(),
    }
}

#[test]
fn block() {
    for (name, hard_state) in [("block", example().hard_state), ("block_without_hard_state", None)] {
        let block = Block { hard_state, ..example() };
        let key = keys::block(GROUP, Index(6));
        let mut value = Vec::new();
        block::encode(&mut value, &key, STORE, OWNER, hard_state.as_ref(), block.prev, &[Stretch::of(&block.entries)]);
        let (key, value) = pinned(name, &key, &value);
        assert_eq!(keys::split(&key), Some(Key::Block(GROUP, Index(6))));
        assert_eq!(block::decode(GROUP, Index(6), value, STORE).unwrap(), block);
    }
}

#[test]
fn the_page_s_worked_example_is_the_block() {
    let shown: String = PAGE
        .lines()
        .skip_while(|line| !line.contains("worked example"))
        .filter_map(|line| line.strip_prefix("    "))
        .filter_map(|line| line.split_once("  ").map(|(hex, _)| hex.replace(' ', "")))
        .collect();
    let pinned = std::fs::read_to_string(file("block")).unwrap().replace('\n', "");
    assert_eq!(shown, pinned);
}

#[test]
fn group_records() {
    let begin = Truncation { pos: LogPos::new(Term(4), Index(5)), conf_state: conf_state() };
    let creation = Creation {
        kind: "kv".into(),
        digest: 0x0102_0304_0506_0708,
        members: vec![(ReplicaId(1), NodeId(10)), (ReplicaId(2), NodeId(20))],
        conf_state: conf_state(),
        birth: LogPos::new(Term(1), Index(1)),
    };
    let install = Install {
        pos: LogPos::new(Term(6), Index(300)),
        conf_state: conf_state(),
        record: Bytes::from_static(b"record"),
        generation: Generation(2),
    };
    let records = [
        ("life_living", GroupRecord::Life(Life::Living(Box::new(creation)))),
        ("life_tombstone", GroupRecord::Life(Life::Tombstone(ReplicaId(9)))),
        ("begin", GroupRecord::Begin(begin)),
        ("intent", GroupRecord::Intent(Box::new(install))),
        ("hard_state", GroupRecord::HardState(hard_state())),
    ];
    for (name, record) in records {
        let key = keys::record(GROUP, record.kind());
        let mut value = Vec::new();
        group_record::encode(&mut value, GROUP, STORE, OWNER, &record);
        let (key, value) = pinned(name, &key, &value);
        assert_eq!(keys::split(&key), Some(Key::Record(GROUP, record.kind())));
        assert_eq!(group_record::decode(GROUP, record.kind(), value, STORE).unwrap(), (OWNER, record));
    }
}

#[test]
fn node_record() {
    let key = keys::meta(b"node");
    let mut value = Vec::new();
    group_record::encode_meta(&mut value, &key, STORE, b"body");
    let (key, value) = pinned("meta", &key, &value);
    assert_eq!(group_record::decode_meta(&key, value, STORE).unwrap(), "body");
}
