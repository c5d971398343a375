//! The machines that are driven: `count` (a hash chain), `memory` (a map), `kv` (the engine's store).
//!
//! A command is a key (8 bytes), a stamp that grows per key (8 bytes), and padding. `kv` wraps it as a `Set`.
//! Invariant: whatever a machine holds can be compared between replicas (`digest`), and with what was acknowledged.

use super::control::Digest;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use pontoon::kv::{KvCommand, KvMachine, KvStore, When};
use pontoon::{
    Batch, Durable, Generation, GroupId, Kind, Meta, Part, ReplicaId, SmError, SnapshotSink, SnapshotSource,
    SnapshotStream, StateMachine,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Start of FNV-1a.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// What the driver needs of a machine besides the engine's trait.
pub(crate) trait Driven: StateMachine {
    /// Its kind.
    type Of: Kind<Sm = Self>;
    /// The kind, new.
    fn kind() -> Self::Of;
    /// A command of `bytes` bytes of payload.
    fn command(mint: &mut Mint, key: u64, stamp: u64, bytes: usize) -> Bytes {
        mint.payload(key, stamp, bytes)
    }
    /// What is held. `applied` is the caller's to fill in.
    fn digest(reader: &Self::Reader) -> Result<Digest, SmError>;
    /// The stamp under a key; `None` if nothing is there. `Err(None)`: this machine keeps no keys.
    fn stamp(reader: &Self::Reader, key: u64) -> Result<Option<u64>, Option<SmError>>;
}

/// Makes payloads as a server does that reads many commands from a connection: cut out of one buffer, not allocated one by one,
/// and all cuts made before the first payload is let go of by another thread: they count the same references.
#[derive(Default)]
pub(crate) struct Mint {
    /// Of one length.
    blanks: Vec<BytesMut>,
    /// For commands whose length is not known before.
    buffer: BytesMut,
}

impl Mint {
    /// Small enough that what pins it for long pins little.
    const BUFFER: usize = 16 << 10;

    fn payload(&mut self, key: u64, stamp: u64, bytes: usize) -> Bytes {
        let bytes = bytes.max(16);
        let mut blank = match self.blanks.pop().filter(|blank| blank.len() == bytes) {
            Some(blank) => blank,
            None => self.cut(bytes),
        };
        blank[..8].copy_from_slice(&key.to_le_bytes());
        blank[8..16].copy_from_slice(&stamp.to_le_bytes());
        blank[16..].fill(b'.');
        blank.freeze()
    }

    fn cut(&mut self, bytes: usize) -> BytesMut {
        let more = (Self::BUFFER / bytes).saturating_sub(1);
        let mut whole = BytesMut::zeroed(bytes * (more + 1));
        self.blanks.clear();
        self.blanks.extend((0..more).map(|_| whole.split_to(bytes)));
        whole
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..).unwrap_or_default();
    let mut out = [0; 8];
    let n = part.len().min(8);
    out[..n].copy_from_slice(&part[..n]);
    u64::from_le_bytes(out)
}

/// Chains the bytes onto `hash`. Their own hash, eight of them at a time, waits for nothing: a processor works at those of
/// several commands at once.
fn chain(hash: u64, bytes: &[u8]) -> u64 {
    let mixed = |h: u64, w: u64| (h ^ w).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = (!rest.is_empty()).then(|| word(rest, 0));
    mixed(hash, words.chain(rest).fold(mixed(SEED, bytes.len() as u64), mixed))
}

/// `count`: what was applied, in three numbers.
#[derive(Clone, Default)]
pub(crate) struct Count {
    held: Arc<Mutex<Digest>>,
}

/// A snapshot of `count`.
pub(crate) struct CountSnapshot(Digest);

impl SnapshotSource for CountSnapshot {
    fn write_to(self, out: &mut SnapshotSink<'_>) -> Result<(), SmError> {
        let mut chunk = BytesMut::new();
        [self.0.number, self.0.bytes, self.0.hash].into_iter().for_each(|n| chunk.put_u64_le(n));
        out.chunk(chunk.freeze())
    }
}

impl StateMachine for Count {
    const DURABLE: bool = false;
    type Stage = ();
    type Response = ();
    type Reader = Arc<Mutex<Digest>>;
    type Snapshot = CountSnapshot;

    fn recover(&mut self) -> Result<Meta, SmError> {
        Ok(Meta::new())
    }

    fn apply(&mut self, (): &mut (), batch: &mut Batch<'_, ()>) -> Result<(), SmError> {
        let mut held = self.held.lock();
        for (_, command) in batch.entries() {
            held.number += 1;
            held.bytes += command.len() as u64;
            held.hash = chain(held.hash, command);
            batch.reply(());
        }
        let _volatile = batch.finish();
        Ok(())
    }

    fn reader(&self) -> Self::Reader {
        Arc::clone(&self.held)
    }

    fn snapshot(&mut self) -> Result<CountSnapshot, SmError> {
        Ok(CountSnapshot(*self.held.lock()))
    }

    fn restore(&mut self, from: &mut SnapshotStream<'_>) -> Result<(), SmError> {
        let Some(Part::Chunk(chunk)) = from.next()? else { return Err(SmError::Corruption("no chunk".to_owned())) };
        *self.held.lock() =
            Digest { applied: 0, number: word(&chunk, 0), bytes: word(&chunk, 8), hash: word(&chunk, 16) };
        Ok(())
    }
}

impl Driven for Count {
    type Of = Volatile<Count>;
    fn kind() -> Volatile<Count> {
        Volatile::default()
    }
    fn digest(reader: &Self::Reader) -> Result<Digest, SmError> {
        Ok(*reader.lock())
    }
    fn stamp(_: &Self::Reader, _: u64) -> Result<Option<u64>, Option<SmError>> {
        Err(None)
    }
}

/// `memory`: a map, shared with its readers.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    map: Arc<Mutex<BTreeMap<u64, Bytes>>>,
}

/// A snapshot of `memory`: small enough here to be copied (the values are shared).
pub(crate) struct MemorySnapshot(Vec<Bytes>);

impl SnapshotSource for MemorySnapshot {
    fn write_to(self, out: &mut SnapshotSink<'_>) -> Result<(), SmError> {
        self.0.into_iter().try_for_each(|command| out.chunk(command))
    }
}

impl StateMachine for Memory {
    const DURABLE: bool = false;
    type Stage = ();
    type Response = ();
    type Reader = Arc<Mutex<BTreeMap<u64, Bytes>>>;
    type Snapshot = MemorySnapshot;

    fn recover(&mut self) -> Result<Meta, SmError> {
        Ok(Meta::new())
    }

    fn apply(&mut self, (): &mut (), batch: &mut Batch<'_, ()>) -> Result<(), SmError> {
        let mut map = self.map.lock();
        for (_, command) in batch.entries() {
            map.insert(word(command, 0), command.clone());
            batch.reply(());
        }
        let _volatile = batch.finish();
        Ok(())
    }

    fn reader(&self) -> Self::Reader {
        Arc::clone(&self.map)
    }

    fn snapshot(&mut self) -> Result<MemorySnapshot, SmError> {
        Ok(MemorySnapshot(self.map.lock().values().cloned().collect()))
    }

    fn restore(&mut self, from: &mut SnapshotStream<'_>) -> Result<(), SmError> {
        let mut map = BTreeMap::new();
        while let Some(Part::Chunk(command)) = from.next()? {
            map.insert(word(&command, 0), command);
        }
        *self.map.lock() = map;
        Ok(())
    }
}

impl Driven for Memory {
    type Of = Volatile<Memory>;
    fn kind() -> Volatile<Memory> {
        Volatile::default()
    }
    fn digest(reader: &Self::Reader) -> Result<Digest, SmError> {
        let map = reader.lock();
        let bytes = map.values().map(|c| c.len() as u64).sum();
        let hash = map.values().fold(SEED, |hash, command| chain(hash, command));
        Ok(Digest { applied: 0, number: map.len() as u64, bytes, hash })
    }
    fn stamp(reader: &Self::Reader, key: u64) -> Result<Option<u64>, Option<SmError>> {
        Ok(reader.lock().get(&key).map(|command| word(command, 8)))
    }
}

/// The kind of machines that share nothing and keep nothing.
pub(crate) struct Volatile<M>(std::marker::PhantomData<fn() -> M>);

impl<M> Default for Volatile<M> {
    fn default() -> Volatile<M> {
        Volatile(std::marker::PhantomData)
    }
}

impl<M: StateMachine<Stage = ()> + Default> Kind for Volatile<M> {
    type Sm = M;
    fn open(&self, _: GroupId, _: ReplicaId, _: Generation, _: &Path) -> Result<M, SmError> {
        Ok(M::default())
    }
    fn commit(&self, (): ()) -> Result<(), SmError> {
        Ok(())
    }
    fn durable(&self, _: &mut Durable<'_>) -> Result<(), SmError> {
        Ok(())
    }
}

impl Driven for KvMachine {
    type Of = KvStore;
    fn kind() -> KvStore {
        KvStore::default()
    }
    fn command(mint: &mut Mint, key: u64, stamp: u64, bytes: usize) -> Bytes {
        let payload = mint.payload(key, stamp, bytes);
        let (key, value) = (payload.slice(..8), payload.slice(8..));
        KvCommand::Set { key, value, when: When::Always, get: false }.encode_to(&mut mint.buffer)
    }
    fn digest(reader: &Self::Reader) -> Result<Digest, SmError> {
        let d = reader.digest()?;
        Ok(Digest { applied: d.applied.0, number: d.pairs, bytes: d.bytes, hash: d.hash })
    }
    fn stamp(reader: &Self::Reader, key: u64) -> Result<Option<u64>, Option<SmError>> {
        let value = reader.get(&key.to_le_bytes()).map_err(Some)?;
        Ok(value.map(|v| word(&v, 0)))
    }
}
