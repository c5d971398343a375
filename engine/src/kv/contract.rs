//! `KvStore` in the contract suite of machine kinds, and what only it promises: commands of one turn see each other.
//!
//! A crash is a copy of the directory of the running database: what was not flushed is not in it.
#![allow(clippy::unwrap_used)]

use super::{KvCommand, KvMachine, KvReader, KvResponse, KvStore, When};
use crate::erased::ErasedKind;
use crate::state_machine::{Batch, Kind, SmError, StateMachine};
use bytes::Bytes;
use pontoon_raft::Entry;
use pontoon_raftstore::codec::ReplicaRecord;
use pontoon_raftstore::env::{ApplyMeta, ApplyRun, Machine, MachineKind};
use pontoon_raftstore::ids::{Generation, GroupId, Index, LogPos, ReplicaId, Term};
use pontoon_raftstore::testing::state_machine_contract::{self, MachineFixture};
use std::fs;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct World {
    dir: TempDir,
    store: Arc<KvStore>,
}

impl World {
    fn new() -> World {
        World::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> World {
        let store = Arc::new(KvStore::default());
        store.start(dir.path()).unwrap();
        World { dir, store }
    }
}

/// A copy of the directory at one moment: taken again whenever the database added or removed a file meanwhile.
fn image(dir: &Path) -> TempDir {
    let names = || -> Vec<_> { fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name()).collect() };
    for _ in 0..1000 {
        let (copy, before) = (tempfile::tempdir().unwrap(), names());
        let whole = before.iter().all(|name| fs::copy(dir.join(name), copy.path().join(name)).is_ok());
        if whole && before == names() {
            return copy;
        }
    }
    panic!("the directory never stands still");
}

impl MachineFixture for World {
    fn kind(&self) -> Arc<dyn MachineKind> {
        Arc::new(ErasedKind::new(Arc::clone(&self.store), self.dir.path().to_path_buf()))
    }

    fn crash_and_reopen(&mut self) {
        let copy = image(self.dir.path());
        self.store.stop();
        *self = World::at(copy);
    }

    fn put(&self, key: &str, value: &str) -> Bytes {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        KvCommand::Set { key, value, when: When::Always, get: false }.encode()
    }

    fn get(&self, machine: &dyn Machine, key: &str) -> Option<String> {
        let reader = machine.reader();
        let value = reader.downcast_ref::<KvReader>().unwrap().get(key.as_bytes()).unwrap();
        value.map(|v| String::from_utf8(v.to_vec()).unwrap())
    }
}

#[test]
fn the_contract_of_machine_kinds() {
    for (name, case) in state_machine_contract::CASES {
        let mut world = World::new();
        eprint_case(name);
        case(&mut world);
    }
}

#[expect(clippy::print_stderr, reason = "names the failing case")]
fn eprint_case(name: &str) {
    eprintln!("{name}");
}

fn open(world: &World) -> KvMachine {
    world.store.open(GroupId(1), ReplicaId(1), Generation(0), Path::new("")).unwrap()
}

fn record(applied: u64) -> ApplyMeta {
    let applied = LogPos::new(Term(1), Index(applied));
    let record = ReplicaRecord {
        group: GroupId(1),
        replica: ReplicaId(1),
        applied,
        next_replica: ReplicaId(2),
        ..ReplicaRecord::default()
    };
    ApplyMeta { puts: vec![(Bytes::from_static(ReplicaRecord::META_KEY), record.encode())], deletes: vec![] }
}

/// One run of commands in one turn.
fn run(world: &World, machine: &mut KvMachine, commands: Vec<KvCommand>) -> Vec<KvResponse> {
    run_bytes(world, machine, commands.iter().map(KvCommand::encode).collect())
}

fn run_bytes(world: &World, machine: &mut KvMachine, commands: Vec<Bytes>) -> Vec<KvResponse> {
    let entry = |(i, command)| Entry { term: Term(1), index: Index(i), ..Entry::normal(command) };
    let entries: Vec<Entry> = (2..).zip(commands).map(entry).collect();
    let (entries, meta): (Vec<&Entry>, _) = (entries.iter().collect(), record(9));
    let run = ApplyRun { entries: &entries, meta: &meta };
    let mut stage = <KvMachine as StateMachine>::Stage::default();
    let mut batch = Batch::new(&run);
    machine.apply(&mut stage, &mut batch).unwrap();
    let replies = batch.into_replies().unwrap();
    world.store.commit(stage).unwrap();
    replies
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn set(key: &'static str, value: &'static str, when: When, get: bool) -> KvCommand {
    KvCommand::Set { key: b(key), value: b(value), when, get }
}

#[test]
fn commands_of_one_turn_see_each_other() {
    let world = World::new();
    let mut m = open(&world);
    let incr = |by| KvCommand::IncrBy { key: b("n"), by };
    let append = |value| KvCommand::Append { key: b("s"), value: b(value), limit: 6 };
    let answers = run(
        &world,
        &mut m,
        vec![
            incr(5),
            incr(-7),
            append("abc"),
            append("def"),
            append("g"),
            set("k", "1", When::Present, false),
            set("k", "1", When::Absent, true),
            set("k", "2", When::Absent, true),
            set("k", "3", When::Present, false),
            KvCommand::Delete(vec![b("k"), b("k"), b("none")]),
            set("k", "4", When::Always, true),
            KvCommand::SetMany(vec![(b("n"), b("9223372036854775807")), (b("bad"), b("007"))]),
            incr(1),
            KvCommand::IncrBy { key: b("bad"), by: 1 },
        ],
    );
    let expected = vec![
        KvResponse::Int(5),
        KvResponse::Int(-2),
        KvResponse::Length(3),
        KvResponse::Length(6),
        KvResponse::TooLong,
        KvResponse::Set(false),
        KvResponse::Previous(None),
        KvResponse::Previous(Some(b("1"))),
        KvResponse::Set(true),
        KvResponse::Deleted(1),
        KvResponse::Previous(None),
        KvResponse::Set(true),
        KvResponse::Overflow,
        KvResponse::NotANumber,
    ];
    assert_eq!(answers, expected);
    let reader = m.reader();
    let keys = ["s", "k", "none", "n"];
    let found = reader.multi_get(&keys).unwrap();
    assert_eq!(found, [Some(b("abcdef")), Some(b("4")), None, Some(b("9223372036854775807"))]);
    assert_eq!(reader.value_len(b"s").unwrap(), Some(6));
}

#[test]
fn bytes_that_are_no_command_change_nothing_and_are_told() {
    let world = World::new();
    let mut m = open(&world);
    let good = set("k", "v", When::Always, false).encode();
    let answers =
        run_bytes(&world, &mut m, vec![b("garbage"), good.clone(), good.slice(..good.len() - 1), Bytes::new()]);
    assert_eq!(
        answers,
        [KvResponse::BadCommand, KvResponse::Set(true), KvResponse::BadCommand, KvResponse::BadCommand]
    );
}

#[test]
fn ranges_and_digests_show_one_group_only() {
    let world = World::new();
    let mut m = open(&world);
    let keys = ["a", "b", "c", "d"];
    run(&world, &mut m, keys.iter().map(|k| set(k, "v", When::Always, false)).collect());
    let mut other = world.store.open(GroupId(2), ReplicaId(1), Generation(0), Path::new("")).unwrap();
    run(&world, &mut other, vec![set("b", "other", When::Always, false)]);

    let reader = m.reader();
    let range = |from, to, limit| {
        let found = reader.range(from, to, limit).unwrap();
        found.iter().map(|(k, _)| String::from_utf8(k.to_vec()).unwrap()).collect::<String>()
    };
    assert_eq!(range(Bound::Unbounded, Bound::Unbounded, 9), "abcd");
    assert_eq!(range(Bound::Excluded(b"a"), Bound::Excluded(b"d"), 9), "bc");
    assert_eq!(range(Bound::Included(b"b"), Bound::Included(b"d"), 2), "bc");
    assert_eq!(range(Bound::Excluded(b"d"), Bound::Included(b"a"), 9), "");

    let digest = reader.digest().unwrap();
    assert_eq!((digest.applied, digest.pairs, digest.bytes), (Index(9), 4, 8));
    run(&world, &mut m, vec![set("d", "w", When::Always, false)]);
    assert_ne!(reader.digest().unwrap().hash, digest.hash);
}

/// Bug: a view taken before its contents were erased read "no such key". Mechanism: a range delete under the view's
/// feet. Fix: the machine retires its views before it erases.
#[test]
fn a_view_of_erased_contents_says_so() {
    let world = World::new();
    let mut m = open(&world);
    run(&world, &mut m, vec![set("k", "v", When::Always, false)]);
    let reader = m.reader();
    assert_eq!(reader.get(b"k").unwrap(), Some(b("v")));
    m.destroy().unwrap();
    assert!(matches!(reader.get(b"k"), Err(SmError::Cancelled)));
    assert!(matches!(reader.multi_get(&["k"]), Err(SmError::Cancelled)));
    assert!(matches!(reader.range(Bound::Unbounded, Bound::Unbounded, 1), Err(SmError::Cancelled)));
    assert!(matches!(reader.digest(), Err(SmError::Cancelled)));
}

/// A machine that failed is dropped; another one, opened for it, erases what its views show.
#[test]
fn a_view_of_a_failed_machine_hears_of_the_erasure() {
    let world = World::new();
    let mut m = open(&world);
    run(&world, &mut m, vec![set("k", "v", When::Always, false)]);
    let reader = m.reader();
    drop(m);
    assert_eq!(reader.get(b"k").unwrap(), Some(b("v")), "it stands still, and may be read");
    open(&world).destroy().unwrap();
    assert!(matches!(reader.get(b"k"), Err(SmError::Cancelled)));
    assert_eq!(open(&world).reader().get(b"k").unwrap(), None, "the next one begins empty");
}

#[test]
fn a_snapshot_handle_is_let_go_with_its_value() {
    let world = World::new();
    let mut m = open(&world);
    run(&world, &mut m, vec![set("k", "v", When::Always, false)]);
    let many: Vec<_> = (0..32).map(|_| m.snapshot().unwrap()).collect();
    drop(many);
    world.store.stop();
    assert!(m.snapshot().is_err(), "after `stop` the machine says so, it does not hang");
}
