//! The log's arithmetic where no transcript shows it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::mem_storage::MemStorage;
use bytes::Bytes;

fn entry(term: u64, index: u64) -> Entry {
    Entry { term: Term(term), index: Index(index), data: Bytes::from_static(b"123"), ..Entry::default() }
}

fn pos(term: u64, index: u64) -> LogPos {
    LogPos::new(Term(term), Index(index))
}

/// A log of these terms from index 1 on; the first `stable` of them are in storage, up to `base` compacted.
fn log(terms: &[u64], stable: usize, base: u64) -> RaftLog<MemStorage> {
    let entries: Vec<Entry> = terms.iter().zip(1..).map(|(t, i)| entry(*t, i)).collect();
    let mut storage = MemStorage::new();
    storage.append(&entries[..stable].to_vec().into());
    if base > 0 {
        storage.compact(Index(base)).unwrap();
    }
    let mut log = RaftLog::new(storage, u64::MAX);
    // Runs of one and two entries.
    entries[stable..].chunks(2).for_each(|run| log.append(run.to_vec().into()));
    log
}

#[test]
fn guesses_by_example() {
    // raft-core 8.5.
    assert_eq!(log(&[2, 2, 3, 3, 3], 3, 0).guess(Index(5), Term(6)), pos(3, 5));
    assert_eq!(log(&[2, 2, 4, 4, 4, 6, 6], 3, 0).guess(Index(5), Term(3)), pos(2, 2));
    assert_eq!(log(&[1, 1, 3, 3, 4, 4], 3, 0).guess(Index(5), Term(2)), pos(1, 2));
    // An unknown term ends the guess (S19).
    assert_eq!(log(&[5, 5, 5, 5, 5], 5, 3).guess(Index(5), Term(2)), pos(0, 2));
    assert_eq!(log(&[5], 1, 0).guess(Index(9), Term(2)), pos(0, 9));
    assert_eq!(log(&[5], 1, 0).guess(Index(1), Term(2)), LogPos::NONE);
}

#[test]
fn terms_at_the_edges() {
    let log = log(&[1, 1, 2, 2], 3, 2);
    assert_eq!(log.term(Index(1)), Err(StorageError::Compacted));
    assert_eq!(log.term(Index(2)), Ok(Term(1)), "the one before the first stays readable (S20)");
    assert_eq!(log.term(Index(4)), Ok(Term(2)));
    assert_eq!(log.term(Index(5)), Err(StorageError::Unavailable));
    assert_eq!(log.term(Index(u64::MAX)), Err(StorageError::Unavailable));
}

fn read(log: &RaftLog<MemStorage>, low: u64, high: u64, max: u64) -> Result<Entries, StorageError> {
    let mut page = Entries::new();
    log.read(Index(low), Index(high), max, &mut page).map(|()| page)
}

/// One limit over both parts, whatever the split: the longest prefix, at least one entry.
#[test]
fn slices_do_not_show_the_seam() {
    for stable in 0..=5 {
        let log = log(&[1; 5], stable, 0);
        for (low, high, max, want) in [
            (1, 6, u64::MAX, 5),
            (1, 6, 0, 1),
            (1, 6, 27, 3),
            (1, 6, 26, 2),
            (2, 6, 9, 1),
            (3, 5, u64::MAX, 2),
            (4, 4, u64::MAX, 0),
        ] {
            let page = read(&log, low, high, max).unwrap();
            assert_eq!(page.len(), want, "[{low}, {high}) within {max}, {stable} stable");
            assert!(page.iter().zip(low..).all(|(e, i)| e.index.0 == i));
            let run = log.read_run(Index(low), Index(high), max).unwrap();
            assert_eq!(run.to_vec(), page.to_vec(), "[{low}, {high}) within {max}, {stable} stable");
        }
        assert_eq!(read(&log, 0, 2, 9), Err(StorageError::Compacted));
        assert_eq!(read(&log, 5, 7, 9), Err(StorageError::Unavailable));
    }
}

#[test]
fn applying_never_overtakes() {
    let mut log = log(&[1; 5], 3, 0);
    assert!(!log.commit_to(Index(6)), "beyond the log");
    assert!(log.commit_to(Index(4)));
    assert_eq!(log.next_page(false).1, Index(4), "unstable entries wait");
    assert_eq!(log.next_page(true).1, Index(5), "unless the same Ready persists them first");
    let page = read(&log, 1, 4, u64::MAX).unwrap();
    log.accept_page(&page, false);
    assert!(!log.has_page(false));
    assert_eq!(log.applied_pages(Index(2)), 0, "a page is given back as a whole");
    assert_eq!((log.applied(), log.applied_pages(Index(3))), (Index(2), 9));
    assert_eq!(log.applied(), Index(3));
}

#[test]
fn an_append_names_its_first_conflict() {
    let mut log = log(&[1, 1, 1], 3, 0);
    let given = vec![entry(1, 2), entry(2, 3), entry(2, 4)];
    let done = log.append_after(pos(1, 1), &given.into(), Index(9));
    let want = Appended::Done {
        last_new: Index(4),
        conflict: Some((pos(2, 3), Term(1))),
        splice: Some(Splice::Replaced(Index(3))),
    };
    assert_eq!((done, log.committed()), (want, Index(4)));
    assert_eq!(
        log.append_after(pos(2, 3), &vec![entry(3, 4)].into(), Index(9)),
        Appended::ConflictBelowCommit(pos(3, 4))
    );
    assert_eq!(log.append_after(pos(9, 4), &EntryRun::default(), Index(9)), Appended::Refused);
    assert_eq!(log.last_pos(), pos(2, 4), "neither changed anything");
}

/// The storage may still hold what lies before it, or something else there.
#[test]
fn an_unstable_snapshot_is_where_the_log_begins() {
    let mut log = log(&[1, 1, 2, 2], 4, 0);
    let mut snapshot = Snapshot::default();
    (snapshot.meta.index, snapshot.meta.term) = (Index(3), Term(3));
    log.restore(snapshot);
    assert_eq!((log.first_index(), log.last_pos(), log.committed()), (Index(4), pos(3, 3), Index(3)));
    let terms = [2, 3, 4].map(|index| log.term(Index(index)));
    assert_eq!(terms, [Err(StorageError::Compacted), Ok(Term(3)), Err(StorageError::Unavailable)]);
    assert_eq!(log.guess(Index(2), Term(3)), pos(0, 2));
}

/// raft-core 13.2: a page is given back as a whole; before that a part of it lets nothing out that had to wait.
#[test]
fn what_waits_for_a_page_waits_for_all_of_it() {
    let mut log = log(&[1; 5], 5, 0);
    log.pages.limit = 27;
    assert!(log.commit_to(Index(2)));
    log.accept_page(&read(&log, 1, 3, u64::MAX).unwrap(), false);
    log.applied_pages(Index(1));
    assert!(log.commit_to(Index(5)) && log.has_page(false), "nothing had to wait");
    assert_eq!(log.next_page(false), (Index(3), Index(6), 9));
    log.accept_page(&read(&log, 3, 4, 9).unwrap(), false);
    assert!(!log.has_page(false), "two entries did not fit");
    assert_eq!((log.applied_pages(Index(1)), log.has_page(false)), (0, false));
    assert_eq!((log.applied_pages(Index(2)), log.has_page(false)), (6, true));
    assert_eq!(log.next_page(false), (Index(4), Index(6), 18));
}

/// One entry may always be on its way, and nothing beside it, whatever way the machine went on.
#[test]
fn a_limit_of_nothing_lets_one_entry_out() {
    let mut log = log(&[1; 3], 3, 0);
    log.pages.limit = 0;
    assert!(log.commit_to(Index(3)) && log.has_page(false));
    log.accept_page(&read(&log, 1, 2, 0).unwrap(), false);
    log.applied_to(Index(0));
    assert!(!log.has_page(false));
    assert_eq!((log.applied_pages(Index(1)), log.has_page(false)), (3, true));
}
