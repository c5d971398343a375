//! The edge around a state machine's code: its panic becomes an error of this one replica (law 7).
//!
//! Leaves to others: what follows (quarantine of the replica, or of the kind).
//! Invariant: no panic of user code crosses this edge; the value that panicked is never used again.

use crate::env::SmError;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code. What it was given must not be used again after an `Err`.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T, SmError>) -> Result<T, String> {
    // Unwind safety: callers drop or quarantine everything that `f` could have left half-changed.
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned())))
        }
    }
}

/// Drops a value of the user's; a panic in its destructor is swallowed, for nothing rests on it.
pub(crate) fn drop_guarded<T>(value: T) {
    let _swallowed = catch_unwind(AssertUnwindSafe(move || drop(value)));
}
