//! Every state of a small group, within bounds: an explicit-state search over the real core.
//!
//! `scopes` says what may happen in each scope and how often, `explore` visits every state once, `judge` judges each,
//! `node` is one replica with its driver. What is left out, and why nothing is lost by it:
//! - Time. No deadline is fired; an election may start whenever its budget allows, which covers every clock.
//! - Loss. A message that is never delivered is lost; a state with more messages under way can do all that one with
//!   fewer can. For the same reason a delivery that changes nothing is not a step.
//! - Messages that nobody will ever listen to again (`judge::is_dead`).
//! - Down time. A crash and the start after it are one step, for what arrives between them is lost.
//! - Late Readys. A `Ready` is taken and its committed entries are applied at once; what is free is when it is written.
//!
//! States are told apart by 64-bit fingerprints: of n states, n^2 / 2^65 pairs may be taken for one.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code, unused_imports)]

mod explore;
mod judge;
mod mix;
mod node;
mod scopes;
mod state;

pub use explore::{Report, explore};
pub use scopes::{SCOPES, Scope, Size};
