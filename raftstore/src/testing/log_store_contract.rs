//! What every log store promises, as cases over a fixture that can crash it.
//!
//! Leaves to others: how a crash is made (the fixture), formats, speed. The last case compares a store with the plain
//! image of what was written, over random batches and crashes.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use super::Rng;
use super::contract::contract;
use super::log_batches::{Writer, append, creation, entries, entry, hard_state, install, on, pos};
use crate::env::{Fetch, GroupOp, LogBatch, LogStore, MetaWrite, ReadLogError, Recovered, StoredGroup, Truncation};
use crate::ids::{Generation, GroupId, Index, ReplicaId, StoreSeq, Term};
use crate::mem::Image;
use bytes::Bytes;
use pontoon_raft::{ConfState, Entry, EntryKind};
use std::sync::Arc;

/// A store that can crash.
pub trait LogStoreFixture {
    /// The running store.
    fn store(&self) -> Arc<dyn LogStore>;
    /// Loses what the process and, as far as possible, the page cache hold, and opens the store again.
    fn crash_and_reopen(&mut self);
    /// Makes the next write fail. False: this fixture cannot.
    fn fail_next_write(&mut self) -> bool {
        false
    }
}

const G: GroupId = GroupId(7);
const H: GroupId = GroupId(8);

fn write(w: &dyn LogStoreFixture, writes: Vec<crate::env::GroupWrite>) {
    let _proof = w.store().write(&LogBatch { writes, meta: Vec::new(), sync: true }).unwrap();
}

fn put_meta(w: &dyn LogStoreFixture, key: &'static str, value: Option<&'static str>) {
    let meta = vec![MetaWrite { key: key.into(), value: value.map(Bytes::from) }];
    let _proof = w.store().write(&LogBatch { writes: Vec::new(), meta, sync: true }).unwrap();
}

fn recover(w: &mut dyn LogStoreFixture) -> Recovered {
    w.crash_and_reopen();
    w.store().load().unwrap()
}

fn recover_group(w: &mut dyn LogStoreFixture, group: GroupId) -> StoredGroup {
    recover(w).groups.into_iter().find(|g| g.group == group).unwrap()
}

fn read(w: &dyn LogStoreFixture, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, ReadLogError> {
    let fetch = Fetch { group: G, low: Index(low), high: Index(high), max_bytes };
    w.store().read(&[fetch]).remove(0)
}

fn born(w: &dyn LogStoreFixture) {
    write(w, vec![on(G, 1, GroupOp::Create { creation: Box::new(creation(3)), hard_state: hard_state(1, 0, 1) })]);
}

/// Group `G`, born at (1, 1), with entries 2 to 6 of term 2.
fn with_log(w: &dyn LogStoreFixture) {
    born(w);
    write(w, vec![append(G, 1, entries(2, 2..7), Some(hard_state(2, 1, 3)))]);
}

contract! { dyn LogStoreFixture;
    /// A new store holds nothing and says so.
    fn new_store_is_empty(w) {
        let found = recover(w);
        assert!(found.groups.is_empty() && found.tombstones.is_empty() && found.meta.is_empty());
    }

    /// Birth: creation record, hard state, truncation point at birth, no entries.
    fn birth_is_recovered(w) {
        born(w);
        let g = recover_group(w, G);
        assert_eq!((g.replica, g.generation, &g.creation), (ReplicaId(1), Generation(0), &creation(3)));
        assert_eq!((g.hard_state, g.last), (hard_state(1, 0, 1), creation(3).birth));
        assert_eq!(g.truncated, Truncation { pos: creation(3).birth, conf_state: creation(3).conf_state });
        assert!(g.terms.is_empty() && g.intent.is_none());
    }

    /// Entries keep term, kind and payload; the hard state is the last one written.
    fn entries_survive(w) {
        born(w);
        let mut list = entries(2, 2..4);
        list[1].kind = EntryKind::ConfChangeV2;
        list.push(Entry { data: Bytes::new(), ..entry(3, 4) });
        list.push(Entry { data: vec![7; 1 << 20].into(), ..entry(3, 5) });
        write(w, vec![append(G, 1, list.clone(), Some(hard_state(3, 2, 2)))]);
        write(w, vec![append(G, 1, vec![entry(3, 6)], None)]);
        list.push(entry(3, 6));
        let g = recover_group(w, G);
        assert_eq!((g.hard_state, g.last), (hard_state(3, 2, 2), pos(3, 6)));
        assert_eq!(g.terms, [(Index(2), Term(2)), (Index(4), Term(3))]);
        assert_eq!(read(w, 2, 7, u64::MAX).unwrap(), list);
    }

    /// A hard state alone is written; entries alone leave it.
    fn hard_state_alone(w) {
        with_log(w);
        write(w, vec![append(G, 1, Vec::new(), Some(hard_state(9, 3, 4)))]);
        write(w, vec![append(G, 1, vec![entry(9, 7)], None)]);
        let g = recover_group(w, G);
        assert_eq!((g.hard_state, g.last), (hard_state(9, 3, 4), pos(9, 7)));
    }

    /// From the first index of an append on, what was stored is gone: also beyond the append's own last.
    fn conflicting_append_replaces_the_suffix(w) {
        with_log(w);
        write(w, vec![append(G, 1, vec![entry(5, 4)], None)]);
        let mut expected = entries(2, 2..4);
        expected.push(entry(5, 4));
        assert_eq!(read(w, 2, 99, u64::MAX).unwrap(), expected);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.terms.as_slice()), (pos(5, 4), &[(Index(2), Term(2)), (Index(4), Term(5))][..]));
        assert_eq!(read(w, 2, 99, u64::MAX).unwrap(), expected);
        assert!(matches!(read(w, 5, 6, u64::MAX), Err(ReadLogError::Missing(_))));
    }

    /// The whole log may be replaced, and grown again over where the old one was.
    fn replaced_from_the_start_and_grown_again(w) {
        with_log(w);
        write(w, vec![append(G, 1, vec![entry(4, 2)], None)]);
        write(w, vec![append(G, 1, entries(6, 3..6), None)]);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.terms.as_slice()), (pos(6, 5), &[(Index(2), Term(4)), (Index(3), Term(6))][..]));
        assert_eq!(read(w, 3, 9, u64::MAX).unwrap(), entries(6, 3..6));
    }

    /// One batch, several changes of one group: applied in order.
    fn a_batch_is_applied_in_order(w) {
        born(w);
        let cut = Truncation { pos: pos(2, 3), conf_state: creation(3).conf_state };
        write(w, vec![
            append(G, 1, entries(2, 2..7), Some(hard_state(2, 1, 1))),
            append(G, 1, entries(3, 5..9), Some(hard_state(3, 1, 2))),
            on(G, 1, GroupOp::Truncate(cut.clone())),
            append(G, 1, entries(4, 8..10), None),
        ]);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.truncated, g.hard_state), (pos(4, 9), cut, hard_state(3, 1, 2)));
        assert_eq!(g.terms, [(Index(4), Term(2)), (Index(5), Term(3)), (Index(8), Term(4))]);
        assert_eq!(read(w, 4, 99, u64::MAX).unwrap().last(), Some(&entry(4, 9)));
    }

    /// A batch holds many groups; each gets its own.
    fn many_groups_in_one_batch(w) {
        let ids = (1..=200).map(GroupId);
        let op = || GroupOp::Create { creation: Box::new(creation(3)), hard_state: hard_state(1, 0, 1) };
        write(w, ids.clone().map(|g| on(g, 2, op())).collect());
        write(w, ids.clone().map(|g| append(g, 2, entries(2, 2..3 + g.0 % 5), None)).collect());
        let found = recover(w).groups;
        assert_eq!(found.iter().map(|g| g.group).collect::<Vec<_>>(), ids.collect::<Vec<_>>(), "ascending");
        assert!(found.iter().all(|g| g.replica == ReplicaId(2) && g.last == pos(2, 2 + g.group.0 % 5)));
    }

    /// Reads give a prefix of the range within the bytes asked for, at least one entry.
    fn reads_are_bounded(w) {
        with_log(w);
        assert_eq!(read(w, 3, 5, u64::MAX).unwrap(), entries(2, 3..5));
        assert_eq!(read(w, 3, 7, 0).unwrap(), entries(2, 3..4));
        let two = entry(2, 3).encoded_size() + entry(2, 4).encoded_size();
        assert_eq!(read(w, 3, 7, two).unwrap(), entries(2, 3..5));
        assert_eq!(read(w, 3, 7, two - 1).unwrap(), entries(2, 3..4));
        assert!(matches!(read(w, 7, 9, 100), Err(ReadLogError::Missing(_))));
        let other = Fetch { group: H, low: Index(2), high: Index(3), max_bytes: 9 };
        let first = Fetch { group: G, ..other };
        let answers = w.store().read(&[other, first]);
        assert!(matches!(&answers[..], [Err(ReadLogError::Missing(H)), Ok(one)] if *one == entries(2, 2..3)));
    }

    /// Truncation: the prefix is gone, position and configuration are kept, the log goes on.
    fn truncation_is_recovered(w) {
        with_log(w);
        let cut = Truncation { pos: pos(2, 4), conf_state: ConfState::new(vec![ReplicaId(1)], vec![ReplicaId(9)]) };
        write(w, vec![on(G, 1, GroupOp::Truncate(cut.clone()))]);
        for _ in 0..2 {
            let first = Index(5);
            assert!(matches!(read(w, 4, 6, 99), Err(ReadLogError::Truncated { first: f }) if f == first));
            assert_eq!(read(w, 5, 7, u64::MAX).unwrap(), entries(2, 5..7));
            let g = recover_group(w, G);
            assert_eq!((g.truncated, g.last, g.terms), (cut.clone(), pos(2, 6), vec![(Index(5), Term(2))]));
        }
        write(w, vec![append(G, 1, entries(3, 7..8), None)]);
        assert_eq!(recover_group(w, G).last, pos(3, 7));
    }

    /// A log may be truncated to nothing and still knows its last position.
    fn truncation_of_everything(w) {
        with_log(w);
        let cut = Truncation { pos: pos(2, 6), conf_state: creation(3).conf_state };
        write(w, vec![on(G, 1, GroupOp::Truncate(cut.clone()))]);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.terms.len(), g.truncated), (pos(2, 6), 0, cut));
        write(w, vec![append(G, 1, entries(2, 7..9), None)]);
        assert_eq!(read(w, 7, 9, u64::MAX).unwrap(), entries(2, 7..9));
    }

    /// A conflict right behind the truncation point, in what may be one stored unit with dropped entries.
    fn conflict_behind_a_truncation(w) {
        with_log(w);
        let cut = Truncation { pos: pos(2, 3), conf_state: creation(3).conf_state };
        write(w, vec![on(G, 1, GroupOp::Truncate(cut))]);
        write(w, vec![append(G, 1, vec![entry(7, 4)], None)]);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.terms.as_slice()), (pos(7, 4), &[(Index(4), Term(7))][..]));
        assert!(matches!(read(w, 3, 5, 99), Err(ReadLogError::Truncated { .. })));
    }

    /// An intent is found until it is dropped; nothing else changes.
    fn intent_is_recovered_and_dropped(w) {
        with_log(w);
        write(w, vec![on(G, 1, GroupOp::Intent(Box::new(install(5, 20, 1))))]);
        let g = recover_group(w, G);
        assert_eq!((g.intent, g.last, g.generation), (Some(install(5, 20, 1)), pos(2, 6), Generation(0)));
        write(w, vec![on(G, 1, GroupOp::DropIntent)]);
        let g = recover_group(w, G);
        assert_eq!((g.intent, g.last), (None, pos(2, 6)));
    }

    /// An install empties the log, takes generation and hard state, removes the intent; the log goes on behind it.
    fn install_is_recovered(w) {
        with_log(w);
        let done = GroupOp::Install { install: Box::new(install(5, 20, 1)), hard_state: hard_state(5, 2, 20) };
        write(w, vec![on(G, 1, GroupOp::Intent(Box::new(install(5, 20, 1))))]);
        write(w, vec![on(G, 1, done)]);
        let g = recover_group(w, G);
        assert_eq!((g.intent, g.last, g.generation), (None, pos(5, 20), Generation(1)));
        assert_eq!((g.hard_state, g.terms.len(), g.truncated.pos), (hard_state(5, 2, 20), 0, pos(5, 20)));
        assert_eq!(g.truncated.conf_state, install(5, 20, 1).conf_state);
        assert!(matches!(read(w, 6, 7, 99), Err(ReadLogError::Truncated { first: Index(21) })));
        write(w, vec![append(G, 1, entries(5, 21..23), None)]);
        assert_eq!(recover_group(w, G).last, pos(5, 22));
        assert_eq!(read(w, 21, 99, u64::MAX).unwrap(), entries(5, 21..23));
    }

    /// An install below the old log's end: nothing of the old suffix comes back.
    fn install_inside_the_old_log(w) {
        with_log(w);
        let done = GroupOp::Install { install: Box::new(install(3, 4, 1)), hard_state: hard_state(3, 0, 4) };
        write(w, vec![on(G, 1, GroupOp::Intent(Box::new(install(3, 4, 1)))), on(G, 1, done)]);
        write(w, vec![append(G, 1, vec![entry(3, 5)], None)]);
        let g = recover_group(w, G);
        assert_eq!((g.last, g.terms), (pos(3, 5), vec![(Index(5), Term(3))]));
        assert_eq!(read(w, 5, 99, u64::MAX).unwrap(), [entry(3, 5)]);
    }

    /// A destroyed replica leaves a tombstone and nothing else; a higher id may be born, with an empty log.
    fn destroy_and_birth_again(w) {
        with_log(w);
        write(w, vec![on(G, 1, GroupOp::Destroy { next_replica: ReplicaId(4) })]);
        assert!(read(w, 2, 7, 99).is_err());
        let found = recover(w);
        assert!(found.groups.is_empty());
        assert_eq!(found.tombstones.len(), 1);
        assert_eq!((found.tombstones[0].group, found.tombstones[0].next_replica), (G, ReplicaId(4)));
        assert!(read(w, 2, 7, 99).is_err());
        let again = GroupOp::Create { creation: Box::new(creation(3)), hard_state: hard_state(1, 0, 1) };
        write(w, vec![on(G, 5, again), append(G, 5, entries(8, 2..3), None)]);
        let found = recover(w);
        assert!(found.tombstones.is_empty(), "the birth replaces the tombstone");
        let g = &found.groups[0];
        assert_eq!((g.replica, g.last, g.terms.as_slice()), (ReplicaId(5), pos(8, 2), &[(Index(2), Term(8))][..]));
        assert_eq!(read(w, 2, 99, u64::MAX).unwrap(), entries(8, 2..3));
    }

    /// Node records: put, replaced, deleted, together with groups.
    fn node_records(w) {
        put_meta(w, "node", Some("one"));
        put_meta(w, "peer/1", Some("x"));
        put_meta(w, "node", Some("two"));
        put_meta(w, "peer/1", None);
        put_meta(w, "never", None);
        let mut both = LogBatch { sync: true, ..LogBatch::default() };
        both.meta.push(MetaWrite { key: "epoch".into(), value: Some(Bytes::new()) });
        both.writes.push(on(G, 1, GroupOp::Create { creation: Box::new(creation(1)), hard_state: hard_state(1, 0, 1) }));
        let _proof = w.store().write(&both).unwrap();
        let mut found = recover(w);
        found.meta.sort();
        assert_eq!(found.meta, [("epoch".into(), Bytes::new()), ("node".into(), Bytes::from("two"))]);
        assert_eq!(found.groups.len(), 1);
    }

    /// Sequence numbers grow, and what recovers is at least what was synced.
    fn sequence_numbers_grow_over_crashes(w) {
        let mut last = w.store().synced_seq();
        for round in 0..4 {
            if round == 0 { born(w); } else { write(w, vec![append(G, 1, vec![entry(2, 1 + round)], None)]); }
            let proof = w.store().write(&LogBatch { sync: true, ..append_batch(round) }).unwrap();
            let synced = w.store().synced_seq();
            assert!(synced > last && proof.seq() == synced, "{last} {synced} {proof:?}");
            w.crash_and_reopen();
            assert!(w.store().recovered_seq() >= synced);
            assert!(w.store().synced_seq() >= synced, "after a restart what recovered counts as synced");
            last = w.store().synced_seq();
        }
    }

    /// What was not synced may be lost, but only from its end; a later sync makes it durable.
    fn unsynced_writes_survive_as_a_prefix(w) {
        born(w);
        let commit = |n| append(G, 1, Vec::new(), Some(hard_state(1, 0, n)));
        let unsynced = |w: &dyn LogStoreFixture, op| {
            let _no_promise = w.store().write(&LogBatch { writes: vec![op], ..LogBatch::default() }).unwrap();
        };
        unsynced(w, commit(2));
        write(w, vec![append(G, 1, vec![entry(2, 2)], None)]);
        let g = recover_group(w, G);
        assert_eq!((g.hard_state.commit, g.last), (Index(2), pos(2, 2)));
        for n in 3..9 {
            unsynced(w, commit(n));
            unsynced(w, append(G, 1, vec![entry(2, n)], None));
        }
        let g = recover_group(w, G);
        let (commit, last) = (g.hard_state.commit.0, g.last.index.0);
        assert!(last == commit || last + 1 == commit, "commit {commit}, last {last}: not a prefix of what was written");
    }

    /// After a failed write nothing works until the store is opened anew; then the batch is there or not, whole.
    fn a_failed_write_poisons(w) {
        with_log(w);
        if !w.fail_next_write() {
            return;
        }
        let store = w.store();
        let batch = LogBatch { writes: vec![append(G, 1, entries(3, 7..9), Some(hard_state(3, 1, 7)))], meta: Vec::new(), sync: true };
        assert!(store.write(&batch).is_err());
        assert!(store.write(&batch).is_err(), "no later success is believed");
        assert!(store.write(&LogBatch::default()).is_err());
        let fetch = Fetch { group: G, low: Index(2), high: Index(3), max_bytes: 99 };
        assert!(matches!(store.read(&[fetch]).remove(0), Err(ReadLogError::Poisoned)));
        drop(store);
        let g = recover_group(w, G);
        let seen = (g.last, g.hard_state);
        assert!(seen == (pos(2, 6), hard_state(2, 1, 3)) || seen == (pos(3, 8), hard_state(3, 1, 7)), "{seen:?}");
    }

    /// The estimate of live bytes follows appends and truncations.
    fn live_bytes_follow(w) {
        born(w);
        let before = w.store().live_bytes();
        let big: Vec<Entry> = (2..10).map(|i| Entry { data: vec![1; 10_000].into(), ..entry(2, i) }).collect();
        write(w, vec![append(G, 1, big, None)]);
        let full = w.store().live_bytes();
        assert!(full >= before + 80_000, "{before} {full}");
        assert!((80_000..400_000).contains(&recover_group(w, G).bytes));
        write(w, vec![on(G, 1, GroupOp::Truncate(Truncation { pos: pos(2, 9), ..Truncation::default() }))]);
        assert!(w.store().live_bytes() < full - 40_000);
        assert!(recover_group(w, G).bytes < 40_000);
    }

    /// Random batches and crashes: the store holds exactly what a plain image of the synced batches holds.
    fn random_batches_match_the_image(w) {
        let mut rng = Rng::new(11);
        let mut image = Image::default();
        let mut writer = Writer::default();
        for round in 0..300u64 {
            let batch = writer.batch(&mut rng, &image);
            let _proof = w.store().write(&batch).unwrap();
            image.apply(StoreSeq(round), &batch);
            if rng.chance(60) {
                compare(&image, w);
            }
        }
        compare(&image, w);
    }
}

fn append_batch(round: u64) -> LogBatch {
    let at = if round == 0 { 2 } else { 2 + round };
    LogBatch { writes: vec![append(G, 1, vec![entry(2, at)], None)], ..LogBatch::default() }
}

fn compare(image: &Image, w: &mut dyn LogStoreFixture) {
    let mut expected = image.recovered();
    let mut found = recover(w);
    for group in expected.groups.iter_mut().chain(&mut found.groups) {
        group.bytes = 0; // an estimate
    }
    found.meta.sort();
    found.tombstones.sort_by_key(|t| t.group);
    assert_eq!(found.groups, expected.groups);
    assert_eq!(found.meta, expected.meta);
    assert_eq!(found.tombstones, expected.tombstones);
    for (id, group) in &image.groups {
        let (low, high) = (group.truncated.pos.index.next(), group.last().index.next());
        if low < high {
            let fetch = Fetch { group: *id, low, high, max_bytes: u64::MAX };
            let entries = w.store().read(&[fetch]).remove(0).unwrap();
            assert_eq!(group.entries, entries, "log of group {id}");
        }
    }
}
