//! What tests of this crate, of its adapters and of the layers above share. Only under the feature `testing`.
//!
//! Leaves to others: the twins (`mem`), whole worlds (`sim`).

mod contract;
mod kv;
pub mod linearizability;
pub mod log_batches;
pub mod log_store_contract;
mod rng;
mod slots;
pub mod snapshot_files_contract;
pub mod state_machine_contract;
pub mod transport_contract;

pub use kv::{KvOp, KvRet, Map};
pub use rng::{Replay, Rng, seeds};
pub use slots::{AdminCell, Cell, KvAnswer, KvSlot, LifecycleCell, ReadCell};
