//! A host's storage: a file of synced records, and the log that they tell, in memory.
//!
//! record := length (4), checksum (8), body; body := snapshot?, entries, hard state?, each Ready's in one record.
//! Leaves to others: when to write (the host). Invariant: `write` returns once the record is on disk; a torn record at
//! the end is cut off, for nothing was promised on it.

use bytes::{BufMut, Bytes};
use pontoon_raft::{
    Entries, Entry, HardState, Index, InitialState, MemStorage, ReplicaId, Snapshot, SnapshotMeta, Storage,
    StorageError, Term,
};
use pontoon_raftstore::codec::{
    DecodeError, Reader, decode_entry, encode_entry, put_blob, put_conf_state, put_hard_state, put_pos, put_varint,
    take_conf_state, take_hard_state, take_pos,
};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What one record changes, in this order.
#[derive(Default)]
pub struct Record {
    /// Replaces the log.
    pub installed: Option<Snapshot>,
    /// Replace everything from the first one's index on.
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    /// Of the own state machine; the log in front of it goes.
    pub taken: Option<Snapshot>,
}

/// The file.
pub struct Disk {
    file: File,
    log: Log,
}

/// What the node reads.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<MemStorage>>);

impl Disk {
    /// What the file tells, as far as it was synced.
    pub fn open(path: &Path) -> Disk {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let log = Log::default();
        let mut rest = Bytes::from(bytes);
        let mut good = 0;
        while let Some(body) = whole_record(&rest) {
            log.apply(Record::decode(body.clone()).unwrap());
            good += 12 + body.len() as u64;
            rest = rest.slice(12 + body.len()..);
        }
        file.set_len(good).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Disk { file, log }
    }

    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Writes and syncs a record, then shows it to the node.
    pub fn write(&mut self, record: Record) {
        self.file.write_all(&framed(&record.encode())).unwrap();
        self.file.sync_data().unwrap();
        self.log.apply(record);
    }

    /// The power goes in the middle of a write.
    pub fn tear(mut self) {
        let record = Record { hard_state: Some(HardState::default()), ..Record::default() };
        let whole = framed(&record.encode());
        self.file.write_all(&whole[..whole.len() - 1]).unwrap();
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_le(body.len() as u32);
    out.put_u64_le(checksum(body));
    out.put_slice(body);
    out
}

fn whole_record(bytes: &Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().unwrap()) as usize;
    let sum = u64::from_le_bytes(bytes.get(4..12)?.try_into().unwrap());
    bytes.get(12..12 + length).filter(|body| checksum(body) == sum)?;
    Some(bytes.slice(12..12 + length))
}

/// FNV-1a.
fn checksum(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_snapshot(&mut out, &self.installed);
        put_varint(&mut out, self.entries.len() as u64);
        self.entries.iter().for_each(|e| encode_entry(&mut out, e));
        out.put_u8(u8::from(self.hard_state.is_some()));
        if let Some(hard_state) = &self.hard_state {
            put_hard_state(&mut out, hard_state);
        }
        put_snapshot(&mut out, &self.taken);
        out
    }

    fn decode(body: Bytes) -> Result<Record, DecodeError> {
        let mut r = Reader::new("record", body);
        let installed = take_snapshot(&mut r)?;
        let entries = (0..r.varint()?).map(|_| decode_entry(&mut r)).collect::<Result<_, _>>()?;
        let hard_state = if r.flag()? { Some(take_hard_state(&mut r)?) } else { None };
        let taken = take_snapshot(&mut r)?;
        r.finish()?;
        Ok(Record { installed, entries, hard_state, taken })
    }
}

fn put_snapshot(out: &mut Vec<u8>, snapshot: &Option<Snapshot>) {
    out.put_u8(u8::from(snapshot.is_some()));
    if let Some(snapshot) = snapshot {
        put_pos(out, snapshot.meta.pos());
        put_conf_state(out, &snapshot.meta.conf_state);
        put_blob(out, &snapshot.data);
    }
}

fn take_snapshot(r: &mut Reader) -> Result<Option<Snapshot>, DecodeError> {
    if !r.flag()? {
        return Ok(None);
    }
    let pos = take_pos(r)?;
    let meta = SnapshotMeta { index: pos.index, term: pos.term, conf_state: take_conf_state(r)? };
    Ok(Some(Snapshot { meta, data: r.blob(1 << 20)? }))
}

impl Log {
    pub fn newest_snapshot(&self) -> Snapshot {
        self.0.lock().unwrap().snapshot(ReplicaId::NONE).unwrap()
    }

    pub fn apply(&self, record: Record) {
        let mut log = self.0.lock().unwrap();
        if let Some(snapshot) = record.installed {
            log.install_snapshot(snapshot).unwrap();
        }
        log.append(&record.entries.into());
        if let Some(hard_state) = record.hard_state {
            log.set_hard_state(hard_state);
        }
        if let Some(snapshot) = record.taken {
            let upto = snapshot.meta.index;
            log.set_snapshot(snapshot).unwrap();
            log.compact(upto).unwrap();
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> InitialState {
        self.0.lock().unwrap().initial_state()
    }

    fn entries(&self, low: Index, high: Index, max_bytes: u64, page: &mut Entries) -> Result<(), StorageError> {
        self.0.lock().unwrap().entries(low, high, max_bytes, page)
    }

    fn term(&self, index: Index) -> Result<Term, StorageError> {
        self.0.lock().unwrap().term(index)
    }

    fn first_index(&self) -> Index {
        self.0.lock().unwrap().first_index()
    }

    fn last_index(&self) -> Index {
        self.0.lock().unwrap().last_index()
    }

    /// One that does not name its receiver would be ignored there: the host is about to take a newer one.
    fn snapshot(&self, to: ReplicaId) -> Result<Snapshot, StorageError> {
        let snapshot = self.newest_snapshot();
        if snapshot.meta.conf_state.contains(to) { Ok(snapshot) } else { Err(StorageError::SnapshotUnavailable) }
    }
}
