//! Commands that the original's environment lacks; only transcripts of our own use them.
//!
//! Invariant: what the original answers with `unknown command` stays that way outside `raft/tests/data`.

use super::{Env, Outcome};
use crate::datadriven::{Arg, Directive};
use pontoon_raft::*;

impl Env {
    /// `None` if there is no such command.
    pub(super) fn handle_own(&mut self, _d: &Directive) -> Option<Outcome> {
        None
    }
}

/// Settings of `add-nodes` that the original lacks; unknown keys are ignored.
pub(super) fn set_config(_config: &mut Config, _arg: &Arg) {}
