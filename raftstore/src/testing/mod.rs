//! What tests of this crate, of its adapters and of the layers above share. Only under the feature `testing`.
//!
//! Leaves to others: the twins (`mem`), whole worlds (`sim`).

mod rng;

pub use rng::{Replay, Rng, seeds};
