//! Rolls back what a power cut would have lost: reads the records of `shim.c` after a SIGKILL.
//!
//! Per file a seed keeps a prefix of the writes since its last completed sync, possibly torn at 512 bytes; per directory a
//! prefix of the creates, renames and removals since the directory's. Everything else is undone, newest first. Or
//! all of some files is undone, and nothing of others.
//! Leaves to others: killing, restarting, judging.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const HEADER: usize = 4096;
const RECORD: usize = 48;
const SECTOR: u64 = 512;

#[derive(Debug)]
enum Op {
    Write { offset: u64, length: u64, old_size: u64, old: Vec<u8> },
    Resize { old_size: u64, new_size: u64, old: Vec<u8> },
    Create { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, kept: Option<PathBuf> },
    Unlink { path: PathBuf, kept: PathBuf },
}

/// What one roll-back did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Completed syncs on record.
    pub(crate) syncs: u64,
    /// Syncs that the shim only pretended.
    pub(crate) lies: u64,
    /// Writes and truncations undone.
    pub(crate) writes: u64,
    /// Of which one was torn per file.
    pub(crate) torn: u64,
    /// Creates, renames and removals undone.
    pub(crate) names: u64,
    /// Log files of RocksDB that were recycled (renamed over a new number).
    pub(crate) recycled: u64,
}

/// What a power cut takes of what was never settled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut<'a> {
    /// What this seed draws.
    Seeded(u64),
    /// All that was written to files whose names end so.
    AllOf(&'a str),
}

/// Undoes part of what was never settled below `root`.
pub(crate) fn roll_back(journal: &Path, root: &Path, cut: Cut<'_>) -> io::Result<Report> {
    let mut rng = match cut {
        Cut::Seeded(seed) => Some(Rng(seed)),
        Cut::AllOf(_) => None,
    };
    let hit = |path: &Path| match cut {
        Cut::Seeded(_) => true,
        Cut::AllOf(end) => path.to_string_lossy().ends_with(end),
    };
    let mut report = Report::default();
    let (files, dirs) = unsettled(journal, &mut report)?;
    let places = inodes(&[root, &backups_of(journal)])?;
    for (ino, ops) in files {
        let keep = rng.as_mut().map_or(0, |r| r.prefix(ops.len()));
        let Some(path) = places.get(&ino).filter(|p| hit(p)) else { continue };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        for (n, (_, op)) in ops.iter().enumerate().skip(keep).rev() {
            let sector = rng.as_mut().filter(|_| n == keep).and_then(Rng::sometimes);
            report.torn += u64::from(undo_write(&file, op, sector)?);
            report.writes += 1;
        }
    }
    let mut names: Vec<(usize, Op)> = Vec::new();
    for ops in dirs.into_values() {
        let keep = rng.as_mut().map_or(ops.len(), |r| r.prefix(ops.len()));
        names.extend(ops.into_iter().skip(keep));
    }
    names.sort_by_key(|n| std::cmp::Reverse(n.0));
    for (_, op) in names {
        undo_name(&op)?;
        report.names += 1;
    }
    Ok(report)
}

type ByInode = BTreeMap<u64, Vec<(usize, Op)>>;

/// Records that no completed sync covers, by file and by directory, in order.
fn unsettled(journal: &Path, report: &mut Report) -> io::Result<(ByInode, ByInode)> {
    let file = File::open(journal)?;
    let mut word = [0; 8];
    file.read_exact_at(&mut word, 0)?;
    let tail = usize::try_from(u64::from_le_bytes(word)).map_err(io::Error::other)?;
    let mut data = vec![0; tail];
    file.read_exact_at(&mut data, 0)?;
    let (mut files, mut dirs) = (ByInode::new(), ByInode::new());
    let mut at = HEADER;
    while at + RECORD <= tail {
        let field = |n: usize| u64::from_le_bytes(data[at + n..at + n + 8].try_into().expect("eight bytes"));
        let (kind, size) = (field(0) & 0xffff_ffff, (field(0) >> 32) as usize);
        let (ino, offset, length, old_size) = (field(8), field(16), field(24), field(32));
        if field(40) != 1 {
            break;
        }
        let payload = &data[at + RECORD..at + RECORD + size];
        let text: Vec<String> =
            payload.split(|b| *b == 0).map(|p| String::from_utf8_lossy(p).into_owned()).take(3).collect();
        let kept = || text.get(2).filter(|t| !t.is_empty()).map(|t| backups_of(journal).join(t));
        match kind {
            1 => push(&mut files, ino, at, Op::Write { offset, length, old_size, old: payload.to_vec() }),
            2 => push(&mut files, ino, at, Op::Resize { old_size, new_size: length, old: payload.to_vec() }),
            3 => {
                report.syncs += 1;
                for ops in [files.get_mut(&ino), dirs.get_mut(&ino)].into_iter().flatten() {
                    ops.retain(|(when, _)| *when as u64 >= offset);
                }
            }
            4 => push(&mut dirs, ino, at, Op::Create { path: PathBuf::from(&text[0]) }),
            5 => {
                report.recycled += u64::from(text[0].ends_with(".log") && text[1].ends_with(".log"));
                push(
                    &mut dirs,
                    ino,
                    at,
                    Op::Rename { from: PathBuf::from(&text[0]), to: PathBuf::from(&text[1]), kept: kept() },
                );
            }
            6 => {
                push(
                    &mut dirs,
                    ino,
                    at,
                    Op::Unlink { path: PathBuf::from(&text[0]), kept: kept().unwrap_or_default() },
                );
            }
            _ => report.lies += 1,
        }
        at += (RECORD + size).next_multiple_of(8);
    }
    Ok((files, dirs))
}

fn push(to: &mut ByInode, ino: u64, at: usize, op: Op) {
    to.entry(ino).or_default().push((at, op));
}

fn backups_of(journal: &Path) -> PathBuf {
    PathBuf::from(format!("{}.d", journal.display()))
}

fn inodes(roots: &[&Path]) -> io::Result<HashMap<u64, PathBuf>> {
    let mut found = HashMap::new();
    let mut dirs: Vec<PathBuf> = roots.iter().map(|r| r.to_path_buf()).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                dirs.push(entry.path());
            } else {
                found.insert(meta.ino(), entry.path());
            }
        }
    }
    Ok(found)
}

/// Undoes one write; with `torn`, whole sectors at its front stay. True if some did.
fn undo_write(file: &File, op: &Op, torn: Option<u64>) -> io::Result<bool> {
    match op {
        Op::Write { offset, length, old_size, old } => {
            let sectors = (offset + length).div_ceil(SECTOR) - offset / SECTOR;
            let cut = torn.map_or(*offset, |t| (offset / SECTOR + t % sectors) * SECTOR);
            let stays = cut.clamp(*offset, offset + length) - offset;
            let mut front = vec![0; usize::try_from(stays).map_err(io::Error::other)?];
            let got = file.read_at(&mut front, *offset)?;
            file.write_all_at(old, *offset)?;
            if file.metadata()?.len() > *old_size {
                file.set_len(*old_size)?;
            }
            file.write_all_at(&front[..got], *offset)?;
            Ok(got > 0)
        }
        Op::Resize { old_size, new_size, old } => {
            file.set_len(*old_size)?;
            if old_size > new_size {
                file.write_all_at(old, *new_size)?;
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

fn undo_name(op: &Op) -> io::Result<()> {
    match op {
        Op::Create { path } => gone_is_fine(fs::remove_file(path)),
        Op::Rename { from, to, kept } => {
            gone_is_fine(fs::rename(to, from))?;
            kept.as_ref().map_or(Ok(()), |k| gone_is_fine(fs::hard_link(k, to)))
        }
        Op::Unlink { path, kept } => {
            gone_is_fine(fs::remove_file(path))?;
            fs::hard_link(kept, path)
        }
        Op::Write { .. } | Op::Resize { .. } => Ok(()),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// SplitMix64: small, and the same on every machine.
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number, half of the time.
    fn sometimes(&mut self) -> Option<u64> {
        self.next().is_multiple_of(2).then(|| self.next())
    }

    /// How many of `n` to keep: none, all, or anything between, each a third of the time.
    fn prefix(&mut self, n: usize) -> usize {
        match self.next() % 3 {
            0 => 0,
            1 => n,
            _ => (self.next() % (n as u64 + 1)) as usize,
        }
    }
}
