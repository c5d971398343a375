//! Finds the snapshots in a file of several, without reading their contents.
//!
//! Leaves to others: whether a snapshot is whole (`SpoolInput::verify`), which one counts (boot).
//! Invariant: what is damaged costs only the snapshot that it lies in: the search goes on at the next one's header.

use super::{CHUNK, Extent, FRAME_HEAD, FRAME_SUM, MAGIC, SpoolInput, TRAILER, VOID, damaged};
use crate::codec::ReplicaRecord;
use crate::env::{SmError, SnapshotFiles, SpoolReader};
use crate::ids::SpoolId;
use std::io;

/// Bytes that are searched at once.
const BLOCK: usize = 64 << 10;

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Snapshots in the order of the file. Their heads were checked, nothing more.
    pub(crate) snapshots: Vec<(Extent, ReplicaRecord)>,
    /// The file's length. Bytes.
    pub(crate) size: u64,
    /// Is there anything that could not be read?
    pub(crate) is_damaged: bool,
}

/// Walks through a file. Never fails: what cannot be read is damage.
pub(crate) fn walk(files: &dyn SnapshotFiles, id: SpoolId) -> Walk {
    let mut found = Walk::default();
    if let Err(error) = find_all(files, id, &mut found) {
        tracing::error!(spool = %id, %error, "a published snapshot file cannot be read");
        found.is_damaged = true;
    }
    found
}

fn find_all(files: &dyn SnapshotFiles, id: SpoolId, found: &mut Walk) -> io::Result<()> {
    let mut file = files.open(id)?;
    found.size = file.len()?;
    found.is_damaged = found.size == 0;
    let mut at = 0;
    while at < found.size {
        match SpoolInput::open_at(files.open(id)?, Extent { at, len: found.size - at }).and_then(pass) {
            Ok((end, record)) => {
                found.snapshots.extend(record.map(|r| (Extent { at, len: end - at }, r)));
                at = end;
            }
            Err(error) => {
                tracing::error!(spool = %id, at, %error, "a published snapshot cannot be read");
                found.is_damaged = true;
                at = next_header(&mut *file, at + 1, found.size)?;
            }
        }
    }
    Ok(())
}

/// Hops over the frames: where the snapshot ends, and its record unless it was given up.
fn pass(mut input: SpoolInput) -> Result<(u64, Option<ReplicaRecord>), SmError> {
    loop {
        let head = input.take(FRAME_HEAD)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        input.at += u64::from(len) + FRAME_SUM as u64;
        if input.at > input.end {
            return Err(damaged("the file ends early"));
        }
        match head[0] {
            CHUNK => {}
            TRAILER => return Ok((input.at, Some(input.record))),
            VOID => return Ok((input.at, None)),
            tag => return Err(damaged(&format!("unknown frame {tag}"))),
        }
    }
}

/// The next place from `at` on that looks like a header; `end` if there is none.
fn next_header(file: &mut dyn SpoolReader, mut at: u64, end: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    while at + (MAGIC.len() as u64) <= end {
        let n = file.read_at(at, &mut block)?;
        if let Some(place) = block[..n].windows(MAGIC.len()).position(|w| w == MAGIC) {
            return Ok(at + place as u64);
        }
        // A header may lie across the border of two blocks.
        let Some(passed) = n.checked_sub(MAGIC.len() - 1).filter(|n| *n > 0) else { break };
        at += passed as u64;
    }
    Ok(end)
}
