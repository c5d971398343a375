//! What every directory of snapshot files promises, as cases over a fixture that can crash it.
//!
//! Leaves to others: what the files hold. A crash may keep more than was synced, never less.
#![allow(clippy::unwrap_used, reason = "a test suite")]

use super::contract::contract;
use crate::env::SnapshotFiles;
use crate::ids::SpoolId;
use std::io::ErrorKind;
use std::sync::Arc;

/// A directory that can crash.
pub trait FilesFixture {
    /// The open directory.
    fn files(&self) -> Arc<dyn SnapshotFiles>;
    /// Loses what was not synced, as far as possible, and opens the directory again.
    fn crash_and_reopen(&mut self);
}

const A: SpoolId = SpoolId(1);
const B: SpoolId = SpoolId(2);

fn spool(w: &dyn FilesFixture, id: SpoolId, data: &[u8], publish: bool) {
    let mut file = w.files().create(id).unwrap();
    data.chunks(7).for_each(|part| file.write(part).unwrap());
    drop(file);
    if publish {
        w.files().publish(&[id]).unwrap();
    }
}

fn contents(w: &dyn FilesFixture, id: SpoolId) -> Vec<u8> {
    let mut file = w.files().open(id).unwrap();
    let mut out = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let mut at = 0;
    while at < out.len() {
        let n = file.read_at(at as u64, &mut out[at..]).unwrap();
        assert!(n > 0, "the file ends before its length");
        at += n;
    }
    out
}

contract! { dyn FilesFixture;
    /// A staged file can be read by the process that wrote it.
    fn staged_file_is_readable(w) {
        let data: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        spool(w, A, &data, false);
        assert_eq!(contents(w, A), data);
        assert!(w.files().published().unwrap().is_empty());
    }

    /// Reads at any offset; nothing beyond the end.
    fn reads_at_offsets(w) {
        spool(w, A, b"0123456789", false);
        let mut file = w.files().open(A).unwrap();
        let mut buf = [0; 4];
        assert_eq!((file.read_at(3, &mut buf).unwrap(), &buf), (4, b"3456"));
        assert_eq!(file.read_at(10, &mut buf).unwrap(), 0);
        assert_eq!(file.read_at(99, &mut buf).unwrap(), 0);
        assert!(!file.is_empty().unwrap());
    }

    /// What is published survives a crash, whole.
    fn published_file_survives(w) {
        spool(w, A, b"kept", true);
        w.crash_and_reopen();
        assert_eq!((contents(w, A), w.files().published().unwrap()), (b"kept".to_vec(), vec![A]));
    }

    /// What is staged is garbage after a restart, and its name is free.
    fn staged_file_is_garbage_after_a_restart(w) {
        spool(w, A, b"lost", false);
        w.crash_and_reopen();
        assert_eq!(w.files().open(A).err().unwrap().kind(), ErrorKind::NotFound);
        spool(w, A, b"new", true);
        assert_eq!(contents(w, A), b"new");
    }

    /// Published files are listed in ascending order.
    fn published_files_are_listed(w) {
        for id in [9, 300, 1, 256, 70_000] {
            spool(w, SpoolId(id), b"x", true);
        }
        spool(w, SpoolId(5), b"x", false);
        let ids: Vec<u64> = w.files().published().unwrap().iter().map(|s| s.0).collect();
        assert_eq!(ids, [1, 9, 256, 300, 70_000]);
    }

    /// A name is given once.
    fn names_are_not_reused_while_they_exist(w) {
        spool(w, A, b"x", false);
        assert_eq!(w.files().create(A).err().unwrap().kind(), ErrorKind::AlreadyExists);
        w.files().publish(&[A]).unwrap();
        assert_eq!(w.files().create(A).err().unwrap().kind(), ErrorKind::AlreadyExists);
    }

    /// Removing works on staged and published files and on what is not there.
    fn remove_is_idempotent(w) {
        spool(w, A, b"x", true);
        spool(w, B, b"x", false);
        for id in [A, B, B, SpoolId(77)] {
            w.files().remove(id).unwrap();
        }
        assert!(w.files().published().unwrap().is_empty());
        assert!(w.files().open(A).is_err() && w.files().open(B).is_err());
    }

    /// Files that are published together survive together; others stay staged.
    fn files_are_published_together(w) {
        for id in [7, 3, 5, 4] {
            spool(w, SpoolId(id), &[id as u8; 100], false);
        }
        w.files().publish(&[SpoolId(7), SpoolId(3), SpoolId(5)]).unwrap();
        w.crash_and_reopen();
        assert_eq!(w.files().published().unwrap(), [3, 5, 7].map(SpoolId));
        for id in [3, 5, 7] {
            assert_eq!(contents(w, SpoolId(id)), [id as u8; 100]);
        }
        assert!(w.files().open(SpoolId(4)).is_err());
    }

    /// Publishing what is not there, or is published, fails, and loses nothing that is there.
    fn publishing_nothing_fails(w) {
        assert!(w.files().publish(&[A]).is_err());
        spool(w, B, b"kept", true);
        assert!(w.files().publish(&[B]).is_err());
        spool(w, A, b"new", false);
        assert!(w.files().publish(&[A, SpoolId(3)]).is_err());
        assert_eq!((contents(w, A), contents(w, B)), (b"new".to_vec(), b"kept".to_vec()));
    }
}
