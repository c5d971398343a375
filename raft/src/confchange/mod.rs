//! Membership changes on a copy of the tracker, judged at both ends.

/// Why a change cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfChangeError(pub String);
