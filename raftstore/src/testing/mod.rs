//! What tests of this crate, of its adapters and of the layers above share. Only under the feature `testing`.
//!
//! Leaves to others: the twins (`mem`), whole worlds (`sim`).

mod kv;
mod rng;
mod slots;

pub use kv::{KvOp, KvRet, Map};
pub use rng::{Replay, Rng, seeds};
pub use slots::{AdminCell, Cell, KvSlot, LifecycleCell, ReadCell};
