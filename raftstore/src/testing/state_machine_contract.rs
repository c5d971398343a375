//! What every state-machine kind promises to the appliers, as cases over a fixture that can crash it.
//!
//! Leaves to others: the kind's commands (the fixture makes puts and reads values), replies (the engine's slots).
//! Cases about surviving a crash hold for durable kinds; a volatile one must be empty after it.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use super::contract::contract;
use crate::env::{
    ApplyMeta, ApplyRun, DurablePositions, Machine, MachineKind, Meta, SmError, SnapshotInput, SnapshotOutput,
    SnapshotPart, Stage,
};
use crate::ids::{Generation, GroupId, Index, ReplicaId, Term};
use bytes::Bytes;
use pontoon_raft::Entry;
use std::sync::Arc;

/// A kind that can crash, and the words of its commands.
pub trait MachineFixture {
    /// The running kind.
    fn kind(&self) -> Arc<dyn MachineKind>;
    /// Drops everything that was not flushed, and opens the kind again.
    fn crash_and_reopen(&mut self);
    /// A command that sets `key` to `value`.
    fn put(&self, key: &str, value: &str) -> Bytes;
    /// The value of `key` in a read view of `machine`.
    fn get(&self, machine: &dyn Machine, key: &str) -> Option<String>;
}

const POSITION: &[u8] = b"position";

fn open(w: &dyn MachineFixture, group: u64, generation: u64) -> Box<dyn Machine> {
    w.kind().open(GroupId(group), ReplicaId(1), Generation(generation)).unwrap()
}

fn meta_at(index: u64) -> ApplyMeta {
    ApplyMeta { puts: vec![(POSITION.into(), index.to_string().into())], deletes: Vec::new() }
}

/// Stages puts of `key` to its index, with the position after them.
fn stage(w: &dyn MachineFixture, m: &mut dyn Machine, stage: &mut Stage, key: &str, indexes: std::ops::Range<u64>) {
    let last = indexes.end - 1;
    let entry = |i: u64| Entry { term: Term(1), index: Index(i), ..Entry::normal(w.put(key, &i.to_string())) };
    let entries: Vec<Entry> = indexes.map(entry).collect();
    let run: Vec<&Entry> = entries.iter().collect();
    let _answers = m.apply(stage, &ApplyRun { entries: &run, meta: &meta_at(last) }).unwrap();
}

fn apply(w: &dyn MachineFixture, m: &mut dyn Machine, key: &str, indexes: std::ops::Range<u64>) {
    let mut all = w.kind().stage();
    stage(w, m, &mut all, key, indexes);
    w.kind().commit(all).unwrap();
}

fn position(m: &mut dyn Machine) -> Option<u64> {
    position_in(&m.recover().unwrap())
}

fn position_in(meta: &Meta) -> Option<u64> {
    let found = meta.iter().find(|p| p.0 == POSITION)?;
    Some(std::str::from_utf8(&found.1).unwrap().parse().unwrap())
}

fn durable(w: &dyn MachineFixture) -> DurablePositions {
    let mut found = DurablePositions::default();
    w.kind().durable(&mut found).unwrap();
    found
}

fn durable_position(w: &dyn MachineFixture, group: u64, generation: u64) -> Option<u64> {
    let found = durable(w).found;
    let own = found.iter().find(|f| (f.0, f.1, f.2) == (GroupId(group), ReplicaId(1), Generation(generation)))?;
    position_in(&own.3)
}

#[derive(Default)]
struct Parts {
    meta: Meta,
    chunks: Vec<Bytes>,
    cancel_after: Option<usize>,
}

impl SnapshotOutput for Parts {
    fn chunk(&mut self, data: Bytes) -> Result<(), SmError> {
        if self.cancel_after == Some(self.chunks.len()) {
            return Err(SmError::Cancelled);
        }
        self.chunks.push(data);
        Ok(())
    }
}

struct Playback(Meta, std::vec::IntoIter<Bytes>);

impl SnapshotInput for Playback {
    fn meta(&self) -> &Meta {
        &self.0
    }

    fn next(&mut self) -> Result<Option<SnapshotPart>, SmError> {
        Ok(self.1.next().map(SnapshotPart::Chunk))
    }
}

fn snapshot(m: &mut dyn Machine, index: u64) -> Parts {
    let mut parts = Parts { meta: meta_at(index).puts, ..Parts::default() };
    m.snapshot().unwrap().write_to(&mut parts).unwrap();
    parts
}

fn restore(m: &mut dyn Machine, parts: Parts) {
    m.restore(&mut Playback(parts.meta, parts.chunks.into_iter())).unwrap();
}

contract! { dyn MachineFixture;
    /// A new machine has no meta and no data.
    fn new_machine_is_empty(w) {
        let mut m = open(w, 1, 0);
        assert!(m.recover().unwrap().is_empty());
        assert_eq!(w.get(&*m, "a"), None);
    }

    /// What is committed is visible, data and meta.
    fn committed_is_visible(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..5);
        assert_eq!((w.get(&*m, "a").as_deref(), position(&mut *m)), (Some("4"), Some(4)));
        apply(w, &mut *m, "b", 5..6);
        assert_eq!((w.get(&*m, "a").as_deref(), w.get(&*m, "b").as_deref()), (Some("4"), Some("5")));
        assert_eq!(position(&mut *m), Some(5));
    }

    /// A dropped stage leaves no trace.
    fn dropped_stage_has_no_effect(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..3);
        let mut dropped = w.kind().stage();
        stage(w, &mut *m, &mut dropped, "a", 3..9);
        drop(dropped);
        assert_eq!((w.get(&*m, "a").as_deref(), position(&mut *m)), (Some("2"), Some(2)));
        apply(w, &mut *m, "b", 3..4);
        assert_eq!((w.get(&*m, "a").as_deref(), position(&mut *m)), (Some("2"), Some(3)));
    }

    /// One stage holds several runs of one group and runs of several groups.
    fn one_stage_for_all(w) {
        let (mut one, mut two) = (open(w, 1, 0), open(w, 2, 0));
        let mut all = w.kind().stage();
        stage(w, &mut *one, &mut all, "a", 2..4);
        stage(w, &mut *two, &mut all, "a", 2..3);
        stage(w, &mut *one, &mut all, "b", 4..7);
        w.kind().commit(all).unwrap();
        assert_eq!((w.get(&*one, "a").as_deref(), w.get(&*one, "b").as_deref()), (Some("3"), Some("6")));
        assert_eq!((w.get(&*two, "a").as_deref(), w.get(&*two, "b")), (Some("2"), None));
        assert_eq!((position(&mut *one), position(&mut *two)), (Some(6), Some(2)));
    }

    /// Meta keys can be deleted with data, and a run may hold meta alone.
    fn meta_alone(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..3);
        let mut all = w.kind().stage();
        let mut meta = meta_at(9);
        meta.puts.push(("extra".into(), "x".into()));
        let _none = m.apply(&mut all, &ApplyRun { entries: &[], meta: &meta }).unwrap();
        w.kind().commit(all).unwrap();
        assert_eq!((position(&mut *m), m.recover().unwrap().len()), (Some(9), 2));
        let mut all = w.kind().stage();
        let meta = ApplyMeta { puts: Vec::new(), deletes: vec!["extra".into()] };
        let _none = m.apply(&mut all, &ApplyRun { entries: &[], meta: &meta }).unwrap();
        w.kind().commit(all).unwrap();
        assert_eq!((position(&mut *m), m.recover().unwrap().len()), (Some(9), 1));
        assert_eq!(w.get(&*m, "a").as_deref(), Some("2"));
    }

    /// Groups, replicas and generations do not see each other.
    fn contents_are_apart(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..3);
        assert_eq!(w.get(&*open(w, 1, 1), "a"), None);
        assert_eq!(w.get(&*open(w, 2, 0), "a"), None);
        let other = w.kind().open(GroupId(1), ReplicaId(2), Generation(0)).unwrap();
        assert_eq!(w.get(&*other, "a"), None);
        assert_eq!(w.get(&*open(w, 1, 0), "a").as_deref(), Some("2"));
    }

    /// After a crash a durable machine stands at a commit, not before the reported position; data and meta agree.
    fn crash_keeps_what_was_reported(w) {
        let mut reported = None;
        let mut next = 2;
        for round in 0..6 {
            let mut m = open(w, 1, 0);
            for _ in 0..5 {
                apply(w, &mut *m, "a", next..next + 2);
                next += 2;
            }
            if round % 2 == 0 {
                reported = durable_position(w, 1, 0);
                assert!(!w.kind().is_durable() || reported == Some(next - 1), "{reported:?}");
            }
            apply(w, &mut *m, "a", next..next + 1);
            drop(m);
            w.crash_and_reopen();
            let mut m = open(w, 1, 0);
            let found = position(&mut *m);
            assert_eq!(w.get(&*m, "a"), found.map(|i| i.to_string()), "data and meta");
            if w.kind().is_durable() {
                assert!(found >= reported, "{found:?} after {reported:?} was reported durable");
                assert!(found.is_none_or(|f| f < next + 1));
            } else {
                assert_eq!(found, None, "nothing survives in a volatile machine");
            }
            next = found.unwrap_or(1) + 1;
        }
    }

    /// A volatile kind never claims that something is durable.
    fn volatile_reports_nothing(w) {
        if !w.kind().is_durable() {
            let mut m = open(w, 1, 0);
            apply(w, &mut *m, "a", 2..3);
            assert!(durable(w).found.is_empty());
        }
    }

    /// A snapshot is the state of its moment, whatever is applied later.
    fn snapshot_is_a_moment(w) {
        let mut m = open(w, 1, 0);
        for i in 2..40 {
            apply(w, &mut *m, &format!("k{i}"), i..i + 1);
        }
        let handle = m.snapshot().unwrap();
        apply(w, &mut *m, "k5", 40..50);
        apply(w, &mut *m, "later", 50..51);
        let mut parts = Parts { meta: meta_at(39).puts, ..Parts::default() };
        handle.write_to(&mut parts).unwrap();
        let mut copy = open(w, 2, 1);
        restore(&mut *copy, parts);
        assert_eq!((w.get(&*copy, "k5").as_deref(), w.get(&*copy, "later")), (Some("5"), None));
        assert_eq!((w.get(&*copy, "k39").as_deref(), position(&mut *copy)), (Some("39"), Some(39)));
        assert_eq!(w.get(&*m, "k5").as_deref(), Some("49"));
    }

    /// A restore replaces what was there, is durable after `persist` (durable kinds), and the machine goes on from it.
    fn restore_is_durable_once_persisted(w) {
        let (mut from, mut to) = (open(w, 1, 0), open(w, 1, 1));
        apply(w, &mut *from, "a", 2..7);
        apply(w, &mut *to, "old", 2..3);
        let parts = snapshot(&mut *from, 6);
        restore(&mut *to, parts);
        assert_eq!((w.get(&*to, "a").as_deref(), w.get(&*to, "old")), (Some("6"), None));
        w.kind().persist().unwrap();
        if w.kind().is_durable() {
            drop((from, to));
            w.crash_and_reopen();
            to = open(w, 1, 1);
            assert_eq!((w.get(&*to, "a").as_deref(), position(&mut *to)), (Some("6"), Some(6)));
            assert_eq!(w.get(&*to, "old"), None);
        }
        apply(w, &mut *to, "a", 7..8);
        assert_eq!((w.get(&*to, "a").as_deref(), position(&mut *to)), (Some("7"), Some(7)));
    }

    /// One `persist` serves many restores.
    fn many_restores_are_persisted_at_once(w) {
        let mut from = open(w, 1, 0);
        apply(w, &mut *from, "a", 2..7);
        for group in 2..6 {
            let parts = snapshot(&mut *from, 6);
            restore(&mut *open(w, group, 0), parts);
        }
        w.kind().persist().unwrap();
        if w.kind().is_durable() {
            drop(from);
            w.crash_and_reopen();
            for group in 2..6 {
                let mut to = open(w, group, 0);
                assert_eq!((w.get(&*to, "a").as_deref(), position(&mut *to)), (Some("6"), Some(6)));
            }
        }
    }

    /// A snapshot of nothing restores to nothing but its meta.
    fn empty_snapshot(w) {
        let parts = snapshot(&mut *open(w, 1, 0), 3);
        let mut to = open(w, 2, 0);
        apply(w, &mut *to, "a", 2..3);
        restore(&mut *to, parts);
        assert_eq!((w.get(&*to, "a"), position(&mut *to)), (None, Some(3)));
    }

    /// Who reads a snapshot can end it.
    fn snapshot_can_be_cancelled(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..3);
        let mut parts = Parts { cancel_after: Some(0), ..Parts::default() };
        assert!(matches!(m.snapshot().unwrap().write_to(&mut parts), Err(SmError::Cancelled)));
        assert_eq!(w.get(&*m, "a").as_deref(), Some("2"));
    }

    /// A broken stream fails the restore; the older generation still stands.
    fn broken_stream_is_refused(w) {
        let mut m = open(w, 1, 0);
        apply(w, &mut *m, "a", 2..3);
        let parts = Parts { chunks: vec![Bytes::from_static(b"\xff\xff garbage")], ..Parts::default() };
        let mut to = open(w, 1, 1);
        assert!(to.restore(&mut Playback(parts.meta, parts.chunks.into_iter())).is_err());
        assert_eq!(w.get(&*m, "a").as_deref(), Some("2"));
    }

    /// A destroyed replica's contents are gone; the same name begins empty.
    fn destroy_deletes(w) {
        let (mut m, mut other) = (open(w, 1, 0), open(w, 2, 0));
        apply(w, &mut *m, "a", 2..3);
        apply(w, &mut *other, "a", 2..3);
        m.destroy().unwrap();
        let mut again = open(w, 1, 0);
        assert_eq!((w.get(&*again, "a"), position(&mut *again)), (None, None));
        assert_eq!(w.get(&*other, "a").as_deref(), Some("2"));
    }

    /// A machine that failed deletes nothing itself: one opened anew for its contents does.
    fn destroy_of_one_opened_anew_deletes(w) {
        let (mut failed, mut other) = (open(w, 1, 0), open(w, 1, 1));
        apply(w, &mut *failed, "a", 2..3);
        apply(w, &mut *other, "a", 2..3);
        drop(failed);
        open(w, 1, 0).destroy().unwrap();
        let mut again = open(w, 1, 0);
        assert_eq!((w.get(&*again, "a"), position(&mut *again)), (None, None));
        assert_eq!(w.get(&*other, "a").as_deref(), Some("2"), "another generation stays");
    }

    /// What boot does not name is garbage; what it names stays.
    fn retain_keeps_the_living(w) {
        let (mut one, mut two) = (open(w, 1, 0), open(w, 2, 0));
        apply(w, &mut *one, "a", 2..3);
        apply(w, &mut *two, "a", 2..3);
        drop((one, two));
        let _flushed = durable(w);
        w.kind().retain(&[(GroupId(2), ReplicaId(1), Generation(0))]).unwrap();
        assert_eq!(w.get(&*open(w, 1, 0), "a"), None);
        assert_eq!(w.get(&*open(w, 2, 0), "a").as_deref(), Some("2"));
    }
}
