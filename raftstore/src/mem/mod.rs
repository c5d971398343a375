//! In-memory twins of the seams: what a process holds dies with it, what a disk holds survives as far as it was synced.
//!
//! Each twin has two halves: the *medium* (`MemDisk`, `MemMachineDisk`, `MemFiles`, `MemNet`), which a test keeps over
//! crashes, and the *handle* that a node gets. Faults are data on the medium; crash points are counted in `Power`.
//! Invariant: once the power is off, nothing that the dead node still does reaches a medium or a caller.

mod clock;
mod image;
mod log_store;
mod power;
mod snapshot_files;
mod state_machine;
mod transport;

pub use clock::MemClock;
pub use image::{GroupImage, Image};
pub use log_store::{MemDisk, MemLogStore, WriteFault};
pub use power::{CrashPoint, Power};
pub use snapshot_files::{MemFiles, MemSnapshotFiles};
pub use state_machine::{AppliedCommand, KvView, MachineFault, MemKind, MemMachineDisk, Persistence};
pub use transport::{MemNet, MemTransport, Packet};
